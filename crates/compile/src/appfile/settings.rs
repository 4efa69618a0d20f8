//! Reads the customizations of one application.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Appfile, Setting, Text};
use crate::{
    detect,
    diagnostic::{Findings, Position},
};

/// Limit of processes of one type, to catch typing errors.
const MAX_SCALE: i64 = 1000;

/// Settings of Otto without effect, and the reason.
const WITHOUT_EFFECT: [(&str, &str); 7] = [
    ("dep_vagrantfile", "no virtual machine is made; what it installs goes into an Aptfile"),
    ("dev_vagrantfile", "no virtual machine is made; what it installs goes into an Aptfile"),
    ("vagrantfile", "no virtual machine is made; what it installs goes into an Aptfile"),
    ("packer", "images are built from the sources; what it installs goes into an Aptfile"),
    ("terraform", "nothing is set up elsewhere; the app runs where its objects are applied"),
    ("go_import_path", "the import path is the one in go.mod"),
    ("import_path", "the import path is the one in go.mod"),
];

/// Otto's settings of runtime versions, and their languages.
const VERSIONS: [(&str, &str); 9] = [
    ("go_version", "go"),
    ("java_version", "java"),
    ("jdk_version", "java"),
    ("maven_version", "maven"),
    ("node_version", "node"),
    ("php_version", "php"),
    ("python_version", "python"),
    ("ruby_version", "ruby"),
    ("rust_version", "rust"),
];

/// Settings of one application; later customizations override earlier ones.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// The port of the process to which other applications connect.
    pub port: Option<u16>,
    /// Numbers of processes by type.
    pub scale: BTreeMap<String, Scale>,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// `docker-external`: the image.
    pub image: Option<Text>,
    /// `docker-external`: the flags of `docker run`.
    pub run_args: Option<Text>,
    /// The command of the `web` process.
    pub run_command: Option<Text>,
    /// Python: module and object of the web application.
    pub python_entrypoint: Option<Text>,
}

/// A number of processes and its position.
#[derive(Debug, PartialEq)]
pub(super) struct Scale {
    pub at: Position,
    pub replicas: i32,
}

/// Reads the customizations of `file` for an application of type `app_type`. Names other than `scale` and `env` have no
/// meaning: Otto merged all customizations, and Appfiles name them arbitrarily.
pub(super) fn read(file: &Appfile, app_type: &str, found: &mut Findings) -> Settings {
    let mut settings = Settings::default();
    for customization in &file.customizations {
        let each = customization.settings.iter();
        match customization.name.as_str() {
            "scale" => each.for_each(|s| settings.scale(s, found)),
            "env" => each.for_each(|s| settings.env(s, found)),
            "app" | "docker" => each.for_each(|s| settings.app(s, app_type, true, found)),
            _ => each.for_each(|s| settings.app(s, app_type, false, found)),
        }
    }
    settings
}

impl Settings {
    /// Reads a setting of the application itself. Unknown settings are errors only with `strict`, since in blocks with other
    /// names they may have been settings of an application type.
    fn app(&mut self, setting: &Setting, app_type: &str, strict: bool, found: &mut Findings) {
        let docker = super::is_docker(app_type);
        match setting.key.as_str() {
            "port" => {
                match as_integer(&setting.value).and_then(|i| u16::try_from(i).ok()).filter(|p| *p != 0) {
                    Some(port) => self.port = Some(port),
                    None => found.error(&setting.value_at, "port has to be a number from 1 to 65535"),
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
            "run_command" => self.run_command = text(setting, found).or(self.run_command.take()),
            "python_entrypoint" => {
                self.python_entrypoint = text(setting, found).or(self.python_entrypoint.take())
            }
            key => self.known_to_otto(key, setting, strict, found),
        }
    }

    fn known_to_otto(&mut self, key: &str, setting: &Setting, strict: bool, found: &mut Findings) {
        if let Some((_, reason)) = WITHOUT_EFFECT.iter().find(|(name, _)| *name == key) {
            found.warn(&setting.at, format!("{key} has no effect here: {reason}"));
        } else if let Some((_, language)) = VERSIONS.iter().find(|(name, _)| *name == key) {
            let wanted = text(setting, found).map(|t| t.value).unwrap_or_default();
            if let Some(sentence) = detect::difference(language, &wanted) {
                found.warn(&setting.at, format!("{key} {sentence}"));
            }
        } else if key.ends_with("_version") {
            found.warn(&setting.at, format!("{key} has no effect here: the version in Debian is used"));
        } else if strict {
            let sentence = format!(
                "\"{key}\" is not a setting of an application: the settings are port, run_command, python_entrypoint, and image and run_args for docker-external"
            );
            found.error(&setting.at, sentence);
        } else {
            found.warn(&setting.at, format!("{key} has no effect here"));
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
                format!("the number of {} processes has to be from 0 to {MAX_SCALE}", setting.key),
            ),
        }
    }

    fn env(&mut self, setting: &Setting, found: &mut Findings) {
        if let Some(text) = text(setting, found) {
            self.env.insert(setting.key.clone(), text.value);
        }
    }
}

/// Converts a number, which may be a string as in HCL 1.
fn as_integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn text(setting: &Setting, found: &mut Findings) -> Option<Text> {
    let value = match &setting.value {
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        _ => {
            found.error(
                &setting.value_at,
                format!("{0} has to be a string: write {0} = \"...\"", setting.key),
            );
            return None;
        }
    };
    Some(Text { at: setting.value_at.clone(), value })
}
