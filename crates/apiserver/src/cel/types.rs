//! Types of the Common Expression Language, with bounds of their sizes.
//!
//! A type serves twice: expressions are checked against it, and values of JSON are read by it. The sizes come from a
//! schema's `maxItems`, `maxLength` and `maxProperties`; the cost of an expression is estimated from them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The smallest and largest size of a value: bytes of a text, items of a list, entries of a map, 1 for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The smallest.
    pub min: u64,
    /// The largest; `u64::MAX` where there is no bound.
    pub max: u64,
}

impl Size {
    /// Nothing is known of it.
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };
    /// That of a number or a boolean.
    pub const SCALAR: Self = Self::exactly(1);

    /// A size that is known.
    pub const fn exactly(size: u64) -> Self {
        Self { min: size, max: size }
    }

    /// At most this much.
    pub const fn at_most(max: u64) -> Self {
        Self { min: 0, max }
    }

    /// The sizes of both.
    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    /// The product of both.
    pub fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}

/// A type and the bounds of its values' size.
#[derive(Clone, Debug)]
pub struct Type {
    /// The kind of the type.
    pub kind: TypeKind,
    /// How large values are.
    pub size: Size,
}

/// The kinds of types.
#[derive(Clone, Debug)]
pub enum TypeKind {
    /// Any; operations are checked when they are evaluated.
    Dyn,
    /// The type of what is yet unknown: items of an empty list, and expressions that have an error.
    Unknown,
    /// A parameter in the declaration of a function.
    Parameter(u8),
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// 64 bits with a sign.
    Int,
    /// 64 bits without a sign.
    Uint,
    /// 64 bits of floating point.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// Nanoseconds between two points in time.
    Duration,
    /// A point in time.
    Timestamp,
    /// A list.
    List(Arc<ListType>),
    /// A map.
    Map(Arc<MapType>),
    /// An object with declared fields.
    Object(Arc<ObjectType>),
    /// A value that may be absent.
    Optional(Arc<Type>),
    /// The type of types.
    Type,
    /// A type of a library.
    Opaque(Opaque),
    /// The type of objects that expressions construct, by its name.
    Constructed(Arc<str>),
}

/// Types of Kubernetes' libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// An amount like `100m`.
    Quantity,
    /// A URL.
    Url,
    /// An IP address.
    Ip,
    /// A range of IP addresses.
    Cidr,
    /// A named format.
    Format,
    /// The right to ask what a user may do.
    Authorizer,
    /// A check of access to a path.
    PathCheck,
    /// A check of access to an API group.
    GroupCheck,
    /// A check of access to a resource.
    ResourceCheck,
    /// The answer to a check.
    Decision,
}

/// How items of a list are told apart, which decides when two lists are equal and what their sum is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// By their position.
    #[default]
    Position,
    /// By their value.
    Value,
    /// By the values of these keys.
    Keys(Vec<String>),
}

/// The type of a list.
#[derive(Debug)]
pub struct ListType {
    /// That of the items.
    pub item: Type,
    /// How items are told apart.
    pub identity: Identity,
}

/// The type of a map.
#[derive(Debug)]
pub struct MapType {
    /// That of the keys.
    pub key: Type,
    /// That of the values.
    pub value: Type,
}

/// The type of an object.
#[derive(Debug)]
pub struct ObjectType {
    /// Its name in messages.
    pub name: String,
    /// Fields by the name that they have in expressions.
    pub fields: BTreeMap<String, Field>,
    /// Names in expressions of those fields whose name in JSON is another one.
    escaped: BTreeMap<String, String>,
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// The name in JSON.
    pub name: String,
    /// The type of its value.
    pub kind: Type,
}

impl ObjectType {
    /// An object of these fields, by the name that they have in expressions.
    pub fn new(name: String, fields: BTreeMap<String, Field>) -> Self {
        let escaped = fields.iter().filter(|(name, field)| **name != field.name);
        let escaped = escaped.map(|(name, field)| (field.name.clone(), name.clone())).collect();
        Self { name, fields, escaped }
    }

    /// The field of a name in JSON.
    pub fn by_json_name(&self, name: &str) -> Option<&Field> {
        self.fields.get(self.escaped.get(name).map_or(name, String::as_str))
    }
}

/// The type of values of which nothing is known.
pub static DYN: Type = Type { kind: TypeKind::Dyn, size: Size::UNKNOWN };
/// A list of which nothing is known.
pub static DYN_LIST: LazyLock<ListType> =
    LazyLock::new(|| ListType { item: DYN.clone(), identity: Identity::Position });
/// A map of which nothing is known.
pub static DYN_MAP: LazyLock<MapType> =
    LazyLock::new(|| MapType { key: Type::of(TypeKind::String), value: DYN.clone() });

impl Type {
    /// A type of this kind, of any size.
    pub fn of(kind: TypeKind) -> Self {
        let size = match kind {
            TypeKind::Null | TypeKind::Bool | TypeKind::Int | TypeKind::Uint | TypeKind::Double => {
                Size::SCALAR
            }
            TypeKind::Duration | TypeKind::Timestamp | TypeKind::Type => Size::SCALAR,
            TypeKind::Opaque(Opaque::Ip | Opaque::Cidr) => Size { min: 4, max: 16 },
            _ => Size::UNKNOWN,
        };
        Self { kind, size }
    }

    /// The same type with values of this size.
    pub fn sized(mut self, size: Size) -> Self {
        self.size = size;
        self
    }

    /// A list of these items.
    pub fn list(item: Self) -> Self {
        Self::of(TypeKind::List(Arc::new(ListType { item, identity: Identity::Position })))
    }

    /// A map of these keys and values.
    pub fn map(key: Self, value: Self) -> Self {
        Self::of(TypeKind::Map(Arc::new(MapType { key, value })))
    }

    /// A value of this type that may be absent.
    pub fn optional(inner: Self) -> Self {
        let size = inner.size;
        Self { kind: TypeKind::Optional(Arc::new(inner)), size }
    }

    /// Whether operations on it are checked only when they are evaluated.
    pub fn is_dynamic(&self) -> bool {
        matches!(self.kind, TypeKind::Dyn | TypeKind::Unknown)
    }

    /// The type of items; of values, for a map.
    pub fn item(&self) -> Type {
        match &self.kind {
            TypeKind::List(list) => list.item.clone(),
            TypeKind::Map(map) => map.value.clone(),
            TypeKind::Unknown => Self::of(TypeKind::Unknown),
            _ => DYN.clone(),
        }
    }

    /// Whether a value of type `given` may stand where this one is expected.
    pub fn accepts(&self, given: &Self) -> bool {
        use TypeKind::*;
        match (&self.kind, &given.kind) {
            (Dyn | Unknown, _) | (_, Dyn | Unknown) => true,
            (Null, Null | Object(_) | Duration | Timestamp | Optional(_) | Opaque(_) | Constructed(_)) => {
                true
            }
            (Object(_) | Duration | Timestamp | Optional(_) | Opaque(_) | Constructed(_), Null) => true,
            (Bool, Bool) | (Int, Int) | (Uint, Uint) | (Double, Double) | (String, String) => true,
            (Bytes, Bytes) | (Duration, Duration) | (Timestamp, Timestamp) | (Type, Type) => true,
            (List(a), List(b)) => a.item.accepts(&b.item),
            (Map(a), Map(b)) => a.key.accepts(&b.key) && a.value.accepts(&b.value),
            // Objects are the same only where they are of the same place of a schema.
            (Object(a), Object(b)) => Arc::ptr_eq(a, b),
            (Optional(a), Optional(b)) => a.accepts(b),
            (Opaque(a), Opaque(b)) => a == b,
            (Constructed(a), Constructed(b)) => a == b,
            _ => false,
        }
    }

    /// The type of a value that is of either type; `None` where there is none but `dyn`.
    pub fn join(&self, other: &Self) -> Option<Self> {
        // There is no value of the unknown type, as an empty list has no items, and so none that could be larger.
        let size = match (&self.kind, &other.kind) {
            (TypeKind::Unknown, _) => other.size,
            (_, TypeKind::Unknown) => self.size,
            _ => self.size.union(other.size),
        };
        let kind = match (&self.kind, &other.kind) {
            (TypeKind::Unknown | TypeKind::Null, kind) if self.accepts(other) => kind.clone(),
            (kind, TypeKind::Unknown | TypeKind::Null) if self.accepts(other) => kind.clone(),
            (TypeKind::Dyn, _) | (_, TypeKind::Dyn) => TypeKind::Dyn,
            (TypeKind::List(a), TypeKind::List(b)) => {
                let identity = if a.identity == b.identity { a.identity.clone() } else { Identity::Position };
                TypeKind::List(Arc::new(ListType { item: a.item.join(&b.item)?, identity }))
            }
            (TypeKind::Map(a), TypeKind::Map(b)) => {
                TypeKind::Map(Arc::new(MapType { key: a.key.join(&b.key)?, value: a.value.join(&b.value)? }))
            }
            (TypeKind::Optional(a), TypeKind::Optional(b)) => TypeKind::Optional(Arc::new(a.join(b)?)),
            (kind, _) if self.accepts(other) => kind.clone(),
            _ => return None,
        };
        Some(Self { kind, size })
    }

    /// The type with parameters replaced by the types that are bound to them.
    pub fn bound(&self, bindings: &[Option<Type>; 2]) -> Type {
        match &self.kind {
            TypeKind::Parameter(index) => {
                bindings[usize::from(*index)].clone().unwrap_or_else(|| Self::of(TypeKind::Unknown))
            }
            TypeKind::List(list) => Self::list(list.item.bound(bindings)).sized(self.size),
            TypeKind::Map(map) => {
                Self::map(map.key.bound(bindings), map.value.bound(bindings)).sized(self.size)
            }
            TypeKind::Optional(inner) => Self::optional(inner.bound(bindings)),
            _ => self.clone(),
        }
    }

    /// Binds the parameters in this type so that it accepts `given`; false where none do.
    pub fn unify(&self, given: &Self, bindings: &mut [Option<Type>; 2]) -> bool {
        match (&self.kind, &given.kind) {
            (TypeKind::Parameter(index), _) => {
                let bound = &mut bindings[usize::from(*index)];
                match bound.as_ref().map_or_else(|| Some(given.clone()), |known| known.join(given)) {
                    Some(joined) => {
                        *bound = Some(joined);
                        true
                    }
                    None => false,
                }
            }
            (TypeKind::List(a), TypeKind::List(b)) => a.item.unify(&b.item, bindings),
            (TypeKind::Map(a), TypeKind::Map(b)) => {
                a.key.unify(&b.key, bindings) && a.value.unify(&b.value, bindings)
            }
            (TypeKind::Optional(a), TypeKind::Optional(b)) => a.unify(b, bindings),
            _ => self.accepts(given),
        }
    }
}

impl Opaque {
    /// The name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quantity => "kubernetes.Quantity",
            Self::Url => "kubernetes.URL",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Format => "kubernetes.NamedFormat",
            Self::Authorizer => "kubernetes.authorization.Authorizer",
            Self::PathCheck => "kubernetes.authorization.PathCheck",
            Self::GroupCheck => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Self::Decision => "kubernetes.authorization.Decision",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            TypeKind::Dyn | TypeKind::Unknown => "dyn",
            TypeKind::Parameter(0) => "A",
            TypeKind::Parameter(_) => "B",
            TypeKind::Null => "null",
            TypeKind::Bool => "bool",
            TypeKind::Int => "int",
            TypeKind::Uint => "uint",
            TypeKind::Double => "double",
            TypeKind::String => "string",
            TypeKind::Bytes => "bytes",
            TypeKind::Duration => "duration",
            TypeKind::Timestamp => "timestamp",
            TypeKind::List(list) => return write!(f, "list({})", list.item),
            TypeKind::Map(map) => return write!(f, "map({}, {})", map.key, map.value),
            TypeKind::Object(object) => &object.name,
            TypeKind::Optional(inner) => return write!(f, "optional_type({inner})"),
            TypeKind::Type => "type",
            TypeKind::Opaque(opaque) => opaque.name(),
            TypeKind::Constructed(name) => name,
        })
    }
}
