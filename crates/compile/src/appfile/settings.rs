//! What the customizations of one application mean.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Appfile, Customization, Setting, Text};
use crate::diagnostic::{Findings, Position};

/// More of one process type than a description should start by a slip of the keyboard.
const MAX_SCALE: i64 = 1000;

/// Customizations that Otto knew and that say nothing about where Yado runs an app: versions of runtimes that it
/// installed, and the tools it drove.
const WITHOUT_EFFECT: [&str; 16] = [
    "dep_vagrantfile",
    "dev_vagrantfile",
    "go_import_path",
    "go_version",
    "gradle_version",
    "import_path",
    "maven_version",
    "node_version",
    "packer",
    "php_version",
    "python_entrypoint",
    "python_version",
    "ruby_version",
    "run_command",
    "terraform",
    "vagrantfile",
];

/// Settings of one application, later customizations laid over earlier ones.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// The port of the process that others connect to.
    pub port: Option<u16>,
    /// How many of each process type.
    pub scale: BTreeMap<String, Scale>,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// `docker-external`: what to run.
    pub image: Option<Text>,
    /// `docker-external`: the flags of `docker run`.
    pub run_args: Option<Text>,
}

/// A number of processes and where it is written.
#[derive(Debug, PartialEq)]
pub(super) struct Scale {
    pub at: Position,
    pub replicas: i32,
}

/// Reads `file`'s customizations for an application of type `app_type`.
pub(super) fn read(file: &Appfile, app_type: &str, found: &mut Findings) -> Settings {
    let mut settings = Settings::default();
    for customization in &file.customizations {
        match customization.name.as_str() {
            "scale" => customization.settings.iter().for_each(|s| settings.scale(s, found)),
            "env" => customization.settings.iter().for_each(|s| settings.env(s, found)),
            "app" | "docker" => {
                customization.settings.iter().for_each(|s| settings.app(s, app_type, true, found));
            }
            name if name == app_type || ["dev", "dev-dep", "build", "deploy"].contains(&name) => {
                customization.settings.iter().for_each(|s| settings.app(s, app_type, false, found));
            }
            _ => applies_to_nothing(customization, found),
        }
    }
    settings
}

fn applies_to_nothing(customization: &Customization, found: &mut Findings) {
    let sentence = format!(
        "customization \"{}\" has no effect: those that have one here are app (or no name), docker, env and scale",
        customization.name
    );
    found.warn(&customization.at, sentence);
}

impl Settings {
    /// One setting of the application itself. In a block whose name Otto left to application types (`strict` is
    /// false) an unknown setting may have meant something to one of them.
    fn app(&mut self, setting: &Setting, app_type: &str, strict: bool, found: &mut Findings) {
        let docker = app_type == "docker-external";
        match setting.key.as_str() {
            "port" => {
                match as_integer(&setting.value).and_then(|i| u16::try_from(i).ok()).filter(|p| *p != 0) {
                    Some(port) => self.port = Some(port),
                    None => found.error(&setting.value_at, "port is a number from 1 to 65535"),
                }
            }
            "image" | "run_args" if !docker => {
                let sentence = format!(
                    "{} has no effect: it is for type docker-external, and this is {app_type}",
                    setting.key
                );
                found.warn(&setting.at, sentence);
            }
            "image" => self.image = text(setting, found).or(self.image.take()),
            "run_args" => self.run_args = text(setting, found).or(self.run_args.take()),
            key if WITHOUT_EFFECT.contains(&key) => {
                found.warn(
                    &setting.at,
                    format!("{key} has no effect here: what runs is the Procfile's processes"),
                );
            }
            key if strict => found.error(
                &setting.at,
                format!("\"{key}\" is no setting of an application: there are port, image and run_args"),
            ),
            key => found.warn(&setting.at, format!("{key} has no effect here")),
        }
    }

    fn scale(&mut self, setting: &Setting, found: &mut Findings) {
        match as_integer(&setting.value).filter(|n| (0..=MAX_SCALE).contains(n)) {
            Some(n) => {
                let scale = Scale { at: setting.at.clone(), replicas: n as i32 };
                self.scale.insert(setting.key.clone(), scale);
            }
            None => found.error(
                &setting.value_at,
                format!("how many {} is a number from 0 to {MAX_SCALE}", setting.key),
            ),
        }
    }

    fn env(&mut self, setting: &Setting, found: &mut Findings) {
        if let Some(text) = text(setting, found) {
            self.env.insert(setting.key.clone(), text.value);
        }
    }
}

/// Numbers may be written as strings, as HCL 1 readers took them.
fn as_integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn text(setting: &Setting, found: &mut Findings) -> Option<Text> {
    let value = match &setting.value {
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        _ => {
            found.error(&setting.value_at, format!("{0} is a string: write {0} = \"...\"", setting.key));
            return None;
        }
    };
    Some(Text { at: setting.value_at.clone(), value })
}
