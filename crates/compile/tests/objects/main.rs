//! Compose files to objects and back.

mod meaning;
mod reach;
mod table;
mod valid;

use std::{
    fs,
    path::{Path, PathBuf},
};

use yado_compile::{Compiled, Options, compile, output};

/// Objects as text, in the order of their names; places do not matter.
fn shown(compiled: &Compiled) -> String {
    let mut all: Vec<String> =
        compiled.objects.iter().map(|o| format!("---\n{}", output::yaml(&sorted(&o.value)))).collect();
    all.sort();
    all.concat()
}

/// Mappings in the order of their keys: what comes after what in them says nothing.
fn sorted(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(k, _)| *k);
            entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// What differs after a way through a compose file, as lines; nothing where all is the same.
fn round_trip(compiled: &Compiled) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    for (name, content) in output::compose::compose(compiled).files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let path = directory.path().join(output::compose::FILE);
    let again = compile(&path, &Options::default())
        .map_err(|e| format!("{e}\n{}", fs::read_to_string(&path).unwrap_or_default()))?;
    let (before, after) = (shown(compiled), shown(&again));
    if before == after {
        return Ok(());
    }
    let (mut left, mut right): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(12);
    left = left.split_off(from.min(left.len()));
    right = right.split_off(from.min(right.len()));
    left.truncate(22);
    right.truncate(22);
    Err(format!("before:\n{}\nafter:\n{}", left.join("\n"), right.join("\n")))
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            find(&path, files);
        } else if name.contains("compose") && (name.ends_with(".yml") || name.ends_with(".yaml"))
            || name.ends_with(".dab")
        {
            files.push(path);
        }
    }
}

/// A directory of any compose files, such as the examples of a project: `YADO_COMPOSE_FILES=DIR cargo nextest run`.
#[test]
fn files_from_elsewhere_become_valid_objects() {
    let Ok(directory) = std::env::var("YADO_COMPOSE_FILES") else {
        yado_testkit::not_proved!("YADO_COMPOSE_FILES names no directory");
        return;
    };
    let mut files = Vec::new();
    find(Path::new(&directory), &mut files);
    let (mut fine, mut refused, mut wrong, mut trips) = (0, 0, 0, 0);
    for file in &files {
        let compiled = match compile(file, &Options::default()) {
            Ok(compiled) => compiled,
            Err(mistakes) => {
                refused += 1;
                eprintln!("REFUSED {}: {mistakes}", file.display());
                continue;
            }
        };
        let problems = valid::problems(&compiled);
        if problems.is_empty() {
            fine += 1;
        } else {
            wrong += 1;
            eprintln!("WRONG {}: {}", file.display(), problems.join("; "));
        }
        if let Some(difference) = compiled.has_workloads().then(|| round_trip(&compiled).err()).flatten() {
            trips += 1;
            eprintln!("TRIP {}: {difference}", file.display());
        }
    }
    eprintln!(
        "{} files: {fine} fine, {refused} refused, {wrong} wrong; {trips} differ after a round trip",
        files.len()
    );
    assert_eq!((wrong, trips), (0, 0));
}
