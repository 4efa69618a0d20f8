//! The part of kubectl's JSONPath that CustomResourceDefinitions use: for columns, scale and selectable fields.
//!
//! ```text
//! .spec.replicas   .metadata.annotations.a\.b   .spec['x-y']   .status.conditions[?(@.type=="Ready")].status
//! .spec.hosts[*]   .spec.hosts[0]   .spec.hosts[-1]
//! ```

use serde_json::Value;

/// A path that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    /// As it was written.
    pub text: String,
    steps: Vec<Step>,
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonPathError(String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// From the end where negative.
    Index(i64),
    All,
    /// Items whose value at the path compares so with a value.
    Where(JsonPath, Comparison, Value),
    /// Items that have a value at the path.
    Has(JsonPath),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path, which begins with a dot or a bracket.
    ///
    /// # Errors
    /// Where it is written in another form.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let fail = |what: &str| JsonPathError(format!("{what} in the JSONPath {text:?}"));
        let mut steps = Vec::new();
        let mut rest = text;
        if rest.is_empty() {
            return Err(fail("nothing stands"));
        }
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner).ok_or_else(|| fail("a bracket is not closed"))?;
                steps.push(bracket(&inner[..end]).ok_or_else(|| fail("a bracket is not understood"))?);
                rest = &inner[end + 1..];
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.starts_with('[') {
                    rest = after;
                    continue;
                }
                let (name, behind) = field(after);
                match name.as_str() {
                    "" => return Err(fail("a name is missing")),
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = behind;
            } else {
                return Err(fail("a dot is missing"));
            }
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The names of the path's fields; `None` where it has other steps.
    pub fn fields(&self) -> Option<Vec<&str>> {
        fn name(step: &Step) -> Option<&str> {
            match step {
                Step::Field(name) => Some(name),
                _ => None,
            }
        }
        self.steps.iter().map(name).collect()
    }

    /// The path as field selectors write it: without the dot at its beginning.
    pub fn name(&self) -> &str {
        self.text.strip_prefix('.').unwrap_or(&self.text)
    }

    /// The values that the path leads to, in their order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.follow(value, &mut next);
            }
            found = next;
        }
        found
    }

    /// Sets the value at a path of fields, making objects on the way. Does nothing where something else is on the way.
    pub fn set(&self, object: &mut Value, value: Value) {
        let Some(fields) = self.fields() else { return };
        let mut at = object;
        for name in fields {
            let Value::Object(map) = at else { return };
            at = map.entry(name).or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        *at = value;
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value, found: &mut Vec<&'v Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => found.extend(map.get(name)),
            (Self::Index(at), Value::Array(items)) => {
                let at = if *at < 0 { at + items.len() as i64 } else { *at };
                found.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
            }
            (Self::All, Value::Array(items)) => found.extend(items),
            (Self::All, Value::Object(map)) => found.extend(map.values()),
            (Self::Where(path, comparison, with), Value::Array(items)) => {
                let fits = |item: &&Value| path.find(item).iter().any(|found| comparison.holds(found, with));
                found.extend(items.iter().filter(fits));
            }
            (Self::Has(path), Value::Array(items)) => {
                found.extend(items.iter().filter(|item| !path.find(item).is_empty()));
            }
            _ => {}
        }
    }
}

impl Comparison {
    fn holds(self, found: &Value, with: &Value) -> bool {
        let order = match (found, with) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
        };
        match self {
            Self::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Self::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// A name up to the next dot or bracket, in which a backslash takes the next character as it is; and what follows.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => name.extend(characters.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket closes that was opened before the text; quotes and inner brackets are passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(inner) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        return filter(condition.trim());
    }
    inner.parse().ok().map(Step::Index)
}

fn filter(condition: &str) -> Option<Step> {
    const SIGNS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let path = |text: &str| JsonPath::parse(text.trim().strip_prefix('@')?).ok();
    for (sign, comparison) in SIGNS {
        if let Some((left, right)) = condition.split_once(sign) {
            let right = right.trim();
            let value = match unquoted(right) {
                Some(text) => Value::String(text.to_owned()),
                None => serde_json::from_str(right).ok()?,
            };
            return Some(Step::Where(path(left)?, comparison, value));
        }
    }
    Some(Step::Has(path(condition)?))
}

fn unquoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text.strip_prefix(quote)?.strip_suffix(quote)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}, "name": "n"},
            "spec": {"replicas": 3, "x-y": true, "hosts": ["a", "b"], "ports": [{"name": "p", "port": 80}, {"port": 443}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, expect) in [
            (".spec.replicas", json!([3])),
            (".metadata.annotations.a\\.b/c", json!(["x"])),
            (".spec['x-y']", json!([true])),
            (".spec.hosts[0]", json!(["a"])),
            (".spec.hosts[-1]", json!(["b"])),
            (".spec.hosts[*]", json!(["a", "b"])),
            (".spec.hosts[5]", json!([])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Other')].status", json!(["False"])),
            (".status.conditions[?(@.type != 'Other')].type", json!(["Ready"])),
            (".spec.ports[?(@.port > 80)].port", json!([443])),
            (".spec.ports[?(@.name)].port", json!([80])),
            (".spec.nothing.there", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|e| panic!("{e}")).find(&object);
            assert_eq!(json!(found), expect, "{path}");
        }
        for path in ["", "spec", ".", ".a..b", ".a[", ".a[?(x)]", ".a[b]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn paths_of_fields_are_set() {
        let mut object = json!({"spec": {"a": 1}, "status": 3});
        JsonPath::parse(".spec.scale.replicas").expect("a path").set(&mut object, json!(5));
        JsonPath::parse(".status.replicas").expect("a path").set(&mut object, json!(5));
        assert_eq!(object, json!({"spec": {"a": 1, "scale": {"replicas": 5}}, "status": 3}));
    }
}
