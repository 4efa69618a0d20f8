//! Reads `app.json`, Heroku's description of an application in addition to its Procfile.
//!
//! | field | becomes |
//! |---|---|
//! | `env` | environment of every process. A missing value is taken from the caller's environment; one with `"generator": "secret"` is generated once and kept in `.yado/secrets.json` |
//! | (Rails applications) | `SECRET_KEY_BASE`, generated once |
//! | `formation` | number of processes of each type, unless the Appfile scales it |
//! | `buildpacks` | the language, unless the Appfile names a type |
//! | `addons` | a warning that names a dependency as replacement |
//! | `name` | the application's name, if nothing else defines it and it is valid in a host name |

use std::{collections::BTreeMap, fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use crate::{
    diagnostic::{Findings, Position},
    hcl::{Item, Node, ValueKind, json},
    source::{MAX_BYTES, Source, read_bytes},
};

/// Length of generated secrets, as on Heroku.
const SECRET_BYTES: usize = 32;

/// Languages of Heroku's buildpacks, by the last part of their names.
const BUILDPACKS: [(&str, &str); 13] = [
    ("ruby", "ruby"),
    ("nodejs", "node"),
    ("python", "python"),
    ("php", "php"),
    ("java", "java"),
    ("gradle", "java"),
    ("go", "go"),
    ("rust", "rust"),
    ("static", "static"),
    ("multi-procfile", ""),
    ("apt", ""),
    ("procfile", ""),
    ("multi", ""),
];

/// Prefixes of add-on names, and the example of Otto that replaces each.
const ADDONS: [(&str, &str); 16] = [
    ("heroku-postgresql", "postgresql"),
    ("heroku-redis", "redis"),
    ("heroku-kvs", "redis"),
    ("rediscloud", "redis"),
    ("redistogo", "redis"),
    ("redisgreen", "redis"),
    ("openredis", "redis"),
    ("cleardb", "mysql"),
    ("jawsdb", "mysql"),
    ("memcachier", "memcached"),
    ("memcachedcloud", "memcached"),
    ("mongolab", "mongodb"),
    ("mongohq", "mongodb"),
    ("ormongo", "mongodb"),
    ("mongodb", "mongodb"),
    ("postgres", "postgresql"),
];

/// The content of an application's `app.json`.
#[derive(Debug, Default)]
pub(crate) struct AppJson {
    /// Its name, if it is valid in a host name.
    pub name: Option<String>,
    /// Environment variables with values in the file.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are generated or taken from the caller, and so not in any description.
    pub secrets: BTreeMap<String, String>,
    /// Process types and their numbers of processes.
    pub formation: Vec<(String, Position, i32)>,
    /// The language of its buildpacks.
    pub language: Option<&'static str>,
}

struct Reader<'a> {
    source: &'a Source,
    directory: &'a Path,
    found: &'a mut Findings,
    app: AppJson,
}

/// Reads the `app.json` in `directory`. Files of Expo, which have the same name, are ignored.
pub(crate) fn read(directory: &Path, env: &BTreeMap<String, String>, found: &mut Findings) -> AppJson {
    let path = directory.join("app.json");
    if !path.is_file() {
        return AppJson::default();
    }
    let source = match Source::read(&path) {
        Ok(source) => source,
        Err(mistake) => {
            found.errors.push(mistake);
            return AppJson::default();
        }
    };
    let items = match json::parse(&source.text) {
        Ok(items) => items,
        Err(mistake) => {
            found.error(&source.at(mistake.at), format!("is not JSON: {}", mistake.message));
            return AppJson::default();
        }
    };
    if items.iter().any(|i| i.name() == "expo") {
        return AppJson::default();
    }
    let mut reader = Reader { source: &source, directory, found, app: AppJson::default() };
    for item in &items {
        reader.field(item, env);
    }
    reader.app
}

fn text(node: &Node) -> Option<String> {
    match &node.kind {
        ValueKind::String(s) => Some(s.clone()),
        ValueKind::Number(n) => Some(n.to_string()),
        ValueKind::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn fields(node: &Node) -> &[Item] {
    if let ValueKind::Object(items) = &node.kind { items } else { &[] }
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    fields(node).iter().find(|i| i.name() == name).map(|i| &i.value)
}

fn list(node: &Node) -> &[Node] {
    if let ValueKind::List(nodes) = &node.kind { nodes } else { &[] }
}

impl Reader<'_> {
    fn at(&self, offset: usize) -> Position {
        self.source.at(offset)
    }

    fn field(&mut self, item: &Item, env: &BTreeMap<String, String>) {
        match item.name() {
            "name" => {
                let label = |name: &String| yado_types::names::dns_1035_label(name).is_ok();
                self.app.name = text(&item.value).filter(label);
            }
            "env" => {
                for variable in fields(&item.value) {
                    self.variable(variable, env);
                }
            }
            "formation" => {
                for process in fields(&item.value) {
                    self.process(process);
                }
            }
            "addons" => list(&item.value).iter().for_each(|addon| self.addon(addon)),
            "buildpacks" => list(&item.value).iter().for_each(|pack| self.buildpack(pack)),
            "scripts" => {
                for script in fields(&item.value) {
                    let command = text(&script.value).unwrap_or_default();
                    let at = self.at(script.at());
                    let sentence = format!(
                        "the script {} is not run: run it once by hand, as `yado exec` does: {command}",
                        script.name()
                    );
                    self.found.warn(&at, sentence);
                }
            }
            // Texts for Heroku's web pages, and settings of its review apps.
            _ => {}
        }
    }

    fn variable(&mut self, item: &Item, env: &BTreeMap<String, String>) {
        let (name, at) = (item.name().to_string(), self.at(item.at()));
        let value = text(&item.value).or_else(|| field(&item.value, "value").and_then(text));
        let generated = field(&item.value, "generator").and_then(text).is_some_and(|g| g == "secret");
        let required = field(&item.value, "required").and_then(text).is_none_or(|r| r != "false");
        if let Some(value) = value {
            self.app.env.insert(name, value);
        } else if let Some(value) = env.get(&name) {
            self.app.secrets.insert(name, value.clone());
        } else if generated {
            match secret(self.directory, &name) {
                Ok(value) => drop(self.app.secrets.insert(name, value)),
                Err(e) => self
                    .found
                    .error(&at, format!("the secret {name} cannot be kept in .yado/secrets.json: {e}")),
            }
        } else if required {
            self.found.error(
                &at,
                format!(
                    "{name} is required and has no value: set it in your environment, or write \"value\" here"
                ),
            );
        }
    }

    fn process(&mut self, item: &Item) {
        let at = self.at(item.at());
        if let Some(quantity) = field(&item.value, "quantity") {
            match text(quantity).and_then(|q| q.parse::<i32>().ok()).filter(|q| (0..=1000).contains(q)) {
                Some(quantity) => self.app.formation.push((item.name().into(), at.clone(), quantity)),
                None => {
                    let at = self.at(quantity.at);
                    self.found.error(
                        &at,
                        format!("the number of {} processes has to be from 0 to 1000", item.name()),
                    );
                }
            }
        }
        if let Some(size) = field(&item.value, "size").and_then(text) {
            self.found.warn(&at, format!("size {size} has no effect: a process may use all of the machine"));
        }
    }

    fn addon(&mut self, node: &Node) {
        let Some(plan) = text(node).or_else(|| field(node, "plan").and_then(text)) else { return };
        let name = plan.split([':', '@']).next().unwrap_or_default();
        let at = self.at(node.at);
        let known = ADDONS.iter().find(|(addon, _)| name.starts_with(addon));
        let sentence = match known {
            Some((_, example)) => format!(
                "the add-on {name} is not provided: write dependency {{ source = \"github.com/hashicorp/otto/examples/{example}\" }} \
                 into the Appfile, and its address ({example}.service.consul) into customization \"env\""
            ),
            None => {
                format!("the add-on {name} is not provided: add a dependency that offers the same service")
            }
        };
        self.found.warn(&at, sentence);
    }

    fn buildpack(&mut self, node: &Node) {
        let Some(url) = text(node).or_else(|| field(node, "url").and_then(text)) else { return };
        let word = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let word = word.trim_end_matches(".git").trim_start_matches("heroku-buildpack-");
        match BUILDPACKS.iter().find(|(name, _)| *name == word) {
            Some((_, "")) => {}
            // The last buildpack starts the application.
            Some((_, language)) => self.app.language = Some(language),
            None => {
                let at = self.at(node.at);
                self.found.warn(&at, format!("the buildpack {url} has no effect: it is not supported"));
            }
        }
    }
}

/// Adds `SECRET_KEY_BASE`, with which Rails signs cookies and without which it does not start. As on Heroku, the value is
/// that of the caller's environment, or generated once and kept.
pub(crate) fn add_rails_secret(
    app: &mut AppJson,
    directory: &Path,
    env: &BTreeMap<String, String>,
    found: &mut Findings,
) {
    let name = "SECRET_KEY_BASE";
    if app.env.contains_key(name) || app.secrets.contains_key(name) {
        return;
    }
    match env.get(name).cloned().map_or_else(|| secret(directory, name), Ok) {
        Ok(value) => drop(app.secrets.insert(name.into(), value)),
        Err(e) => found.warn(
            &Position::of_file(directory),
            format!("{name} cannot be kept in .yado/secrets.json ({e}): set it in your environment"),
        ),
    }
}

/// The secret `name` of the application in `directory`, generated if it does not exist.
fn secret(directory: &Path, name: &str) -> std::io::Result<String> {
    let home = directory.join(".yado");
    let path = home.join("secrets.json");
    let mut all: BTreeMap<String, String> = match read_bytes(&path, MAX_BYTES) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(e) => return Err(e),
    };
    if let Some(known) = all.get(name) {
        return Ok(known.clone());
    }
    let bytes: [u8; SECRET_BYTES] = rand::random();
    let value: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    all.insert(name.into(), value.clone());
    fs::create_dir_all(&home)?;
    crate::fetch::ignore_in_git(&home)?;
    let next = home.join(".secrets.json.next");
    drop(fs::remove_file(&next));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    file.write_all(serde_json::to_string_pretty(&all)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    Ok(value)
}
