//! Objects that expressions construct: `Object.spec{replicas: 1}` and `JSONPatch{op: 'remove', path: '/spec'}`.
//!
//! The type of such an object has the name of the place that it is for, and any fields: whether it fits is told by the schema of
//! the object that it is merged into. Only its nesting is checked here ([`Constructed::check_names`]).

use super::cost::Meter;
use super::error::EvalError;
use super::library::operators::equal;
use super::types::{DYN, Type, TypeKind};
use super::value::{List, Map, Outcome, Value};

/// The type of an operation of a JSON patch.
pub const PATCH: &str = "JSONPatch";
/// The type of a whole object; those of its parts have the names of fields behind a dot.
pub const OBJECT: &str = "Object";

/// Whether objects of a type of this name can be constructed.
pub fn is_type(name: &str) -> bool {
    let part = name.strip_prefix(OBJECT);
    name == PATCH || part.is_some_and(|part| part.is_empty() || part.starts_with('.'))
}

/// The type of a field of a constructed object of that type; `None` where it has no such field.
pub fn field_type(name: &str, field: &str) -> Option<Type> {
    match (name, field) {
        (PATCH, "op" | "path" | "from") => Some(Type::of(TypeKind::String)),
        (PATCH, "value") => Some(DYN.clone()),
        (PATCH, _) => None,
        _ => Some(DYN.clone()),
    }
}

/// An object that an expression constructed.
#[derive(Clone, Debug)]
pub struct Constructed<'a> {
    /// The name of its type.
    pub name: &'a str,
    /// Its fields, each once.
    pub fields: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Constructed<'a> {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Value<'a>> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// Whether it has the same type and fields as another.
    pub fn equals(&self, meter: &mut Meter, other: &Self) -> Result<bool, EvalError> {
        if self.name != other.name || self.fields.len() != other.fields.len() {
            return Ok(false);
        }
        meter.charge(self.fields.len() as u64)?;
        for (name, value) in &self.fields {
            match other.field(name) {
                Some(given) if equal(meter, value, given)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The types within it that are not named by their place, as sentences for users.
    pub fn check_names(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        self.check_at(self.name, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn check_at(&self, place: &str, wrong: &mut Vec<String>) {
        // The first ones show what is wrong.
        const MOST: usize = 10;
        if self.name != place && wrong.len() < MOST {
            wrong.push(format!(
                "unexpected type name {:?}, expected {place:?}, which matches field name path from root Object type",
                self.name
            ));
        }
        for (name, value) in &self.fields {
            check_value(value, &format!("{place}.{name}"), wrong);
        }
    }
}

/// Lists and maps on the way to an object have no names.
fn check_value(value: &Value, place: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.check_at(place, wrong),
        Value::List(List::Made(items)) => items.iter().for_each(|item| check_value(item, place, wrong)),
        Value::Map(Map::Made(entries)) => {
            entries.values().for_each(|value| check_value(value, place, wrong));
        }
        _ => {}
    }
}

/// The value of a field of an object or a map; `None` where it has none.
///
/// # Errors
/// Where values of this kind have no fields.
pub fn field_of<'a>(value: &Value<'a>, name: &str) -> Result<Option<Outcome<'a>>, EvalError> {
    match value {
        Value::Map(map) => Ok(map.field(name)),
        Value::Object(object) => Ok(object.field(name).cloned().map(Ok)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::json::to_json;
    use crate::cel::{Budget, Declarations, Program};

    /// The type and the JSON of a result; errors as they are shown.
    fn evaluate(expression: &str, makes_patches: bool) -> String {
        let variables = [("object".to_owned(), DYN.clone())];
        let declared = Declarations { variables: &variables, composition: None, makes_patches };
        let program = match Program::compile_with(expression, declared) {
            Ok(program) => program,
            Err(error) => return error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        let object = json!({"labels": {"a": "b"}, "n": 9_007_199_254_740_993_i64, "names": ["x"]});
        let bindings = [Value::read_dyn(&object).unwrap_or(Value::Null)];
        let value = match program.evaluate(&bindings, &mut Budget::default()) {
            Ok(value) => value,
            Err(error) => return format!("error: {error}"),
        };
        if let Value::Object(object) = &value
            && let Err(why) = object.check_names()
        {
            return why;
        }
        match to_json(&value) {
            Ok(json) => format!("{} {json}", program.result()),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn objects_and_patches_are_constructed() {
        for (expression, expect) in [
            ("Object{}", "Object {}"),
            ("Object{spec: Object.spec{replicas: 1 + 1}}", r#"Object {"spec":{"replicas":2}}"#),
            (
                "Object{spec: Object.spec{list: [Object.spec.list{a: 'x'}], map: {'k': Object.spec.map{b: true}}}}",
                r#"Object {"spec":{"list":[{"a":"x"}],"map":{"k":{"b":true}}}}"#,
            ),
            (
                "Object{metadata: Object.metadata{labels: object.labels}}",
                r#"Object {"metadata":{"labels":{"a":"b"}}}"#,
            ),
            ("Object{n: object.n, names: object.names}", r#"Object {"n":9007199254740993,"names":["x"]}"#),
            ("Object{?a: optional.none(), ?b: optional.of(1)}", r#"Object {"b":1}"#),
            ("Object{a: object.?labels.a, b: null}", r#"Object {"a":"b","b":null}"#),
            (
                "Object{d: duration('90s'), t: timestamp('2026-01-01T00:00:00Z'), x: b'ab', f: 1.5, w: 2.0, u: 3u}",
                r#"Object {"d":"90s","t":"2026-01-01T00:00:00Z","x":"YWI=","f":1.5,"w":2,"u":3}"#,
            ),
            ("true ? Object{a: 1} : Object{}", r#"Object {"a":1}"#),
            (
                "true ? Object{} : Object.spec{}",
                "ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, Object, Object.spec)'",
            ),
            (
                "Object{a: 1} == Object{a: 1} && Object{a: 1} != Object{a: 2} && Object{a: 1}.a == 1 && has(Object{a: 1}.a)",
                "bool true",
            ),
            (
                "[JSONPatch{op: 'test', path: '/a', value: Object.a{b: 1}}]",
                r#"list(JSONPatch) [{"op":"test","path":"/a","value":{"b":1}}]"#,
            ),
            (
                "[JSONPatch{op: 'remove', path: '/metadata/labels/' + jsonpatch.escapeKey('k8s.io/my~label')}]",
                r#"list(JSONPatch) [{"op":"remove","path":"/metadata/labels/k8s.io~1my~0label"}]"#,
            ),
            (
                "JSONPatch{op: 1}",
                "ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is 'int'",
            ),
            ("JSONPatch{other: 1}", "ERROR: <input>:1:16: undefined field 'other'"),
            ("JSONPatch{op: 'x'}.nothing", "ERROR: <input>:1:19: undefined field 'nothing'"),
            ("Objects{}", "ERROR: <input>:1:8: undeclared reference to 'Objects' (in container '')"),
            (
                "[Object{}, Object.spec{}]",
                "ERROR: <input>:1:23: expected type 'Object' but found 'Object.spec'",
            ),
            // Whether a type is that of its place is seen when the object is there.
            (
                "Object{spec: Object.wrong{a: Object.wrong.b{}}}",
                "unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root \
                 Object type\nunexpected type name \"Object.wrong.b\", expected \"Object.spec.a\", which matches field name \
                 path from root Object type",
            ),
            ("Object{a: {1: 2}}", "error: a map whose keys are not all strings has no form in JSON"),
            ("Object{a: quantity('1k')}", "error: a value of type kubernetes.Quantity has no form in JSON"),
        ] {
            assert_eq!(evaluate(expression, true), expect, "{expression}");
        }
        for (expression, expect) in [
            ("Object{}", "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')"),
            (
                "jsonpatch.escapeKey('a')",
                "ERROR: <input>:1:1: undeclared reference to 'jsonpatch' (in container '')",
            ),
        ] {
            assert_eq!(evaluate(expression, false), expect, "{expression}");
        }
    }

    #[test]
    fn shared_parts_do_not_make_large_json() {
        let mut expression = "'x'".to_owned();
        for _ in 0..12 {
            expression = format!("[{}].map(i, [i, i, i, i, i])[0]", expression);
        }
        let shown = evaluate(&format!("Object{{a: {expression}}}"), true);
        assert!(shown.starts_with("error: it has more than"), "{shown}");
    }
}
