//! A rule of a role, prepared for matching.

use std::fmt;

use serde_json::{Map, Value, json};

use super::attributes::{Attributes, Target};

/// Matches everything of its list.
const ALL: &str = "*";
/// Verbs that have a bit of their own in a [`Filter`]. Others share the last one and are then compared as texts.
const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
];
const OTHER_VERB: u16 = 1 << VERBS.len();
const EVERY_VERB: u16 = OTHER_VERB << 1;
/// The bit of all paths; resources share the others by their hash.
const PATH: u64 = 1 << 63;

/// The verbs and resources of rules as bits: what it does not hold, the rules do not allow. It decides most comparisons
/// without a look at texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    verbs: u16,
    targets: u64,
}

impl Filter {
    /// The filter of several rules.
    pub fn of(rules: &[Rule]) -> Self {
        let both = |a: Self, b: Self| Self { verbs: a.verbs | b.verbs, targets: a.targets | b.targets };
        rules.iter().map(|rule| rule.filter).fold(Self::default(), both)
    }

    /// Whether one of the rules may allow an action.
    pub fn passes(self, asked: &Asked<'_>) -> bool {
        self.verbs & (asked.bits.verbs | EVERY_VERB) != 0 && self.targets & asked.bits.targets != 0
    }
}

/// An action, prepared for the comparison with many rules.
pub struct Asked<'a> {
    attributes: &'a Attributes<'a>,
    bits: Filter,
}

impl<'a> Asked<'a> {
    /// Prepares it.
    pub fn new(attributes: &'a Attributes<'a>) -> Self {
        let targets = match attributes.target {
            Target::Path(_) => PATH,
            Target::Resource { resource, subresource, .. } => resource_bit(resource, subresource),
        };
        Self { attributes, bits: Filter { verbs: verb_bit(attributes.verb), targets } }
    }
}

fn verb_bit(verb: &str) -> u16 {
    VERBS.iter().position(|known| *known == verb).map_or(OTHER_VERB, |at| 1 << at)
}

/// One of 63 bits for a resource and its part: FNV-1a over the text that rules have for it.
fn resource_bit(resource: &str, subresource: &str) -> u64 {
    let slash: &[u8] = if subresource.is_empty() { b"" } else { b"/" };
    let bytes = resource.bytes().chain(slash.iter().copied()).chain(subresource.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    1 << ((hash >> 32) % 63)
}

/// The bits of an entry of a rule's resources.
fn entry_bits(entry: &str) -> u64 {
    match entry.split_once('/') {
        // Every resource, or a part of every resource.
        _ if entry == ALL => !PATH,
        Some((ALL, _)) => !PATH,
        _ => resource_bit(entry, ""),
    }
}

/// A list of texts that is never changed.
pub type Texts = Box<[Box<str>]>;

/// A `PolicyRule`: verbs on resources, or verbs on paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Texts,
    /// API groups, `*` for all; empty for rules on paths.
    pub api_groups: Texts,
    /// `pods`, `pods/log`, `*/scale`, or `*` for all; empty for rules on paths.
    pub resources: Texts,
    /// Names to which the rule is restricted; empty for no restriction.
    pub resource_names: Texts,
    /// Paths; a `*` at the end stands for anything.
    pub non_resource_urls: Texts,
    /// The bits of the above.
    filter: Filter,
}

impl Rule {
    /// A rule of these lists.
    pub fn new(
        verbs: Texts,
        api_groups: Texts,
        resources: Texts,
        resource_names: Texts,
        non_resource_urls: Texts,
    ) -> Self {
        let bit = |verb: &str| if verb == ALL { EVERY_VERB } else { verb_bit(verb) };
        let paths = if non_resource_urls.is_empty() { 0 } else { PATH };
        let filter = Filter {
            verbs: verbs.iter().fold(0, |bits, verb| bits | bit(verb)),
            targets: resources.iter().fold(paths, |bits, entry| bits | entry_bits(entry)),
        };
        Self { verbs, api_groups, resources, resource_names, non_resource_urls, filter }
    }

    /// Reads a `PolicyRule`.
    pub fn read(rule: &Value) -> Self {
        let texts = |key: &str| {
            let list = rule[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(Box::from).collect()
        };
        Self::new(
            texts("verbs"),
            texts("apiGroups"),
            texts("resources"),
            texts("resourceNames"),
            texts("nonResourceURLs"),
        )
    }

    /// The rules of a Role or ClusterRole.
    pub fn read_all(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::read).collect()
    }

    /// The `PolicyRule`.
    pub fn to_value(&self) -> Value {
        let mut rule = Map::new();
        for (key, texts) in self.lists() {
            if !texts.is_empty() {
                rule.insert(key.into(), json!(texts));
            }
        }
        Value::Object(rule)
    }

    fn lists(&self) -> [(&'static str, &Texts); 5] {
        [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ]
    }

    /// Whether the rule allows an action.
    pub fn allows(&self, asked: &Asked<'_>) -> bool {
        if !self.filter.passes(asked) {
            return false;
        }
        let Asked { attributes, bits } = asked;
        let has_every = self.filter.verbs & EVERY_VERB != 0;
        if bits.verbs == OTHER_VERB && !has_every && !has(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.target {
            Target::Path(path) => self.non_resource_urls.iter().any(|url| url_covers(url, path)),
            Target::Resource { group, resource, subresource, name, .. } => {
                self.api_groups.iter().any(|g| **g == *ALL || **g == *group)
                    && self.resources.iter().any(|r| names_resource(r, resource, subresource))
                    && (self.resource_names.is_empty() || has(&self.resource_names, name))
            }
        }
    }

    /// Whether everything that `part` allows is allowed by this rule alone. `part` has one verb, and one resource or path
    /// ([`Rule::parts`]), so that it is covered by a single rule or not at all.
    pub fn covers(&self, part: &Self) -> bool {
        let within = |own: &Texts, all: &Texts| all.iter().all(|text| has(own, text));
        let of_resources = part.non_resource_urls.is_empty();
        let urls = &self.non_resource_urls;
        (self.filter.verbs & EVERY_VERB != 0 || within(&self.verbs, &part.verbs))
            && part.non_resource_urls.iter().all(|path| urls.iter().any(|url| url_covers(url, path)))
            && (!of_resources
                || (has(&self.api_groups, ALL) || within(&self.api_groups, &part.api_groups))
                    && part
                        .resources
                        .iter()
                        .all(|r| self.resources.iter().any(|own| resource_covers(own, r)))
                    && (self.resource_names.is_empty()
                        || !part.resource_names.is_empty()
                            && within(&self.resource_names, &part.resource_names)))
    }

    /// The rule as rules of one verb and one resource, name or path each.
    pub fn parts(&self) -> Vec<Self> {
        let one = |text: &str| -> Texts { Box::new([Box::from(text)]) };
        let none = Texts::default;
        let mut parts = Vec::new();
        let names: Vec<Texts> = match self.resource_names.is_empty() {
            true => vec![none()],
            false => self.resource_names.iter().map(|name| one(name)).collect(),
        };
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let of_name =
                        |name: &Texts| Self::new(one(verb), one(group), one(resource), name.clone(), none());
                    parts.extend(names.iter().map(of_name));
                }
            }
        }
        for url in &self.non_resource_urls {
            parts
                .extend(self.verbs.iter().map(|verb| Self::new(one(verb), none(), none(), none(), one(url))));
        }
        parts
    }

    /// Rules that differ in their verbs only, as one.
    pub fn merged(rules: Vec<Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::new();
        for rule in rules {
            let alike = |other: &&mut Self| {
                let same = other.lists().into_iter().zip(rule.lists()).skip(1);
                same.into_iter().all(|((_, a), (_, b))| a == b)
            };
            match merged.iter_mut().find(alike) {
                None => merged.push(rule),
                Some(known) => {
                    let mut verbs = known.verbs.to_vec();
                    verbs.extend(rule.verbs.iter().filter(|verb| !has(&known.verbs, verb)).cloned());
                    known.filter.verbs |= rule.filter.verbs;
                    known.verbs = verbs.into();
                }
            }
        }
        merged
    }
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`, as Kubernetes' messages show rules.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        for (i, (name, texts)) in lists.into_iter().filter(|(_, texts)| !texts.is_empty()).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}:{}", quoted(texts))?;
        }
        f.write_str("}")
    }
}

/// `["a" "b"]`, as Go's `%q` writes a list.
pub fn quoted(texts: &[impl AsRef<str>]) -> String {
    let all: Vec<String> = texts.iter().map(|text| format!("{:?}", text.as_ref())).collect();
    format!("[{}]", all.join(" "))
}

fn has(texts: &[Box<str>], text: &str) -> bool {
    texts.iter().any(|t| **t == *text)
}

fn url_covers(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start.trim_end_matches('*')))
}

/// Whether the entry of a rule's resources means this resource, or this part of it.
fn names_resource(entry: &str, resource: &str, subresource: &str) -> bool {
    if entry == ALL {
        return true;
    }
    if subresource.is_empty() {
        return entry == resource;
    }
    let Some((of, part)) = entry.split_once('/') else { return false };
    part == subresource && (of == ALL || of == resource)
}

/// Whether one entry of a rule's resources means all that another does.
fn resource_covers(entry: &str, other: &str) -> bool {
    let any_part = || {
        let part = entry.strip_prefix("*/").filter(|part| !part.is_empty());
        part.is_some_and(|part| other.split_once('/').is_some_and(|(_, of)| of == part))
    };
    entry == ALL || entry == other || any_part()
}
