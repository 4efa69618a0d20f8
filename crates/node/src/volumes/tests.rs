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

fn planned(pod: &Pod, given: &Given) -> Result<Vec<PlannedVolume>, VolumeError> {
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
                let owner = match (meta.uid(), meta.gid()) {
                    (0, 0) => String::new(),
                    (user, group) => format!(" {user}:{group}"),
                };
                out.push(format!("{name} {:o}{owner} {content}\n", meta.mode() & 0o7777));
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
    yado_testkit::skip!("mounting needs root");
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
            all/token 644 t0k
            d/labels 644 app="web"
            m/a/b/color 600 red
            s/password 400 hunter2
        "#]],
    );
}

#[test]
fn files_have_the_owners_that_an_annotation_says() {
    if !root() {
        return;
    }
    let volumes = json!([
        {"name": "s", "secret": {"secretName": "key", "defaultMode": 256}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "map", "items": [{"key": "size", "path": "a/size"}, {"key": "color", "path": "b"}]}}]}},
    ]);
    let shown = |owners: &str| {
        let mut pod = pod(volumes.clone(), json!([]));
        let annotation = (yado_types::labels::FILE_OWNERS.to_owned(), owners.to_owned());
        pod.metadata.annotations = Some([annotation].into());
        match Made::new(&pod, &given()) {
            Ok(made) => {
                let before = listing(made.0.path());
                refresh(made.0.path(), &planned(&pod, &given()).expect("planned")).expect("refreshed");
                assert_eq!(listing(made.0.path()), before);
                before
            }
            Err(error) => error.to_string(),
        }
    };
    expect![[r#"
        all/a/size 644 0:7 9
        all/b 644 red
        s/password 400 1000:1000 hunter2
    "#]]
    .assert_eq(&shown(r#"{"s": {"password": "1000:1000"}, "all": {"a/size": "0:7"}}"#));
    for owners in [r#"{"s": {"none": "1:1"}}"#, r#"{"s": {"password": "4294967295:0"}}"#, r#"{"s": 1}"#] {
        assert!(shown(owners).contains("annotation yado.dev/file-owners"), "{owners}");
    }
}

#[test]
fn tokens_are_readable_by_the_users_and_the_group_of_the_pod() {
    if !root() {
        return;
    }
    let token = |of_pod: Value, users: &[Value]| {
        let volumes =
            json!([{"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
        let containers: Vec<_> =
            users.iter().map(|user| json!({"name": "c", "securityContext": user})).collect();
        let mut pod = serde_json::to_value(pod(volumes, json!([]))).expect("JSON");
        pod["spec"]["securityContext"] = of_pod;
        pod["spec"]["containers"] = json!(containers);
        let made = Made::new(&serde_json::from_value(pod).expect("a Pod"), &given()).expect("made");
        listing(made.0.path())
    };
    let (none, seven, eight) = (json!({}), json!({"runAsUser": 7}), json!({"runAsUser": 8}));
    for (of_pod, users, expect) in [
        (json!({}), vec![none.clone()], "644"),
        (json!({}), vec![seven.clone()], "600 7:0"),
        (json!({}), vec![seven.clone(), seven.clone()], "600 7:0"),
        (json!({}), vec![seven.clone(), eight.clone()], "644"),
        (json!({}), vec![seven.clone(), none.clone()], "644"),
        (json!({"runAsUser": 7}), vec![none.clone(), seven.clone()], "600 7:0"),
        (json!({"runAsUser": 7}), vec![none.clone(), eight.clone()], "644"),
        (json!({"fsGroup": 5}), vec![none.clone()], "640 0:5"),
        (json!({"fsGroup": 5, "runAsUser": 7}), vec![none.clone()], "640 7:5"),
    ] {
        assert_eq!(token(of_pod.clone(), &users), format!("all/token {expect} t0k\n"), "{of_pod} {users:?}");
    }
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
        expect![[r#"MountVolume.SetUp failed for volume "c" : persistentvolumeclaim "x" not found"#]],
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
fn memory_is_as_the_pod_asks() {
    if !root() {
        return;
    }
    let mut pod = pod(json!([{"name": "e", "emptyDir": {"medium": "Memory"}}]), json!([]));
    let asked = json!({"e": "mode=0710,uid=1000,gid=1001,nr_inodes=3,noexec,huge=always"}).to_string();
    pod.metadata.annotations = Some([(labels::TMPFS.to_owned(), asked)].into());
    let made = Made::new(&pod, &given()).expect("made");
    let dir = made.0.path().join("e");
    let found = fs::metadata(&dir).expect("made");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o710, 1000, 1001));
    let flags = nix::sys::statvfs::statvfs(&dir).expect("a file system");
    assert!(flags.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    assert_eq!(flags.files(), 3);
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
        color 644 0:77 green
        new 644 0:77 1
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
        let env = [("WHO".to_owned(), "me".into())];
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

/// A claim `data` and its volume, as `change` makes them.
fn with_claim(change: impl FnOnce(&mut Value, &mut Value)) -> Given {
    let mut claim = json!({
        "metadata": {"name": "data", "namespace": "n", "uid": "c1"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"},
    });
    let mut volume = json!({
        "metadata": {"name": "pv"},
        "spec": {"hostPath": {"path": "/nowhere/pv", "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": "n", "name": "data", "uid": "c1"}},
    });
    change(&mut claim, &mut volume);
    let mut given = given();
    given
        .claims
        .extend(serde_json::from_value::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(claim).ok());
    given.volumes.extend(serde_json::from_value::<k8s_openapi::api::core::v1::PersistentVolume>(volume).ok());
    given
}

/// A claim leads to its volume's directory, or says why it does not.
#[test]
fn a_claim_leads_to_its_volume() {
    let check = |change: fn(&mut Value, &mut Value), expect: Expect| {
        let pod = pod(json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]), json!([]));
        let said = match planned(&pod, &with_claim(change)) {
            Ok(all) => format!("{:?}", all[0].kind),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&said);
    };
    check(|_, _| {}, expect![[r#"Claimed { path: "/nowhere/pv", kind: "DirectoryOrCreate" }"#]]);
    check(
        |_, volume| volume["spec"] = json!({"local": {"path": "/mnt/disk"}}),
        expect![[r#"Claimed { path: "/mnt/disk", kind: "Directory" }"#]],
    );
    check(
        |claim, _| claim["metadata"]["name"] = json!("other"),
        expect![[r#"MountVolume.SetUp failed for volume "v" : persistentvolumeclaim "data" not found"#]],
    );
    check(
        |claim, _| claim["status"] = json!({"phase": "Pending"}),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolumeclaim "data" is not bound to a volume yet"#
        ]],
    );
    check(
        |claim, _| claim["status"] = json!({"phase": "Lost"}),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolumeclaim "data" has lost its volume"#
        ]],
    );
    check(
        |_, volume| volume["metadata"]["name"] = json!("x"),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolume "pv" of claim "data" not found"#
        ]],
    );
    check(
        |_, volume| volume["spec"]["claimRef"]["uid"] = json!("c2"),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolumeclaim "data" is not the claim that its volume is bound to"#
        ]],
    );
    check(
        |_, volume| volume["spec"] = json!({"nfs": {"server": "s", "path": "/"}}),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolume "pv" is of a kind that this node does not offer; use hostPath or local"#
        ]],
    );
    check(
        |_, volume| volume["spec"]["volumeMode"] = json!("Block"),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolume "pv" is a block device, which this node does not offer"#
        ]],
    );
    check(
        |_, volume| volume["spec"]["hostPath"]["path"] = json!("/a/../etc"),
        expect![[
            r#"MountVolume.SetUp failed for volume "v" : persistentvolume "pv" must name an absolute path without "..""#
        ]],
    );
}

/// The directory is mounted, read-only where asked for, by part where asked for, and outlives the Pod.
#[test]
fn a_claims_volume_is_mounted_and_stays() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("pv");
    let mut given = with_claim(|_, _| {});
    if let Some(host) = given.volumes[0].spec.as_mut().and_then(|s| s.host_path.as_mut()) {
        host.path = path.to_string_lossy().into_owned();
    }
    let pod = pod(
        json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "r", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]),
        json!([{"name": "v", "mountPath": "/v"}, {"name": "r", "mountPath": "/r"},
            {"name": "v", "mountPath": "/s", "subPath": "a/b", "readOnly": true}]),
    );
    let made = Made::new(&pod, &given).expect("made");
    assert_eq!(fs::metadata(&path).expect("a directory").mode() & 0o7777, 0o777);
    let spec = pod.spec.as_ref().expect("a specification");
    let binds = binds(made.0.path(), spec, &spec.containers[0], &[]).expect("binds");
    let seen: Vec<_> = binds.iter().map(|b| (b.source.canonicalize().expect("there"), b.read_only)).collect();
    assert_eq!(seen, [(path.clone(), false), (path.clone(), true), (path.join("a/b"), true)]);
    fs::write(path.join("kept"), "").expect("a file");
    drop(made);
    assert!(path.join("kept").exists());
}

/// What the image has comes into an empty volume, once, with owners and modes; layers count as in a container.
#[test]
fn an_empty_volume_is_filled_from_the_image() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let (upper, lower) = (at("upper"), at("lower"));
    for dir in ["lower/data/sub", "upper/data", "upper/real", "volumes/v", "volumes/away", "pod"] {
        fs::create_dir_all(at(dir)).expect("a directory");
    }
    fs::write(lower.join("data/old"), "1").expect("a file");
    fs::write(lower.join("data/hidden"), "1").expect("a file");
    fs::write(lower.join("data/sub/deep"), "2").expect("a file");
    fs::write(upper.join("data/old"), "3").expect("a file");
    // Deleted by the upper layer, in the overlay's own words.
    nix::sys::stat::mknod(
        &upper.join("data/hidden"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::empty(),
        0,
    )
    .expect("a whiteout");
    symlink("sub/deep", upper.join("data/link")).expect("a link");
    symlink("/data", upper.join("real/alias")).expect("a link");
    fs::set_permissions(upper.join("data"), fs::Permissions::from_mode(0o2750)).expect("a mode");
    chown(upper.join("data"), Some(999), Some(998)).expect("an owner");
    chown(upper.join("data/old"), Some(999), Some(5)).expect("an owner");

    let mut given =
        with_claim(|claim, _| claim["metadata"]["annotations"] = json!({"yado.dev/copy-up": "true"}));
    let mounts = json!([{"name": "v", "mountPath": "/real/alias"}, {"name": "away", "mountPath": "/none"},
        {"name": "v", "mountPath": "/x", "subPath": "data"}]);
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "away", "persistentVolumeClaim": {"claimName": "data"}}]);
    let pod = pod(volumes, mounts);
    let spec = pod.spec.as_ref().expect("a specification");
    let wanted =
        |given: &Given| copy_up::volumes_to_fill(&at("volumes"), &pod, spec, &spec.containers[0], given);
    let all = wanted(&given);
    assert_eq!(all.len(), 2);
    let layers = [upper.clone(), lower.clone()];
    copy_up::fill(&all, &layers, &at("pod/image")).expect("filled");
    assert!(!at("pod/image").exists());
    assert_eq!(listing(&at("volumes/v")), "link 644 2\nold 644 999:5 3\nsub/deep 644 2\n");
    let v = fs::metadata(at("volumes/v")).expect("there");
    assert_eq!((v.uid(), v.gid(), v.mode() & 0o7777), (999, 998, 0o2750));
    let old = fs::metadata(at("volumes/v/old")).expect("there");
    assert_eq!((old.uid(), old.gid()), (999, 5));
    assert_eq!(fs::read_link(at("volumes/v/link")).expect("a link"), Path::new("sub/deep"));
    assert_eq!(listing(&at("volumes/away")), "");

    // What is there is never touched again, but what was broken off is begun again.
    fs::write(at("volumes/v/old"), "mine").expect("a file");
    assert_eq!(wanted(&given).len(), 1, "only the one where the image has nothing");
    fs::write(at("volumes/v/.yado-copying"), "").expect("a file");
    copy_up::fill(&wanted(&given), &layers[1..], &at("pod/image")).expect("filled");
    assert_eq!(fs::read_to_string(at("volumes/v/old")).expect("text"), "mine", "this image has no /real");
    given.claims.clear();
    assert!(wanted(&given).is_empty());

    // A volume as old as its Pod, which the Pod names.
    let mut young = pod.clone();
    let spec = young.spec.as_mut().expect("a specification");
    spec.volumes =
        serde_json::from_value(json!([{"name": "v", "emptyDir": {}}, {"name": "away", "emptyDir": {}}]))
            .expect("volumes");
    young.metadata.annotations =
        Some([(yado_types::labels::COPY_UP.to_owned(), "x, away".to_owned())].into());
    let spec = young.spec.as_ref().expect("a specification");
    assert_eq!(copy_up::volumes_to_fill(&at("volumes"), &young, spec, &spec.containers[0], &given).len(), 1);
    // One that the Pod wants as it is.
    let mut left = young.clone();
    left.metadata.annotations.get_or_insert_default().insert(labels::NO_COPY_UP.into(), "away".into());
    assert!(copy_up::volumes_to_fill(&at("volumes"), &left, spec, &spec.containers[0], &given).is_empty());
}
