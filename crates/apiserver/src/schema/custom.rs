//! Custom kinds: what a version of a CustomResourceDefinition says of its objects.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::json_path::{JsonPath, JsonPathError};
use super::kinds::{Kind, Name, Storage};
use super::structural::Structural;
use crate::cel::rules::Rules;
use crate::edit::{list, text};
use crate::kinds::strategy::NoRules;
use crate::table::Column;

/// The properties of a custom kind.
#[derive(Debug)]
pub struct Custom {
    /// The name of its CustomResourceDefinition, like `crontabs.stable.example.com`.
    pub definition: String,
    /// All versions of the kind.
    pub versions: Arc<Versions>,
    /// The kind of lists, like `CronTabList`.
    pub list_kind: String,
    /// The schema of objects.
    described: Arc<VersionSchema>,
    /// Its rules in CEL, compiled when they are first needed.
    rules: OnceLock<Rules>,
    /// Columns of Tables, the name first.
    pub(crate) columns: Vec<Column>,
    /// The paths to the values of the other columns.
    pub(crate) paths: Vec<JsonPath>,
    /// Where the parts of a Scale are.
    pub scale: Option<ScalePaths>,
    /// Fields by which objects can be selected, beside their names.
    pub selectable: Vec<JsonPath>,
    /// The warning that each request draws, for a version that is deprecated.
    pub deprecation: Option<String>,
}

/// The versions of a custom kind: what it takes to convert objects from one to another.
#[derive(Debug)]
pub struct Versions {
    /// The version in which objects are written to the store, like `stable.example.com/v1`. Older objects may lie there in
    /// any other version.
    pub stored_as: String,
    /// `spec.conversion.webhook` of the definition, where a webhook converts. Otherwise versions differ in `apiVersion` only.
    pub webhook: Option<Value>,
    /// By `apiVersion`, those that are not served among them.
    schemas: BTreeMap<String, Arc<VersionSchema>>,
}

impl Versions {
    fn read(definition: &Value) -> Self {
        let spec = &definition["spec"];
        let group = text(&spec["group"]);
        let api_version = |version: &Value| format!("{group}/{}", text(&version["name"]));
        let versions = list(&spec["versions"]);
        let preserves_unknown = spec["preserveUnknownFields"] == true;
        let schema = |version: &Value| Arc::new(VersionSchema::read(version, preserves_unknown));
        let conversion = &spec["conversion"];
        Self {
            stored_as: versions.iter().find(|v| v["storage"] == true).map(api_version).unwrap_or_default(),
            webhook: (conversion["strategy"] == "Webhook").then(|| conversion["webhook"].clone()),
            schemas: versions.iter().map(|version| (api_version(version), schema(version))).collect(),
        }
    }

    /// Whether there is more than one version, so that objects may lie in the store in another one.
    pub fn are_several(&self) -> bool {
        self.schemas.len() > 1
    }

    /// The schema of a version, given as `apiVersion`.
    pub fn schema(&self, api_version: &str) -> Option<&Structural> {
        self.schemas.get(api_version).map(|schema| schema.get())
    }
}

/// The schema of one version of a custom kind.
#[derive(Debug)]
struct VersionSchema {
    /// As JSON. Empty where the definition has no schema.
    written: Bytes,
    /// Fields that are not described are kept.
    preserves_unknown: bool,
    /// The same, read when it is first needed: most kinds of a large collection of definitions have no objects, and a
    /// schema that was read takes ten times its text.
    read: OnceLock<Structural>,
}

impl VersionSchema {
    fn read(version: &Value, preserves_unknown: bool) -> Self {
        let props = &version["schema"]["openAPIV3Schema"];
        let written = if props.is_object() { Bytes::from(props.to_string()) } else { Bytes::new() };
        Self { written, preserves_unknown, read: OnceLock::new() }
    }

    fn get(&self) -> &Structural {
        self.read.get_or_init(|| {
            // It was JSON when it was written.
            let mut schema = Structural::read(&serde_json::from_slice(&self.written).unwrap_or_default());
            schema.preserves_unknown |= self.preserves_unknown;
            schema
        })
    }
}

/// The fields that the scale subresource reads and writes.
#[derive(Debug)]
pub struct ScalePaths {
    /// The number that is wished for, under `.spec`.
    pub spec_replicas: JsonPath,
    /// The number there is, under `.status`.
    pub status_replicas: JsonPath,
    /// The selector as text.
    pub selector: Option<JsonPath>,
}

/// The kinds of a CustomResourceDefinition, one for each served version, in the order in which discovery shows versions.
/// Names are the accepted ones. What does not fit was refused when the definition was written.
pub fn kinds_of(definition: &Value) -> Vec<Kind> {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let group = text(&spec["group"]);
    let versions = || spec["versions"].as_array().into_iter().flatten();
    let all = Arc::new(Versions::read(definition));
    let mut served: Vec<&Value> = versions().filter(|v| v["served"] == true).collect();
    served.sort_by_key(|v| std::cmp::Reverse(VersionRank::of(v["name"].as_str().unwrap_or_default())));
    let names_at = |field: &str| -> Vec<Name> {
        names[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|n| n.to_owned().into())
            .collect()
    };
    let kind_of = |version: &&Value| {
        let custom = Custom::read(definition, version, all.clone());
        let subresources = ["scale", "status"];
        let subresources = subresources.into_iter().filter(|s| version["subresources"][*s].is_object());
        Kind {
            group: group.clone().into(),
            version: text(&version["name"]).into(),
            kind: text(&names["kind"]).into(),
            plural: text(&names["plural"]).into(),
            singular: text(&names["singular"]).into(),
            namespaced: spec["scope"] == "Namespaced",
            short_names: names_at("shortNames"),
            categories: names_at("categories"),
            subresources: subresources.map(Name::from).collect(),
            storage: Storage::Stored,
            form: None,
            message: "",
            custom: Some(Box::new(custom)),
            built_in: &NoRules,
        }
    };
    served.iter().map(kind_of).collect()
}

impl Custom {
    fn read(definition: &Value, version: &Value, versions: Arc<Versions>) -> Self {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = |value: &Value| JsonPath::parse(value.as_str()?).ok();
        let (columns, paths) = columns(version);
        let scale = &version["subresources"]["scale"];
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let name = text(&version["name"]);
        let group = text(&spec["group"]);
        let kind = text(&definition["status"]["acceptedNames"]["kind"]);
        let deprecation =
            (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
                Some(warning) => warning.to_owned(),
                None => format!("{group}/{name} {kind} is deprecated"),
            });
        // Every version of the definition has a schema there.
        let described = versions.schemas.get(&format!("{group}/{name}")).cloned();
        let described = described
            .unwrap_or_else(|| Arc::new(VersionSchema::read(version, spec["preserveUnknownFields"] == true)));
        Self {
            definition: text(&definition["metadata"]["name"]),
            versions,
            list_kind: text(&definition["status"]["acceptedNames"]["listKind"]),
            described,
            rules: OnceLock::new(),
            columns,
            paths,
            scale: scale.is_object().then(|| ScalePaths::read(scale)).flatten(),
            selectable: selectable.filter_map(|field| path(&field["jsonPath"])).collect(),
            deprecation,
        }
    }
}

impl Custom {
    /// The schema of objects.
    pub fn schema(&self) -> &Structural {
        self.described.get()
    }

    /// The schema as JSON. Empty where the definition has none.
    pub fn written(&self) -> &Bytes {
        &self.described.written
    }

    /// Its rules in CEL. What is wrong with them was said when the definition was written.
    pub(crate) fn rules(&self) -> &Rules {
        self.rules.get_or_init(|| Rules::compile(self.schema(), "").0)
    }
}

/// The columns of a version with the paths to their values; without any, the age is shown.
fn columns(version: &Value) -> (Vec<Column>, Vec<JsonPath>) {
    let (mut columns, mut paths) = (vec![Column::NAME], Vec::new());
    for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        let Some(Ok(path)) = column["jsonPath"].as_str().map(JsonPath::parse) else { continue };
        let text = |field: &str| Name::from(column[field].as_str().unwrap_or_default().to_owned());
        columns.push(Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or(0),
        });
        paths.push(path);
    }
    if paths.is_empty() {
        columns.push(Column { kind: Name::Borrowed("date"), ..Column::AGE });
        paths.extend(JsonPath::parse(".metadata.creationTimestamp"));
    }
    (columns, paths)
}

impl ScalePaths {
    fn read(scale: &Value) -> Option<Self> {
        let path = |field: &str| -> Option<Result<JsonPath, JsonPathError>> {
            scale[field].as_str().filter(|text| !text.is_empty()).map(JsonPath::parse)
        };
        Some(Self {
            spec_replicas: path("specReplicasPath")?.ok()?,
            status_replicas: path("statusReplicasPath")?.ok()?,
            selector: path("labelSelectorPath").and_then(Result::ok),
        })
    }
}

/// The order of versions in discovery: `v10`, `v2`, `v1`, `v11beta2`, `v10beta3`, `v12alpha1`, then others by their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionRank<'a> {
    /// 3: stable, 2: beta, 1: alpha, 0: another form.
    stability: u8,
    major: u64,
    minor: u64,
    name: std::cmp::Reverse<&'a str>,
}

impl<'a> VersionRank<'a> {
    /// The rank of a version's name; the first in discovery is the largest.
    pub fn of(name: &'a str) -> Self {
        let other = Self { stability: 0, major: 0, minor: 0, name: std::cmp::Reverse(name) };
        let Some(rest) = name.strip_prefix('v') else { return other };
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(digits);
        let (stability, minor) = match () {
            () if rest.is_empty() => (3, "0"),
            () if rest.starts_with("beta") => (2, &rest[4..]),
            () if rest.starts_with("alpha") => (1, &rest[5..]),
            () => return other,
        };
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Self { stability, major, minor, ..other },
            _ => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_discovery_shows_them() {
        let mut names =
            ["foo10", "v1", "v11alpha2", "v10", "foo1", "v3beta1", "v2", "v12alpha1", "v10beta3", "v11beta2"];
        names.sort_by_key(|name| std::cmp::Reverse(VersionRank::of(name)));
        let expect =
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(names, expect);
    }
}
