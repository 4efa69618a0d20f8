//! Start commands of applications without a Procfile, as Heroku's buildpacks and Otto choose them.

use std::path::Path;

use super::{gem, read};

/// Settings of the description that influence the start command.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Hints {
    /// The application's name.
    pub name: String,
    /// The whole command (`run_command`).
    pub run_command: Option<String>,
    /// Module and object of a Python web application, such as `site:app` (`python_entrypoint`).
    pub python_entrypoint: Option<String>,
}

/// How an application's `web` process is started.
#[derive(Debug, PartialEq)]
pub(crate) enum Start {
    /// The command of its `web` process.
    Command(String),
    /// By the default command of the built image, for compiled languages and static sites.
    Image,
    /// Unknown; the reason, a clause.
    Unknown(&'static str),
}

/// Detects how the sources in `directory`, in a language of [`super::language`], are started.
pub(crate) fn start(directory: &Path, language: &str, hints: &Hints) -> Start {
    if let Some(command) = &hints.run_command {
        return Start::Command(command.clone());
    }
    let there = |names: &[&str]| names.iter().any(|name| directory.join(name).is_file());
    match language {
        "rails" => match there(&["config.ru", "config/application.rb", "Gemfile"]) {
            true => Start::Command("bundle exec rails server -b 0.0.0.0 -p $PORT".into()),
            false => Start::Unknown("it has no config/application.rb"),
        },
        "ruby" => ruby(directory, hints),
        "node" => node(directory),
        "python" => python(directory, hints),
        "php" => php(directory),
        "java" if there(&["pom.xml", "build.gradle", "build.gradle.kts"]) => Start::Image,
        "java" if super::extensions(directory).iter().any(|e| e == "java") => Start::Image,
        "java" => Start::Unknown("it has no pom.xml, no build.gradle and no .java files"),
        "go" if there(&["go.mod"]) || super::extensions(directory).iter().any(|e| e == "go") => Start::Image,
        "go" => Start::Unknown("it has no .go files"),
        "rust" if there(&["Cargo.toml"]) => Start::Image,
        "rust" => Start::Unknown("it has no Cargo.toml"),
        "static" if there(&["index.html", "public/index.html", "dist/index.html"]) => Start::Image,
        "static" if is_built_site(directory) => Start::Image,
        "static" => Start::Unknown("it has no index.html"),
        _ => Start::Unknown("its type is not a supported language"),
    }
}

fn ruby(directory: &Path, hints: &Hints) -> Start {
    let bundle = if directory.join("Gemfile").is_file() { "bundle exec " } else { "" };
    if directory.join("config.ru").is_file() {
        return Start::Command(format!("{bundle}rackup config.ru -o 0.0.0.0 -p $PORT"));
    }
    let own = format!("{}.rb", hints.name);
    let Some(file) =
        ["app.rb", "main.rb", "server.rb", "web.rb", &own].into_iter().find(|f| directory.join(f).is_file())
    else {
        return Start::Unknown("it has no config.ru and no app.rb");
    };
    let sinatra = gem(directory, "sinatra") || read(directory, file).contains("require 'sinatra'");
    let flags = if sinatra { " -o 0.0.0.0 -p $PORT" } else { "" };
    Start::Command(format!("{bundle}ruby {file}{flags}"))
}

fn node(directory: &Path) -> Start {
    if !directory.join("package.json").is_file() {
        return Start::Unknown("it has no package.json");
    }
    let package: serde_json::Value =
        serde_json::from_str(&read(directory, "package.json")).unwrap_or_default();
    if package["scripts"]["start"].as_str().is_some_and(|s| !s.trim().is_empty()) {
        return Start::Command("npm start".into());
    }
    let main = package["main"].as_str().map(|m| m.trim_start_matches("./").to_string());
    let with_end = main.as_ref().map(|m| format!("{m}.js"));
    let candidates =
        [Some("server.js".to_string()), main, with_end, Some("index.js".into()), Some("app.js".into())];
    let safe = |f: &String| {
        !f.is_empty() && !f.contains(|c: char| c.is_whitespace() || "'\"$`\\;&|<>()".contains(c))
    };
    let file = candidates.into_iter().flatten().find(|f| safe(f) && directory.join(f).is_file());
    match file {
        Some(file) => Start::Command(format!("node {file}")),
        None => {
            Start::Unknown("its package.json names no start script and no file, nor is there a server.js")
        }
    }
}

/// Whether a `package.json` builds pages but has no server for them, which makes it a static site.
pub(crate) fn is_built_site(directory: &Path) -> bool {
    let package: serde_json::Value =
        serde_json::from_str(&read(directory, "package.json")).unwrap_or_default();
    package["scripts"]["build"].is_string()
        && package["scripts"]["start"].is_null()
        && matches!(node(directory), Start::Unknown(_))
}

fn python(directory: &Path, hints: &Hints) -> Start {
    let needs = |package: &str| python_needs(directory, package);
    if let Some(entry) = &hints.python_entrypoint {
        return Start::Command(serve(entry, &needs));
    }
    if directory.join("manage.py").is_file() {
        let wsgi = needs("gunicorn").then(|| django_wsgi(directory)).flatten();
        return Start::Command(wsgi.map_or_else(
            || "python3 manage.py runserver 0.0.0.0:$PORT".into(),
            |module| format!("gunicorn {module} --bind 0.0.0.0:$PORT"),
        ));
    }
    let own = format!("{}.py", hints.name.replace('-', "_"));
    let files = ["app.py", "main.py", "wsgi.py", "application.py", "server.py", "run.py", &own];
    let Some(file) = files.into_iter().find(|f| directory.join(f).is_file()) else {
        return Start::Unknown("it has no app.py, main.py or manage.py");
    };
    let text = read(directory, file);
    let module = file.trim_end_matches(".py");
    let object = ["app", "application"].into_iter().find(|name| {
        text.lines().any(|l| l.strip_prefix(name).is_some_and(|l| l.trim_start().starts_with('=')))
    });
    let web = ["gunicorn", "uvicorn", "flask"]
        .into_iter()
        .any(|p| needs(p) || (p == "flask" && text.contains("import Flask")));
    match object {
        Some(object) if web && !(needs("flask") && !needs("gunicorn") && text.contains(".run(")) => {
            Start::Command(serve(&format!("{module}:{object}"), &needs))
        }
        _ => Start::Command(format!("python3 {file}")),
    }
}

/// The command that serves `module:object` with the server in the application's requirements; by default gunicorn, as in
/// Otto.
fn serve(entry: &str, needs: &dyn Fn(&str) -> bool) -> String {
    if needs("gunicorn") {
        let worker = if needs("uvicorn") { " -k uvicorn.workers.UvicornWorker" } else { "" };
        format!("gunicorn {entry} --bind 0.0.0.0:$PORT{worker}")
    } else if needs("uvicorn") {
        format!("uvicorn {entry} --host 0.0.0.0 --port $PORT")
    } else if needs("flask") {
        format!("flask --app {entry} run --host 0.0.0.0 --port $PORT")
    } else {
        format!("gunicorn {entry} --bind 0.0.0.0:$PORT")
    }
}

/// Whether a list of requirements contains a package; a longer name with that prefix does not count.
fn names_package(text: &str, package: &str) -> bool {
    text.match_indices(package).any(|(i, _)| {
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let before = text[..i].chars().next_back().is_none_or(|c| !word(c));
        before && text[i + package.len()..].chars().next().is_none_or(|c| !word(c))
    })
}

/// The module of the one package below `directory` that has a `wsgi.py`.
fn django_wsgi(directory: &Path) -> Option<String> {
    let mut modules: Vec<String> = std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter(|e| e.path().join("wsgi.py").is_file())
        .map(|e| format!("{}.wsgi", e.file_name().to_string_lossy()))
        .collect();
    modules.sort();
    modules.into_iter().next()
}

/// The build chooses the document root and the server.
fn php(directory: &Path) -> Start {
    let roots = ["public", "web", "webroot", "www", "htdocs", "."];
    let there = roots.iter().any(|root| directory.join(root).join("index.php").is_file());
    if there
        || directory.join("composer.json").is_file()
        || super::extensions(directory).iter().any(|e| e == "php")
    {
        Start::Image
    } else {
        Start::Unknown("it has no index.php")
    }
}

/// The name of the program built from the Go sources in `directory`: the last part of the module path, or the name of the
/// directory.
pub(crate) fn go_program(directory: &Path) -> String {
    let module = read(directory, "go.mod")
        .lines()
        .find_map(|l| l.trim().strip_prefix("module ").map(|m| m.trim().trim_matches('"').to_string()));
    let own = || directory.canonicalize().ok()?.file_name().map(|n| n.to_string_lossy().into_owned());
    let path = module.or_else(own).unwrap_or_default();
    // `/v2` is a major version suffix and not part of the name.
    let version = |part: &&str| {
        part.strip_prefix('v').is_some_and(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))
    };
    path.rsplit('/').find(|part| !part.is_empty() && !version(part)).unwrap_or("app").to_string()
}

/// Whether the requirements of a Python application contain a package.
pub(crate) fn python_needs(directory: &Path, package: &str) -> bool {
    let lists = ["requirements.txt", "Pipfile", "pyproject.toml", "setup.py"];
    lists.iter().any(|file| names_package(&read(directory, file).to_lowercase(), package))
}
