//! Label selectors, in the text form of queries and in the form that objects carry, and field selectors.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;

use crate::names;

/// The reason why a selector is not valid, in the wording of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSelector(String);

/// A conjunction of requirements on labels. An empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    /// The label's value is an integer greater than this. Exists in node affinity and in text selectors.
    Greater(i64),
    /// The label's value is an integer less than this, likewise.
    Less(i64),
}

impl LabelSelector {
    /// Parses the text form, such as `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1,j<2`.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    break;
                }
                return Err(unreadable(text));
            }
            requirements.push(Requirement::parse(part).ok_or_else(|| unreadable(text))??);
        }
        Ok(Self { requirements })
    }

    /// A selector that requires each of these labels with its value.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels
            .iter()
            .map(|(k, v)| Requirement { key: k.clone(), operator: Operator::In([v.clone()].into()) })
            .collect();
        Self { requirements }
    }

    /// Parses the form that objects such as Deployments carry, with `matchLabels` and `matchExpressions`.
    pub fn from_api(selector: &ApiSelector) -> Result<Self, InvalidSelector> {
        let mut all = Self::from_map(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()));
        for e in selector.match_expressions.iter().flatten() {
            all.push(&e.key, &e.operator, e.values.as_deref().unwrap_or_default())?;
        }
        Ok(all)
    }

    /// Adds a requirement given by operator name: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub fn push(&mut self, key: &str, operator: &str, values: &[String]) -> Result<(), InvalidSelector> {
        let set = || values.iter().cloned().collect::<BTreeSet<_>>();
        let number = || match values {
            [one] => one.parse().map_err(|_| InvalidSelector(format!("\"{one}\" is not a whole number"))),
            _ => Err(InvalidSelector(format!("operator \"{operator}\" takes one value"))),
        };
        let operator = match (operator, values.is_empty()) {
            ("In", false) => Operator::In(set()),
            ("NotIn", false) => Operator::NotIn(set()),
            ("Exists", true) => Operator::Exists,
            ("DoesNotExist", true) => Operator::DoesNotExist,
            ("Gt", _) => Operator::Greater(number()?),
            ("Lt", _) => Operator::Less(number()?),
            ("In" | "NotIn", true) => {
                return Err(InvalidSelector("for 'in', 'notin' operators, values set can't be empty".into()));
            }
            ("Exists" | "DoesNotExist", false) => {
                return Err(InvalidSelector("values set must be empty for exists and does not exist".into()));
            }
            _ => {
                return Err(InvalidSelector(format!(
                    "\"{operator}\" is not a valid label selector operator"
                )));
            }
        };
        self.requirements.push(Requirement { key: key.to_owned(), operator });
        Ok(())
    }

    /// Whether the selector has no requirements.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether these labels meet every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Like [`Self::matches`], with a function that looks up a label's value.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.holds(label(&r.key)))
    }
}

impl Requirement {
    /// Parses one requirement; `None` if the text has none of the known forms.
    fn parse(text: &str) -> Option<Result<Self, InvalidSelector>> {
        let (key, operator) = if let Some(open) = text.find('(') {
            let values = text[open + 1..].strip_suffix(')')?;
            let mut words = text[..open].split_whitespace();
            let (key, word) = (words.next()?, words.next()?);
            if words.next().is_some() {
                return None;
            }
            let set = values.split(',').map(|v| v.trim().to_owned()).collect();
            match word {
                "in" => (key, Operator::In(set)),
                "notin" => (key, Operator::NotIn(set)),
                _ => return None,
            }
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, Operator::NotIn([value.trim().to_owned()].into()))
        } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            (key, Operator::In([value.trim().to_owned()].into()))
        } else if let Some((key, value)) = text.split_once('>') {
            (key, Operator::Greater(value.trim().parse().ok()?))
        } else if let Some((key, value)) = text.split_once('<') {
            (key, Operator::Less(value.trim().parse().ok()?))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, Operator::DoesNotExist)
        } else {
            (text, Operator::Exists)
        };
        let key = key.trim();
        let check = || {
            names::qualified_name(key)
                .map_err(|e| InvalidSelector(format!("key: Invalid value: \"{key}\": {e}")))?;
            if let Operator::In(values) | Operator::NotIn(values) = &operator {
                for v in values {
                    names::label_value(v)
                        .map_err(|e| InvalidSelector(format!("values: Invalid value: \"{v}\": {e}")))?;
                }
            }
            Ok(())
        };
        Some(check().map(|()| Self { key: key.to_owned(), operator: operator.clone() }))
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(set) => value.is_some_and(|v| set.contains(v)),
            Operator::NotIn(set) => value.is_none_or(|v| !set.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Greater(than) => number().is_some_and(|n| n > *than),
            Operator::Less(than) => number().is_some_and(|n| n < *than),
        }
    }
}

/// A conjunction of `path=value` and `path!=value` on an object's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Parses a text such as `metadata.name=a,spec.nodeName!=b`. A backslash escapes `,`, `=` and `\`.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let mut terms = Vec::new();
        for part in split_unescaped(text, ',') {
            if part.is_empty() {
                continue;
            }
            let Some(at) = find_unescaped(part, '=') else {
                return Err(InvalidSelector(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let (path, value) = (&part[..at], &part[at + 1..]);
            let (path, equal) = match path.strip_suffix('!') {
                Some(path) => (path, false),
                None => (path, true),
            };
            terms.push((path.trim().to_owned(), equal, unescape(value.strip_prefix('=').unwrap_or(value))));
        }
        Ok(Self { terms })
    }

    /// Whether the selector has no terms.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The field paths in the selector, so that a kind can reject those that it does not support.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|(path, ..)| path.as_str())
    }

    /// The value that the selector requires for a path by `=`, if it does.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|(p, equal, _)| *equal && p == path).map(|(.., value)| value.as_str())
    }

    /// Whether an object meets every term. `field` returns the value at a path, empty if there is none.
    pub fn matches_with<'a>(&self, field: impl Fn(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.terms.iter().all(|(path, equal, value)| (field(path) == value.as_str()) == *equal)
    }
}

fn unreadable(text: &str) -> InvalidSelector {
    InvalidSelector(format!("unable to parse requirement: couldn't parse the selector string \"{text}\""))
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn find_unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        if !escaped && c == wanted {
            return Some(i);
        }
        escaped = !escaped && c == '\\';
    }
    None
}

fn split_unescaped(mut text: &str, by: char) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some(at) = find_unescaped(text, by) {
        parts.push(&text[..at]);
        text = &text[at + by.len_utf8()..];
    }
    parts.push(text);
    parts
}

fn unescape(text: &str) -> String {
    let (mut out, mut escaped) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if !escaped && c == '\\' {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn label_selectors_match_as_kubectl_users_expect() {
        let rows = [
            ("", "a=b", true),
            ("a=b", "a=b", true),
            ("a==b", "a=c", false),
            ("a!=b", "", true),
            ("a!=b", "a=b", false),
            ("a in (b, c),d", "a=c,d=", true),
            ("a in (b)", "", false),
            ("a notin (b)", "a=c", true),
            ("!a", "a=b", false),
            ("a>1", "a=2", true),
            ("a<1", "a=x", false),
            ("x.io/a", "x.io/a=1", true),
        ];
        for (selector, object, expect) in rows {
            let parsed = LabelSelector::parse(selector).expect(selector);
            assert_eq!(parsed.matches(&labels(object)), expect, "{selector} on {object}");
        }
        for bad in [",", "a,", "a in", "a in b", "a like (b)", "=b", "a=b=c d", "a b"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_match_whole_values() {
        let field = |p: &str| std::borrow::Cow::from(if p == "metadata.name" { "x,y" } else { "" });
        for (selector, expect) in [
            (r"metadata.name=x\,y", true),
            ("metadata.name!=x", true),
            ("metadata.name==x", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=,metadata.name!=z", false),
        ] {
            assert_eq!(
                FieldSelector::parse(selector).expect(selector).matches_with(field),
                expect,
                "{selector}"
            );
        }
        assert!(FieldSelector::parse("metadata.name").is_err());
    }
}
