//! Directories that cannot be used, each with one clear sentence, and a disk that is really full.

use std::path::Path;
use std::process::Command;

use yado_store::{Config, Embedded, Error, Op, Range, Store, Txn};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Prepares a directory and opens it as a store: what it says, with `DIR` for the directory.
fn check(prepare: impl FnOnce(&Path), expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let error = Embedded::open(Config::new(directory.path().join("store"))).err().expect("it opened");
    let text = error.to_string().replace(directory.path().to_str().unwrap(), "DIR");
    assert!(text.starts_with(expected), "{text}");
}

fn filled(directory: &Path) -> std::path::PathBuf {
    let store = Embedded::open(Config::new(directory.join("store"))).unwrap();
    for number in 0..100 {
        run(store.txn(Txn::create(format!("key-{number}"), vec![b'v'; 1000]))).unwrap();
    }
    directory.join("store/state.redb")
}

#[test]
fn a_directory_that_cannot_be_used_says_why() {
    let in_use = tempfile::tempdir().unwrap();
    let first = Embedded::open(Config::new(in_use.path())).unwrap();
    let second = Embedded::open(Config::new(in_use.path())).err();
    assert_eq!(second, Some(Error::InUse { path: in_use.path().to_owned() }));
    drop(first);
    Embedded::open(Config::new(in_use.path())).expect("it is free again");

    check(
        |directory| std::fs::write(directory.join("store"), "").unwrap(),
        "cannot use DIR/store: File exists (os error 17); check that it is a directory this user may write to",
    );
    check(
        |directory| {
            std::fs::create_dir(directory.join("store")).unwrap();
            std::fs::write(directory.join("store/state.redb"), "not a database at all").unwrap();
        },
        "DIR/store/state.redb is damaged: ",
    );
    check(
        |directory| {
            let file = filled(directory);
            let length = std::fs::metadata(&file).unwrap().len();
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 3).unwrap();
        },
        "DIR/store/state.redb is damaged: ",
    );
    check(
        |directory| {
            let file = filled(directory);
            let length = std::fs::metadata(&file).unwrap().len() as usize;
            std::fs::write(file, vec![0xaa; length]).unwrap();
        },
        "DIR/store/state.redb is damaged: ",
    );
}

/// A crash while creating leaves a file under another name, which is no obstacle.
#[test]
fn a_half_made_database_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.new"), "half").unwrap();
    let store = Embedded::open(Config::new(directory.path())).unwrap();
    assert_eq!(store.revision(), 1);
    assert!(!directory.path().join("state.new").exists());
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    for (name, mode) in [("store", 0o700), ("store/state.redb", 0o600), ("store/lock", 0o600)] {
        let permissions = std::fs::metadata(directory.path().join(name)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{name}");
    }
}

const SMALL_DISK: &str = "YADO_STORE_SMALL_DISK";

/// Fills a file system of 8 MiB that only a child process sees, in a mount namespace of its own.
#[test]
fn a_disk_that_is_really_full() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=8m none \"$1\" || exit 77; exec \"$0\" --exact child_on_a_small_disk --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(directory.path())
        .env(SMALL_DISK, directory.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(77) => yado_testkit::skip!("no right to mount"),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => yado_testkit::skip!("unshare cannot be run: {error}"),
    }
}

#[test]
fn child_on_a_small_disk() {
    let Ok(directory) = std::env::var(SMALL_DISK) else { return };
    let directory = Path::new(&directory);
    let ballast = directory.join("ballast");
    run(async {
        let store = Embedded::open(Config::new(directory.join("store"))).unwrap();
        store.txn(Txn::create("first", "kept")).await.unwrap();
        let mut accepted = 0;
        let error = loop {
            match store.txn(Txn::create(format!("key-{accepted}"), vec![b'v'; 100_000])).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, Error::DiskFull { path: directory.join("store/state.redb") });
        assert!(accepted > 5, "only {accepted} fitted");
        let revision = store.revision();
        assert_eq!(revision, 2 + accepted);
        assert!(std::fs::write(&ballast, vec![0; 8 << 20]).is_err(), "there is room left");
        assert!(store.txn(Txn::create("more", vec![b'v'; 1_000_000])).await.is_err());
        assert_eq!(store.range(Range::default()).await.unwrap().items.len() as u64, accepted + 1);

        // There is room again, for a while.
        std::fs::remove_file(&ballast).unwrap();
        let delete = Op::DeleteRange { start: "key-".into(), end: "key.".into() };
        store.txn(Txn { compares: Vec::new(), ops: vec![delete] }).await.unwrap();
        store.txn(Txn::create("more", vec![b'v'; 1_000_000])).await.unwrap();
        store.close().await;
        let store = Embedded::open(Config::new(directory.join("store"))).unwrap();
        assert_eq!(store.revision(), revision + 2);
        assert_eq!(store.range(Range::default()).await.unwrap().items.len(), 2);
    });
}
