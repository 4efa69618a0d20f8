//! Descriptions of other tools, which say how an application is built or where it is put, and which nothing here reads
//! yet. None is passed over in silence.

use std::path::Path;

/// A file of another tool, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unbuilt {
    /// Its path, from the directory.
    pub file: &'static str,
    /// What it is, as part of a sentence.
    pub what: &'static str,
}

/// Files that say how an image is made. The first of them that is there is what its author builds by.
const BUILDS: [Unbuilt; 5] = [
    Unbuilt { file: "captain-definition", what: "a definition of CapRover" },
    Unbuilt { file: "heroku.yml", what: "a build manifest of Heroku" },
    Unbuilt { file: "Dockerfile", what: "a Dockerfile" },
    Unbuilt { file: "Containerfile", what: "a Dockerfile" },
    Unbuilt { file: "dockerfile", what: "a Dockerfile" },
];

/// Files that say where and how an application is put.
const DEPLOYMENTS: [Unbuilt; 6] = [
    Unbuilt { file: "config/deploy.yml", what: "a configuration of Kamal" },
    Unbuilt { file: "config/deploy.yaml", what: "a configuration of Kamal" },
    Unbuilt { file: "fly.toml", what: "a configuration of Fly.io" },
    Unbuilt { file: "render.yaml", what: "a blueprint of Render" },
    Unbuilt { file: "railway.json", what: "a configuration of Railway" },
    Unbuilt { file: "railway.toml", what: "a configuration of Railway" },
];

/// Every such file of a directory, those that say how it is built first.
pub(crate) fn all_in(directory: &Path) -> Vec<Unbuilt> {
    let there = |one: &&Unbuilt| {
        let path = directory.join(one.file);
        // Capistrano's file of that name is a Ruby program, and others' have nothing of Kamal's.
        path.is_file() && (!one.file.starts_with("config/deploy") || is_kamal(&path))
    };
    BUILDS.iter().chain(&DEPLOYMENTS).filter(there).copied().collect()
}

/// What a file is, by its name alone, where somebody names it as a description.
pub(crate) fn is_named(path: &Path) -> Option<Unbuilt> {
    let all = BUILDS.iter().chain(&DEPLOYMENTS);
    let name = path.file_name()?.to_str()?;
    let dockerfile =
        name.starts_with("Dockerfile.") || name.ends_with(".Dockerfile") || name.ends_with(".dockerfile");
    if dockerfile {
        return Some(BUILDS[2]);
    }
    all.copied().find(|one| path.ends_with(one.file) && (!one.file.starts_with("config/") || is_kamal(path)))
}

/// Kamal's configuration names a service and its image.
fn is_kamal(path: &Path) -> bool {
    let text = crate::source::Source::read(path).map(|source| source.text).unwrap_or_default();
    ["service:", "image:"].iter().all(|key| text.lines().any(|line| line.starts_with(key)))
}

/// `Dockerfile (a Dockerfile)` makes no sense.
pub(crate) fn listed(all: &[Unbuilt]) -> String {
    let one = |one: &Unbuilt| match one.what {
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
