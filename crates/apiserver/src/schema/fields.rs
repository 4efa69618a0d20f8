//! The table of fields, read once from `fields.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One.
    Single,
    /// A list.
    List,
    /// A map with text keys.
    Map,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// True or false.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Double,
    /// Text.
    String,
    /// A list of texts, as the values of a map.
    Strings,
    /// Bytes, in base64 in JSON.
    Bytes,
    /// A time to the second, RFC 3339.
    Time,
    /// A time to the microsecond, RFC 3339.
    MicroTime,
    /// An amount of a resource, like `100m`.
    Quantity,
    /// A number or a text, like a port or a percentage.
    IntOrString,
    /// Any JSON.
    Any,
    /// An object of this type.
    Message(MessageRef),
}

impl Inner {
    /// The type of the object it is, if it is one.
    pub fn message(self) -> Option<&'static Message> {
        match self {
            Self::Message(reference) => Some(reference.get()),
            _ => None,
        }
    }
}

/// Names a type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef(u16);

impl MessageRef {
    /// The type.
    pub fn get(self) -> &'static Message {
        &TABLE.messages[usize::from(self.0)]
    }
}

/// How server-side apply sees a list or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Owned as a whole.
    Atomic,
    /// A list of distinct values, each owned on its own.
    Set,
    /// A list of objects told apart by these keys.
    Map(&'static [&'static str]),
    /// Not said: lists are atomic, maps and objects are owned by field.
    Default,
}

/// One field of a type.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its number in protobuf; 0 in a type that only has it by inlining another.
    pub number: u32,
    /// One, a list or a map.
    pub shape: Shape,
    /// The type of its values.
    pub inner: Inner,
    /// Zero, false, empty text and (for objects) the empty object are values of their own, told apart from absence.
    pub keeps_zero: bool,
    /// Server-side apply's view.
    pub list_type: ListType,
    /// Strategic merge patch merges this list instead of replacing it.
    pub merges: bool,
    /// The key by which strategic merge patch tells the list's objects apart; `None` for lists of plain values.
    pub merge_key: Option<&'static str>,
    /// Strategic merge patch clears fields that the patch's `$retainKeys` does not name.
    pub retain_keys: bool,
}

/// One type: its fields.
#[derive(Debug)]
pub struct Message {
    /// Its name, like `core.v1.Pod`.
    pub name: &'static str,
    /// Server-side apply owns it as a whole.
    pub atomic: bool,
    /// It carries `apiVersion` and `kind`.
    pub typed: bool,
    /// Its JSON is the bare value of one of its fields: which, the JSON type of the value says.
    pub union: bool,
    /// Sorted by name; those of inlined types too.
    fields: Vec<Field>,
    /// Types whose fields stand in this one's JSON but in a message of their own in protobuf.
    inlined: Vec<(u32, MessageRef)>,
}

impl Message {
    /// The field of this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// The field of this protobuf number.
    pub fn numbered(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|f| f.number == number)
    }

    /// The inlined type of this protobuf number.
    pub fn inlined(&self, number: u32) -> Option<&'static Message> {
        self.inlined.iter().find(|(n, _)| *n == number).map(|(_, reference)| reference.get())
    }

    /// The field of a union whose value has the JSON type of this one.
    pub fn member(&self, value: &Value) -> Option<&Field> {
        self.fields.iter().find(|field| {
            matches!(
                (field.shape, field.inner, value),
                (Shape::List, _, Value::Array(_))
                    | (Shape::Single, Inner::Bool, Value::Bool(_))
                    | (Shape::Single, Inner::Message(_), Value::Object(_))
            )
        })
    }

    /// All fields, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// `v1.Pod`, as Go's errors name it.
    pub fn go_name(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, rest)| rest)
    }

    /// `Pod`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// The type of this name in the table, like `core.v1.Pod`.
pub fn message(name: &str) -> Option<&'static Message> {
    TABLE.by_name.get(name).map(|reference| reference.get())
}

struct Table {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, MessageRef>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("fields.txt")));

/// A block of the table's text.
struct Block {
    name: &'static str,
    marks: &'static str,
    lines: Vec<&'static str>,
}

impl Table {
    fn read(text: &'static str) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            match (line.strip_prefix(' '), blocks.last_mut()) {
                (Some(field), Some(block)) => block.lines.push(field),
                _ => {
                    let (name, marks) = line.split_once(' ').unwrap_or((line, ""));
                    blocks.push(Block { name, marks, lines: Vec::new() });
                }
            }
        }
        let by_name: HashMap<_, _> =
            blocks.iter().enumerate().map(|(i, b)| (b.name, MessageRef(i as u16))).collect();
        let atomic: Vec<bool> = blocks.iter().map(|b| b.marks.contains("atomic")).collect();
        let mut messages: Vec<Message> =
            blocks.iter().map(|block| read_block(block, &by_name, &atomic)).collect();
        // Inlined types do not inline others further, but for one level; two rounds settle that.
        for _ in 0..2 {
            for at in 0..messages.len() {
                inline(&mut messages, at);
            }
        }
        Self { messages, by_name }
    }
}

fn inline(messages: &mut [Message], at: usize) {
    let mut added = Vec::new();
    for (_, reference) in &messages[at].inlined {
        added.extend(messages[usize::from(reference.0)].fields.iter().map(|f| Field { number: 0, ..*f }));
    }
    let fields = &mut messages[at].fields;
    added.retain(|f| fields.iter().all(|own| own.name != f.name));
    fields.extend(added);
    fields.sort_by_key(|f| f.name);
}

fn read_block(block: &Block, by_name: &HashMap<&'static str, MessageRef>, atomic: &[bool]) -> Message {
    let mut message = Message {
        name: block.name,
        atomic: block.marks.contains("atomic"),
        typed: block.marks.contains("typed"),
        union: block.marks.contains("union"),
        fields: Vec::with_capacity(block.lines.len()),
        inlined: Vec::new(),
    };
    for line in &block.lines {
        let (field, inlined) = read_field(line, by_name, atomic);
        match (field.inner, inlined) {
            (Inner::Message(reference), true) => message.inlined.push((field.number, reference)),
            _ => message.fields.push(field),
        }
    }
    message.fields.sort_by_key(|f| f.name);
    message
}

/// A field and whether it is inlined.
fn read_field(
    line: &'static str,
    by_name: &HashMap<&'static str, MessageRef>,
    atomic: &[bool],
) -> (Field, bool) {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or("");
    let (number, name, kind) = (word(), word(), word());
    let (shape, inner) = match kind.strip_prefix("[]") {
        Some(inner) => (Shape::List, inner),
        None => kind.strip_prefix("{}").map_or((Shape::Single, kind), |inner| (Shape::Map, inner)),
    };
    let inner = read_inner(inner, by_name);
    let list_type = match (shape, inner) {
        (Shape::Single, Inner::Message(reference)) if atomic[usize::from(reference.0)] => ListType::Atomic,
        _ => ListType::Default,
    };
    let mut field = Field {
        name,
        // The tests read every line; a number that is none would show there.
        number: number.parse().unwrap_or_default(),
        shape,
        inner,
        keeps_zero: false,
        list_type,
        merges: false,
        merge_key: None,
        retain_keys: false,
    };
    let mut inlined = false;
    for mark in words {
        match mark.split_once('=').unwrap_or((mark, "")) {
            ("zero" | "ptr", _) => field.keeps_zero = true,
            ("inline", _) => inlined = true,
            ("atomic", _) => field.list_type = ListType::Atomic,
            ("set", _) => field.list_type = ListType::Set,
            // The table is read once and lives as long as the process, and so do its lists of keys.
            ("map", keys) => {
                field.list_type = ListType::Map(Vec::leak(keys.split(',').collect()));
            }
            ("merge", key) => {
                field.merges = true;
                field.merge_key = (!key.is_empty()).then_some(key);
            }
            _ => field.retain_keys |= mark == "retainKeys",
        }
    }
    (field, inlined)
}

fn read_inner(name: &str, by_name: &HashMap<&'static str, MessageRef>) -> Inner {
    match name {
        "str" => Inner::String,
        "strs" => Inner::Strings,
        "bool" => Inner::Bool,
        "i32" => Inner::Int32,
        "i64" => Inner::Int64,
        "f64" => Inner::Double,
        "bytes" => Inner::Bytes,
        "time" => Inner::Time,
        "micro" => Inner::MicroTime,
        "qty" => Inner::Quantity,
        "ios" => Inner::IntOrString,
        _ => by_name.get(name).map_or(Inner::Any, |reference| Inner::Message(*reference)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::KINDS;
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let text = include_str!("fields.txt");
        let names: Vec<&str> =
            text.lines().filter(|l| !l.starts_with([' ', '#'])).filter_map(|l| l.split(' ').next()).collect();
        for line in text.lines().filter(|l| l.starts_with(' ')) {
            let words: Vec<&str> = line.trim().split(' ').collect();
            assert!(words[0].parse::<u32>().is_ok(), "{line}");
            let inner = words[2].trim_start_matches(['[', ']', '{', '}']);
            let plain =
                ["str", "strs", "bool", "i32", "i64", "f64", "bytes", "time", "micro", "qty", "ios", "any"];
            assert!(plain.contains(&inner) || names.contains(&inner), "{line}");
            for mark in &words[3..] {
                let known = ["zero", "ptr", "inline", "atomic", "set", "map", "merge", "retainKeys"];
                assert!(known.contains(&mark.split('=').next().unwrap_or("")), "{line}");
            }
        }
    }

    #[test]
    fn every_kind_has_its_fields() {
        for kind in KINDS.iter() {
            let m = message(kind.message).unwrap_or_else(|| panic!("{}", kind.message));
            assert!(m.typed, "{}", kind.message);
        }
    }

    #[test]
    fn inlined_fields_stand_in_both_forms() {
        let probe = message("core.v1.Probe").expect("a probe");
        assert!(probe.field("httpGet").is_some_and(|f| f.number == 0));
        assert_eq!(probe.inlined(1).map(|m| m.name), Some("core.v1.ProbeHandler"));
        let ports = message("core.v1.Container").and_then(|m| m.field("ports")).expect("ports");
        assert_eq!(ports.list_type, ListType::Map(&["containerPort", "protocol"]));
        assert_eq!(ports.merge_key, Some("containerPort"));
    }
}
