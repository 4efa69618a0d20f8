//! Detects build and deployment files of other tools that are not supported yet, so that none is ignored silently.

use std::path::Path;

/// A file of another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForeignFile {
    /// Path relative to the application's directory.
    pub file: &'static str,
    /// Description for messages.
    pub what: &'static str,
}

/// Files that define how an image is built, in order of precedence.
const BUILDS: [ForeignFile; 5] = [
    ForeignFile { file: "captain-definition", what: "a definition of CapRover" },
    ForeignFile { file: "heroku.yml", what: "a build manifest of Heroku" },
    ForeignFile { file: "Dockerfile", what: "a Dockerfile" },
    ForeignFile { file: "Containerfile", what: "a Dockerfile" },
    ForeignFile { file: "dockerfile", what: "a Dockerfile" },
];

/// Files that define how an application is deployed.
const DEPLOYMENTS: [ForeignFile; 6] = [
    ForeignFile { file: "config/deploy.yml", what: "a configuration of Kamal" },
    ForeignFile { file: "config/deploy.yaml", what: "a configuration of Kamal" },
    ForeignFile { file: "fly.toml", what: "a configuration of Fly.io" },
    ForeignFile { file: "render.yaml", what: "a blueprint of Render" },
    ForeignFile { file: "railway.json", what: "a configuration of Railway" },
    ForeignFile { file: "railway.toml", what: "a configuration of Railway" },
];

/// All such files in a directory, build files first.
pub(crate) fn all_in(directory: &Path) -> Vec<ForeignFile> {
    let there = |one: &&ForeignFile| {
        let path = directory.join(one.file);
        // `config/deploy.*` files of Capistrano and other tools do not have Kamal's fields.
        path.is_file() && (!one.file.starts_with("config/deploy") || is_kamal(&path))
    };
    BUILDS.iter().chain(&DEPLOYMENTS).filter(there).copied().collect()
}

/// Recognises a file by its name alone, if the user passes it as a description.
pub(crate) fn is_named(path: &Path) -> Option<ForeignFile> {
    let all = BUILDS.iter().chain(&DEPLOYMENTS);
    let name = path.file_name()?.to_str()?;
    let dockerfile =
        name.starts_with("Dockerfile.") || name.ends_with(".Dockerfile") || name.ends_with(".dockerfile");
    if dockerfile {
        return Some(BUILDS[2]);
    }
    all.copied().find(|one| path.ends_with(one.file) && (!one.file.starts_with("config/") || is_kamal(path)))
}

/// Whether a file is a Kamal configuration, which defines a service and its image.
fn is_kamal(path: &Path) -> bool {
    let text = crate::source::Source::read(path).map(|source| source.text).unwrap_or_default();
    ["service:", "image:"].iter().all(|key| text.lines().any(|line| line.starts_with(key)))
}

/// A list of the files for messages, with descriptions unless the name is the description.
pub(crate) fn listed(all: &[ForeignFile]) -> String {
    let one = |one: &ForeignFile| match one.what {
        "a Dockerfile" => one.file.to_string(),
        what => format!("{} ({what})", one.file),
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_tools() {
        for (files, expect) in [
            (&[("Dockerfile", "")][..], "Dockerfile"),
            (
                &[("captain-definition", "{}"), ("Dockerfile", "")],
                "captain-definition (a definition of CapRover), Dockerfile",
            ),
            (
                &[("config/deploy.yml", "service: a\nimage: b\n")],
                "config/deploy.yml (a configuration of Kamal)",
            ),
            (&[("config/deploy.yml", "stages: [a]\n")], ""),
            (&[("src/Dockerfile", "")], ""),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            for (name, text) in files {
                let path = directory.path().join(name);
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                std::fs::write(path, text).expect("a file");
            }
            assert_eq!(listed(&all_in(directory.path())), expect);
        }
        for (path, expect) in [
            ("a/Dockerfile", Some("Dockerfile")),
            ("a/Dockerfile.prod", Some("Dockerfile")),
            ("captain-definition", Some("captain-definition")),
            ("deploy.yml", None),
            ("notes.txt", None),
        ] {
            assert_eq!(is_named(Path::new(path)).map(|one| one.file), expect, "{path}");
        }
    }
}
