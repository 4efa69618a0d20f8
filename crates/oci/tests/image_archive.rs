//! Images from archives, to archives, and a store whose process is killed.
#![allow(unsafe_code)] // kills itself

#[path = "image/content.rs"]
mod content;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use content::*;
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use yado_oci::image::{Image, ImageStore, Limits, Progress, StoreConfig};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        yado_testkit::skip!("unpacking layers needs root");
    }
    root
}

/// An archive of members by path.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// What `docker save` writes: each image's names and layers.
fn saved(images: &[(&[&str], &[Layer])]) -> Vec<u8> {
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    let mut list = Vec::new();
    for (names, layers) in images {
        let config = config(layers, here());
        let config_path = format!("{}.json", hex_of(&digest(&config)));
        let paths: Vec<String> = layers.iter().map(|l| format!("{}/layer.tar", hex_of(&l.diff_id))).collect();
        list.push(json!({"Config": config_path, "RepoTags": names, "Layers": paths}));
        members.push((config_path, config));
        members.extend(paths.into_iter().zip(layers.iter().map(|layer| layer.blob.clone())));
    }
    members.push(("manifest.json".to_owned(), serde_json::to_vec(&list).unwrap()));
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    tar(&members)
}

/// An OCI layout with one image for each name.
fn layout(images: &[(&str, &[Layer])]) -> Vec<u8> {
    let mut members: Vec<(String, Vec<u8>)> =
        vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |bytes: &[u8]| {
        members.push((format!("blobs/sha256/{}", hex_of(&digest(bytes))), bytes.to_vec()));
    };
    let mut manifests: Vec<Value> = Vec::new();
    for (name, layers) in images {
        let config = config(layers, here());
        let manifest = manifest(&config, layers);
        blob(&config);
        blob(&manifest);
        layers.iter().for_each(|layer| blob(&layer.blob));
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    members.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    tar(&members)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Names and topmost files of images.
fn summary(images: &[Image]) -> String {
    let line = |image: &Image| {
        let top = fs::read_dir(&image.layers[0]).unwrap().map(|e| e.unwrap().file_name());
        let mut top: Vec<String> = top.map(|name| name.to_string_lossy().into_owned()).collect();
        top.sort();
        format!("{} [{} layers, {}]", image.names.join(" "), image.layers.len(), top.join(" "))
    };
    images.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn archives_of_every_form() {
    if !is_root() {
        return;
    }
    let base = layer(&[("base", "1")], Packing::Plain);
    let (one, two) = (layer(&[("one", "1")], Packing::Plain), layer(&[("two", "2")], Packing::Plain));
    let (zipped, zstd) = (layer(&[("one", "1")], Packing::Gzip), layer(&[("two", "2")], Packing::Zstd));
    let both: [(&[&str], &[Layer]); 2] =
        [(&["one", "example.org/one:v1"], &[base.clone(), one]), (&["two:x"], &[base.clone(), two])];
    let same = [("one:latest", &[base.clone(), zipped][..]), ("two:x", &[base, zstd])];
    let expect = expect![[r#"
        docker.io/library/one:latest example.org/one:v1 [2 layers, one]
        docker.io/library/two:x [2 layers, two]"#]];
    for bytes in [saved(&both), gzip(&saved(&both)), zstd::encode_all(&saved(&both)[..], 1).unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path().join("store")).unwrap();
        fs::write(dir.path().join("archive"), &bytes).unwrap();
        let images = store.import(dir.path().join("archive"), &Progress::none()).unwrap();
        expect.assert_eq(&summary(&images));
        // From a pipe, and in the other form, the same content is the same images.
        let ids = |images: &[Image]| images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&store.import_reader(&bytes[..], &Progress::none()).unwrap()), ids(&images));
        assert_eq!(ids(&store.import_reader(&layout(&same)[..], &Progress::none()).unwrap()), ids(&images));
        // Written and read by another store the files are the same; written by that, the image is.
        let mut archive = Vec::new();
        store.save(&["one", "two:x"], &mut archive, &Progress::none()).unwrap();
        let other = ImageStore::open(dir.path().join("other")).unwrap();
        let again = other.import_reader(&archive[..], &Progress::none()).unwrap();
        let mut archive = Vec::new();
        other.save(&["one", "two:x"], &mut archive, &Progress::none()).unwrap();
        assert_eq!(ids(&store.import_reader(&archive[..], &Progress::none()).unwrap()), ids(&again));
        assert_eq!(
            summary(&again),
            "docker.io/library/one:latest [2 layers, one]\ndocker.io/library/two:x [2 layers, two]"
        );
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    if !is_root() {
        return;
    }
    let check = |bytes: &[u8], expect: Expect| {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { layer_bytes: 1 << 20, archive_bytes: 8 << 20, ..Limits::default() };
        let config = StoreConfig { limits, ..StoreConfig::default() };
        let store = ImageStore::open_with(dir.path().join("store"), config).unwrap();
        let path = dir.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        let text = store.import(&path, &Progress::none()).unwrap_err().to_string();
        expect.assert_eq(&text.replace(&path.display().to_string(), "FILE"));
        assert_eq!(residue(&dir.path().join("store")), [""; 0]);
        assert_eq!(store.list().unwrap(), []);
    };
    let plain = |files: &[(&str, &str)]| saved(&[(&["app"], &[layer(files, Packing::Plain)])]);
    check(
        b"",
        expect![
            "FILE is not an image archive that can be imported: it has no members; make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        b"not an archive, only some words",
        expect![
            "FILE is not an image archive that can be imported: it is not a valid tar file: damaged, cut short or of another format; make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        &tar(&[("README", b"x")]),
        expect![
            "FILE is not an image archive that can be imported: it has neither a `manifest.json` nor an `index.json`; make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        &tar(&[("manifest.json", b"[]")]),
        expect![
            "FILE is not an image archive that can be imported: it holds no image; make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        &tar(&[("manifest.json", b"{")]),
        expect![
            "FILE is not an image archive that can be imported: its `manifest.json` cannot be read (invalid type: map, expected a sequence at line 1 column 0); make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        &tar(&[("manifest.json", br#"[{"Config":"../../etc/passwd"}]"#)]),
        expect![
            "FILE is not an image archive that can be imported: it lacks the member `../../etc/passwd`; make it with `docker save` or as an OCI layout"
        ],
    );
    let whole = plain(&[("f", &"x".repeat(100_000))]);
    check(
        &whole[..50_000],
        expect![
            "FILE is not an image archive that can be imported: it has neither a `manifest.json` nor an `index.json`; make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        &gzip(&whole)[..100],
        expect![
            "FILE is not an image archive that can be imported: incomplete deflate stream; make it with `docker save` or as an OCI layout"
        ],
    );
    check(
        &plain(&[("big", &"x".repeat(2 << 20))]),
        expect![
            "layer `958efb0bbfc6c27db0ea814f125010626b26cb917402728be160e1e7da6697b1/layer.tar` of FILE is larger than the limit of 1048576 bytes; use a smaller image or raise the limit"
        ],
    );
    check(
        &saved(&[(&["Not A Name"], &[])]),
        expect![
            "`Not A Name` is not an image name: the repository must be in lower case; write it like `redis`, `redis:7` or `registry.example.org/team/app:v1`"
        ],
    );
    let mut altered = layer(&[("f", "1")], Packing::Plain);
    altered.diff_id = digest(b"another");
    check(
        &saved(&[(&["app"], &[altered])]),
        expect![
            "layer `ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5/layer.tar` of FILE once unpacked does not match its digest (expected sha256:ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5, got sha256:2eca8f63e4d2a826ee59db774b337b0b68341fcc71aa97485b0ea07f85554ec9); it was altered or cut short, get it again"
        ],
    );
}

#[test]
fn a_directory_is_imported_once() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    fs::create_dir(&images).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(images.join(name), bytes).unwrap();
    write("one.tar", &saved(&[(&["one"], &[layer(&[("f", "1")], Packing::Plain)])]));
    write("two.tar.gz", &gzip(&layout(&[("two:v1", &[layer(&[("f", "2")], Packing::Zstd)])])));
    write("broken.tar", b"broken");
    write("notes.txt", b"x");
    let check = |expect: Expect| {
        // A fresh store each time, as after a restart.
        let store = ImageStore::open(dir.path().join("store")).unwrap();
        let lines: Vec<String> = store
            .import_dir(&images, &Progress::none())
            .unwrap()
            .into_iter()
            .map(|done| {
                let name = done.path.file_name().unwrap().to_string_lossy().into_owned();
                let how = if done.unchanged { "unchanged" } else { "read" };
                match done.result {
                    Ok(images) => format!("{name} {how}: {}", summary(&images)),
                    Err(_) => format!("{name} refused"),
                }
            })
            .collect();
        expect.assert_eq(&lines.join("\n"));
    };
    check(expect![[r#"
        broken.tar refused
        one.tar read: docker.io/library/one:latest [1 layers, f]
        two.tar.gz read: docker.io/library/two:v1 [1 layers, f]"#]]);
    check(expect![[r#"
        broken.tar refused
        one.tar unchanged: docker.io/library/one:latest [1 layers, f]
        two.tar.gz unchanged: docker.io/library/two:v1 [1 layers, f]"#]]);
    write("one.tar", &saved(&[(&["one"], &[layer(&[("other", "longer")], Packing::Plain)])]));
    fs::remove_file(images.join("broken.tar")).unwrap();
    check(expect![[r#"
        one.tar read: docker.io/library/one:latest [1 layers, other]
        two.tar.gz unchanged: docker.io/library/two:v1 [1 layers, f]"#]]);
    // What was removed comes back, since the archive is still there.
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    store.remove("two:v1").unwrap();
    store.collect_garbage(&BTreeSet::new()).unwrap();
    drop(store);
    check(expect![[r#"
        one.tar unchanged: docker.io/library/one:latest [1 layers, other]
        two.tar.gz read: docker.io/library/two:v1 [1 layers, f]"#]]);
}

#[test]
fn names_come_and_go_and_content_with_the_last() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let (base, top) = (layer(&[("base", "1")], Packing::Plain), layer(&[("top", "22")], Packing::Plain));
    let bytes = saved(&[(&["a"], std::slice::from_ref(&base)), (&["b"], &[base.clone(), top])]);
    let images = store.import_reader(&bytes[..], &Progress::none()).unwrap();
    store.tag("b", "c:v1").unwrap();
    store.remove("b").unwrap();
    assert_eq!(store.get("c:v1").unwrap().unwrap().id, images[1].id);
    assert!(store.get("b").unwrap().is_none());
    assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap().layers, 0);
    store.remove("c:v1").unwrap();
    // A container runs from it.
    assert_eq!(store.collect_garbage(&BTreeSet::from([images[1].id.clone()])).unwrap().images, 0);
    let freed = store.collect_garbage(&BTreeSet::new()).unwrap();
    assert_eq!((freed.images, freed.layers, freed.bytes), (1, 1, 2));
    assert_eq!(summary(&store.list().unwrap()), "docker.io/library/a:latest [1 layers, base]");
    let text = ImageStore::open(dir.path()).unwrap_err().to_string();
    assert!(
        text.ends_with(&format!(
            "is in use by process {}; stop it, or choose another directory",
            std::process::id()
        )),
        "{text}"
    );
    store.remove("a").unwrap();
    store.collect_garbage(&BTreeSet::new()).unwrap();
    assert_eq!(residue(dir.path()), [""; 0]);
}

#[test]
fn overlay_sees_what_the_whiteouts_mean() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let layers = [
        layer(&[("d/a", "1"), ("d/b", "1"), ("o/x", "1"), ("gone/x", "1"), ("f", "1")], Packing::Plain),
        layer(&[("d/.wh.a", ""), ("o/.wh..wh..opq", ""), ("o/y", "2"), (".wh.gone", "")], Packing::Gzip),
        layer(&[("d/a", "3"), ("gone/z", "3")], Packing::Zstd),
    ];
    let bytes = saved(&[(&["app"], &layers)]);
    let image = store.import_reader(&bytes[..], &Progress::none()).unwrap().remove(0);
    let lower: Vec<String> = image.layers.iter().map(|layer| layer.display().to_string()).collect();
    let at = dir.path().join("root");
    fs::create_dir(&at).unwrap();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={} {at} && cd {at} && find . -type f -printf '%P ' -exec cat {{}} \\; -printf '\\n' | sort",
        lower.join(":"),
        at = at.display()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said = String::from_utf8(output.stdout).unwrap();
    expect![[r#"
        d/a 3
        d/b 1
        f 1
        gone/z 3
        o/y 2
    "#]]
    .assert_eq(&said);
}

/// Three layers, each large enough to be killed in the middle of.
fn doomed_archive() -> Vec<u8> {
    let text = |seed: &str| seed.repeat(2 << 20);
    let layers = [("a", "x"), ("b", "y"), ("c", "z")]
        .map(|(path, seed)| layer(&[(path, &text(seed)), ("dir/small", seed)], Packing::Plain));
    saved(&[(&["doomed:one"], &layers), (&["doomed:two"], &layers[..2])])
}

/// Runs only as a part of the next test: an import that kills itself at the event whose number it is given.
#[test]
#[ignore = "a part of another test"]
fn as_doomed_importer() {
    let (Some(dir), Ok(last)) = (std::env::var_os("DOOMED_DIR"), std::env::var("DOOMED_AT")) else { return };
    let (dir, last) = (Path::new(&dir), last.parse::<usize>().unwrap());
    let count = AtomicUsize::new(0);
    let progress = Progress::new(move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == last {
            // SAFETY: a system call without pointers; it ends this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    });
    let store = ImageStore::open(dir.join("store")).unwrap();
    store.import(dir.join("doomed.tar"), &progress).unwrap();
}

#[test]
fn a_store_survives_kill_9() {
    if !is_root() {
        return;
    }
    // In memory where there is such a place: the store syncs its file system, which on a busy disk takes long, and what
    // a killed process has written is there in either.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (archive, store_dir) = (dir.path().join("doomed.tar"), dir.path().join("store"));
    fs::write(&archive, doomed_archive()).unwrap();
    // At each event of an import, and, from outside, as soon as a file of each kind appears.
    let outside = ["layers", "blobs/sha256", "tmp"];
    let mut cases: Vec<(usize, Option<&str>)> =
        outside.iter().map(|part| (usize::MAX, Some(*part))).collect();
    cases.extend((0..).step_by(5).take(12).map(|event| (event, None)));
    let mut killed = 0;
    for (event, appears) in cases {
        let _ = fs::remove_dir_all(&store_dir);
        drop(ImageStore::open(&store_dir).unwrap());
        let mut importer = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "as_doomed_importer"])
            .env("DOOMED_DIR", dir.path())
            .env("DOOMED_AT", event.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if let Some(part) = appears {
            let empty = |part: &str| fs::read_dir(store_dir.join(part)).unwrap().next().is_none();
            while empty(part) && importer.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            importer.kill().unwrap();
        }
        let finished = importer.wait().unwrap().success();
        if finished && appears.is_none() {
            // There are no more events.
            break;
        }
        killed += usize::from(!finished);
        // What is named is whole, and nothing else is left but whole layers.
        let store = ImageStore::open(&store_dir).unwrap();
        assert_eq!(fs::read_dir(store_dir.join("tmp")).unwrap().count(), 0);
        for image in store.list().unwrap() {
            assert!(image.layers.iter().all(|layer| layer.join("dir/small").exists()), "{image:?}");
        }
        let images = store.import(&archive, &Progress::none()).unwrap();
        assert_eq!(images.iter().map(|image| image.layers.len()).collect::<Vec<_>>(), [3, 2]);
        for (path, seed, layer) in [("a", b'x', 2), ("b", b'y', 1), ("c", b'z', 0)] {
            let content = fs::read(images[0].layers[layer].join(path)).unwrap();
            assert!(content.len() == 2 << 20 && content.iter().all(|byte| *byte == seed), "{path}");
        }
    }
    assert!(killed > 5, "{killed}");
}
