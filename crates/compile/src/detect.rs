//! Detects the application type of a source directory, and its start command if there is no Procfile.
//!
//! | type | its files | started as |
//! |---|---|---|
//! | `rails` | `config/application.rb`, or a Gemfile that names rails | `rails server` |
//! | `ruby` | `Gemfile`, `config.ru`, `*.rb` | `rackup`, or `app.rb` |
//! | `wordpress`, `php` | `wp-config.php`, `composer.json`, `*.php` | as the build decides |
//! | `java` | `pom.xml`, `build.gradle`, `*.java` | as the build decides |
//! | `python` | `requirements.txt`, `setup.py`, `manage.py`, `*.py`, ... | gunicorn, uvicorn, flask or the file itself |
//! | `go` | `go.mod`, `*.go` | as the build decides |
//! | `rust` | `Cargo.toml` | as the build decides |
//! | `node` | `package.json` | `npm start`, or `server.js` |
//! | `static` | `index.html`, or a `package.json` that only builds pages | as the build decides |
//!
//! The order is Otto's: `package.json` comes late, as applications in other languages have one for their pages.
//! Every web process listens on `$PORT`.

mod process;
mod version;

use std::path::Path;

pub(crate) use process::{Hints, Start, go_program, python_needs, start};
pub(crate) use version::{difference, differences};

/// Limit of bytes read of a file; dependency manifests are far smaller.
const MAX_READ: u64 = 1 << 20;

/// Application types and the language runtime that each one needs.
const LANGUAGES: [(&str, &str); 10] = [
    ("go", "go"),
    ("java", "java"),
    ("node", "node"),
    ("php", "php"),
    ("python", "python"),
    ("rails", "rails"),
    ("ruby", "ruby"),
    ("rust", "rust"),
    ("static", "static"),
    ("wordpress", "php"),
];

/// The language runtime of an application type; `None` for types without one.
pub(crate) fn language(app_type: &str) -> Option<&'static str> {
    LANGUAGES.iter().find(|(name, _)| *name == app_type).map(|(_, language)| *language)
}

/// Detects the application type from a directory's files.
pub(crate) fn app_type(directory: &Path) -> Option<&'static str> {
    let there = |names: &[&str]| names.iter().any(|name| directory.join(name).is_file());
    let ends: Vec<String> = extensions(directory);
    let ends = |extension: &str| ends.iter().any(|e| e == extension);
    let rails = || there(&["config/application.rb"]) || gem(directory, "rails");
    let found = [
        ("rails", there(&["config/application.rb", "Gemfile"]) && rails()),
        ("ruby", there(&["Gemfile", "config.ru"])),
        ("wordpress", there(&["wp-config.php", "wp-config-sample.php"])),
        ("php", there(&["composer.json", "index.php"])),
        ("java", there(&["pom.xml", "build.gradle", "build.gradle.kts"])),
        ("go", there(&["go.mod"])),
        ("rust", there(&["Cargo.toml"])),
        ("python", there(&["requirements.txt", "setup.py", "pyproject.toml", "Pipfile", "manage.py"])),
        ("ruby", ends("rb")),
        ("go", ends("go")),
        ("php", ends("php")),
        ("python", ends("py")),
        ("java", ends("java")),
        ("static", process::is_built_site(directory)),
        ("node", there(&["package.json"])),
        ("static", there(&["index.html", "public/index.html", "dist/index.html"])),
    ];
    found.into_iter().find(|(_, shown)| *shown).map(|(name, _)| name)
}

/// Whether the Gemfile or its lock file contains a gem.
pub(crate) fn gem(directory: &Path, name: &str) -> bool {
    let locked = |line: &str| {
        line.strip_prefix("    ").and_then(|l| l.strip_prefix(name)).is_some_and(|l| l.starts_with(" ("))
    };
    if read(directory, "Gemfile.lock").lines().any(locked) {
        return true;
    }
    read(directory, "Gemfile").lines().any(|line| gem_of_line(line) == Some(name))
}

/// `gem 'NAME', ...`
fn gem_of_line(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("gem").filter(|rest| rest.starts_with([' ', '(']))?;
    let rest = rest.trim_start_matches([' ', '(']);
    let quote = rest.chars().next().filter(|c| "'\"".contains(*c))?;
    rest[1..].split(quote).next()
}

/// The text of a file; empty if it cannot be read.
fn read(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    let mut bytes = Vec::new();
    if path.is_file()
        && let Ok(file) = std::fs::File::open(path)
    {
        drop(std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_READ), &mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn extensions(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let files = entries.flatten().filter(|e| e.path().is_file());
    files.filter_map(|e| Some(e.path().extension()?.to_string_lossy().into_owned())).collect()
}
