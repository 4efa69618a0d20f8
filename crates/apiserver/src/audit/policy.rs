//! The audit policy (`audit.k8s.io/v1`): which requests are logged, and how much of them.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};
use serde_json::{Map, Value};

use crate::identity::Identity;
use crate::rbac::{Attributes, Target};
use crate::schema;

/// How much of a request is logged; each level has all of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what, and the outcome.
    Metadata,
    /// The object of the request too.
    Request,
    /// The object of the response too.
    RequestResponse,
}

impl Level {
    const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    /// The word in policies and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// A point in the life of a request at which an event is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was received.
    RequestReceived,
    /// The head of a response without end, as of a watch, was sent.
    ResponseStarted,
    /// The response is complete.
    ResponseComplete,
    /// The server failed in the middle.
    Panic,
}

impl Stage {
    const ALL: [Self; 4] =
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    /// The word in policies and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is logged of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How much of it; never [`Level::None`].
    pub level: Level,
    /// Stages without an event.
    pub omit_stages: Vec<Stage>,
    /// Objects are logged without their `managedFields`.
    pub omit_managed_fields: bool,
}

/// A policy: the first rule that matches a request counts; one that none matches is not logged.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// A rule. Empty lists match everything.
#[derive(Clone, Debug)]
struct Rule {
    extent: Extent,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// Resources of an API group.
#[derive(Clone, Debug)]
struct Resources {
    group: String,
    /// Plurals, with their subresource after a slash; `*` on either side stands for all.
    resources: Vec<String>,
    names: Vec<String>,
}

/// A mistake in a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// The mistake.
    pub message: String,
}

impl Policy {
    /// Reads a policy in YAML or JSON.
    ///
    /// # Errors
    /// The first mistake, of which an unknown field is one: a misspelt condition would log more or less than is meant.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let lines = lines(text)?;
        let parsed = schema::parse_yaml(text.as_bytes())
            .map_err(|error| PolicyError { line: 1, message: error.to_string() })?;
        Self::read(&parsed.value).map_err(|Mistake { path, message }| {
            // A field that is absent has the line of what it is absent from.
            let mut at = path.as_str();
            while !at.is_empty() && !lines.contains_key(at) {
                at = at.rfind(['.', '[']).map_or("", |end| &at[..end]);
            }
            let field = if path.is_empty() { String::new() } else { format!("{path}: ") };
            PolicyError { line: lines.get(at).copied().unwrap_or(1), message: format!("{field}{message}") }
        })
    }

    fn read(policy: &Value) -> Result<Self, Mistake> {
        let known = ["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
        let fields = map(policy, "", &known)?;
        if policy["apiVersion"] != "audit.k8s.io/v1" || policy["kind"] != "Policy" {
            return Err(Mistake::new(
                "",
                "this is not an audit policy: write `apiVersion: audit.k8s.io/v1` and `kind: Policy`",
            ));
        }
        let omit_stages = stages(fields.get("omitStages"), "omitStages")?;
        let omit_fields = flag(fields.get("omitManagedFields"), "omitManagedFields")?.unwrap_or(false);
        let rules = array(fields.get("rules"), "rules")?;
        if rules.is_empty() {
            return Err(Mistake::new(
                "rules",
                "a policy needs a rule; `- level: Metadata` logs all requests",
            ));
        }
        let rules = rules.iter().enumerate();
        let rules =
            rules.map(|(i, rule)| Rule::read(rule, &format!("rules[{i}]"), &omit_stages, omit_fields));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// What is logged of a request; `None` for nothing.
    pub fn extent(&self, who: &Identity, asked: &Attributes<'_>) -> Option<Extent> {
        let rule = self.rules.iter().find(|rule| rule.matches(who, asked))?;
        let mut extent = rule.extent.clone();
        // Their objects are credentials, which no rule means that does not name them.
        if holds_tokens(asked) && !rule.names_tokens() {
            extent.level = extent.level.min(Level::Metadata);
        }
        (extent.level > Level::None).then_some(extent)
    }
}

/// Whether the objects of a request hold tokens.
fn holds_tokens(asked: &Attributes<'_>) -> bool {
    matches!(
        asked.target,
        Target::Resource { resource: "serviceaccounts", subresource: "token", .. }
            | Target::Resource { resource: "tokenreviews", .. }
    )
}

impl Rule {
    fn read(rule: &Value, at: &str, omit_stages: &[Stage], omit_fields: bool) -> Result<Self, Mistake> {
        let known = [
            "level",
            "users",
            "userGroups",
            "verbs",
            "resources",
            "namespaces",
            "nonResourceURLs",
            "omitStages",
            "omitManagedFields",
        ];
        let fields = map(rule, at, &known)?;
        let path = |field: &str| format!("{at}.{field}");
        let of = |field: &str| texts(fields.get(field), &path(field));
        let level = fields.get("level").and_then(Value::as_str).unwrap_or_default();
        let level = Level::ALL.into_iter().find(|known| known.name() == level).ok_or_else(|| {
            Mistake::new(&path("level"), "the level is one of None, Metadata, Request and RequestResponse")
        })?;
        let mut all_stages = omit_stages.to_vec();
        all_stages.extend(stages(fields.get("omitStages"), &path("omitStages"))?);
        let own = flag(fields.get("omitManagedFields"), &path("omitManagedFields"))?;
        let resources = array(fields.get("resources"), &path("resources"))?.iter().enumerate();
        let resources = resources.map(|(i, of)| Resources::read(of, &format!("{at}.resources[{i}]")));
        let rule = Self {
            extent: Extent {
                level,
                omit_stages: all_stages,
                omit_managed_fields: own.unwrap_or(omit_fields),
            },
            users: of("users")?,
            groups: of("userGroups")?,
            verbs: of("verbs")?,
            resources: resources.collect::<Result<_, _>>()?,
            namespaces: of("namespaces")?,
            paths: of("nonResourceURLs")?,
        };
        for (i, url) in rule.paths.iter().enumerate().filter(|(_, url)| *url != "*") {
            let at = format!("{at}.nonResourceURLs[{i}]");
            if !url.starts_with('/') {
                return Err(Mistake::new(&at, "a path begins with a slash"));
            }
            if url.trim_end_matches('*').len() + 1 < url.len() || url.trim_end_matches('*').contains('*') {
                return Err(Mistake::new(&at, "a star can only be the last character of a path"));
            }
        }
        let is_about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if is_about_resources && !rule.paths.is_empty() {
            let message = "a rule is about paths or about resources and namespaces, not about both";
            return Err(Mistake::new(&path("nonResourceURLs"), message));
        }
        Ok(rule)
    }

    fn matches(&self, who: &Identity, asked: &Attributes<'_>) -> bool {
        let has = |list: &[String], text: &str| list.is_empty() || list.iter().any(|known| known == text);
        if !has(&self.users, &who.user)
            || !(self.groups.is_empty() || self.groups.iter().any(|group| who.is_in(group)))
            || !has(&self.verbs, asked.verb)
        {
            return false;
        }
        let is_about_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        match asked.target {
            Target::Resource { namespace, .. } if is_about_resources => {
                has(&self.namespaces, namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|of| of.matches(asked)))
            }
            Target::Resource { .. } => self.paths.is_empty(),
            Target::Path(path) => {
                let covers = |url: &String| {
                    url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start))
                };
                !is_about_resources && (self.paths.is_empty() || self.paths.iter().any(covers))
            }
        }
    }

    fn names_tokens(&self) -> bool {
        let mut named = self.resources.iter().flat_map(|of| &of.resources);
        named.any(|name| name == "serviceaccounts/token" || name == "tokenreviews")
    }
}

impl Resources {
    fn read(value: &Value, at: &str) -> Result<Self, Mistake> {
        let fields = map(value, at, &["group", "resources", "resourceNames"])?;
        let group = match fields.get("group") {
            None | Some(Value::Null) => "",
            Some(group) => {
                group.as_str().ok_or_else(|| Mistake::new(&format!("{at}.group"), "a group is text"))?
            }
        };
        if !group.is_empty() && group != "*" && yado_types::names::dns_subdomain(group).is_err() {
            let message = "a group has no version and is written like `apps`; the core group is \"\"";
            return Err(Mistake::new(&format!("{at}.group"), message));
        }
        let of = |field: &str| texts(fields.get(field), &format!("{at}.{field}"));
        let resources =
            Self { group: group.to_owned(), resources: of("resources")?, names: of("resourceNames")? };
        if resources.resources.is_empty() && !resources.names.is_empty() {
            let message = "names need the resources that they are names of";
            return Err(Mistake::new(&format!("{at}.resourceNames"), message));
        }
        Ok(resources)
    }

    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let Target::Resource { group, resource, subresource, name, .. } = asked.target else { return false };
        let means = |entry: &String| match entry.split_once('/') {
            None => entry == "*" || subresource.is_empty() && entry == resource,
            Some((of, part)) => {
                let of_part = of == resource || of == "*" && !subresource.is_empty();
                of_part && (part == subresource || part == "*" && of == resource)
            }
        };
        (self.group == "*" || self.group == group)
            && (self.resources.is_empty() || self.resources.iter().any(means))
            && (self.names.is_empty() || self.names.iter().any(|known| known == name))
    }
}

/// A mistake at the path of a field.
#[derive(Debug)]
struct Mistake {
    path: String,
    message: String,
}

impl Mistake {
    fn new(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

fn map<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>, Mistake> {
    let fields = value.as_object().ok_or_else(|| Mistake::new(at, "fields are expected here"))?;
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(fields),
        Some(key) => {
            let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            Err(Mistake::new(&path, format!("there is no such field; it may be one of {}", known.join(", "))))
        }
    }
}

fn array<'a>(value: Option<&'a Value>, at: &str) -> Result<&'a [Value], Mistake> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(Mistake::new(at, "a list is expected here")),
    }
}

fn texts(value: Option<&Value>, at: &str) -> Result<Vec<String>, Mistake> {
    let text = |(i, value): (usize, &Value)| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| Mistake::new(&format!("{at}[{i}]"), "text is expected here"))
    };
    array(value, at)?.iter().enumerate().map(text).collect()
}

fn flag(value: Option<&Value>, at: &str) -> Result<Option<bool>, Mistake> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| Mistake::new(at, "write true or false")),
    }
}

fn stages(value: Option<&Value>, at: &str) -> Result<Vec<Stage>, Mistake> {
    let stage = |(i, name): (usize, String)| {
        Stage::ALL.into_iter().find(|stage| stage.name() == name).ok_or_else(|| {
            let message = "a stage is one of RequestReceived, ResponseStarted, ResponseComplete and Panic";
            Mistake::new(&format!("{at}[{i}]"), message)
        })
    };
    texts(value, at)?.into_iter().enumerate().map(stage).collect()
}

/// The line of every value, by its path, like `rules[0].level`.
fn lines(text: &str) -> Result<BTreeMap<String, usize>, PolicyError> {
    /// A collection that is not closed yet: its path, the number of entries so far, and the key that waits for its value.
    struct Open {
        path: String,
        entries: usize,
        key: Option<String>,
        is_map: bool,
    }
    let (mut found, mut open): (BTreeMap<String, usize>, Vec<Open>) = Default::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| PolicyError {
            line: error.marker().line(),
            message: format!("this is not YAML: {}", error.info()),
        })?;
        let line = span.start.line();
        if let (Event::Scalar(key, ..), Some(map)) = (&event, open.last_mut())
            && map.is_map
            && map.key.is_none()
        {
            let path = if map.path.is_empty() { key.to_string() } else { format!("{}.{key}", map.path) };
            found.insert(path.clone(), line);
            map.key = Some(path);
            continue;
        }
        let is_value = matches!(
            event,
            Event::Scalar(..) | Event::Alias(..) | Event::SequenceStart(..) | Event::MappingStart(..)
        );
        if is_value {
            let path = match open.last_mut() {
                None => String::new(),
                Some(list) if !list.is_map => {
                    list.entries += 1;
                    format!("{}[{}]", list.path, list.entries - 1)
                }
                Some(map) => map.key.take().unwrap_or_default(),
            };
            found.entry(path.clone()).or_insert(line);
            if matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
                let is_map = matches!(event, Event::MappingStart(..));
                open.push(Open { path, entries: 0, key: None, is_map });
            }
        } else if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            open.pop();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    /// A request as `VERB PATH` or `VERB RESOURCE[/SUBRESOURCE][.GROUP] [NAMESPACE [NAME]]`.
    fn extent(policy: &str, who: &Identity, request: &str) -> Option<Extent> {
        let policy = Policy::parse(&format!("{HEAD}{policy}")).expect("a policy");
        let words: Vec<&str> = request.split(' ').collect();
        let target = if words[1].starts_with('/') {
            Target::Path(words[1])
        } else {
            let (resource, group) = words[1].split_once('.').unwrap_or((words[1], ""));
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let namespace = words.get(2).copied().unwrap_or_default();
            let name = words.get(3).copied().unwrap_or_default();
            Target::Resource { namespace, group, resource, subresource, name }
        };
        policy.extent(who, &Attributes { verb: words[0], target })
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = "
rules:
- {level: None, users: [quiet]}
- {level: None, userGroups: [probes], nonResourceURLs: [/healthz*, /version]}
- {level: Request, resources: [{group: '', resources: [configmaps], resourceNames: [one]}]}
- {level: Metadata, resources: [{group: '', resources: [secrets, pods/log, pods/status, serviceaccounts/*, '*/scale']}]}
- {level: RequestResponse, namespaces: [shop], verbs: [create, delete]}
- {level: RequestResponse, resources: [{group: apps}]}
- {level: Request, resources: [{group: '*', resources: ['*']}], namespaces: ['']}
- {level: Metadata, nonResourceURLs: ['*']}
";
        let jane = Identity::new("jane", ["dev"]);
        let (quiet, probe) = (Identity::new("quiet", ["dev"]), Identity::new("p", ["probes"]));
        for (who, request, expect) in [
            (&quiet, "create secrets shop", "-"),
            (&probe, "get /healthz/ping", "-"),
            (&probe, "get /versions", "Metadata"),
            (&jane, "get /healthz", "Metadata"),
            (&jane, "get configmaps shop one", "Request"),
            (&jane, "get configmaps shop two", "-"),
            (&jane, "create configmaps shop two", "RequestResponse"),
            (&jane, "get secrets shop s", "Metadata"),
            (&jane, "get pods/log shop p", "Metadata"),
            (&jane, "get pods shop p", "-"),
            (&jane, "get pods/exec shop p", "-"),
            (&jane, "create serviceaccounts/token shop s", "Metadata"),
            (&jane, "get replicasets/scale shop r", "Metadata"),
            (&jane, "get replicasets/scale.apps shop r", "RequestResponse"),
            (&jane, "list nodes", "Request"),
            (&jane, "get nodes/status", "Request"),
        ] {
            let found = extent(rules, who, request).map_or("-", |extent| extent.level.name());
            assert_eq!(found, expect, "{} {request}", who.user);
        }
    }

    #[test]
    fn options_of_the_policy_and_of_its_rules() {
        let policy = "
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: Metadata, verbs: [get], omitStages: [Panic], omitManagedFields: false}
- level: Metadata
";
        let jane = Identity::new("jane", ["dev"]);
        let first = extent(policy, &jane, "get pods").expect("logged");
        assert_eq!(
            (first.omit_stages, first.omit_managed_fields),
            (vec![Stage::RequestReceived, Stage::Panic], false)
        );
        let second = extent(policy, &jane, "list pods").expect("logged");
        assert_eq!((second.omit_stages, second.omit_managed_fields), (vec![Stage::RequestReceived], true));
        // Tokens are logged only where a rule names them.
        for (rule, expect) in [
            ("{level: RequestResponse}", Level::Metadata),
            ("{level: RequestResponse, resources: [{group: '*', resources: ['*']}]}", Level::Metadata),
            (
                "{level: Request, resources: [{group: '', resources: [serviceaccounts/token]}]}",
                Level::Request,
            ),
        ] {
            let found = extent(&format!("rules: [{rule}]"), &jane, "create serviceaccounts/token a s");
            assert_eq!(found.expect("logged").level, expect, "{rule}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, expect) in [
            (
                "rules:\n- level: Metadata\n",
                "line 1: this is not an audit policy: write `apiVersion: audit.k8s.io/v1` and `kind: Policy`",
            ),
            (
                &format!("{HEAD}rules: []"),
                "line 3: rules: a policy needs a rule; `- level: Metadata` logs all requests",
            ),
            (HEAD, "line 1: rules: a policy needs a rule; `- level: Metadata` logs all requests"),
            (
                &format!("{HEAD}rules:\n- level: Metadata\n- level: Everything\n"),
                "line 5: rules[1].level: the level is one of None, Metadata, Request and RequestResponse",
            ),
            (
                &format!("{HEAD}rules:\n- verbs: [get]\n"),
                "line 4: rules[0].level: the level is one of None, Metadata, Request and RequestResponse",
            ),
            (
                &format!("{HEAD}rules:\n- level: None\n  nonResourceURLs:\n  - /a\n  - b\n"),
                "line 7: rules[0].nonResourceURLs[1]: a path begins with a slash",
            ),
            (
                &format!("{HEAD}rules:\n- level: None\n  nonResourceURLs: ['/a/*/b']\n"),
                "line 5: rules[0].nonResourceURLs[0]: a star can only be the last character of a path",
            ),
            (
                &format!("{HEAD}rules:\n- level: None\n  nonResourceURLs: [/a]\n  namespaces: [shop]\n"),
                "line 5: rules[0].nonResourceURLs: a rule is about paths or about resources and namespaces, not about both",
            ),
            (
                &format!("{HEAD}rules:\n- level: None\n  resources:\n  - group: apps/v1\n"),
                "line 6: rules[0].resources[0].group: a group has no version and is written like `apps`; the core group is \"\"",
            ),
            (
                &format!("{HEAD}omitStages:\n- Late\nrules: [{{level: None}}]"),
                "line 4: omitStages[0]: a stage is one of RequestReceived, ResponseStarted, ResponseComplete and Panic",
            ),
            (
                &format!("{HEAD}rules:\n- level: None\n  user: [a]\n"),
                "line 5: rules[0].user: there is no such field; it may be one of \
              level, users, userGroups, verbs, resources, namespaces, nonResourceURLs, omitStages, omitManagedFields",
            ),
            (
                &format!("{HEAD}rules:\n- level: None\n  users: a\n"),
                "line 5: rules[0].users: a list is expected here",
            ),
        ] {
            assert_eq!(Policy::parse(text).expect_err(text).to_string(), expect, "{text}");
        }
        let broken = Policy::parse("a: [\n").expect_err("not YAML").to_string();
        assert!(broken.contains("this is not YAML"), "{broken}");
    }
}
