use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::environment::tests::{Given, facts, given};

fn pod(volumes: Value, mounts: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]},
    }))
    .expect("a Pod")
}

fn planned(pod: &Pod, given: &Given) -> Result<Vec<Planned>, VolumeError> {
    let facts = facts();
    let tokens = BTreeMap::from([(("all".to_owned(), "token".to_owned()), "t0k".to_owned())]);
    plan(&Scope { pod, facts: &facts, sources: given, services: &[] }, &tokens)
}

/// Every file that a reader sees, with mode and content.
fn listing(dir: &Path) -> String {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with("..") {
                continue;
            }
            let meta = fs::metadata(&path).expect("a link that leads somewhere");
            if meta.is_dir() {
                walk(&path, root, out);
            } else {
                let name = path.strip_prefix(root).expect("within").display();
                let content = fs::read_to_string(&path).expect("text");
                out.push(format!("{name} {:o} {content}\n", meta.mode() & 0o7777));
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out.sort();
    out.concat()
}

/// Makes a Pod's volumes in a directory that unmounts itself.
struct Made(tempfile::TempDir);

impl Made {
    fn new(pod: &Pod, given: &Given) -> Result<Self, VolumeError> {
        let dir = Self(tempfile::tempdir().expect("a directory"));
        make(dir.0.path(), &planned(pod, given)?)?;
        Ok(dir)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        unmount_beneath(self.0.path()).expect("unmounted");
        assert!(!mounts::mounted().expect("mounts").iter().any(|m| m.starts_with(self.0.path())));
    }
}

fn root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("skipped: mounting needs root");
    false
}

fn check(volumes: Value, expect: Expect) {
    if !root() {
        return;
    }
    let said = match Made::new(&pod(volumes, json!([])), &given()) {
        Ok(made) => listing(made.0.path()),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&said);
}

#[test]
fn files_are_projected() {
    check(
        json!([
            {"name": "s", "secret": {"secretName": "key", "defaultMode": 256}},
            {"name": "m", "configMap": {"name": "map", "items": [{"key": "color", "path": "a/b/color", "mode": 384}]}},
            {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "map", "items": [{"key": "size", "path": "size"}]}},
                {"secret": {"name": "none", "optional": true}},
                {"serviceAccountToken": {"path": "token"}},
            ]}},
        ]),
        expect![[r#"
            all/size 644 9
            all/token 600 t0k
            d/labels 644 app="web"
            m/a/b/color 600 red
            s/password 400 hunter2
        "#]],
    );
}

#[test]
fn what_cannot_be_made_is_named() {
    check(
        json!([{"name": "s", "secret": {"secretName": "none"}}]),
        expect![[r#"MountVolume.SetUp failed for volume "s" : secret "none" not found"#]],
    );
    check(
        json!([{"name": "m", "configMap": {"name": "map", "items": [{"key": "no", "path": "x"}]}}]),
        expect![[r#"MountVolume.SetUp failed for volume "m" : references non-existent config key: no"#]],
    );
    check(
        json!([{"name": "m", "configMap": {"name": "map", "items": [{"key": "color", "path": "../x"}]}}]),
        expect![[
            r#"MountVolume.SetUp failed for volume "m" : "../x" cannot be a path in a volume: it must be relative, without "..""#
        ]],
    );
    check(
        json!([{"name": "h", "hostPath": {"path": "/dev/null", "type": "Directory"}}]),
        expect![[
            r#"MountVolume.SetUp failed for volume "h" : cannot use /dev/null: it is not a directory, which its hostPath type asks for"#
        ]],
    );
    check(
        json!([{"name": "c", "persistentVolumeClaim": {"claimName": "x"}}]),
        expect![[
            r#"MountVolume.SetUp failed for volume "c" : persistentvolumeclaim "x" cannot be mounted: this node offers no persistent volumes; use emptyDir or hostPath"#
        ]],
    );
}

#[test]
fn memory_is_memory_and_bounded() {
    if !root() {
        return;
    }
    let pod = pod(
        json!([{"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "f", "emptyDir": {}}]),
        json!([]),
    );
    let made = Made::new(&pod, &given()).expect("made");
    let file = made.0.path().join("e/file");
    let written = fs::write(&file, vec![0; 2 << 20]);
    assert_eq!(written.map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
    for name in ["e", "f"] {
        assert_eq!(fs::metadata(made.0.path().join(name)).expect("made").mode() & 0o7777, 0o777, "{name}");
    }
}

#[test]
fn a_refresh_shows_the_new_state_at_once_and_keeps_what_did_not_change() {
    if !root() {
        return;
    }
    let mut pod = pod(json!([{"name": "m", "configMap": {"name": "map"}}]), json!([]));
    pod.spec.as_mut().expect("a specification").security_context =
        serde_json::from_value(json!({"fsGroup": 77})).expect("a context");
    let mut given = given();
    given.config_maps[0].binary_data = None;
    let made = Made::new(&pod, &given).expect("made");
    let dir = made.0.path().join("m");
    let state = fs::read_link(dir.join("..data")).expect("a link");
    refresh(made.0.path(), &planned(&pod, &given).expect("a plan")).expect("refreshed");
    assert_eq!(fs::read_link(dir.join("..data")).expect("a link"), state);
    given.config_maps[0].data =
        Some([("color".to_owned(), "green".to_owned()), ("new".to_owned(), "1".to_owned())].into());
    refresh(made.0.path(), &planned(&pod, &given).expect("a plan")).expect("refreshed");
    assert_ne!(fs::read_link(dir.join("..data")).expect("a link"), state);
    assert!(!dir.join(state).exists());
    assert_eq!(fs::metadata(dir.join("new")).expect("made").gid(), 77);
    expect![[r#"
        color 644 green
        new 644 1
    "#]]
    .assert_eq(&listing(&dir));
}

#[test]
fn mounts_lead_into_volumes_and_not_out_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |mount: Value, expect: &str| {
        let mut mount = mount;
        mount["name"] = json!("e");
        mount["mountPath"] = json!("/data");
        let pod = pod(json!([{"name": "e", "emptyDir": {}}]), json!([mount]));
        let spec = pod.spec.expect("a specification");
        fs::create_dir_all(dir.path().join("e")).expect("made");
        let env = [("WHO".to_owned(), "me".to_owned())];
        let said = match binds(dir.path(), &spec, &spec.containers[0], &env) {
            Ok(binds) => {
                let source =
                    binds[0].source.strip_prefix(dir.path().canonicalize().expect("there")).expect("within");
                format!("{} {}", source.display(), binds[0].read_only)
            }
            Err(ConfigError(message)) => message,
        };
        assert_eq!(said, expect, "{mount}");
    };
    check(json!({}), "e false");
    check(json!({"readOnly": true}), "e true");
    check(json!({"subPath": "a/b"}), "e/a/b false");
    check(json!({"subPathExpr": "for/$(WHO)"}), "e/for/me false");
    check(
        json!({"subPath": "../x"}),
        "failed to prepare subPath ../x: it must be relative and without \"..\"",
    );
    symlink("/etc", dir.path().join("e/out")).expect("linked");
    check(json!({"subPath": "out"}), "failed to prepare subPath out: a link in it leads out of the volume");
    check(
        json!({"subPath": "out/x"}),
        "failed to prepare subPath out/x: a link in it leads out of the volume",
    );
}

#[test]
fn references_are_found() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "volumes": [{"name": "a", "secret": {"secretName": "s1"}},
                    {"name": "b", "projected": {"sources": [{"configMap": {"name": "c1"}}]}}],
        "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "c2"}}],
                        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}]}],
    }}))
    .expect("a Pod");
    let found = references(&pod);
    assert_eq!(found.secrets.into_iter().collect::<Vec<_>>(), ["s1", "s2"]);
    assert_eq!(found.config_maps.into_iter().collect::<Vec<_>>(), ["c1", "c2"]);
}
