//! Bindings, which are answered at once: they give a Pod its node.

use async_trait::async_trait;
use http::Response;
use serde_json::Value;

use crate::content::Body;
use crate::edit::text;
use crate::kinds::pod;
use crate::kinds::strategy::{Posted, Strategy};
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct Binding;

#[async_trait]
impl Strategy for Binding {
    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (target, at) = (&object["target"], root.field("target"));
        errors.one_of(&at.field("kind"), &target["kind"], &["Node", "<empty>"]);
        if text(&target["name"]).is_empty() {
            errors.required(&at.field("name"), "");
        }
    }

    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        pod::bind(ctx, posted).await
    }
}
