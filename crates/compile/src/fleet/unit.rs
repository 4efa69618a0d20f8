//! The typed model of a unit. Reading it reports errors and settings without effect.

use std::collections::BTreeMap;

use super::{
    keys::{self, KeySupport},
    name::UnitName,
    place::{self, Fleet},
    span,
    syntax::{self, Assignment},
    text::{Variables, Word, specifiers},
    timer::{self, Timer},
    words,
};
use crate::{
    diagnostic::{Findings, Position},
    source::Source,
};

/// A unit.
#[derive(Debug, Clone)]
pub struct Unit {
    pub name: UnitName,
    pub at: Position,
    pub description: Option<String>,
    /// Units after which this one starts, if they are started too.
    pub after: Vec<String>,
    /// Units that have to run for this one to run.
    pub needs: Vec<String>,
    /// Units whose stop also stops this one.
    pub bound_to: Vec<String>,
    pub fleet: Fleet,
    /// The service; default for units of other types.
    pub service: Service,
    /// The unit that a timer, socket or path starts.
    pub starts: Option<String>,
    /// The times of a timer; none for units of other types.
    pub timer: Timer,
}

/// The `[Service]` section.
#[derive(Debug, Clone, Default)]
pub struct Service {
    pub kind: ServiceType,
    pub remain_after_exit: bool,
    pub restart: Option<String>,
    pub start: Vec<Command>,
    pub start_pre: Vec<Command>,
    pub start_post: Vec<Command>,
    pub stop: Vec<Command>,
    pub stop_post: Vec<Command>,
    pub variables: Variables,
    pub files: Vec<EnvironmentFile>,
    pub user: Option<(String, Position)>,
    pub group: Option<(String, Position)>,
    pub directory: Option<String>,
    /// Soft and hard resource limits by name, such as `nofile`; -1 is unlimited.
    pub limits: BTreeMap<String, (i64, i64)>,
    pub memory: Option<String>,
    pub cpu: Option<String>,
    pub stop_seconds: Option<i64>,
    pub kill_signal: Option<String>,
}

/// The condition under which systemd considers a service started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Its process has been started; `exec`, `idle`, `dbus` and `notify` are treated the same.
    #[default]
    Simple,
    /// Its process has ended and left daemons running.
    Forking,
    /// Its processes have ended, in sequence.
    Oneshot,
}

/// A command of an `Exec` key.
#[derive(Debug, Clone)]
pub struct Command {
    pub at: Position,
    pub words: Vec<Word>,
    /// `-`: a failure is ignored.
    pub may_fail: bool,
    /// `+`, `!`, `!!`: `User=` is ignored.
    pub privileged: bool,
}

/// `EnvironmentFile=`.
#[derive(Debug, Clone)]
pub struct EnvironmentFile {
    pub path: String,
    pub optional: bool,
}

/// Parses a unit. For a template this only checks it, since `%i` is not known.
pub fn read(name: &UnitName, source: &Source, found: &mut Findings) -> Unit {
    let entries = syntax::read(source, found);
    check_keys(name, &entries, found);
    let at = Position::of_file(&source.path);
    let list = |keys: &[&str]| -> Vec<String> {
        let mut all = Vec::new();
        for entry in entries.iter().filter(|e| e.section == "Unit" && keys.contains(&e.key.as_str())) {
            if entry.value.text.is_empty() {
                all.clear();
            }
            let text = specifiers(&entry.value.text, name).lossy();
            all.extend(text.split_whitespace().map(str::to_string));
        }
        all
    };
    let last = |section: &str, key: &str| {
        let entry = entries.iter().rev().find(|e| e.section == section && e.key == key);
        entry.map(|e| specifiers(&e.value.text, name).lossy()).filter(|t| !t.is_empty())
    };
    let kind = name.kind();
    let starts = ["timer", "socket", "path", "automount"].contains(&kind).then(|| {
        let section =
            entries.iter().find(|e| e.section.eq_ignore_ascii_case(kind)).map(|e| e.section.clone());
        let named = section.and_then(|s| last(&s, "Unit").or_else(|| last(&s, "Service")));
        named.unwrap_or_else(|| format!("{}.service", name.stem()))
    });
    Unit {
        name: name.clone(),
        at,
        description: last("Unit", "Description"),
        after: list(&["After"]),
        needs: list(&["Requires", "Requisite", "BindsTo", "BindTo", "RequiresOverridable"]),
        bound_to: list(&["BindsTo", "BindTo", "PartOf", "Requires"]),
        fleet: place::read(name, &entries, found),
        service: if kind == "service" { service(name, source, &entries, found) } else { Service::default() },
        starts,
        timer: if kind == "timer" { timer::read(&entries, found) } else { Timer::default() },
    }
}

/// Warns about sections and keys that systemd ignores, and once for each unit about keys without effect.
fn check_keys(name: &UnitName, entries: &[Assignment], found: &mut Findings) {
    let mut without: Vec<&Assignment> = Vec::new();
    let mut unknown = std::collections::BTreeSet::new();
    for entry in entries {
        let Assignment { section, key, at, .. } = entry;
        if !keys::is_section(section, name.kind()) {
            if unknown.insert(section) {
                found.warn(
                    at,
                    format!("systemd does not know [{section}] in a {} unit and ignores it", name.kind()),
                );
            }
            continue;
        }
        match keys::support(section, key) {
            KeySupport::Supported => {}
            KeySupport::NoEffect => {
                if !has_its_way(entry) && !without.iter().any(|e| e.key == entry.key) {
                    without.push(entry);
                }
            }
            KeySupport::Unknown => {
                let who = if section == "X-Fleet" { "fleet" } else { "systemd" };
                let meant =
                    keys::similar(section, key).map(|k| format!("; is {k} meant?")).unwrap_or_default();
                found.warn(at, format!("{who} does not know {key} in [{section}] and ignores it{meant}"));
            }
        }
    }
    if let Some(first) = without.first() {
        let names: Vec<&str> = without.iter().map(|e| e.key.as_str()).collect();
        let have = if names.len() == 1 { "has" } else { "have" };
        found.warn(&first.at, format!("{} {have} no effect here", names.join(", ")));
    }
}

/// Whether a key without effect asks for the behaviour that applies anyway.
fn has_its_way(entry: &Assignment) -> bool {
    match (entry.key.as_str(), entry.value.text.as_str()) {
        // Restarts have no limit, and their delay starts short.
        ("StartLimitInterval" | "StartLimitIntervalSec" | "StartLimitBurst", _) => true,
        ("RestartSec", text) => span::seconds(text).is_ok_and(|s| s.is_some_and(|s| s <= 60.0)),
        ("TimeoutStartSec", _) => true,
        // Only timers that somebody made for a while go when their time is over.
        ("RemainAfterElapse", _) => true,
        (
            "WakeSystem"
            | "OnClockChange"
            | "OnTimezoneChange"
            | "FixedRandomDelay"
            | "DeferReactivation"
            | "RandomizedDelaySec"
            | "RandomizedOffsetSec",
            "no" | "false" | "0" | "off",
        ) => true,
        (_, text) => text.is_empty(),
    }
}

fn service(name: &UnitName, source: &Source, entries: &[Assignment], found: &mut Findings) -> Service {
    let mut service = Service::default();
    let own: Vec<&Assignment> = entries.iter().filter(|e| e.section == "Service").collect();
    for entry in &own {
        scalar(name, entry, &mut service, found);
    }
    for entry in &own {
        match entry.key.as_str() {
            "Environment" => environment(name, entry, &mut service.variables, found),
            "EnvironmentFile" => environment_file(name, entry, &mut service, found),
            _ => {}
        }
    }
    // Commands come last, since variables may be set after them.
    for entry in &own {
        let commands = match entry.key.as_str() {
            "ExecStart" => &mut service.start,
            "ExecStartPre" => &mut service.start_pre,
            "ExecStartPost" => &mut service.start_post,
            "ExecStop" => &mut service.stop,
            "ExecStopPost" => &mut service.stop_post,
            _ => continue,
        };
        if entry.value.text.is_empty() {
            commands.clear();
        } else {
            commands.extend(commands_of(name, entry, &service.variables, found));
        }
    }
    let starts: Vec<&&Assignment> = own.iter().filter(|e| e.key == "ExecStart").collect();
    if service.kind != ServiceType::Oneshot && service.start.len() > 1 {
        let at = starts.last().map_or_else(|| Position::of_file(&source.path), |e| e.at.clone());
        found.error(
            &at,
            "a second ExecStart is for Type=oneshot only: write ExecStartPre for what comes before",
        );
    }
    if starts.is_empty() && (service.kind != ServiceType::Oneshot || service.stop.is_empty()) {
        let at = own.first().map_or_else(|| Position::of_file(&source.path), |e| e.at.clone());
        found.error(&at, "the unit has no ExecStart: say in [Service] what it runs");
    }
    service
}

fn scalar(name: &UnitName, entry: &Assignment, service: &mut Service, found: &mut Findings) {
    let at = entry.value.start();
    let text = specifiers(&entry.value.text, name).lossy();
    let given = Some(text.clone()).filter(|t| !t.is_empty());
    match entry.key.as_str() {
        "Type" => match text.as_str() {
            "simple" | "exec" | "idle" | "dbus" | "notify" | "notify-reload" | "" => {
                service.kind = ServiceType::Simple;
            }
            "forking" => service.kind = ServiceType::Forking,
            "oneshot" => service.kind = ServiceType::Oneshot,
            _ => found.warn(&at, format!("Type={text} is not known to systemd, which uses simple instead")),
        },
        "RemainAfterExit" => match text.to_lowercase().as_str() {
            "yes" | "true" | "1" | "on" | "y" | "t" => service.remain_after_exit = true,
            "no" | "false" | "0" | "off" | "n" | "f" | "" => service.remain_after_exit = false,
            _ => found.warn(&at, format!("RemainAfterExit={text} is neither yes nor no and has no effect")),
        },
        "Restart" => {
            const KNOWN: [&str; 7] =
                ["no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"];
            if !text.is_empty() && !KNOWN.contains(&text.as_str()) {
                found.warn(&at, format!("Restart={text} is none of {}, and has no effect", KNOWN.join(", ")));
            } else {
                service.restart = given;
            }
        }
        "User" => service.user = given.map(|t| (t, at)),
        "Group" => service.group = given.map(|t| (t, at)),
        "WorkingDirectory" => service.directory = given.map(|t| t.trim_start_matches('-').to_string()),
        "KillSignal" => service.kill_signal = given,
        "TimeoutStopSec" | "TimeoutSec" => match span::seconds(&text) {
            Ok(seconds) => service.stop_seconds = seconds.map(|s| s.ceil() as i64),
            Err(mistake) => found.warn(&at, format!("{}={mistake}, and has no effect", entry.key)),
        },
        "TimeoutStartSec" => {
            if let Err(mistake) = span::seconds(&text) {
                found.warn(&at, format!("TimeoutStartSec={mistake}, and has no effect"));
            }
        }
        "MemoryLimit" | "MemoryMax" => match span::bytes(&text) {
            Some(bytes) => service.memory = bytes,
            None => found
                .warn(&at, format!("{}={text} is not a valid amount of memory and has no effect", entry.key)),
        },
        "CPUQuota" => match text.strip_suffix('%').and_then(|t| t.parse::<u32>().ok()) {
            Some(percent) => service.cpu = Some(format!("{}m", u64::from(percent) * 10)),
            None if text.is_empty() => {}
            None => found.warn(&at, format!("CPUQuota={text} is not a valid percentage and has no effect")),
        },
        key => {
            if let Some(limit) = key.strip_prefix("Limit") {
                match span::limit(limit, &text) {
                    Some(values) => {
                        service.limits.insert(limit.to_lowercase(), values);
                    }
                    None => found.warn(&at, format!("{key}={text} is not a valid limit and has no effect")),
                }
            }
        }
    }
}

fn environment(name: &UnitName, entry: &Assignment, variables: &mut Variables, found: &mut Findings) {
    if entry.value.text.is_empty() {
        return variables.known.clear();
    }
    let words = match words::split(&entry.value.text) {
        Ok(words) => words,
        Err((offset, mistake)) => return found.error(&entry.value.at(offset), mistake),
    };
    for word in words {
        let at = entry.value.at(word.offset);
        match word.text.split_once('=').filter(|(key, _)| super::text::is_name(key)) {
            Some((key, value)) => {
                variables.known.insert(key.into(), specifiers(value, name));
            }
            None => {
                let sentence =
                    format!("\"{}\" is not of the form NAME=VALUE, and systemd ignores it", word.text);
                found.warn(&at, sentence);
            }
        }
    }
}

fn environment_file(name: &UnitName, entry: &Assignment, service: &mut Service, found: &mut Findings) {
    let text = specifiers(&entry.value.text, name).lossy();
    if text.is_empty() {
        service.files.clear();
        service.variables.files = false;
        return;
    }
    let (optional, path) = text.strip_prefix('-').map_or((false, text.as_str()), |path| (true, path));
    let at = entry.value.start();
    if !path.starts_with('/') {
        let sentence = format!("EnvironmentFile={text} is not an absolute path, and systemd ignores it");
        return found.warn(&at, sentence);
    }
    service.variables.files = true;
    service.files.push(EnvironmentFile { path: path.into(), optional });
}

/// Parses the commands of one line, which are separated by a word `;`, as for `Type=oneshot`.
fn commands_of(
    name: &UnitName,
    entry: &Assignment,
    variables: &Variables,
    found: &mut Findings,
) -> Vec<Command> {
    let split = match words::split(&entry.value.text) {
        Ok(split) => split,
        Err((offset, mistake)) => {
            found.error(&entry.value.at(offset), format!("{mistake}: close it, or write \\ before it"));
            return Vec::new();
        }
    };
    let mut commands = Vec::new();
    for words in split.split(|w| w.text == ";") {
        let Some((first, rest)) = words.split_first() else { continue };
        let at = entry.value.at(first.offset);
        let program = first.text.trim_start_matches(['-', '@', '+', '!', ':', '|']);
        let prefix = &first.text[..first.text.len() - program.len()];
        if program.is_empty() {
            found.error(&at, format!("{} names no program behind \"{prefix}\"", entry.key));
            continue;
        }
        let mut rest = rest;
        if prefix.contains('@') {
            // The word after the program is its `argv[0]`, which cannot be set for a container.
            if let Some((own_name, others)) = rest.split_first() {
                rest = others;
                let sentence =
                    format!("the program is not told that its name is \"{}\", as @ asks", own_name.text);
                found.warn(&entry.value.at(own_name.offset), sentence);
            }
        }
        let mut all = vec![specifiers(program, name)];
        for word in rest {
            let text = if word.text == r"\;" { ";" } else { &word.text };
            let word = specifiers(text, name);
            if prefix.contains(':') { all.push(word) } else { all.extend(variables.expand(word)) }
        }
        commands.push(Command {
            at,
            words: all,
            may_fail: prefix.contains('-'),
            privileged: prefix.contains(['+', '!']),
        });
    }
    commands
}
