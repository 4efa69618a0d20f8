//! Loads an Appfile with its imports and dependencies.
//!
//! Imports are merged into the file that names them. As in Otto, defaults come first from the directory (name and type),
//! then from the type (a Ruby application with the gem `pg` depends on PostgreSQL); written values take precedence.
//!
//! Each dependency is an application, loaded once for each directory. It needs an `.ottoid`, so that its identity does not
//! depend on its name. A fetched dependency without one gives a warning only, since the user cannot add the file.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    Appfile, Application, Import, Text, check, directory_of, implicit, merge::merge, parse, resolve::Resolver,
};
use crate::{
    Event, Options,
    app_json::{self, AppJson},
    detect,
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    fetch::{Fetcher, Purpose},
    model::ID_FILE,
    procfile::{self, Process},
};

/// Limit of applications in a tree: more than any known tree has, and few enough to load quickly.
const MAX_APPLICATIONS: usize = 500;
/// Limit of nested imports.
const MAX_IMPORT_DEPTH: usize = 32;

/// Applications in dependency order; the compiled application is the last one.
#[derive(Debug)]
pub struct Tree {
    /// The applications.
    pub apps: Vec<App>,
    /// Warnings about settings without effect.
    pub warnings: Vec<Diagnostic>,
}

/// One application and its directory.
#[derive(Debug)]
pub struct App {
    /// The directory.
    pub directory: PathBuf,
    /// The Appfile; without one, the Procfile or the directory.
    pub path: PathBuf,
    /// The Appfile with imports merged, checked.
    pub file: Appfile,
    /// The application's name, by default that of the directory.
    pub name: Text,
    /// The type, written or detected.
    pub app_type: String,
    /// Process types, if there is a Procfile.
    pub processes: Option<Vec<Process>>,
    /// The content of `app.json`.
    pub(crate) app_json: AppJson,
    /// The identity in `.ottoid`, if the file exists.
    pub id: Option<String>,
    /// Indexes of its dependencies in [`Tree::apps`].
    pub dependencies: Vec<usize>,
}

/// Loads the application at `file`: an Appfile, a Procfile in a directory without an Appfile, or a directory without
/// either.
///
/// # Errors
///
/// All errors in all files that are reached.
pub fn load(file: &Path, options: &Options) -> Result<Tree, Diagnostics> {
    options.events.emit(&Event::Loading { path: file.into() });
    let directory = if file.is_dir() { file.to_path_buf() } else { directory_of(file) };
    let mut loader = Loader {
        options,
        resolver: Resolver::new(Fetcher::new(&directory, options.update, &options.events, super::name_in)),
        apps: Vec::new(),
        seen: HashMap::new(),
        path: Vec::new(),
        found: Findings::default(),
    };
    match directory.canonicalize() {
        Ok(canonical) => drop(loader.app(file.into(), directory, canonical, true)),
        Err(e) => loader.found.error(&Position::of_file(&directory), format!("cannot be read: {e}")),
    }
    loader.same_names();
    let warnings = loader.found.finish()?;
    Ok(Tree { apps: loader.apps, warnings })
}

struct Loader<'a> {
    options: &'a Options,
    resolver: Resolver,
    apps: Vec<App>,
    /// Index in `apps` by canonical directory; `None` while the application is being loaded.
    seen: HashMap<PathBuf, Option<usize>>,
    /// Applications being loaded, outermost first, to report cycles.
    path: Vec<(PathBuf, String)>,
    found: Findings,
}

impl Loader<'_> {
    /// Loads an application after its dependencies. Returns its index, unless it has errors.
    fn app(&mut self, path: PathBuf, directory: PathBuf, canonical: PathBuf, root: bool) -> Option<usize> {
        let base = canonical.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.seen.insert(canonical.clone(), None);
        let errors = self.found.errors.len();
        let mut file = self.read(&path, &directory)?;
        check::check(&file, root, &mut self.found);
        let whole = Position::of_file(&path);
        let detected =
            Application { at: whole, name: None, app_type: None, detect: true, dependencies: Vec::new() };
        let (written, mut application) =
            (file.application.is_some(), file.application.take().unwrap_or(detected));
        let mut app_json = app_json::read(&directory, &self.options.env, &mut self.found);
        let processes = self.processes(&path, &directory);
        let app_type = self.app_type(&application, &directory, written, procfile::is_named(&path), &app_json);
        if app_type.as_deref() == Some("rails") && directory.join("Gemfile").is_file() {
            app_json::add_rails_secret(&mut app_json, &directory, &self.options.env, &mut self.found);
        }
        let named = application.name.clone();
        let name = named.unwrap_or_else(|| Text {
            at: application.at.clone(),
            value: app_json.name.clone().filter(|_| !is_appfile(&path)).unwrap_or(base),
        });
        if let (Some(app_type), true) = (&app_type, is_appfile(&path) || processes.is_none()) {
            implicit::add(&mut application, app_type, &directory, &mut self.found);
        }
        let id = self.id(&directory);
        if root {
            self.options.events.emit(&Event::FetchingDependencies);
        }
        self.path.push((canonical.clone(), name.value.clone()));
        let mut dependencies = Vec::new();
        for source in &application.dependencies {
            dependencies.extend(self.dependency(source, &directory));
        }
        self.path.pop();
        if self.found.errors.len() > errors {
            return None;
        }
        file.application = Some(application);
        let place = self.apps.len();
        let app_type = app_type?;
        self.apps.push(App { directory, path, file, name, app_type, processes, app_json, id, dependencies });
        self.seen.insert(canonical, Some(place));
        Some(place)
    }

    fn read(&mut self, path: &Path, directory: &Path) -> Option<Appfile> {
        if !is_appfile(path) {
            return Some(Appfile::default());
        }
        match parse::parse_file(path) {
            Ok(file) => self.with_imports(file, directory, &mut vec![directory.canonicalize().ok()?]),
            Err(mistakes) => {
                self.found.errors.extend(mistakes.0);
                None
            }
        }
    }

    /// Merges the imports of `file` into it. As in Otto, imported values take precedence.
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
        let directory = self.resolver.directory(source, from, Purpose::Import, &mut self.found)?;
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
        let directory = self.resolver.directory(source, from, Purpose::Dependency, &mut self.found)?;
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
        let file = candidates.into_iter().find(|p| p.is_file());
        let Some(path) = file.or_else(|| detect::app_type(&directory).map(|_| directory.clone())) else {
            let shown = directory.display();
            let sentence =
                format!("dependency \"{}\" has neither an Appfile nor a Procfile in {shown}", source.value);
            self.found.error(&source.at, sentence);
            return None;
        };
        if !directory.join(ID_FILE).is_file() {
            self.no_id(source, &directory, &canonical);
        }
        self.app(path, directory, canonical, false)
    }

    /// Reports a dependency without identity: an error for a local directory, a warning for a fetched one.
    fn no_id(&mut self, source: &Text, directory: &Path, canonical: &Path) {
        if self.resolver.is_fetched(canonical) {
            let sentence = format!(
                "dependency \"{}\" has no {ID_FILE}: it is known by its name alone until its author adds one",
                source.value
            );
            return self.found.warn(&source.at, sentence);
        }
        let shown = directory.display();
        let write = match directory.join("Appfile").is_file() {
            true => String::new(),
            // An identity is only written beside an Appfile.
            false => format!("write {shown}/Appfile, for which application {{}} is enough, "),
        };
        let sentence = format!(
            "dependency \"{}\" has no {ID_FILE}: {write}run `yado compile {shown}` once and keep that file under version control",
            source.value,
        );
        // Loading goes on, so that its other errors are reported at once.
        self.found.error(&source.at, sentence);
    }

    /// The processes of the named Procfile, or of that in the directory.
    fn processes(&mut self, named: &Path, directory: &Path) -> Option<Vec<Process>> {
        let path =
            if is_appfile(named) || named.is_dir() { directory.join("Procfile") } else { named.into() };
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

    fn app_type(
        &mut self,
        application: &Application,
        directory: &Path,
        has_block: bool,
        of_procfile: bool,
        app_json: &AppJson,
    ) -> Option<String> {
        if let Some(written) = &application.app_type {
            return Some(written.value.clone());
        }
        let detected =
            application.detect.then(|| app_json.language.or_else(|| detect::app_type(directory))).flatten();
        let procfile = of_procfile || directory.join("Procfile").is_file();
        if let Some(found) = detected.or(procfile.then_some("custom")) {
            return Some(found.into());
        }
        let reason =
            if application.detect { "nothing in its directory shows one" } else { "detect is false" };
        let advice = "or add a Procfile with a line like web: COMMAND";
        let sentence = if has_block {
            format!("application has no type and {reason}: write type = \"...\", {advice}")
        } else {
            format!(
                "has no application block, and {reason} of a type: write application {{ type = \"...\" }}, {advice}"
            )
        };
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
            self.found.error(&at, "the first line is empty: it has to be the application's UUID");
            return None;
        }
        Some(id.into())
    }

    /// Reports applications of the same name, whose objects would be the same.
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

/// Whether the description of an application is an Appfile, and not a Procfile or a directory.
pub(super) fn is_appfile(path: &Path) -> bool {
    path.is_file() && !procfile::is_named(path)
}
