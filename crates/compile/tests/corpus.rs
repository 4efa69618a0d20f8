//! Descriptions written by others, for Otto and Kubernetes. `YADO_CORPUS` names the directory; without one the tests
//! say that they were skipped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use yado_compile::{Options, appfile, compile, output};

fn corpus(below: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus");
    let path =
        std::env::var_os("YADO_CORPUS").map_or_else(|| PathBuf::from(default), PathBuf::from).join(below);
    if !path.is_dir() {
        yado_testkit::not_proved!("there is no {}; set YADO_CORPUS to the corpus", path.display());
        return None;
    }
    Some(path)
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

#[test]
fn every_otto_example_compiles() {
    for examples in ["otto/examples", "otto/examples-0.1"] {
        let Some(examples) = corpus(examples) else { return };
        for directory in directories(&examples) {
            if !directory.join("Appfile").is_file() {
                continue; // Otto's ruby examples are an .ottoid alone.
            }
            let name = directory.file_name().unwrap().to_str().unwrap();
            let compiled = compile(&directory, &Options::default()).unwrap();
            assert_eq!(compiled.app, name);
            assert_eq!(compiled.warnings, []);
            let kinds: Vec<(&str, &str)> = compiled.objects.iter().map(|o| (o.kind(), o.name())).collect();
            let public = format!("{name}-public");
            assert_eq!(kinds, [("Service", name), ("Deployment", name), ("Service", &public)]);
        }
    }
}

/// How a fixture fails: the file, line and column, and part of the sentence.
type Failure<'a> = Option<(&'a str, &'a str)>;

fn check(name: &str, result: Result<(), yado_compile::Diagnostics>, expect: Failure) {
    match (result, expect) {
        (Ok(()), None) => {}
        (Ok(()), Some((at, sentence))) => panic!("{name} passes, but has to fail at {at} with: {sentence}"),
        (Err(mistakes), None) => panic!("{name} fails:\n{mistakes}"),
        (Err(mistakes), Some((at, sentence))) => {
            let text = mistakes.to_string();
            assert!(
                text.contains(at) && text.contains(sentence),
                "{name}:\n{text}\nhas to say {at} and {sentence}"
            );
        }
    }
}

#[test]
fn single_files_parse_or_fail_as_they_are_named() {
    let Some(fixtures) = corpus("otto/appfile-fixtures") else { return };
    let rows: &[(&str, Failure)] = &[
        ("app-no-detect.hcl", None),
        ("basic.hcl", None),
        ("basic-custom.hcl", None),
        ("basic-custom-case.hcl", None),
        ("basic-custom-no-name.hcl", None),
        ("file-active-infra-basic.hcl", None),
        ("imports.hcl", None),
        ("infra-dup.hcl", Some((":5:16", "infrastructure \"aws\" is defined more than once"))),
        ("infra-foundations.hcl", None),
        ("infra-foundations-dup.hcl", Some((":9:16", "foundation \"consul\" is defined more than once"))),
        ("multi-app.hcl", Some((":5:1", "only one application block"))),
        ("unknown-keys.hcl", Some((":1:1", "\"app\" is unknown"))),
    ];
    for (name, expect) in rows {
        let parsed = appfile::parse::parse_file(&fixtures.join(name));
        check(name, parsed.map(drop), *expect);
    }
}

#[test]
fn directories_load_or_fail_as_they_are_named() {
    let Some(fixtures) = corpus("otto/appfile-fixtures") else { return };
    let rows: &[(&str, Failure)] = &[
        ("compile-basic", None),
        ("compile-cycle", Some(("child/Appfile:5:18", "dependency cycle: foo -> child -> foo"))),
        ("compile-dep-infra", None),
        ("compile-deps", None),
        ("compile-deps-git", None),
        ("compile-deps-no-id", Some(("Appfile:5:18", "has no .ottoid"))),
        ("compile-diff-project", Some(("Appfile:9:1", "project names no infrastructure"))),
        ("compile-id", None),
        ("compile-id-exists", None),
        ("compile-invalid", Some(("Appfile:1:1", "application has no type"))),
        ("compile-multi-dep", None),
        ("import-basic", None),
        ("import-cycle", Some(("subchild/Appfile:1:8", "leads back"))),
        ("import-dep", None),
        ("import-nested", None),
        ("load-new", Some(("load-new", "no Appfile"))),
        ("validate-app-no-name", Some(("Appfile:2:12", "name is empty"))),
        ("validate-app-no-type", Some(("Appfile:3:12", "type is empty"))),
        ("validate-basic", None),
        ("validate-no-app", Some(("Appfile", "no application block"))),
        ("validate-no-infra", Some(("Appfile:6:1", "project names no infrastructure"))),
        ("validate-no-project", Some(("Appfile:6:16", "is used by no project"))),
        ("validate-project-no-infra", Some(("Appfile:6:1", "write infrastructure = \"google\""))),
        ("validate-project-no-name", Some(("Appfile:7:12", "name is empty"))),
        ("validate-project-unknown-infra", Some(("Appfile:8:22", "no infrastructure \"aws\""))),
    ];
    for (name, expect) in rows {
        check(name, compile(&fixtures.join(name), &Options::default()).map(drop), *expect);
    }
    let listed: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    for directory in directories(&fixtures) {
        let name = directory.file_name().unwrap().to_str().unwrap();
        assert!(listed.contains(&name), "{name} is in the corpus, but not in this table");
    }
}

/// What each of Otto's fixtures and examples becomes: a line an object, its warnings, or its mistakes.
#[test]
fn otto_fixtures_become_objects() {
    let Some(otto) = corpus("otto") else { return };
    let mut text = String::new();
    for set in ["examples-0.1", "examples", "appfile-fixtures"] {
        let files = files_below(&otto.join(set)).into_iter();
        let mut paths: Vec<PathBuf> = files
            .filter_map(|file| match file.file_name().unwrap().to_str().unwrap() {
                "Appfile" => Some(file.parent().unwrap().to_path_buf()),
                name if name.ends_with(".hcl") => Some(file),
                _ => None,
            })
            .collect();
        paths.sort();
        for path in paths {
            text.push_str(&format!("{}\n", path.strip_prefix(&otto).unwrap().display()));
            let lines: Vec<String> = match compile(&path, &Options::default()) {
                Ok(compiled) => {
                    let shown = |o: &yado_compile::Object| format!("{} {}", o.kind(), o.name());
                    let head = format!("{} ({})", compiled.app, compiled.app_type);
                    let objects = compiled.objects.iter().map(shown);
                    let warnings = compiled.warnings.iter().map(|w| format!("warning: {w}"));
                    std::iter::once(head).chain(objects).chain(warnings).collect()
                }
                Err(mistakes) => mistakes.0.iter().map(|m| format!("mistake: {m}")).collect(),
            };
            text.extend(
                lines.iter().map(|l| format!("  {}\n", l.replace(&format!("{}/", otto.display()), ""))),
            );
        }
    }
    expect_test::expect_file!["corpus/otto.txt"].assert_eq(&text);
}

/// All files below `directory`, by name, but for what yado has left of somebody's run there.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries.retain(|path| path.file_name().is_some_and(|name| name != ".yado"));
    entries.into_iter().flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// What every manifest becomes: a line an object, or its mistakes. What they become in full is in the tests of the
/// conversions.
#[test]
fn kubernetes_manifests_of_any_age_become_todays() {
    let Some(manifests) = corpus("kubernetes") else { return };
    let mut text = String::new();
    for path in files_below(&manifests) {
        text += &format!("{}\n", path.strip_prefix(&manifests).unwrap().display());
        match compile(&path, &Options::default()) {
            Ok(compiled) => {
                for object in &compiled.objects {
                    text += &format!("  {} {} {}\n", object.api_version(), object.kind(), object.name());
                }
                compiled.warnings.iter().for_each(|w| text += &format!("  warning: {w}\n"));
            }
            Err(mistakes) => mistakes.0.iter().for_each(|m| text += &format!("  error: {m}\n")),
        }
    }
    let text = text.replace(&format!("{}/", manifests.display()), "");
    expect_test::expect_file!["corpus/kubernetes.txt"].assert_eq(&text);
}

/// What every compose file and bundle becomes, in full, with its warnings or its mistakes.
#[test]
fn compose_files_become_objects() {
    let Some(files) = corpus("compose") else { return };
    if Path::new("/var/run/docker.sock").exists() {
        yado_testkit::not_proved!(
            "where Docker runs, the file that mounts its socket becomes another object"
        );
        return;
    }
    let files = files.canonicalize().unwrap();
    let mut text = String::new();
    for path in files_below(&files) {
        text += &format!("# compose/{}\n", path.strip_prefix(&files).unwrap().display());
        match compile(&path, &Options::default()) {
            Ok(compiled) => {
                compiled.warnings.iter().for_each(|w| text += &format!("# warning: {w}\n"));
                for build in &compiled.builds {
                    text += &format!("# builds {} from {}\n", build.image, build.context.display());
                }
                for object in &compiled.objects {
                    text += &format!("---\n{}\n", output::yaml(&object.value).trim_end());
                }
            }
            Err(mistakes) => mistakes.0.iter().for_each(|m| text += &format!("# error: {m}\n")),
        }
    }
    let text = text.replace(&files.display().to_string(), "/compose");
    expect_test::expect_file!["corpus/compose.yaml"].assert_eq(&text);
}

/// Files of the corpus that describe no application themselves.
const NO_INPUT: [(&str, &str); 5] = [
    ("README.md", "says where the others are from"),
    (".ottoid", "is the identity of the application in its directory"),
    ("appfile-fixtures/basic.golden", "is what Otto's parser made of basic.hcl"),
    ("load-new/Appfile.compiled", "is what Otto kept of a compilation"),
    ("load-new/version", "is the number of the form in which Otto kept it"),
];

#[test]
fn every_input_has_its_snapshot() {
    let Some(corpus) = corpus("") else { return };
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let snapshot = |name: &str| fs::read_to_string(snapshots.join(name)).unwrap();
    let (compose, kubernetes, otto) =
        (snapshot("compose.yaml"), snapshot("kubernetes.txt"), snapshot("otto.txt"));
    let fleet = [snapshot("fleet-examples.yaml"), snapshot("fleet-simple-fleet.yaml")].concat();
    let has = |text: &str, line: &str| text.lines().any(|l| l == line);
    for path in files_below(&corpus) {
        let name = path.strip_prefix(&corpus).unwrap().to_str().unwrap();
        if NO_INPUT.iter().any(|(end, _)| name.ends_with(end)) {
            continue;
        }
        let (folder, rest) = name.split_once('/').unwrap_or(("", name));
        let there = match folder {
            "compose" => has(&compose, &format!("# {name}")),
            "kubernetes" => has(&kubernetes, rest),
            "otto" => has(&otto, rest.strip_suffix("/Appfile").unwrap_or(rest)),
            "fleet" => {
                fleet.contains(&format!("yado.dev/unit: {}", path.file_name().unwrap().to_str().unwrap()))
            }
            _ => false,
        };
        assert!(there, "{name} is in no snapshot: cover it, or say in NO_INPUT why it is no input");
    }
}
