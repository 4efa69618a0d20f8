//! The image store on real archives: what it imports, shares, saves, forgets, and survives.

mod archives;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use archives::{Sample, docker_archive, layer, oci_archive, root};
use yado_oci::image::{ImageError, ImageStore, Limits, Progress, StoreConfig};

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
fn archives_of_every_form_give_the_same_image() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sample = two_layers("team/app:v1");
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let plain = |bytes: &[u8]| bytes.to_vec();
    let forms: [(&str, Vec<u8>); 7] = [
        ("docker", docker_archive(std::slice::from_ref(&sample))),
        ("docker.gz", gzip(&docker_archive(std::slice::from_ref(&sample)))),
        ("docker.zst", zstd(&docker_archive(std::slice::from_ref(&sample)))),
        ("oci", oci_archive(std::slice::from_ref(&sample), &plain)),
        ("oci, layers gzip", oci_archive(std::slice::from_ref(&sample), &gzip)),
        ("oci, layers zstd", oci_archive(std::slice::from_ref(&sample), &zstd)),
        ("oci, all gzip", gzip(&oci_archive(std::slice::from_ref(&sample), &gzip))),
    ];
    let mut ids = BTreeSet::new();
    for (number, (form, bytes)) in forms.iter().enumerate() {
        let store = ImageStore::open(dir.path().join(number.to_string())).unwrap();
        let path = dir.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        let images = store.import(&path, &Progress::none()).unwrap();
        assert_eq!(images.len(), 1, "{form}");
        assert_eq!(images[0].names, ["docker.io/team/app:v1"], "{form}");
        assert_eq!(images[0].config.cmd, ["/app/run"], "{form}");
        assert_eq!(images[0].layers.len(), 2);
        assert_eq!(fs::read_to_string(images[0].layers[0].join("app/run")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(images[0].layers[1].join("etc/os")).unwrap(), "base");
        assert_eq!(
            store.import_reader(&bytes[..], &Progress::none()).unwrap(),
            images,
            "{form}, as a stream"
        );
        assert_eq!(leftovers(&store), 0);
        ids.insert(images[0].id.clone());
    }
    assert_eq!(ids.len(), 1);
}

#[test]
fn an_overlay_of_the_layers_shows_the_image() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let mut sample = two_layers("x");
    sample.layers[0] = layer(&[("d/", ""), ("d/old", "x"), ("e", "file"), ("etc/", ""), ("etc/gone", "x")]);
    sample.layers.push(layer(&[
        ("d/", ""),
        ("d/.wh..wh..opq", ""),
        ("d/new", "y"),
        (".wh.e", ""),
        ("e/", ""),
    ]));
    let image = &store.import_reader(&docker_archive(&[sample])[..], &Progress::none()).unwrap()[0];
    let lower: Vec<String> = image.layers.iter().map(|l| l.display().to_string()).collect();
    // In a mount namespace of its own, which takes the mount along when it ends.
    let script = format!(
        "mount -t overlay overlay -o lowerdir={} {1} && cd {1} && find . -type f | sort",
        lower.join(":"),
        dir.path().join("store/empty").display()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "./app/run\n./d/new\n", "{output:?}");
}

#[test]
fn names_layers_and_garbage() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let one = two_layers("one");
    let mut two = two_layers("two");
    two.layers[1] = layer(&[("other", "o")]);
    let images = store.import_reader(&docker_archive(&[one, two])[..], &Progress::none()).unwrap();
    assert_eq!((images.len(), layers(&store)), (2, 3), "the base is shared");

    let tagged = store.tag("one", "registry.example.org/one:v1").unwrap();
    assert_eq!(tagged.names, ["docker.io/library/one:latest", "registry.example.org/one:v1"]);
    assert_eq!(store.get(&tagged.id).unwrap().unwrap(), tagged);
    assert_eq!(store.get("unknown").unwrap(), None);
    assert!(matches!(store.tag("unknown", "x"), Err(ImageError::NotFound(_))));
    assert!(matches!(store.get("Not A Name"), Err(ImageError::Reference { .. })));

    // A name that moves leaves the image it had.
    store.tag("two", "one").unwrap();
    assert_eq!(store.get("one").unwrap().unwrap().id, images[1].id);
    store.remove("registry.example.org/one:v1").unwrap();
    let unnamed = images[0].id.clone();
    assert_eq!(store.list().unwrap().last().unwrap().id, unnamed);

    let nothing = BTreeSet::new();
    let in_use = BTreeSet::from([unnamed.clone()]);
    assert_eq!(store.collect_garbage(&in_use).unwrap().images, 0);
    let freed = store.collect_garbage(&nothing).unwrap();
    assert_eq!((freed.images, freed.layers, freed.bytes), (1, 1, 5));
    assert_eq!((store.get(&unnamed).unwrap(), layers(&store), leftovers(&store)), (None, 2, 0));

    // All of it is on disk: a store that is opened again says the same.
    let before = store.list().unwrap();
    assert!(matches!(ImageStore::open(store.dir()), Err(ImageError::InUse { .. })));
    let path = store.dir().to_owned();
    drop(store);
    let store = ImageStore::open(&path).unwrap();
    assert_eq!(store.list().unwrap(), before);
    store.remove(&images[1].id).unwrap();
    assert_eq!(store.collect_garbage(&nothing).unwrap().layers, 2);
    assert_eq!((layers(&store), fs::read_dir(path.join("blobs/sha256")).unwrap().count()), (0, 0));
}

#[test]
fn a_directory_of_archives_is_imported_once() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    fs::create_dir(&images).unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    assert_eq!(store.import_dir(dir.path().join("absent"), &Progress::none()).unwrap().len(), 0);
    fs::write(images.join("a.tar"), docker_archive(&[two_layers("a")])).unwrap();
    fs::write(images.join("bad.tar.gz"), "not an archive").unwrap();
    fs::write(images.join("README"), "x").unwrap();
    let import = || {
        let imported = store.import_dir(&images, &Progress::none()).unwrap();
        let line = |i: &yado_oci::image::Imported| {
            let name = i.path.file_name().unwrap().to_string_lossy().into_owned();
            (name, i.result.as_ref().map(Vec::len).ok(), i.unchanged)
        };
        imported.iter().map(line).collect::<Vec<_>>()
    };
    let bad = ("bad.tar.gz".to_owned(), None, false);
    assert_eq!(import(), [("a.tar".to_owned(), Some(1), false), bad.clone()]);
    assert_eq!(import(), [("a.tar".to_owned(), Some(1), true), bad.clone()]);
    fs::write(images.join("a.tar"), docker_archive(&[two_layers("a"), two_layers("b")])).unwrap();
    assert_eq!(import()[0], ("a.tar".to_owned(), Some(2), false));
    // What was removed on purpose and collected comes back with the next start, as the archive still lies there.
    store.remove("a").unwrap();
    store.remove("b").unwrap();
    store.collect_garbage(&BTreeSet::new()).unwrap();
    assert_eq!(import()[0], ("a.tar".to_owned(), Some(2), false));
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
        // Kept blobs come out as they went in; so does what our own packing made, at the second time at the latest.
        if name == "kept" {
            assert_eq!(again.id, image[0].id);
        }
        let mut twice = Vec::new();
        other.save(&["x:1", "y:2"], &mut twice, &Progress::none()).unwrap();
        assert_eq!(
            again.id,
            ImageStore::open(dir.path().join(format!("{name}-third")))
                .unwrap()
                .import_reader(&twice[..], &Progress::none())
                .unwrap()[0]
                .id
        );
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

#[test]
fn a_killed_import_leaves_a_usable_store() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut sample = two_layers("x");
    let files: Vec<(String, String)> =
        (0..400).map(|n| (format!("d{n}/f"), format!("{n}").repeat(500))).collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
    sample.layers = files.chunks(80).map(layer).collect();
    fs::write(dir.path().join("image.tar"), docker_archive(&[sample])).unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env("YADO_TEST_KILLED", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let began = std::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = began.elapsed();
    for round in 0..12u32 {
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        let mut child = start();
        // Not a synchronisation: wherever the kill falls, what follows must hold.
        std::thread::sleep(whole * round / 12);
        child.kill().unwrap();
        child.wait().unwrap();
        let store = ImageStore::open(dir.path().join("store")).unwrap();
        assert_eq!(leftovers(&store), 0);
        if let Some(image) = store.get("x").unwrap() {
            assert!(image.layers.iter().all(|layer| layer.join("d0").exists() || layer.is_dir()));
        }
        let image = &store.import(dir.path().join("image.tar"), &Progress::none()).unwrap()[0];
        let count = |l: &std::path::PathBuf| fs::read_dir(l).unwrap().count();
        assert_eq!(image.layers.iter().map(count).sum::<usize>(), 400);
    }
}

/// Not a test of its own: what the two above run in another process.
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
    if let Some(dir) = std::env::var_os("YADO_TEST_KILLED") {
        let dir = Path::new(&dir);
        let store = ImageStore::open(dir.join("store")).unwrap();
        store.import(dir.join("image.tar"), &Progress::none()).unwrap();
    }
}
