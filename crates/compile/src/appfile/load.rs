//! An Appfile with all it imports and depends on.
//!
//! Imports are merged into the file that names them. Dependencies become applications of their own, each directory
//! once, however many name it. A dependency needs its `.ottoid`, so that its identity does not hang on its name.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use super::{Appfile, Application, Customization, Import, Text, check, directory_of, parse};
use crate::{
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    procfile::{self, Process},
};

/// The file beside an Appfile that carries the application's identity.
pub const ID_FILE: &str = ".ottoid";

/// More applications than any tree known has, and few enough to answer at once; a generated or mistaken tree ends here.
const MAX_APPLICATIONS: usize = 500;
/// Imports of imports; as deep as the deepest directory tree that a person would keep.
const MAX_IMPORT_DEPTH: usize = 32;

/// Applications, each after those that it depends on; the one that was asked for is last.
#[derive(Debug)]
pub struct Tree {
    /// The applications.
    pub apps: Vec<App>,
    /// What was understood but has no effect.
    pub warnings: Vec<Diagnostic>,
}

/// One application and its directory.
#[derive(Debug)]
pub struct App {
    /// The directory.
    pub directory: PathBuf,
    /// The Appfile, or the Procfile where there is no Appfile.
    pub path: PathBuf,
    /// The Appfile with imports merged, checked. Its application has a name.
    pub file: Appfile,
    /// The application's name as written or, where it is not, the directory's.
    pub name: Text,
    /// The type as written or detected.
    pub app_type: String,
    /// Process types, where there is a Procfile.
    pub processes: Option<Vec<Process>>,
    /// The identity in `.ottoid`, if there is one.
    pub id: Option<String>,
    /// Places in [`Tree::apps`] of what it depends on.
    pub dependencies: Vec<usize>,
}

/// Loads the Appfile at `file`.
///
/// # Errors
///
/// Every mistake in every file that is reached.
pub fn load(file: &Path) -> Result<Tree, Diagnostics> {
    Loader::run(file.into())
}

/// Loads the directory of `procfile`, which has no Appfile, as if it had one that says nothing.
pub fn load_without_appfile(procfile: &Path) -> Result<Tree, Diagnostics> {
    Loader::run(procfile.into())
}

#[derive(Default)]
struct Loader {
    apps: Vec<App>,
    /// Canonical directory to place in `apps`; none while it is being loaded.
    seen: HashMap<PathBuf, Option<usize>>,
    /// Names of the applications being loaded, outermost first, to show a cycle.
    path: Vec<(PathBuf, String)>,
    found: Findings,
}

impl Loader {
    fn run(file: PathBuf) -> Result<Tree, Diagnostics> {
        let mut loader = Loader::default();
        let directory = directory_of(&file);
        match directory.canonicalize() {
            Ok(canonical) => {
                loader.app(file, directory, canonical, true);
            }
            Err(e) => {
                loader.found.error(&Position::of_file(&directory), format!("cannot be read: {e}"));
            }
        }
        loader.same_names();
        let warnings = loader.found.finish()?;
        Ok(Tree { apps: loader.apps, warnings })
    }

    /// Loads one application after its dependencies; its place, unless it is broken.
    fn app(&mut self, path: PathBuf, directory: PathBuf, canonical: PathBuf, root: bool) -> Option<usize> {
        let base = canonical.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.seen.insert(canonical.clone(), None);
        let file = self.read(&path, &directory)?;
        let errors = self.found.errors.len();
        check::check(&file, &path, root, &mut self.found);
        let application = file.application.clone()?;
        let name = application.name.clone().unwrap_or(Text { at: application.at.clone(), value: base });
        let processes = self.processes(&directory);
        let has_procfile = directory.join("Procfile").is_file();
        let app_type = self.app_type(&application, &directory, has_procfile);
        let id = self.id(&directory);
        self.path.push((canonical.clone(), name.value.clone()));
        let mut dependencies = Vec::new();
        for source in &application.dependencies {
            dependencies.extend(self.dependency(source, &directory));
        }
        self.path.pop();
        if self.found.errors.len() > errors {
            return None;
        }
        let place = self.apps.len();
        self.apps.push(App { directory, path, file, name, app_type: app_type?, processes, id, dependencies });
        self.seen.insert(canonical, Some(place));
        Some(place)
    }

    fn read(&mut self, path: &Path, directory: &Path) -> Option<Appfile> {
        if path.file_name().is_some_and(|n| n == "Procfile") {
            let at = Position::of_file(path);
            let application =
                Application { at, name: None, app_type: None, detect: true, dependencies: Vec::new() };
            return Some(Appfile { application: Some(application), ..Appfile::default() });
        }
        match parse::parse_file(path) {
            Ok(file) => self.with_imports(file, directory, &mut vec![directory.canonicalize().ok()?]),
            Err(mistakes) => {
                self.found.errors.extend(mistakes.0);
                None
            }
        }
    }

    /// `file` with what it imports merged over it, as Otto did: the imported file wins.
    fn with_imports(
        &mut self,
        mut file: Appfile,
        directory: &Path,
        stack: &mut Vec<PathBuf>,
    ) -> Option<Appfile> {
        self.found.warnings.append(&mut file.warnings);
        let mut sound = true;
        for Import { source } in std::mem::take(&mut file.imports) {
            match self.import(&source, directory, stack) {
                Some(imported) => merge(&mut file, imported),
                None => sound = false,
            }
        }
        sound.then_some(file)
    }

    fn import(&mut self, source: &Text, from: &Path, stack: &mut Vec<PathBuf>) -> Option<Appfile> {
        let directory = self.local_directory(source, from, "import")?;
        let canonical = directory.canonicalize().ok()?;
        if stack.contains(&canonical) || stack.len() > MAX_IMPORT_DEPTH {
            let sentence =
                format!("import \"{}\" leads back to a file that imports this one: remove one", source.value);
            self.found.error(&source.at, sentence);
            return None;
        }
        let path = directory.join("Appfile");
        if !path.is_file() {
            let sentence =
                format!("import \"{}\" has no Appfile: {} is missing", source.value, path.display());
            self.found.error(&source.at, sentence);
            return None;
        }
        let file = match parse::parse_file(&path) {
            Ok(file) => file,
            Err(mistakes) => {
                self.found.errors.extend(mistakes.0);
                return None;
            }
        };
        stack.push(canonical);
        let merged = self.with_imports(file, &directory, stack);
        stack.pop();
        merged
    }

    fn dependency(&mut self, source: &Text, from: &Path) -> Option<usize> {
        let directory = self.local_directory(source, from, "dependency")?;
        let canonical = directory.canonicalize().ok()?;
        if let Some(start) = self.path.iter().position(|(open, _)| *open == canonical) {
            let mut names: Vec<&str> = self.path[start..].iter().map(|(_, name)| name.as_str()).collect();
            names.push(names[0]);
            let sentence =
                format!("dependency cycle: {}: remove one of these dependencies", names.join(" -> "));
            self.found.error(&source.at, sentence);
            return None;
        }
        if let Some(place) = self.seen.get(&canonical) {
            return *place;
        }
        if self.seen.len() >= MAX_APPLICATIONS {
            self.found.error(&source.at, format!("the tree has more than {MAX_APPLICATIONS} applications"));
            return None;
        }
        let candidates = [directory.join("Appfile"), directory.join("Procfile")];
        let Some(path) = candidates.into_iter().find(|p| p.is_file()) else {
            let shown = directory.display();
            let sentence =
                format!("dependency \"{}\" has neither an Appfile nor a Procfile in {shown}", source.value);
            self.found.error(&source.at, sentence);
            return None;
        };
        if !directory.join(ID_FILE).is_file() {
            let sentence = format!(
                "dependency \"{}\" has no {ID_FILE}: run `yado compile {}` once and keep that file under version control",
                source.value,
                directory.display()
            );
            // Read on: what else is wrong with it is worth knowing at once.
            self.found.error(&source.at, sentence);
        }
        self.app(path, directory, canonical, false)
    }

    /// The directory that `source` names, if it is one on this machine.
    fn local_directory(&mut self, source: &Text, from: &Path, what: &str) -> Option<PathBuf> {
        let written = &source.value;
        let (path, fetched_by) = match local_path(written) {
            Ok(local) => local,
            Err(Remote) => {
                let sentence = format!(
                    "{what} \"{written}\" is not fetched: only local directories are understood yet, so clone it beside this app and name its directory"
                );
                self.found.error(&source.at, sentence);
                return None;
            }
        };
        if let Some(tool) = fetched_by {
            let sentence =
                format!("{what} \"{written}\" is read as the directory is, not as {tool} last committed it");
            self.found.warn(&source.at, sentence);
        }
        let directory: PathBuf =
            from.join(path).components().filter(|c| !matches!(c, Component::CurDir)).collect();
        let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
        if directory.is_dir() {
            return Some(directory);
        }
        let shown = directory.display();
        self.found
            .error(&source.at, format!("{what} \"{written}\" does not exist: there is no directory {shown}"));
        None
    }

    fn processes(&mut self, directory: &Path) -> Option<Vec<Process>> {
        let path = directory.join("Procfile");
        if !path.is_file() {
            return None;
        }
        match procfile::parse_file(&path) {
            Ok(processes) => Some(processes),
            Err(mistakes) => {
                self.found.errors.extend(mistakes.0);
                None
            }
        }
    }

    fn app_type(&mut self, application: &Application, directory: &Path, procfile: bool) -> Option<String> {
        if let Some(written) = &application.app_type {
            return Some(written.value.clone());
        }
        let detected = application.detect.then(|| detect(directory)).flatten();
        if let Some(found) = detected.or(procfile.then_some("custom")) {
            return Some(found.into());
        }
        let reason =
            if application.detect { "nothing in its directory shows one" } else { "detect is false" };
        let sentence = format!(
            "application has no type and {reason}: write type = \"...\", or add a Procfile with a line like web: COMMAND"
        );
        self.found.error(&application.at, sentence);
        None
    }

    /// The first line of the `.ottoid`.
    fn id(&mut self, directory: &Path) -> Option<String> {
        let path = directory.join(ID_FILE);
        if !path.is_file() {
            return None;
        }
        let text = match crate::source::Source::read(&path) {
            Ok(source) => source.text,
            Err(mistake) => {
                self.found.errors.push(mistake);
                return None;
            }
        };
        let id = text.lines().next().unwrap_or_default().trim();
        if id.is_empty() {
            let at = Position { file: path.as_path().into(), line: 1, column: 1 };
            self.found.error(&at, "the first line is empty: it has to be the application's identity, a UUID");
            return None;
        }
        Some(id.into())
    }

    /// Two applications with one name would be the same objects.
    fn same_names(&mut self) {
        let mut first: HashMap<String, &App> = HashMap::new();
        for app in &self.apps {
            let Some(other) = first.insert(app.name.value.clone(), app) else { continue };
            let sentence = format!(
                "application \"{}\" has the same name as the one in {}: rename one",
                app.name.value,
                other.directory.display()
            );
            self.found.error(&app.name.at, sentence);
        }
    }
}

/// Lays what `imported` says over `file`.
fn merge(file: &mut Appfile, imported: Appfile) {
    match (&mut file.application, imported.application) {
        (Some(own), Some(other)) => {
            own.name = other.name.or(own.name.take());
            own.app_type = other.app_type.or(own.app_type.take());
            own.detect &= other.detect;
            if !other.dependencies.is_empty() {
                own.dependencies = other.dependencies;
            }
        }
        (own @ None, other) => *own = other,
        (Some(_), None) => {}
    }
    file.project = imported.project.or(file.project.take());
    for mut infrastructure in imported.infrastructures {
        match file.infrastructures.iter_mut().find(|i| i.name.value == infrastructure.name.value) {
            Some(own) => {
                if infrastructure.foundations.is_empty() {
                    infrastructure.foundations = std::mem::take(&mut own.foundations);
                }
                *own = infrastructure;
            }
            None => file.infrastructures.push(infrastructure),
        }
    }
    let customizations: Vec<Customization> = imported.customizations;
    file.customizations.extend(customizations);
}

/// A source that has to be fetched.
#[derive(Debug, PartialEq)]
struct Remote;

/// The path that a source names on this machine, and the tool that Otto would have copied it with, if any.
fn local_path(source: &str) -> Result<(&str, Option<&str>), Remote> {
    if let Some((tool, rest)) = source.split_once("::") {
        let rest = rest.strip_prefix("file://").unwrap_or(rest);
        let local = rest.starts_with(['.', '/']);
        let tool = (tool != "file").then_some(tool);
        return if local { Ok((rest, tool)) } else { Err(Remote) };
    }
    if let Some(path) = source.strip_prefix("file://") {
        return Ok((path, None));
    }
    let hosted = ["github.com/", "bitbucket.org/", "git@"].iter().any(|host| source.starts_with(host));
    if hosted || source.contains("://") { Err(Remote) } else { Ok((source, None)) }
}

/// The application type that a directory's files show, as Otto's own detection had it.
fn detect(directory: &Path) -> Option<&'static str> {
    const BY_NAME: [(&str, &str); 9] = [
        ("Gemfile", "ruby"),
        ("package.json", "node"),
        ("requirements.txt", "python"),
        ("setup.py", "python"),
        ("composer.json", "php"),
        ("pom.xml", "java"),
        ("build.gradle", "java"),
        ("Cargo.toml", "rust"),
        ("go.mod", "go"),
    ];
    const BY_EXTENSION: [(&str, &str); 3] = [("go", "go"), ("py", "python"), ("php", "php")];
    if let Some((_, found)) = BY_NAME.iter().find(|(name, _)| directory.join(name).is_file()) {
        return Some(found);
    }
    let entries = std::fs::read_dir(directory).ok()?;
    let extensions: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.path().extension().map(|x| x.to_string_lossy().into_owned()))
        .collect();
    BY_EXTENSION
        .iter()
        .find(|(extension, _)| extensions.iter().any(|e| e == extension))
        .map(|(_, found)| *found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_local_or_remote() {
        type Local<'a> = Result<(&'a str, Option<&'a str>), Remote>;
        let rows: &[(&str, Local)] = &[
            ("./child", Ok(("./child", None))),
            ("child", Ok(("child", None))),
            ("../", Ok(("../", None))),
            ("/srv/app", Ok(("/srv/app", None))),
            ("file:///srv/app", Ok(("/srv/app", None))),
            ("git::./child", Ok(("./child", Some("git")))),
            ("git::file:///srv/app", Ok(("/srv/app", Some("git")))),
            ("github.com/hashicorp/otto/examples/mongodb", Err(Remote)),
            ("bitbucket.org/a/b", Err(Remote)),
            ("git::https://github.com/a/b.git//sub?ref=v1", Err(Remote)),
            ("hg::http://example.com/a", Err(Remote)),
            ("git@github.com:a/b.git", Err(Remote)),
            ("https://example.com/a.tgz", Err(Remote)),
        ];
        for (source, expect) in rows {
            assert_eq!(&local_path(source), expect, "{source}");
        }
    }
}
