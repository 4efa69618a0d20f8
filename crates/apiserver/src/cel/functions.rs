//! The functions that expressions may call: names, types, prices, and what they run.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::cost::{Grows, Meter, Price};
use super::library::{
    authz, convert, format, jsonpatch, lists, net, operators, optional, quantity, regex, sets, strings, time,
    url,
};
use super::types::{DYN, Opaque, Type, TypeKind};
use super::value::{Outcome, Value};

/// Evaluates a function. A method gets its target as the first argument.
pub type Run = for<'m, 'a> fn(&'m mut Meter, &[Value<'a>]) -> Outcome<'a>;

/// One function with all its overloads.
pub struct Function {
    /// Its name; qualified, for those of a namespace.
    pub name: &'static str,
    /// The argument types that it is defined for.
    pub overloads: Vec<Overload>,
    /// The cost of a call.
    pub price: Price,
    /// How large its result is.
    pub grows: Grows,
    /// Evaluates it.
    pub run: Run,
}

/// The types that a function is defined for.
pub struct Overload {
    /// Whether it is called as `target.name(...)`.
    pub is_method: bool,
    /// Types of the target, if it is a method, and the arguments.
    pub parameters: Vec<Type>,
    /// The type of the result.
    pub result: Type,
}

/// The function of a name.
pub fn find(name: &str) -> Option<&'static Function> {
    static FUNCTIONS: LazyLock<BTreeMap<&str, Function>> = LazyLock::new(|| {
        let tables: [&[Row]; 15] = [
            operators::FUNCTIONS,
            convert::FUNCTIONS,
            strings::FUNCTIONS,
            regex::FUNCTIONS,
            lists::FUNCTIONS,
            sets::FUNCTIONS,
            optional::FUNCTIONS,
            time::FUNCTIONS,
            url::FUNCTIONS,
            quantity::FUNCTIONS,
            net::FUNCTIONS,
            authz::FUNCTIONS,
            format::FUNCTIONS,
            jsonpatch::FUNCTIONS,
            strings::FORMAT,
        ];
        tables.into_iter().flatten().map(|row| (row.0, row.function())).collect()
    });
    FUNCTIONS.get(name)
}

/// A function as tables declare it: name, overloads like `string.(int) string, (string) string`, price, size of the
/// result, evaluation.
pub struct Row(pub &'static str, pub &'static str, pub Price, pub Grows, pub Run);

impl Row {
    fn function(&self) -> Function {
        let overloads = self.1.split(';').map(|text| overload(text.trim())).collect();
        Function { name: self.0, overloads, price: self.2, grows: self.3, run: self.4 }
    }
}

fn overload(text: &str) -> Overload {
    let mut reader = Reader(text);
    let is_method = !text.starts_with('(');
    let mut parameters = Vec::new();
    if is_method {
        parameters.push(reader.kind());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.skip(")") {
        parameters.push(reader.kind());
        reader.skip(", ");
    }
    reader.skip(" ");
    Overload { is_method, parameters, result: reader.kind() }
}

struct Reader<'t>(&'t str);

impl Reader<'_> {
    fn skip(&mut self, what: &str) -> bool {
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn kind(&mut self) -> Type {
        let end = self.0.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        let mut inner = Vec::new();
        if self.skip("<") {
            while !self.skip(">") {
                inner.push(self.kind());
                self.skip(", ");
            }
        }
        let mut inner = inner.into_iter();
        let mut next = || inner.next().unwrap_or_else(|| DYN.clone());
        match name {
            "list" => Type::list(next()),
            "map" => Type::map(next(), next()),
            "optional" => Type::optional(next()),
            name => Type::of(named(name)),
        }
    }
}

fn named(name: &str) -> TypeKind {
    match name {
        "A" => TypeKind::Parameter(0),
        "B" => TypeKind::Parameter(1),
        "bool" => TypeKind::Bool,
        "int" => TypeKind::Int,
        "uint" => TypeKind::Uint,
        "double" => TypeKind::Double,
        "string" => TypeKind::String,
        "bytes" => TypeKind::Bytes,
        "duration" => TypeKind::Duration,
        "timestamp" => TypeKind::Timestamp,
        "type" => TypeKind::Type,
        "quantity" => TypeKind::Opaque(Opaque::Quantity),
        "url" => TypeKind::Opaque(Opaque::Url),
        "ip" => TypeKind::Opaque(Opaque::Ip),
        "cidr" => TypeKind::Opaque(Opaque::Cidr),
        "format" => TypeKind::Opaque(Opaque::Format),
        "authorizer" => TypeKind::Opaque(Opaque::Authorizer),
        "pathcheck" => TypeKind::Opaque(Opaque::PathCheck),
        "groupcheck" => TypeKind::Opaque(Opaque::GroupCheck),
        "resourcecheck" => TypeKind::Opaque(Opaque::ResourceCheck),
        "decision" => TypeKind::Opaque(Opaque::Decision),
        _ => TypeKind::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_read() {
        let rows = [
            ("string.(int, string) list<string>", true, "string, int, string", "list(string)"),
            ("() bool", false, "", "bool"),
            ("(A, map<A, B>) optional<list<B>>", false, "A, map(A, B)", "optional_type(list(B))"),
        ];
        for (text, is_method, parameters, result) in rows {
            let read = overload(text);
            let names: Vec<String> = read.parameters.iter().map(Type::to_string).collect();
            assert_eq!(read.is_method, is_method, "{text}");
            assert_eq!(names.join(", "), parameters, "{text}");
            assert_eq!(read.result.to_string(), result, "{text}");
        }
    }
}
