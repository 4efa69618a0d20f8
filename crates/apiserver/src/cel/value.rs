//! Values of expressions. What comes from JSON is borrowed and read where it is used, by its type.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Map as JsonMap, Value as Json};
use yado_types::duration;
use yado_types::quantity::Quantity;

use super::constructed::{self, Constructed};
use super::error::EvalError;
use super::library::authz::Access;
use super::library::format::NamedFormat;
use super::library::url::Url;
use super::types::{DYN, DYN_LIST, DYN_MAP, ListType, MapType, ObjectType, Type, TypeKind};

/// A value, or why there is none.
pub type Outcome<'a> = Result<Value<'a>, EvalError>;

/// A value. `'a` is the lifetime of the data that it was read from and of the program.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number without a sign.
    Uint(u64),
    /// A number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(&'static str),
    /// A value of a library.
    Opaque(Arc<OpaqueValue>),
    /// An object that an expression constructed.
    Object(Arc<Constructed<'a>>),
}

/// Values of Kubernetes' libraries.
#[derive(Clone, Debug, PartialEq)]
pub enum OpaqueValue {
    /// An amount.
    Quantity(Quantity),
    /// A URL.
    Url(Url),
    /// An IP address.
    Ip(IpAddr),
    /// A range of IP addresses.
    Cidr(IpNet),
    /// A named format.
    Format(&'static NamedFormat),
    /// A part of an authorisation check.
    Access(Access),
}

/// Text, of the data or the program, or made by an expression.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Of the data or the program.
    Borrowed(&'a str),
    /// Made by an expression.
    Shared(Arc<str>),
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Of the data.
    Json(&'a [Json], &'a ListType),
    /// Made by an expression.
    Made(Arc<Vec<Value<'a>>>),
}

/// A map or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// A map of the data.
    Json(&'a JsonMap<String, Json>, &'a MapType),
    /// An object of the data.
    Object(&'a JsonMap<String, Json>, &'a ObjectType),
    /// Made by an expression.
    Made(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// The key of a map. Whole numbers are the same key whether they have a sign or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond those that have a sign.
    Uint(u64),
    /// Text.
    String(Text<'a>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl<'a> Value<'a> {
    /// A value of the data, by its type. What does not fit the type is read as it is: whether data fits its schema is
    /// checked elsewhere.
    pub fn read(json: &'a Json, kind: &'a Type) -> Outcome<'a> {
        Ok(match (json, &kind.kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(b), _) => Self::Bool(*b),
            (Json::Number(n), TypeKind::Double) => Self::Double(n.as_f64().unwrap_or_default()),
            (Json::Number(n), TypeKind::Int) => Self::Int(
                n.as_i64().or_else(|| n.as_f64().map(|n| n as i64)).ok_or(EvalError::IntegerOverflow(""))?,
            ),
            (Json::Number(n), _) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Self::Int(n),
                (_, Some(n)) => Self::Uint(n),
                _ => Self::Double(n.as_f64().unwrap_or_default()),
            },
            (Json::String(text), TypeKind::Bytes) => {
                let bytes = STANDARD.decode(text);
                let bytes = bytes
                    .map_err(|e| EvalError::Failed(format!("Invalid byte formatted string {text}: {e}")))?;
                Self::Bytes(bytes.into())
            }
            (Json::String(text), TypeKind::Duration) => Self::Duration(
                duration::parse(text).map_err(|_| EvalError::Failed(format!("Invalid duration {text}")))?,
            ),
            (Json::String(text), TypeKind::Timestamp) => Self::Timestamp(timestamp(text)?),
            (Json::String(text), _) => Self::text(text),
            (Json::Array(items), TypeKind::List(list)) => Self::List(List::Json(items, list)),
            (Json::Array(items), _) => Self::List(List::Json(items, &DYN_LIST)),
            (Json::Object(map), TypeKind::Map(kind)) => Self::Map(Map::Json(map, kind)),
            (Json::Object(map), TypeKind::Object(kind)) => Self::Map(Map::Object(map, kind)),
            (Json::Object(map), _) => Self::Map(Map::Json(map, &DYN_MAP)),
        })
    }

    /// A value of which no type is known.
    pub fn read_dyn(json: &'a Json) -> Outcome<'a> {
        Self::read(json, &DYN)
    }

    /// Text that lives as long as the data.
    pub fn text(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    /// Text that an expression made.
    pub fn made(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// A list that an expression made.
    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Made(Arc::new(items)))
    }

    /// A map that an expression made.
    pub fn map(entries: BTreeMap<Key<'a>, Value<'a>>) -> Self {
        Self::Map(Map::Made(Arc::new(entries)))
    }

    /// A value that is there.
    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// A value of a library.
    pub fn opaque(value: OpaqueValue) -> Self {
        Self::Opaque(Arc::new(value))
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The size that costs are counted by: bytes of a text, items of a list, entries of a map, 1 for all others.
    pub fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(value)) => return value.size(),
            _ => 1,
        };
        size as u64
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Object(object) if object.name == constructed::PATCH => constructed::PATCH,
            Self::Object(_) => constructed::OBJECT,
            Self::Opaque(opaque) => match &**opaque {
                OpaqueValue::Quantity(_) => "kubernetes.Quantity",
                OpaqueValue::Url(_) => "kubernetes.URL",
                OpaqueValue::Ip(_) => "net.IP",
                OpaqueValue::Cidr(_) => "net.CIDR",
                OpaqueValue::Format(_) => "kubernetes.NamedFormat",
                OpaqueValue::Access(access) => access.type_name(),
            },
        }
    }

    /// Whether it is the default of its type: zero, empty, false, null.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) | Self::Int(0) | Self::Uint(0) | Self::Duration(0) => true,
            Self::Double(n) => *n == 0.0,
            Self::String(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => self.size() == 0,
            Self::Optional(value) => value.is_none(),
            Self::Object(object) => object.fields.is_empty(),
            _ => false,
        }
    }
}

/// A point in time of the data: a date, or a date with a time.
fn timestamp(text: &str) -> Result<Timestamp, EvalError> {
    if text.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC);
        return zoned.map(|zoned| zoned.timestamp()).map_err(|_| EvalError::TimeOverflow("timestamp"));
    }
    text.parse().map_err(|e| EvalError::Failed(format!("Invalid date-time formatted string {text}: {e}")))
}

impl<'a> List<'a> {
    /// How many items it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// An item; `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<Outcome<'a>> {
        match self {
            Self::Json(items, kind) => items.get(index).map(|json| Value::read(json, &kind.item)),
            Self::Made(items) => items.get(index).cloned().map(Ok),
        }
    }

    /// All items in turn.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Outcome<'a>> + '_ {
        (0..self.len()).map(|index| self.get(index).unwrap_or(Err(EvalError::IndexOutOfBounds(index as i64))))
    }
}

impl<'a> Map<'a> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) | Self::Object(map, _) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    /// The value of a name. Fields of an object that are null are absent.
    pub fn field(&self, name: &str) -> Option<Outcome<'a>> {
        match self {
            Self::Json(map, kind) => map.get(name).map(|json| Value::read(json, &kind.value)),
            Self::Object(map, kind) => {
                let field = kind.fields.get(name)?;
                let json = map.get(&field.name).filter(|json| !json.is_null())?;
                Some(Value::read(json, &field.kind))
            }
            Self::Made(map) => {
                let key = Key::String(Text::Shared(name.into()));
                map.get(&key).cloned().map(Ok)
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Key<'a>) -> Option<Outcome<'a>> {
        match (self, key) {
            (Self::Made(map), key) => map.get(key).cloned().map(Ok),
            (_, Key::String(name)) => self.field(name),
            _ => None,
        }
    }

    /// The keys, as they are in expressions.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|name| Value::text(name)).collect(),
            Self::Object(map, kind) => {
                let known = kind.fields.iter();
                let known = known.filter(|(_, f)| map.get(&f.name).is_some_and(|json| !json.is_null()));
                known.map(|(name, _)| Value::text(name)).collect()
            }
            Self::Made(map) => map.keys().map(Key::value).collect(),
        }
    }
}

impl<'a> Key<'a> {
    /// The key that a value is; `None` where it can be none.
    pub fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(n) => Self::Int(*n),
            Value::Uint(n) => i64::try_from(*n).map_or(Self::Uint(*n), Self::Int),
            // A whole number is the same key however it is written.
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 9.0e15 => Self::Int(*n as i64),
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }

    /// The value that it was made from.
    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::Uint(*n),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}
