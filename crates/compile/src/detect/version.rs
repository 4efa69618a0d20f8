//! Compares the runtime versions that an application requests with those that are available.
//!
//! Runtimes come from Debian, which has one version of each. An application that requests another version gives a
//! warning, since it may not run.

use std::path::Path;

use super::read;

/// Versions in Debian 12, which do not change over the life of the release.
const DEBIAN: [(&str, &str, &str); 9] = [
    ("ruby", "Ruby", "3.1"),
    ("rails", "Ruby", "3.1"),
    ("node", "Node.js", "18.20"),
    ("python", "Python", "3.11"),
    ("php", "PHP", "8.2"),
    ("java", "Java", "17"),
    ("go", "Go", "1.19"),
    ("rust", "Rust", "1.63"),
    ("maven", "Maven", "3.8"),
];

/// A version request and the file that contains it.
struct Asked {
    file: &'static str,
    version: String,
}

/// A file and a message for each file that requests a version of `language` that is not available.
pub(crate) fn differences(directory: &Path, language: &str) -> Vec<(&'static str, String)> {
    let asked = asked(directory, language);
    asked.into_iter().filter_map(|a| Some((a.file, difference(language, &a.version)?))).collect()
}

/// The message about a requested version of `language` that is not available; `None` if it is.
pub(crate) fn difference(language: &str, wanted: &str) -> Option<String> {
    let (_, shown, there) = DEBIAN.iter().find(|(name, ..)| *name == language)?;
    let wanted = wanted.trim();
    if wanted.is_empty() || wanted == "detect" || fits(wanted, there) {
        return None;
    }
    Some(format!("asks for {shown} {wanted}; it runs on Debian 12's, which is {there}"))
}

fn asked(directory: &Path, language: &str) -> Vec<Asked> {
    let mut all = Vec::new();
    let mut add = |file: &'static str, version: Option<String>| {
        all.extend(version.filter(|v| !v.trim().is_empty()).map(|version| Asked { file, version }));
    };
    let first_line = |name: &str| read(directory, name).lines().next().map(|l| l.trim().to_string());
    match language {
        "ruby" | "rails" => {
            add(".ruby-version", first_line(".ruby-version").map(|v| v.trim_start_matches("ruby-").into()));
            add("Gemfile", read(directory, "Gemfile").lines().find_map(gemfile_ruby));
        }
        "node" => {
            let package: serde_json::Value =
                serde_json::from_str(&read(directory, "package.json")).unwrap_or_default();
            add("package.json", package["engines"]["node"].as_str().map(str::to_string));
            for file in [".nvmrc", ".node-version"] {
                // `lts/*` and the like name no version.
                add(
                    file,
                    first_line(file)
                        .filter(|v| v.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit())),
                );
            }
        }
        "python" => {
            add(
                "runtime.txt",
                first_line("runtime.txt").and_then(|v| v.strip_prefix("python-").map(str::to_string)),
            );
            add(
                ".python-version",
                first_line(".python-version").filter(|v| v.starts_with(|c: char| c.is_ascii_digit())),
            );
        }
        "php" => {
            let composer: serde_json::Value =
                serde_json::from_str(&read(directory, "composer.json")).unwrap_or_default();
            add("composer.json", composer["require"]["php"].as_str().map(str::to_string));
        }
        "go" => {
            let line = read(directory, "go.mod")
                .lines()
                .find_map(|l| l.trim().strip_prefix("go ").map(str::to_string));
            // A module's version is the least that it needs.
            add("go.mod", line.map(|v| format!(">={}", v.trim())));
        }
        "java" => {
            let properties = read(directory, "system.properties");
            add(
                "system.properties",
                properties
                    .lines()
                    .find_map(|l| l.trim().strip_prefix("java.runtime.version=").map(str::to_string)),
            );
        }
        _ => {}
    }
    all
}

/// `ruby '2.7.1'`, as a Gemfile says it.
fn gemfile_ruby(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("ruby")?.trim_start_matches([' ', '(']);
    let quote = rest.chars().next().filter(|c| "'\"".contains(*c))?;
    rest[1..].split(quote).next().map(str::to_string)
}

/// Whether the version `there` satisfies `wanted`: `3.1`, `3.1.4`, `~> 3.0`, `^16 || >=18 <21`, `18.x`. A requirement
/// that cannot be parsed counts as satisfied, since a wrong warning is worse than none.
fn fits(wanted: &str, there: &str) -> bool {
    wanted.split("||").flat_map(|w| w.split('|')).any(|any| {
        let spaced = any
            .replace(">= ", ">=")
            .replace("<= ", "<=")
            .replace("> ", ">")
            .replace("< ", "<")
            .replace("~> ", "~>");
        spaced.split([' ', ',']).filter(|w| !w.is_empty() && *w != "-").all(|one| fits_one(one, there))
    })
}

fn fits_one(wanted: &str, there: &str) -> bool {
    let digits = wanted.trim_start_matches(['^', '~', '>', '<', '=', 'v', '!']);
    let operator = &wanted[..wanted.len() - digits.len()];
    let parts = |version: &str| -> Vec<u64> { version.split('.').map_while(|p| p.parse().ok()).collect() };
    let (wanted, there) = (parts(digits), parts(there));
    if wanted.is_empty() {
        return true;
    }
    // What is known of Debian's is the first two numbers, so no more are compared.
    let known = wanted.len().min(there.len());
    let (wanted, there) = (&wanted[..known], &there[..known]);
    match operator.trim_end_matches('v') {
        ">" | ">=" => there >= wanted,
        "<" => there < wanted || (there == wanted && digits.split('.').count() > known),
        "<=" => there <= wanted,
        "!=" => there != wanted,
        "^" => there[0] == wanted[0] && there >= wanted,
        "~>" | "~" if digits.split('.').count() <= 2 => there[0] == wanted[0] && there >= wanted,
        _ => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_fit_or_do_not() {
        for (wanted, there, expect) in [
            ("3.1", "3.1", true),
            ("3.1.4", "3.1", true),
            ("2.7.1", "3.1", false),
            ("3", "3.1", true),
            ("~> 3.0", "3.1", true),
            ("~> 3.0.2", "3.1", false),
            (">= 2.5", "3.1", true),
            ("^16 || ^18", "18.20", true),
            ("^16.0.0", "18.20", false),
            (">=14 <17", "18.20", false),
            (">= 14, < 19", "18.20", true),
            ("18.x", "18.20", true),
            ("16.x", "18.20", false),
            ("*", "18.20", true),
            ("lts", "18.20", true),
            ("^7.4|^8.0", "8.2", true),
            ("<=16", "18.20", false),
            ("1.8", "17", false),
            (">=1.21", "1.19", false),
        ] {
            assert_eq!(fits(wanted, there), expect, "{wanted} beside {there}");
        }
    }
}
