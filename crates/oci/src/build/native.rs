//! Dependencies that are bound to C libraries: which Debian packages those need.

use super::Language;
use super::plan::{Plan, Sources};
use crate::image::Result;

/// `LANGUAGE NAME [NAME...] | to build | to run`, as Debian 12 calls its packages.
const TABLE: &str = include_str!("native.txt");

/// The files that name a language's dependencies.
fn manifests(language: Language) -> (&'static str, &'static [&'static str]) {
    match language {
        Language::Ruby | Language::Rails => ("ruby", &["Gemfile.lock", "Gemfile"]),
        Language::Python => (
            "python",
            &[
                "requirements.txt",
                "Pipfile.lock",
                "Pipfile",
                "poetry.lock",
                "uv.lock",
                "pyproject.toml",
                "setup.py",
            ],
        ),
        Language::Node => ("node", &["package-lock.json", "yarn.lock", "pnpm-lock.yaml", "package.json"]),
        Language::Rust => ("rust", &["Cargo.lock", "Cargo.toml"]),
        Language::Go => ("go", &["go.mod"]),
        Language::Php | Language::Java | Language::Static => ("", &[]),
    }
}

/// Adds what the dependencies need: headers to the compilers, libraries to the image.
pub(super) fn add(language: Language, sources: &Sources, plan: &mut Plan) -> Result<()> {
    let (kind, files) = manifests(language);
    let mut text = String::new();
    for file in files {
        text += &sources.text_or_empty(file)?;
        text.push('\n');
    }
    let (build, run) = needed(kind, &text);
    let build: Vec<String> = build.into_iter().filter(|p| !plan.tools.contains(p)).collect();
    // Where there is no second try, the compilers are among the tools.
    if plan.compilers.is_empty() {
        plan.tools.extend(build)
    } else {
        plan.compilers.extend(build)
    }
    plan.runtime.extend(run);
    Ok(())
}

/// Packages to build and to run with, of the dependencies that a manifest's text names.
fn needed(kind: &str, manifest: &str) -> (Vec<String>, Vec<String>) {
    let (mut build, mut run): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let manifest = manifest.to_lowercase();
    let words: std::collections::BTreeSet<&str> = manifest.split(|c: char| !is_part_of_name(c)).collect();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('|').map(str::split_whitespace);
        let (Some(mut names), Some(to_build), Some(to_run)) =
            (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        if names.next() != Some(kind) || !names.any(|name| words.contains(name)) {
            continue;
        }
        for (all, more) in [(&mut build, to_build), (&mut run, to_run)] {
            for package in more.map(str::to_owned) {
                if !all.contains(&package) {
                    all.push(package);
                }
            }
        }
    }
    (build, run)
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_dependencies() {
        let check = |kind: &str, manifest: &str, build: &str, run: &str| {
            let (b, r) = needed(kind, manifest);
            assert_eq!((b.join(" ").as_str(), r.join(" ").as_str()), (build, run), "{manifest}");
        };
        check("ruby", "    pg (1.5.4)\n", "libpq-dev", "libpq5");
        check("ruby", "gem 'pg'\ngem \"sqlite3\"", "libpq-dev libsqlite3-dev", "libpq5 libsqlite3-0");
        check("python", "psycopg2==2.9\n", "libpq-dev", "libpq5");
        check("python", "psycopg2-binary==2.9\nFlask", "", "");
        check(
            "python",
            "Pillow>=9",
            "libjpeg62-turbo-dev zlib1g-dev libfreetype6-dev",
            "libjpeg62-turbo libfreetype6",
        );
        check("node", "{\"dependencies\": {\"pg\": \"1\"}}", "", "");
        check("rust", "name = \"openssl-sys\"", "pkg-config libssl-dev", "libssl3");
    }

    #[test]
    fn every_line_of_the_table_is_whole() {
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('|').collect();
            assert_eq!(columns.len(), 3, "{line}");
            assert!(columns[0].split_whitespace().count() > 1, "{line}");
        }
    }
}
