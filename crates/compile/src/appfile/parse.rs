//! Parses the text of one Appfile to [`Appfile`], without merging, defaulting or lookups.

use serde_json::Value;

use super::{Appfile, Application, Customization, Import, Infrastructure, Project, Setting, Text};
use crate::{
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    hcl::{self, Item, Key, Node, ValueKind},
    source::Source,
};

/// Reads and parses the Appfile at `path`.
///
/// # Errors
///
/// The file cannot be read, is not HCL, or has unknown blocks and fields.
pub fn parse_file(path: &std::path::Path) -> Result<Appfile, Diagnostics> {
    parse(&Source::read(path)?)
}

/// Parses an Appfile's text.
pub(crate) fn parse(source: &Source) -> Result<Appfile, Diagnostics> {
    if let Some((line, word)) = fastlane(&source.text) {
        let sentence = format!(
            "is an Appfile of fastlane, as {word} shows, which names a mobile app's store account and nothing to run: \
             name another file, or a directory with a Procfile or a compose file"
        );
        return Err(Diagnostic::new(&source.at_line(line, 1), sentence).into());
    }
    let items = hcl::parse(source)?;
    let mut reader = Reader { source, found: Findings::default() };
    let mut file = reader.file(&items);
    file.warnings = reader.found.finish()?;
    Ok(file)
}

/// The line and word that identify a configuration of fastlane, a Ruby file that is also named Appfile.
fn fastlane(text: &str) -> Option<(usize, &str)> {
    const WORDS: [&str; 14] = [
        "app_identifier",
        "apple_dev_portal_id",
        "apple_id",
        "for_lane",
        "for_platform",
        "itc_team_id",
        "itc_team_name",
        "itunes_connect_id",
        "json_key_data_raw",
        "json_key_file",
        "package_name",
        "team_id",
        "team_name",
        "issuer",
    ];
    text.lines().enumerate().find_map(|(i, line)| {
        let line = line.trim_start();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
        let word = &line[..end];
        let assigned = line[end..].trim_start().starts_with(['=', '{']);
        (WORDS.contains(&word) && !assigned).then_some((i + 1, word))
    })
}

struct Reader<'a> {
    source: &'a Source,
    found: Findings,
}

/// The blocks and fields allowed in a block; the texts are used in error messages.
struct BlockSchema {
    of: &'static str,
    fields: &'static [&'static str],
    blocks: &'static [&'static str],
}

const FILE: BlockSchema = BlockSchema {
    of: "an Appfile",
    fields: &[],
    blocks: &["application", "customization", "import", "infrastructure", "project"],
};
const APPLICATION: BlockSchema =
    BlockSchema { of: "application", fields: &["name", "type", "detect"], blocks: &["dependency"] };
const PROJECT: BlockSchema = BlockSchema { of: "project", fields: &["name", "infrastructure"], blocks: &[] };
const INFRASTRUCTURE: BlockSchema =
    BlockSchema { of: "infrastructure", fields: &["name", "type", "flavor"], blocks: &["foundation"] };
const IMPORT: BlockSchema = BlockSchema { of: "import", fields: &[], blocks: &[] };

/// A block `NAME LABEL { ... }` in any notation: with `=`, in a list, or with its label as a nested key.
struct Block<'a> {
    at: usize,
    labels: Vec<&'a Key>,
    items: &'a [Item],
}

fn objects(node: &Node) -> Option<Vec<&[Item]>> {
    match &node.kind {
        ValueKind::Object(items) => Some(vec![items]),
        ValueKind::List(nodes) if !nodes.is_empty() => nodes
            .iter()
            .map(|n| if let ValueKind::Object(items) = &n.kind { Some(&items[..]) } else { None })
            .collect(),
        _ => None,
    }
}

/// The blocks named `name` among `items`. Other items of that name are skipped.
fn blocks<'a>(items: &'a [Item], name: &str) -> Vec<Block<'a>> {
    let named = items.iter().filter(|i| i.name() == name);
    named
        .flat_map(|item| {
            let labels: Vec<&Key> = item.keys.iter().skip(1).collect();
            let bodies = objects(&item.value).unwrap_or_default();
            bodies.into_iter().map(move |items| Block { at: item.at(), labels: labels.clone(), items })
        })
        .collect()
}

/// Blocks that have a label: `import { "a" {} }` is `import "a" {}`.
fn labelled<'a>(items: &'a [Item], name: &str) -> Vec<Block<'a>> {
    let mut all = Vec::new();
    for block in blocks(items, name) {
        let nested = block.labels.is_empty()
            && !block.items.is_empty()
            && block.items.iter().all(|i| objects(&i.value).is_some());
        if !nested {
            all.push(block);
            continue;
        }
        for item in block.items {
            for items in objects(&item.value).unwrap_or_default() {
                all.push(Block { at: item.at(), labels: item.keys.iter().collect(), items });
            }
        }
    }
    all
}

impl Reader<'_> {
    fn at(&self, offset: usize) -> Position {
        self.source.at(offset)
    }

    fn file(&mut self, items: &[Item]) -> Appfile {
        self.keys(items, &FILE);
        let mut file = Appfile::default();
        for block in blocks(items, "application") {
            let application = self.application(&block);
            self.only_one(&mut file.application, application, "application", block.at);
        }
        for block in blocks(items, "project") {
            let project = self.project(&block);
            self.only_one(&mut file.project, project, "project", block.at);
        }
        for block in labelled(items, "infrastructure") {
            let Some(infrastructure) = self.infrastructure(&block) else { continue };
            let twice = file.infrastructures.iter().any(|i| i.name.value == infrastructure.name.value);
            self.once(twice, &infrastructure.name, "infrastructure");
            file.infrastructures.push(infrastructure);
        }
        for block in labelled(items, "customization") {
            file.customizations.push(self.customization(&block));
        }
        for block in labelled(items, "import") {
            self.keys(block.items, &IMPORT);
            let Some(source) = self.one_label(&block, "import", "the directory to import") else { continue };
            let twice = file.imports.iter().any(|i| i.source.value == source.value);
            self.once(twice, &source, "import");
            file.imports.push(Import { source });
        }
        file
    }

    fn application(&mut self, block: &Block) -> Application {
        self.keys(block.items, &APPLICATION);
        let written = self.text(block.items, "name");
        // Otto ignored a label here; used as the application's name it is harmless.
        let name = written.or_else(|| block.labels.first().map(|k| self.key(k)));
        if let Some(label) = block.labels.iter().find(|l| name.as_ref().is_some_and(|n| n.value != l.text)) {
            let at = self.at(label.at);
            self.found.warn(
                &at,
                format!("\"{}\" has no effect: the application is named by its name field", label.text),
            );
        }
        let dependencies =
            blocks(block.items, "dependency").iter().filter_map(|b| self.dependency(b)).collect();
        Application {
            at: self.at(block.at),
            name,
            app_type: self.text(block.items, "type"),
            detect: self.flag(block.items, "detect", true),
            dependencies,
        }
    }

    fn dependency(&mut self, block: &Block) -> Option<Text> {
        for item in block.items.iter().filter(|i| i.name() != "source") {
            let at = self.at(item.at());
            self.found.warn(&at, format!("{} has no effect: dependency takes source alone", item.name()));
        }
        let source = self.text(block.items, "source").filter(|s| !s.value.trim().is_empty());
        if source.is_none() {
            let at = self.at(block.at);
            self.found.error(&at, "dependency has no source: write source = \"./directory\"");
        }
        source
    }

    fn project(&mut self, block: &Block) -> Project {
        self.keys(block.items, &PROJECT);
        if let Some(label) = block.labels.first() {
            let at = self.at(label.at);
            self.found.error(&at, "project takes no name here: write project { name = \"...\" }");
        }
        Project {
            at: self.at(block.at),
            name: self.text(block.items, "name"),
            infrastructure: self.text(block.items, "infrastructure"),
        }
    }

    fn infrastructure(&mut self, block: &Block) -> Option<Infrastructure> {
        let name = self.one_label(block, "infrastructure", "a name");
        self.keys(block.items, &INFRASTRUCTURE);
        let mut foundations: Vec<Customization> = Vec::new();
        for inner in labelled(block.items, "foundation") {
            let Some(foundation) = self.one_label(&inner, "foundation", "a name") else { continue };
            let twice = foundations.iter().any(|f| f.name == foundation.value);
            self.once(twice, &foundation, "foundation");
            let settings = self.settings(inner.items);
            foundations.push(Customization { at: self.at(inner.at), name: foundation.value, settings });
        }
        let name = name?;
        let infra_type = self.text(block.items, "type").map(|t| t.value).filter(|t| !t.is_empty());
        let flavor = self.text(block.items, "flavor").map(|t| t.value).unwrap_or_default();
        Some(Infrastructure {
            infra_type: infra_type.unwrap_or_else(|| name.value.clone()),
            name,
            flavor,
            foundations,
        })
    }

    fn customization(&mut self, block: &Block) -> Customization {
        let name = match &block.labels[..] {
            [] => "app".into(),
            [label] if label.text.is_empty() => "app".into(),
            [label] => label.text.to_lowercase(),
            [first, second, ..] => {
                let at = self.at(second.at);
                self.found.error(&at, "customization has at most one name: remove this one");
                first.text.to_lowercase()
            }
        };
        Customization { at: self.at(block.at), name, settings: self.settings(block.items) }
    }

    /// Arbitrary fields and blocks, as in customizations.
    fn settings(&mut self, items: &[Item]) -> Vec<Setting> {
        let setting = |item: &Item| Setting {
            at: self.at(item.at()),
            value_at: self.at(if item.assigned { item.value.at } else { item.at() }),
            key: item.name().into(),
            value: match &item.keys[..] {
                [] | [_] => item.value.to_json(),
                [_, labels @ ..] => {
                    let inner =
                        Item { keys: labels.to_vec(), value: item.value.clone(), assigned: item.assigned };
                    Node { at: item.value.at, kind: ValueKind::Object(vec![inner]) }.to_json()
                }
            },
        };
        items.iter().map(setting).collect()
    }

    /// Reports fields and blocks that are not in `shape`.
    fn keys(&mut self, items: &[Item], shape: &BlockSchema) {
        for item in items {
            let key = item.name();
            let is_block = objects(&item.value).is_some();
            let (field, block) = (shape.fields.contains(&key), shape.blocks.contains(&key));
            if (field && (item.assigned || !is_block)) || (block && is_block) {
                continue;
            }
            let of = shape.of;
            let message = if block {
                format!("{key} is a block of {of}: write {key} {{ ... }} without \"=\"")
            } else if field {
                format!("{key} is a field of {of}: write {key} = \"...\"")
            } else {
                let all: Vec<&str> = shape.fields.iter().chain(shape.blocks).copied().collect();
                match &all[..] {
                    [] => format!("\"{key}\" is unknown: {of} takes no fields"),
                    all => format!("\"{key}\" is unknown: {of} takes {}", all.join(", ")),
                }
            };
            let at = self.at(item.at());
            self.found.error(&at, message);
        }
    }

    fn only_one<T>(&mut self, slot: &mut Option<T>, value: T, name: &str, at: usize) {
        if slot.is_none() {
            *slot = Some(value);
            return;
        }
        let at = self.at(at);
        self.found.error(
            &at,
            format!("only one {name} block is allowed: remove this one or merge it into the first"),
        );
    }

    fn once(&mut self, twice: bool, name: &Text, what: &str) {
        if twice {
            self.found.error(&name.at, format!("{what} \"{}\" is defined more than once", name.value));
        }
    }

    fn key(&self, key: &Key) -> Text {
        Text { at: self.at(key.at), value: key.text.clone() }
    }

    fn one_label(&mut self, block: &Block, name: &str, what: &str) -> Option<Text> {
        if let [label] = &block.labels[..] {
            return Some(self.key(label));
        }
        let at = self.at(block.at);
        self.found
            .error(&at, format!("{name} takes {what} and nothing else: write {name} \"...\" {{ ... }}"));
        None
    }

    /// The value of a field; the last one if there are several.
    fn field<'i>(&mut self, items: &'i [Item], key: &str) -> Option<&'i Node> {
        let mut written = items.iter().filter(|i| i.name() == key && i.keys.len() == 1);
        let last = written.next_back()?;
        if let Some(first) = written.next() {
            let at = self.at(first.at());
            self.found.warn(&at, format!("{key} is written more than once: the last one counts"));
        }
        Some(&last.value)
    }

    /// A string field. As in Otto, numbers and booleans are converted to strings.
    fn text(&mut self, items: &[Item], key: &str) -> Option<Text> {
        let node = self.field(items, key)?;
        let at = self.at(node.at);
        let value = match &node.kind {
            ValueKind::String(s) => s.clone(),
            ValueKind::Number(n) => n.to_string(),
            ValueKind::Bool(b) => b.to_string(),
            ValueKind::Null => return None,
            ValueKind::List(_) | ValueKind::Object(_) => {
                self.found.error(&at, format!("{key} has to be a string: write {key} = \"...\""));
                return None;
            }
        };
        Some(Text { at, value })
    }

    fn flag(&mut self, items: &[Item], key: &str, default: bool) -> bool {
        let Some(node) = self.field(items, key) else { return default };
        match node.to_json() {
            Value::Bool(b) => b,
            Value::String(s) if s == "true" || s == "false" => s == "true",
            Value::Number(n) => n.as_f64() != Some(0.0),
            _ => {
                let at = self.at(node.at);
                self.found.error(&at, format!("{key} has to be true or false"));
                default
            }
        }
    }
}
