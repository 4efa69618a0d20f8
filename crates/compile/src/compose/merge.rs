//! One file laid over another, by the rules of the compose specification: mappings are joined, lists appended, single
//! values replaced, with exceptions by place. Extending a service and including a file follow the same rules.
//!
//! What stays twice in a list afterwards (a port, a mount) is sorted out where the list is read, the later one winning.

use crate::{
    diagnostic::Findings,
    yaml::{Entry, Mapping, Node, Tag, Value},
};

/// Which rule holds at a path.
enum Rule {
    /// By kind: join, append or replace.
    Kind,
    /// The later value replaces the earlier.
    Replace,
    /// `KEY=VALUE` lists and mappings, or one text and lists of them.
    List,
    /// Lists of names that are short for mappings.
    Names,
    /// `build: .` is short for a mapping.
    Build,
    /// Another driver's options have no meaning.
    Logging,
    /// Pools are the same by their subnet.
    Pools,
}

fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["services", _, rest @ ..] => match rest {
            ["command" | "entrypoint"] | ["healthcheck", "test"] | ["ulimits", _] => Rule::Replace,
            [
                "annotations" | "environment" | "labels" | "sysctls" | "dns" | "dns_opt" | "dns_search"
                | "env_file" | "label_file" | "tmpfs" | "extra_hosts",
            ]
            | ["build", "args" | "additional_contexts" | "labels" | "extra_hosts"]
            | ["deploy", "labels"] => Rule::List,
            ["build"] => Rule::Build,
            ["depends_on" | "networks" | "models"] => Rule::Names,
            ["logging"] => Rule::Logging,
            _ => Rule::Kind,
        },
        ["networks", _, "ipam", "config"] => Rule::Pools,
        ["networks" | "volumes", _, "labels"] => Rule::List,
        _ => Rule::Kind,
    }
}

/// Lays `over` over `base`. `path` is where both are, and is given back as it was.
pub(super) fn merge(base: Node, over: Node, path: &mut Vec<String>, found: &mut Findings) -> Node {
    if over.tag == Some(Tag::Override) || over.tag == Some(Tag::Reset) || base.tag == Some(Tag::Reset) {
        return over;
    }
    match rule(path) {
        Rule::Replace => over,
        Rule::List => lists(base, over, found),
        Rule::Build => by_kind(as_build(base), as_build(over), path, found),
        Rule::Names => by_kind(as_names(base), as_names(over), path, found),
        Rule::Logging => match (base.get("driver"), over.get("driver")) {
            (Some(a), Some(b)) if a.printed() != b.printed() => over,
            _ => by_kind(base, over, path, found),
        },
        Rule::Pools => pools(base, over, path, found),
        Rule::Kind => by_kind(base, over, path, found),
    }
}

fn by_kind(base: Node, over: Node, path: &mut Vec<String>, found: &mut Findings) -> Node {
    if over.is_null() {
        return base;
    }
    let Node { at, value, tag } = base;
    let value = match (value, over.value) {
        (Value::Mapping(base), Value::Mapping(over)) => Value::Mapping(mappings(base, over, path, found)),
        (Value::Sequence(mut base), Value::Sequence(over)) => {
            base.extend(over);
            Value::Sequence(base)
        }
        (base @ (Value::Mapping(_) | Value::Sequence(_)), _) => {
            let kind = if matches!(base, Value::Mapping(_)) { "a mapping" } else { "a list" };
            let name = path.join(".");
            found.error(&over.at, format!("{name} is {kind} in {at}, so it has to be {kind} here too"));
            base
        }
        (Value::Scalar(_), over_value) => return Node { at: over.at, value: over_value, tag: over.tag },
    };
    Node { at, value, tag }
}

fn mappings(mut base: Mapping, over: Mapping, path: &mut Vec<String>, found: &mut Findings) -> Mapping {
    for (key, entry) in over {
        let Some(slot) = base.get_mut(&key) else {
            base.insert(key, entry);
            continue;
        };
        let earlier = std::mem::replace(&mut slot.value, Node::null(&entry.at));
        path.push(key);
        // A value that is joined keeps the place of the first; one that is replaced is where the last one is.
        if matches!(entry.value.value, Value::Scalar(_)) && !entry.value.is_null() {
            slot.at = entry.at;
        }
        slot.value = merge(earlier, entry.value, path, found);
        path.pop();
    }
    base
}

fn lists(base: Node, over: Node, found: &mut Findings) -> Node {
    match (base.value, over.value) {
        (Value::Mapping(mut all), Value::Mapping(over)) => {
            all.extend(over);
            Node::mapping(&base.at, all)
        }
        (base_value, over_value) => {
            let removed = removed(&over_value);
            let mut items = items(Node { at: base.at.clone(), value: base_value, tag: None }, found);
            items.retain(|item| {
                let text = item.printed().unwrap_or_default();
                let name = text.split('=').next().unwrap_or_default();
                !removed.iter().any(|r| r == name)
            });
            items.extend(self::items(Node { at: over.at, value: over_value, tag: None }, found));
            Node::sequence(&base.at, items)
        }
    }
}

/// Keys that are reset.
fn removed(over: &Value) -> Vec<String> {
    let Value::Mapping(mapping) = over else { return Vec::new() };
    let reset = mapping.iter().filter(|(_, e)| e.value.tag == Some(Tag::Reset));
    reset.map(|(key, _)| key.clone()).collect()
}

/// A list's items; a mapping as `KEY=VALUE`, a text alone as the only one.
fn items(node: Node, found: &mut Findings) -> Vec<Node> {
    match node.value {
        Value::Sequence(items) => items,
        Value::Scalar(_) if node.is_null() => Vec::new(),
        Value::Scalar(_) => vec![node],
        Value::Mapping(mapping) => {
            let mut items = Vec::new();
            for (key, entry) in mapping.into_iter().filter(|(_, e)| e.value.tag != Some(Tag::Reset)) {
                match &entry.value.value {
                    Value::Sequence(values) => {
                        let texts = values.iter().filter_map(Node::printed);
                        items.extend(texts.map(|v| Node::text(&entry.at, format!("{key}={v}"))));
                    }
                    Value::Scalar(_) => {
                        let text =
                            entry.value.printed().map_or_else(|| key.clone(), |v| format!("{key}={v}"));
                        items.push(Node::text(&entry.at, text));
                    }
                    Value::Mapping(_) => {
                        found.error(&entry.value.at, format!("{key} has to be text, a number or a boolean"));
                    }
                }
            }
            items
        }
    }
}

fn as_build(node: Node) -> Node {
    if node.is_null() || !matches!(node.value, Value::Scalar(_)) {
        return node;
    }
    let at = node.at.clone();
    let entry = Entry { at: at.clone(), plain: true, value: node };
    Node::mapping(&at, Mapping::from_iter([("context".to_string(), entry)]))
}

fn as_names(node: Node) -> Node {
    let Value::Sequence(items) = node.value else { return node };
    let named = items.into_iter().filter_map(|item| {
        let name = item.printed()?;
        Some((name, Entry { at: item.at.clone(), plain: false, value: Node::null(&item.at) }))
    });
    Node::mapping(&node.at, named.collect())
}

fn pools(base: Node, over: Node, path: &mut Vec<String>, found: &mut Findings) -> Node {
    let (Value::Sequence(mut pools), Value::Sequence(more)) = (base.value, over.value.clone()) else {
        return over;
    };
    let subnet = |pool: &Node| pool.get("subnet").and_then(Node::printed);
    for pool in more {
        match pools.iter().position(|p| subnet(p) == subnet(&pool)) {
            Some(same) => {
                let earlier = std::mem::replace(&mut pools[same], Node::null(&pool.at));
                pools[same] = by_kind(earlier, pool, path, found);
            }
            None => pools.push(pool),
        }
    }
    Node::sequence(&base.at, pools)
}

/// Takes away what `!reset` marked, once nothing is left to lay over.
pub(super) fn strip_resets(node: &mut Node) {
    match &mut node.value {
        Value::Mapping(mapping) => {
            mapping.retain(|_, entry| entry.value.tag != Some(Tag::Reset));
            mapping.values_mut().for_each(|entry| strip_resets(&mut entry.value));
        }
        Value::Sequence(items) => {
            items.retain(|item| item.tag != Some(Tag::Reset));
            items.iter_mut().for_each(strip_resets);
        }
        Value::Scalar(_) => {}
    }
}
