//! Kubeconfigs of users, which may name other clusters: an engine's context is added to them and taken out again, and all
//! else in them is kept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Lists of named entries; the second is what each entry holds.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// Adds the context of `own`, a kubeconfig of one cluster, to the file, and makes it the current one. Where the file
/// names another cluster by the same name, the added names end with `instance`.
///
/// # Errors
/// The file is not a valid kubeconfig, or cannot be replaced. It is replaced as a whole or left as it was.
pub fn add(path: &Path, own: &str, instance: &str) -> Result<()> {
    let own = parse(own).context("the engine's kubeconfig")?;
    let merged = match read(path)? {
        None => own,
        Some(there) => merge(there, &own, instance),
    };
    write(path, &merged)
}

/// Takes out what [`add`] added; a file with nothing else in it is removed.
///
/// # Errors
/// As of [`add`].
pub fn remove(path: &Path, own: &str) -> Result<()> {
    let own = parse(own).context("the engine's kubeconfig")?;
    let Some(there) = read(path)? else { return Ok(()) };
    match without(there, &own) {
        Some(left) => write(path, &left),
        None => fs::remove_file(path).with_context(|| format!("{} cannot be removed", path.display())),
    }
}

fn parse(text: &str) -> Result<Value> {
    match serde_norway::from_str(text)? {
        Value::Null => Ok(json!({})),
        config @ Value::Object(_) => Ok(config),
        _ => bail!("it is not a valid kubeconfig: it has to be a mapping"),
    }
}

fn read(path: &Path) -> Result<Option<Value>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?,
    };
    let config = parse(&text).with_context(|| {
        format!(
            "{} is not a valid kubeconfig, so no context can be added to it: name another file",
            path.display()
        )
    })?;
    Ok(Some(config))
}

fn list<'a>(config: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    config[name].as_array().into_iter().flatten()
}

/// The authority and address of a kubeconfig's one cluster.
fn cluster(own: &Value) -> &Value {
    list(own, "clusters").next().map_or(&Value::Null, |entry| &entry["cluster"])
}

/// Whether an entry of a kubeconfig's clusters is this one: of the same authority, or an earlier one at its address.
fn is_same(there: &Value, own: &Value) -> bool {
    let same = |field: &str| !own[field].is_null() && there["cluster"][field] == own[field];
    same("certificate-authority-data") || same("server")
}

fn merge(mut there: Value, own: &Value, instance: &str) -> Value {
    let usual = own["current-context"].as_str().unwrap_or_default();
    let others = |(entries, _): &(&str, &str)| {
        let mut named = list(&there, entries).filter(|entry| entry["name"] == usual);
        named.any(|entry| *entries != "clusters" || !is_same(entry, cluster(own)))
    };
    let ours = list(&there, "clusters").any(|c| c["name"] == usual && is_same(c, cluster(own)));
    let taken = !ours && LISTS.iter().any(others);
    let name = if taken { format!("{usual}-{instance}") } else { usual.to_owned() };
    for (entries, content) in LISTS {
        let Some(entry) = list(own, entries).next() else { continue };
        let mut entry = entry.clone();
        entry["name"] = name.as_str().into();
        if content == "context" {
            entry["context"]["cluster"] = name.as_str().into();
            entry["context"]["user"] = name.as_str().into();
        }
        let mut kept: Vec<Value> =
            list(&there, entries).filter(|e| e["name"] != name.as_str()).cloned().collect();
        kept.push(entry);
        there[entries] = kept.into();
    }
    for field in ["apiVersion", "kind"] {
        there[field] = own[field].clone();
    }
    there["current-context"] = name.into();
    there
}

/// What is left without this cluster; `None` where that is nothing.
fn without(mut there: Value, own: &Value) -> Option<Value> {
    let named = list(&there, "clusters").filter(|entry| is_same(entry, cluster(own)));
    let names: Vec<Value> = named.map(|entry| entry["name"].clone()).collect();
    for (entries, _) in LISTS {
        let kept: Vec<Value> =
            list(&there, entries).filter(|e| !names.contains(&e["name"])).cloned().collect();
        there[entries] = kept.into();
    }
    if names.contains(&there["current-context"]) {
        let next = list(&there, "contexts").next().map(|context| context["name"].clone());
        there["current-context"] = next.unwrap_or_else(|| "".into());
    }
    let left = LISTS.iter().any(|(entries, _)| list(&there, entries).next().is_some());
    left.then_some(there)
}

/// Replaces the file as a whole. Its mode and owner stay; a new one is its owner's only, as there is a key in it.
fn write(path: &Path, config: &Value) -> Result<()> {
    let replace = || {
        // A link stays a link.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let there = fs::metadata(&path).ok();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let text = serde_norway::to_string(config).map_err(io::Error::other)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            if let Some(there) = there {
                fchown(&file, Some(there.uid()), Some(there.gid()))?;
                file.set_permissions(fs::Permissions::from_mode(there.mode() & 0o7777))?;
            }
            fs::rename(&beside, &path)
        });
        if written.is_err() {
            // What failed is the news; a left-over is overwritten next time.
            let _ = fs::remove_file(&beside);
        }
        written
    };
    replace().with_context(|| format!("the kubeconfig {} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(server: &str, authority: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: yado\nclusters:\n- name: yado\n  cluster: {{server: '{server}', \
             certificate-authority-data: {authority}}}\ncontexts:\n- name: yado\n  context: {{cluster: yado, user: yado}}\n\
             users:\n- name: yado\n  user: {{client-key-data: key}}\n"
        )
    }

    const OTHER: &str = "apiVersion: v1\nkind: Config\ncurrent-context: other\nclusters:\n- name: other\n  cluster: {server: \
                         'https://192.0.2.10:6443'}\ncontexts:\n- name: other\n  context: {cluster: other, user: me}\nusers: \
                         null\nextensions: []\n";

    fn names(path: &Path) -> String {
        let config = parse(&fs::read_to_string(path).unwrap()).unwrap();
        let contexts: Vec<&str> = list(&config, "contexts").map(|c| c["name"].as_str().unwrap()).collect();
        format!("{} of {}", config["current-context"].as_str().unwrap(), contexts.join(", "))
    }

    #[test]
    fn k41_other_contexts_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("config"), folder.path().join("link"));
        fs::write(&file, OTHER).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let (one, two) = (own("https://127.0.0.1:1", "b25l"), own("https://127.0.0.1:2", "dHdv"));
        add(&link, &one, "1").unwrap();
        assert_eq!(names(&file), "yado of other, yado");
        assert!(link.is_symlink() && fs::metadata(&file).unwrap().mode() & 0o777 == 0o640);
        // Again, and after a reset that made new certificates.
        add(&link, &one, "1").unwrap();
        add(&link, &own("https://127.0.0.1:1", "bmV3"), "1").unwrap();
        assert_eq!(names(&file), "yado of other, yado");
        // Another engine's has a name of its own.
        add(&link, &two, "2").unwrap();
        assert_eq!(names(&file), "yado-2 of other, yado, yado-2");
        remove(&link, &two).unwrap();
        remove(&link, &one).unwrap();
        assert_eq!(names(&file), "other of other");
        let kept = parse(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(
            (&kept["extensions"], &kept["clusters"]),
            (&json!([]), &parse(OTHER).unwrap()["clusters"])
        );
    }

    #[test]
    fn a_file_of_its_own_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/config");
        add(&file, &own("https://127.0.0.1:1", "b25l"), "1").unwrap();
        assert!(names(&file) == "yado of yado" && fs::metadata(&file).unwrap().mode() & 0o777 == 0o600);
        remove(&file, &own("https://127.0.0.1:1", "b25l")).unwrap();
        assert!(!file.exists());
        remove(&file, &own("https://127.0.0.1:1", "b25l")).unwrap();
        fs::write(&file, "- not\n- a\n- map\n").unwrap();
        let refused = add(&file, &own("https://127.0.0.1:1", "b25l"), "1").unwrap_err();
        assert!(refused.to_string().contains("is not a valid kubeconfig"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "- not\n- a\n- map\n");
    }
}
