//! Images built from directories and Debian packages, with the machine's own package sources, and run.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use yado_oci::build::{Base, BuildSpec, Packages, Recipe, build, packages};
use yado_oci::image::{Event, Image, ImageConfig, ImageStore, Progress, StepState};

/// Root and a Debian system are needed; elsewhere the test says so and passes.
fn can_build() -> bool {
    let debian = Path::new("/usr/bin/apt-get").exists() && Path::new("/usr/bin/dpkg-deb").exists();
    let able = debian && nix::unistd::geteuid().is_root();
    if !able {
        yado_testkit::skip!("building needs root and a Debian system");
    }
    able
}

fn recorder() -> (Progress, Arc<Mutex<Vec<String>>>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&steps);
    let progress = Progress::new(move |event| {
        if let Event::Step { step, state: StepState::Cached | StepState::Done } = &event {
            let cached = matches!(event, Event::Step { state: StepState::Cached, .. });
            sink.lock().unwrap().push(format!("{step}:{}", if cached { "cached" } else { "made" }));
        }
    });
    (progress, steps)
}

/// Runs a program in the image as a container would see it: an overlay of its layers, in namespaces of its own.
fn run(image: &Image, uid: u32, words: &[&str]) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    for dir in ["upper", "work", "root"] {
        fs::create_dir(scratch.path().join(dir)).unwrap();
    }
    let lower: Vec<String> = image.layers.iter().map(|l| l.display().to_string()).collect();
    let at = scratch.path().display();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={at}/upper,workdir={at}/work {at}/root && \
         mount -t proc proc {at}/root/proc && mount -t tmpfs tmpfs {at}/root/tmp && \
         exec chroot --userspec={uid}:{uid} {at}/root /usr/bin/env -i PATH=/usr/bin:/bin HOME=/app \"$@\"",
        lower.join(":")
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh"]).args(words);
    command.process_group(0);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

fn app(dir: &Path) -> PathBuf {
    let context = dir.join("guestbook");
    fs::create_dir_all(context.join("static")).unwrap();
    fs::create_dir_all(context.join(".git")).unwrap();
    fs::write(context.join("Procfile"), "web: python3 app.py\nleader: redis-server --port 6379\n").unwrap();
    fs::write(context.join("Aptfile"), "# what the app needs\npython3-flask\npython3-redis\nredis-server\n")
        .unwrap();
    fs::write(context.join("app.py"), "import flask, redis\nprint(flask.__name__, redis.__name__)\n")
        .unwrap();
    fs::write(context.join("static/a.css"), "a{}").unwrap();
    fs::write(context.join("debug.log"), "x").unwrap();
    fs::write(context.join(".env"), "SECRET=hunter2").unwrap();
    fs::write(context.join(".git/config"), "x").unwrap();
    fs::write(context.join(".dockerignore"), "*.log\n").unwrap();
    context
}

#[test]
fn a_procfile_app_is_built_once_and_runs() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let context = app(dir.path());
    let recipe = Recipe::Source {
        context: context.clone(),
        language: None,
        processes: Vec::new(),
        left_out: Vec::new(),
    };
    let spec = BuildSpec { name: "yado.local/guestbook:latest".to_owned(), recipe };

    let (progress, steps) = recorder();
    let first = build(&spec, &store, &progress).unwrap();
    assert_eq!(*steps.lock().unwrap(), ["base:made", "packages:made", "app:made"]);
    assert_eq!(first.names, ["yado.local/guestbook:latest"]);
    assert_eq!(first.config.cmd, ["/bin/sh", "-c", "exec python3 app.py"]);
    assert_eq!(first.config.labels["dev.yado.process.leader"], "redis-server --port 6379");
    assert_eq!((first.config.user.as_str(), first.config.working_dir.as_str()), ("app", "/app"));
    let base = first.layers.last().unwrap();
    let size = Command::new("du").args(["-sm", base.to_str().unwrap()]).output().unwrap();
    let megabytes: u64 = text(&size).split_whitespace().next().unwrap().parse().unwrap();
    assert!(megabytes < 80, "the base has {megabytes} MB");

    let check = |uid: u32, words: &[&str], expect: &str| {
        let output = run(&first, uid, words);
        assert!(output.status.success() && text(&output).contains(expect), "{words:?}: {}", text(&output));
    };
    check(1000, &["python3", "/app/app.py"], "flask redis");
    check(1000, &["sh", "-c", "cd /app && ls -A; id -un"], "app.py");
    check(1000, &["redis-server", "--version"], "v=7");
    check(0, &["dpkg", "--audit"], "");
    check(
        0,
        &["sh", "-c", "test ! -e /usr/sbin/policy-rc.d && test ! -e /run/packages && echo clean"],
        "clean",
    );
    let listing = text(&run(&first, 1000, &["ls", "-A", "/app"]));
    for absent in ["debug.log", ".env", ".git\n"] {
        assert!(!listing.contains(absent), "{listing}");
    }

    // Nothing changed: nothing is made, and nothing of the machine is asked.
    let (progress, steps) = recorder();
    assert_eq!(build(&spec, &store, &progress).unwrap(), first);
    assert_eq!(*steps.lock().unwrap(), ["base:cached", "packages:cached", "app:cached"]);

    // One file changed: only the app's layer is made.
    fs::write(context.join("app.py"), "print('changed')\n").unwrap();
    let (progress, steps) = recorder();
    let changed = build(&spec, &store, &progress).unwrap();
    assert_eq!(*steps.lock().unwrap(), ["base:cached", "packages:cached", "app:made"]);
    assert_eq!(changed.layers[1..], first.layers[1..]);
    assert_ne!(changed.id, first.id);

    // The same again, elsewhere: the same digests.
    drop(store);
    let other = ImageStore::open(dir.path().join("other")).unwrap();
    let again = build(&spec, &other, &Progress::none()).unwrap();
    let names = |image: &Image| -> Vec<_> {
        image.layers.iter().map(|l| l.file_name().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&again), names(&changed));
    assert_eq!(again.id, changed.id);
}

#[test]
fn packages_alone_make_an_image_that_travels() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let overlay = dir.path().join("files");
    fs::create_dir_all(overlay.join("etc")).unwrap();
    fs::write(overlay.join("etc/motd"), "hello\n").unwrap();
    let spec = Packages {
        base: Base::Scratch,
        packages: vec!["busybox-static".to_owned()],
        overlay: Some(overlay),
        run: vec![["/bin/busybox", "--install", "-s", "/bin"].map(str::to_owned).into()],
        config: ImageConfig { cmd: vec!["sh".to_owned()], ..ImageConfig::default() },
    };
    let image = packages("busybox", &spec, &store, &Progress::none()).unwrap();
    assert_eq!(image.names, ["docker.io/library/busybox:latest"]);
    let output = run(&image, 0, &["/bin/cat", "/etc/motd"]);
    assert!(text(&output).contains("No such file") || text(&output) == "hello\n", "{}", text(&output));

    // Saved and imported elsewhere, it is the very same image.
    let archive = dir.path().join("busybox.tar");
    store.save(&["busybox"], fs::File::create(&archive).unwrap(), &Progress::none()).unwrap();
    let other = ImageStore::open(dir.path().join("other")).unwrap();
    let imported = other.import(&archive, &Progress::none()).unwrap();
    assert_eq!(imported.len(), 1);
    assert_eq!(
        (&imported[0].id, &imported[0].names, &imported[0].config),
        (&image.id, &image.names, &image.config)
    );
}

#[test]
fn what_cannot_be_built_says_why_and_leaves_nothing() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let check = |files: &[(&str, &str)], expect: &str| {
        let context = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(context.path().join(name), content).unwrap();
        }
        let recipe = Recipe::Source {
            context: context.path().to_owned(),
            language: None,
            processes: Vec::new(),
            left_out: Vec::new(),
        };
        let error =
            build(&BuildSpec { name: "x".to_owned(), recipe }, &store, &Progress::none()).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    };
    check(&[], "there is no `Procfile`");
    check(&[("Procfile", "web")], "Procfile, line 1: the line is not a process type and its command");
    check(
        &[("Procfile", "web: a"), ("Aptfile", ":repo:deb x")],
        "Aptfile, line 1: `:repo:` is not supported",
    );
    check(
        &[("Procfile", "web: a"), ("Aptfile", "no-such-package-here")],
        "no package `no-such-package-here` is in",
    );
    let cancelled = Progress::none();
    cancelled.cancel();
    let context = app(dir.path());
    let spec = BuildSpec {
        name: "x".to_owned(),
        recipe: Recipe::Source { context, language: None, processes: Vec::new(), left_out: Vec::new() },
    };
    assert!(build(&spec, &store, &cancelled).unwrap_err().to_string().contains("stopped"));
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}
