//! Paths of JSON patches: `'/metadata/labels/' + jsonpatch.escapeKey('a/b')`. They are for expressions that make patches only.

use crate::cel::cost::{Grows, Price};
use crate::cel::functions::Row;
use crate::cel::library::strings::text;
use crate::cel::value::Value;

/// The name of the function.
pub const ESCAPE_KEY: &str = "jsonpatch.escapeKey";

pub const FUNCTIONS: &[Row] =
    &[Row(ESCAPE_KEY, "(string) string", Price::Walk { argument: 0, times: 1 }, Grows::Same, |_, args| {
        Ok(Value::made(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
    })];
