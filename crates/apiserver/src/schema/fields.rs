//! The table of fields.

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

/// What a value is.
#[derive(Clone, Copy, Debug)]
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
    Message(&'static Message),
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
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its number in protobuf.
    pub number: u32,
    /// One, a list or a map.
    pub shape: Shape,
    /// What it holds.
    pub inner: Inner,
    /// Zero, false and empty are values of their own and are kept when they come in protobuf.
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
    fields: Vec<Field>,
}

impl Message {
    /// The field of this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// All fields.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// The type of this name in the table, like `core.v1.Pod`.
pub fn message(_name: &str) -> Option<&'static Message> {
    None
}
