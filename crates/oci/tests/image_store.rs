//! The image store's archives out, its bounds, a full disk and a damaged index.

mod archives;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use archives::{Sample, digest, docker_archive, layer, oci_archive, root};
use yado_oci::image::{Bounds, Freed, Image, ImageError, ImageStore, Keep, Limits, Progress, StoreConfig};

fn two_layers(name: &str) -> Sample {
    let base = layer(&[("etc/", ""), ("etc/os", "base"), ("etc/gone", "x")]);
    let top = layer(&[("etc/.wh.gone", ""), ("app/", ""), ("app/run", "hello")]);
    Sample { names: vec![name.to_owned()], layers: vec![base, top], ..Sample::default() }
}

fn leftovers(store: &ImageStore) -> usize {
    fs::read_dir(store.dir().join("tmp")).unwrap().count()
}

fn layers(store: &ImageStore) -> usize {
    fs::read_dir(store.dir().join("layers")).unwrap().count()
}

#[test]
fn what_is_saved_is_imported_as_it_was() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { keep_blobs: true, ..StoreConfig::default() };
    for (name, config) in [("plain", StoreConfig::default()), ("kept", config)] {
        let store = ImageStore::open_with(dir.path().join(name), config).unwrap();
        let sample = two_layers("x:1");
        let image =
            store.import_reader(&oci_archive(&[sample], &|b| b.to_vec())[..], &Progress::none()).unwrap();
        store.tag("x:1", "y:2").unwrap();
        let mut saved = Vec::new();
        store.save(&["x:1", "y:2"], &mut saved, &Progress::none()).unwrap();
        let other = ImageStore::open(dir.path().join(format!("{name}-other"))).unwrap();
        let again = &other.import_reader(&saved[..], &Progress::none()).unwrap()[0];
        assert_eq!(again.names, ["docker.io/library/x:1", "docker.io/library/y:2"]);
        assert_eq!((&again.config, again.size), (&image[0].config, image[0].size));
        if name == "kept" {
            // The very blobs that went in.
            assert_eq!(again.id, image[0].id);
            continue;
        }
        // Packed anew the first time, the same from then on.
        let mut twice = Vec::new();
        other.save(&["x:1", "y:2"], &mut twice, &Progress::none()).unwrap();
        assert!(twice == saved, "packing differs from one time to the next");
    }
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { layer_bytes: 1 << 20, archive_bytes: 4 << 20, ..Limits::default() };
    let config = StoreConfig { limits, ..StoreConfig::default() };
    let store = ImageStore::open_with(dir.path().join("store"), config).unwrap();
    let check = |bytes: &[u8], expect: &str| {
        let path = dir.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        for error in [
            store.import(&path, &Progress::none()).unwrap_err(),
            store.import_reader(bytes, &Progress::none()).unwrap_err(),
        ] {
            assert!(error.to_string().contains(expect), "{error}");
        }
        assert_eq!((store.list().unwrap().len(), leftovers(&store)), (0, 0));
    };
    check(b"", "it has no members");
    check(&[7; 3000], "is not an image archive");
    check(&layer(&[("f", "x")]), "it has neither a `manifest.json` nor an `index.json`");
    let mut wrong = two_layers("x");
    wrong.diff_ids = Some(vec![format!("sha256:{}", "0".repeat(64)); 2]);
    check(&docker_archive(&[wrong]), "once unpacked does not match its digest");
    let mut fewer = two_layers("x");
    fewer.diff_ids = Some(Vec::new());
    check(&docker_archive(&[fewer]), "its configuration names 0 layers, its manifest 2");
    // The same diff_id twice, and another layer behind the second.
    let mut repeated = two_layers("x");
    repeated.diff_ids = Some(vec![digest(&repeated.layers[0]); 2]);
    check(&docker_archive(&[repeated.clone()]), "once unpacked does not match its digest");
    check(&oci_archive(&[repeated], &|bytes| bytes.to_vec()), "once unpacked does not match its digest");
    let corrupt = oci_archive(&[two_layers("x")], &|bytes| bytes.to_vec());
    let at = corrupt.windows(5).position(|w| w == b"hello").unwrap();
    let mut changed = corrupt.clone();
    changed[at] = b'H';
    check(&changed, "as transferred does not match its digest");
    check(&corrupt[..corrupt.len() / 2], "");
    let mut escaping = two_layers("x");
    escaping.layers[1] = layer(&[("../../../../../../tmp/yado-escaped", "x")]);
    check(&docker_archive(&[escaping]), "its path leads out of the layer");
    assert!(!Path::new("/tmp/yado-escaped").exists());
    let mut large = two_layers("x");
    large.layers[1] = layer(&[("f", &"x".repeat(2 << 20))]);
    check(&docker_archive(&[large]), "is larger than the limit of 1048576 bytes");
    let mut named = two_layers("Bad Name");
    named.names = vec!["Bad Name".to_owned()];
    check(&docker_archive(&[named]), "is not an image name");
    // A small file that would be a large one.
    let bomb = zstd::encode_all(&vec![0; 8 << 20][..], 1).unwrap();
    check(&bomb, "is larger than the limit of 4194304 bytes");
    assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap().images, 0);
    assert_eq!(layers(&store), 0);
}

#[test]
fn a_damaged_index_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let in_use = ImageStore::open(dir.path()).unwrap_err();
    assert!(matches!(in_use, ImageError::InUse { .. }), "{in_use}");
    drop(store);
    fs::create_dir(dir.path().join("layers/precious")).unwrap();
    fs::write(dir.path().join("index.json"), "{").unwrap();
    let error = ImageStore::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("index.json cannot be read"), "{error}");
    assert!(dir.path().join("layers/precious").exists());
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    if !root() {
        return;
    }
    // A small file system in a mount namespace of a child: this test's own binary, run again.
    let dir = tempfile::tempdir().unwrap();
    let mut sample = two_layers("x");
    sample.layers[1] = layer(&[("big", &"x".repeat(6 << 20))]);
    fs::write(dir.path().join("image.tar"), docker_archive(&[sample])).unwrap();
    fs::create_dir(dir.path().join("small")).unwrap();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o size=4m tmpfs \"$1/small\" && exec \"$0\" child --exact --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg(dir.path())
        .env("YADO_TEST_FULL", dir.path())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("result: the disk is full"), "{text}");
    assert!(text.contains("left: 0 0 0"), "{text}");
}

/// Not a test of its own: what the one above runs in another process.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os("YADO_TEST_FULL") {
        let dir = Path::new(&dir);
        let store = ImageStore::open(dir.join("small")).unwrap();
        let error = store.import(dir.join("image.tar"), &Progress::none()).unwrap_err();
        eprintln!("result: {error}");
        let images = store.list().unwrap().len();
        store.collect_garbage(&BTreeSet::new()).unwrap();
        eprintln!("left: {images} {} {}", leftovers(&store), layers(&store));
    }
}

/// An image of one layer of its own, with so many bytes.
fn image_of(store: &ImageStore, name: &str, bytes: usize) -> Image {
    let layer = layer(&[("f", &name.chars().cycle().take(bytes).collect::<String>())]);
    let sample = Sample { names: vec![name.to_owned()], layers: vec![layer], ..Sample::default() };
    let archive = docker_archive(&[sample]);
    store.import_reader(&archive[..], &Progress::none()).unwrap().remove(0)
}

#[test]
fn what_is_used_or_named_outlives_a_full_disk() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let names = |store: &ImageStore| {
        store.list().unwrap().into_iter().flat_map(|i| i.names).collect::<Vec<_>>().join(" ")
    };
    let running = image_of(&store, "running:1", 1000);
    image_of(&store, "named:1", 1000);
    image_of(&store, "idle:1", 1000);
    let watched = dir.path().join("images");
    fs::create_dir(&watched).unwrap();
    let sample = Sample { names: vec!["archived:1".to_owned()], ..two_layers("archived:1") };
    fs::write(watched.join("archived.tar"), docker_archive(&[sample])).unwrap();
    store.import_dir(&watched, &Progress::none()).unwrap();
    store.remove("running:1").unwrap();
    let keep =
        Keep { in_use: BTreeSet::from([running.id.clone()]), named: BTreeSet::from(["named:1".to_owned()]) };

    // There is room: all stays.
    let room = Bounds { high: 101, recent: Duration::ZERO, ..Bounds::default() };
    assert_eq!(store.tidy(&keep, &room).unwrap(), Freed::default());
    // There is none, and all was used just now.
    let full = Bounds { high: 0, low: 0, cache: 0, recent: Duration::from_secs(3600) };
    assert_eq!(store.tidy(&keep, &full).unwrap(), Freed::default());
    // There is none, and nothing was: what runs, what a Pod names and what an archive would bring again stay.
    let freed = store.tidy(&keep, &Bounds::prune(true)).unwrap();
    assert_eq!(freed, Freed { images: 1, layers: 1, bytes: 1000 });
    assert_eq!(names(&store), "docker.io/library/archived:1 docker.io/library/named:1");
    assert!(store.get(&running.id).unwrap().is_some_and(|image| image.layers[0].join("f").exists()));
    // It ran, and it has no name.
    let freed = store.tidy(&Keep::default(), &Bounds::prune(false)).unwrap();
    assert_eq!((freed.images, leftovers(&store)), (1, 0));
    assert_eq!(store.tidy(&Keep::default(), &Bounds::prune(false)).unwrap(), Freed::default());
}
