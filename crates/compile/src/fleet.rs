//! fleet units: systemd's unit files with a section `[X-Fleet]`.
//!
//! ```text
//! syntax ─> unit (with place: [X-Fleet]) ─> plan (docker: what each line comes to) ─> lower ─> workloads
//!  words, text: quoting, %i, ${NAME}         container: docker run · host: programs      reach, volumes: among units
//! ```
//!
//! A `docker run` line becomes a container. Docker commands that only manage it (`docker kill`, `rm`, `pull`, `stop`) are
//! recognised and dropped. Any other program runs in the image `host`, which is the root file system of the machine, as
//! systemd would start it. Values known only on the machine (`%H`, `EnvironmentFile=`) are resolved there.

mod calendar;
mod canonical;
mod container;
mod docker;
mod host;
mod keys;
mod lower;
mod name;
mod place;
mod plan;
mod reach;
mod shell;
mod span;
mod syntax;
mod text;
mod timer;
mod unit;
mod volumes;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use canonical::canonical;
pub use lower::Lowered;
pub use name::{UnitName, glob};

use crate::{
    Compiled, Object, Options,
    diagnostic::{Diagnostic, Diagnostics, Findings},
    source::Source,
    workload::name::sanitised,
};
use unit::Unit;

/// The text of a unit and its origin.
#[derive(Debug, Clone)]
pub struct UnitFile {
    /// Its name: that of the file, unless it is an instance of a template.
    pub name: UnitName,
    /// The file, for messages.
    pub file: Arc<Path>,
    /// The text.
    pub text: String,
}

/// The environment for which units are compiled.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The application whose components the units are, a DNS label.
    pub app: String,
    /// The domain below which units with web pages get host names.
    pub domain: String,
    /// Base directory of relative paths.
    pub directory: PathBuf,
    /// Node names by machine ID.
    pub machines: BTreeMap<String, String>,
    /// Preferred node of a unit, by unit name.
    pub preferred: BTreeMap<String, String>,
    /// The units that are started. Other units are known, but nothing waits for them. `None` is all.
    pub started: Option<BTreeSet<String>>,
}

/// Properties of a unit that can be read without compiling it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// `Description=`.
    pub description: Option<String>,
    /// Whether it runs on every machine.
    pub global: bool,
    /// Units whose stop also stops this one.
    pub bound_to: Vec<String>,
    /// Units that have to run for this one to run.
    pub needs: Vec<String>,
    /// `MachineOf=`.
    pub machine_of: Vec<String>,
    /// Required node labels: the values of which one has to match, by key.
    pub metadata: BTreeMap<String, Vec<String>>,
    /// `MachineID=`.
    pub machine_id: Option<String>,
    /// Whether it remains active after its processes have ended.
    pub remains: bool,
    /// The unit that a timer, socket or path starts.
    pub starts: Option<String>,
}

/// Whether `path` names a unit: it has a unit's extension, and the file or its template exists.
pub fn is_unit(path: &Path) -> bool {
    let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    name::KINDS.contains(&kind) && !path.is_dir() && (path.is_file() || template_of(path).is_some())
}

/// The template of an instance: `web@.service` for `web@1.service`, which has no file of its own.
pub fn template_of(path: &Path) -> Option<PathBuf> {
    let name = UnitName::new(path.file_name()?.to_str()?).ok()?;
    let template = path.with_file_name(name.template()?.full());
    (!path.exists() && template.is_file()).then_some(template)
}

/// The project name for the unit at `path`: the name of its directory.
pub fn project_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let directory = absolute.parent().and_then(Path::file_name);
    directory.map_or_else(|| "units".into(), |d| d.to_string_lossy().into_owned())
}

/// The units directly in `directory`, sorted by name.
///
/// # Errors
///
/// The directory cannot be read.
pub fn files_in(directory: &Path) -> Result<Vec<PathBuf>, Diagnostics> {
    let broken = |e: std::io::Error| Diagnostic::of_file(directory, format!("cannot be read: {e}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && is_unit(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Compiles the units in `files` as the project `name`.
///
/// # Errors
///
/// Every mistake of every unit.
pub fn compile(files: &[PathBuf], name: &str, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut found = Findings::default();
    let units = read_files(files, &mut found);
    let app = options.project.clone().unwrap_or_else(|| sanitised(name, 63));
    let app = if app.is_empty() { "units".into() } else { app };
    let directory = files.first().and_then(|f| f.parent()).map(Path::to_path_buf).unwrap_or_default();
    let settings = Settings {
        app: app.clone(),
        domain: options.domain.clone(),
        directory: directory.clone(),
        ..Settings::default()
    };
    let mut compiled = Compiled { app, directory, ..Compiled::default() };
    let (mut seen, mut published) = (BTreeSet::new(), Vec::new());
    let lowered = all(&units, &settings, None, &mut found, &mut published);
    for (lowered, source) in lowered {
        for (group, object) in (lowered.shared.into_iter().map(|o| (&lowered.group, o)))
            .chain(lowered.objects.into_iter().map(|o| (&lowered.object, o)))
        {
            let object = Object { value: object, group: group.clone(), source: source.to_path_buf() };
            if seen.insert((object.kind().to_string(), object.name().to_string())) {
                compiled.objects.push(object);
            }
        }
    }
    for one in published {
        if !compiled.published.contains(&one) {
            compiled.published.push(one);
        }
    }
    // The host name of the app belongs to the first unit that serves web pages.
    let own = format!("{}.{}", compiled.app, options.domain);
    let has_own = compiled.published.iter().any(|p| p.host.as_ref() == Some(&own));
    compiled.host = has_own.then_some(own);
    compiled.warnings = found.finish()?;
    Ok(compiled)
}

/// Compiles the units `wanted`; all of `units` are known to them.
///
/// # Errors
///
/// Every mistake of the wanted units.
pub fn lower(
    units: &[UnitFile],
    wanted: &BTreeSet<String>,
    settings: &Settings,
) -> Result<(Vec<Lowered>, Vec<Diagnostic>), Diagnostics> {
    let mut found = Findings::default();
    let lowered = all(units, settings, Some(wanted), &mut found, &mut Vec::new());
    let warnings = found.finish()?;
    Ok((lowered.into_iter().map(|(l, _)| l).collect(), warnings))
}

/// Parses a single unit.
///
/// # Errors
///
/// Every mistake in it.
pub fn summary(unit: &UnitFile) -> Result<Summary, Diagnostics> {
    let mut found = Findings::default();
    let read = unit::read(&unit.name, &source(unit), &mut found);
    let global = read.fleet.global;
    let summary = Summary {
        description: read.description,
        global,
        bound_to: read.bound_to,
        needs: read.needs,
        machine_of: read.fleet.machine_of.iter().map(|(n, _)| n.full().to_string()).collect(),
        metadata: read.fleet.metadata,
        machine_id: read.fleet.machine_id.map(|(id, _)| id),
        remains: read.service.remain_after_exit,
        starts: read.starts,
    };
    found.finish()?;
    Ok(summary)
}

fn source(unit: &UnitFile) -> Source {
    Source { path: unit.file.clone(), text: unit.text.clone() }
}

/// Reads unit files. An instance without a file has the text of its template.
fn read_files(files: &[PathBuf], found: &mut Findings) -> Vec<UnitFile> {
    let mut units = Vec::new();
    for file in files {
        let name = UnitName::new(&file.file_name().unwrap_or_default().to_string_lossy());
        let name = match name {
            Ok(name) => name,
            Err(mistake) => {
                found.errors.push(Diagnostic::of_file(file, mistake));
                continue;
            }
        };
        let template = template_of(file);
        match Source::read(template.as_ref().unwrap_or(file)) {
            Ok(source) => units.push(UnitFile { name, file: source.path.clone(), text: source.text }),
            Err(mistake) => found.errors.push(mistake),
        }
    }
    instances(&mut units, found);
    units
}

/// Adds instances of templates: those named by other units, and one of each template that would have none.
fn instances(units: &mut Vec<UnitFile>, found: &mut Findings) {
    let templates: Vec<UnitFile> = units.iter().filter(|u| u.name.is_template()).cloned().collect();
    // Each round adds the units named by those of the last round; the bound stops templates that name ever longer instances.
    for _ in 0..8 {
        let mut named: BTreeSet<String> = BTreeSet::new();
        for unit in units.iter().filter(|u| !u.name.is_template()) {
            let read = unit::read(&unit.name, &source(unit), &mut Findings::default());
            named.extend(read.needs.into_iter().chain(read.bound_to));
            named.extend(read.fleet.machine_of.iter().map(|(n, _)| n.full().to_string()));
        }
        let before = units.len();
        for name in named.iter().filter_map(|n| UnitName::new(n).ok()) {
            if let Some(template) = templates.iter().find(|t| Some(&t.name) == name.template().as_ref())
                && !units.iter().any(|u| u.name == name)
            {
                units.push(UnitFile { name, ..template.clone() });
            }
        }
        if units.len() == before {
            break;
        }
    }
    for template in &templates {
        if units.iter().any(|u| u.name.template().as_ref() == Some(&template.name)) {
            continue;
        }
        let one = format!("{}@1.{}", template.name.prefix(), template.name.kind());
        if let Ok(name) = UnitName::new(&one) {
            let sentence = format!(
                "is a template and runs as instances: compiled is {name}; for others make links to it, or use `yado fleet start`"
            );
            found.warnings.push(Diagnostic::of_file(&template.file, sentence));
            units.push(UnitFile { name, ..template.clone() });
        }
    }
    units.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Compiles the wanted units, or all.
fn all(
    units: &[UnitFile],
    settings: &Settings,
    wanted: Option<&BTreeSet<String>>,
    found: &mut Findings,
    published: &mut Vec<crate::ExternalEndpoint>,
) -> Vec<(Lowered, Arc<Path>)> {
    let is_wanted = |name: &UnitName| wanted.is_none_or(|w| w.contains(name.full()));
    let (mut read, mut others): (Vec<lower::PlannedUnit>, Vec<Unit>) = (Vec::new(), Vec::new());
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for file in units {
        // Errors of other units are reported when those are compiled.
        let mut aside = Findings::default();
        let findings = if is_wanted(&file.name) { &mut *found } else { &mut aside };
        // A template is checked through its instances.
        let quiet = file.name.is_template() && wanted.is_none();
        let findings = if quiet { &mut aside } else { findings };
        let unit = unit::read(&file.name, &source(file), findings);
        if file.name.is_template() || file.name.kind() != "service" {
            others.push(unit);
            continue;
        }
        let mut object = file.name.object();
        if !taken.insert(object.clone()) {
            object = file.name.long_object();
        }
        read.push(lower::read(unit, object, &settings.directory, findings));
    }
    about_others(&mut read, is_wanted, found);
    let set = lower::UnitSet { units: &read, others: &others, settings };
    let mut lowered = Vec::new();
    for other in others.iter().filter(|o| !o.name.is_template() && is_wanted(&o.name)) {
        match set.timed_by(other) {
            Some(one) => lowered.push((set.lower_timed(other, one, found), other.at.file.clone())),
            None => other_kind(other, found),
        }
    }
    for one in read.iter().filter(|r| is_wanted(&r.unit.name)) {
        unmatched_conflicts(one, &set, found);
        // One that only a timer starts has become a CronJob.
        if one.runs() && !set.is_timed(one) {
            published.extend(reach::published_of(one, &set));
            lowered.push((set.lower(one, found), one.unit.at.file.clone()));
        }
    }
    lowered
}

/// Handles units that act on the container of another unit, as by `docker exec`: Docker on the machine does not know it.
fn about_others(
    read: &mut [lower::PlannedUnit],
    is_wanted: impl Fn(&UnitName) -> bool,
    found: &mut Findings,
) {
    for i in 0..read.len() {
        let Some(container) = read[i].plan.of_other.clone() else { continue };
        let owner = read.iter().find(|r| r.containers().any(|c| c == container));
        let sentence = match owner.map(|r| r.unit.name.full()) {
            Some(owner) => format!(
                "the container {container} is in the Pod of {owner}, which Docker cannot reach, so nothing runs: `yado fleet ssh {owner} COMMAND` runs a command in it"
            ),
            None => format!(
                "no unit here runs a container {container}, so the line runs unchanged on the machine, where Docker has to be installed"
            ),
        };
        if is_wanted(&read[i].unit.name) {
            let at = read[i].unit.service.start.last().map_or(&read[i].unit.at, |c| &c.at);
            found.warn(at, sentence);
        }
        if owner.is_some() {
            read[i].main = lower::MainProcess::Nothing;
        } else {
            read[i].plan = plan::on_machine(&read[i].unit.service);
        }
    }
}

/// Warns about a unit of a type other than service.
fn other_kind(unit: &Unit, found: &mut Findings) {
    let starts = unit.starts.as_deref().unwrap_or_default();
    let waits = format!("{starts} waits until somebody starts it, as `yado fleet start {starts}` does");
    let sentence = match unit.name.kind() {
        "timer" => format!("this timer starts nothing: {waits}"),
        "path" => format!("paths are not watched: {waits}"),
        "socket" => format!(
            "sockets are not listened on before their service: {starts} runs all the time, and has to listen by itself"
        ),
        "target" => "a target runs nothing itself: the units that it wants are started by themselves".into(),
        kind @ ("mount" | "automount") => format!(
            "a {kind} has no effect here: mount with -v in the docker run line of the unit that needs it"
        ),
        kind => format!("a {kind} has no effect here"),
    };
    found.warn(&unit.at, sentence);
}

/// Warns about patterns of `Conflicts` that match no known unit, since a wrong pattern would otherwise go unnoticed.
fn unmatched_conflicts(one: &lower::PlannedUnit, set: &lower::UnitSet<'_>, found: &mut Findings) {
    for (pattern, at) in &one.unit.fleet.conflicts {
        let matches = |name: &UnitName| name::glob(pattern, name.full()) == Ok(true);
        let known = set.units.iter().map(|u| &u.unit.name).chain(set.others.iter().map(|u| &u.name));
        if !known.clone().any(matches) {
            let near: Vec<&str> = known.map(UnitName::full).take(4).collect();
            let sentence = format!("Conflicts={pattern} matches no known unit ({})", near.join(", "));
            found.warn(at, sentence);
        }
    }
}
