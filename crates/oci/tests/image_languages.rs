//! Sample applications of every language, built without a Dockerfile with the machine's own package sources, and run.
//!
//! Static files and Python are built by every run of the tests. The others take minutes of installing compilers and
//! runtimes, so they are built where `YADO_TEST_LANGUAGES` names them, with commas between, or is `all`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use yado_oci::build::{BuildSpec, Language, Recipe, build};
use yado_oci::image::{Event, Image, ImageStore, Progress, StepState};

/// Root and a Debian system are needed; elsewhere the test says so and passes.
fn can_build() -> bool {
    let able = Path::new("/usr/bin/apt-get").exists() && nix::unistd::geteuid().is_root();
    if !able {
        yado_testkit::skip!("building needs root and a Debian system");
    }
    able
}

fn wanted(language: Language) -> bool {
    matches!(language, Language::Static | Language::Python) || chosen(language)
}

fn chosen(language: Language) -> bool {
    let chosen = std::env::var("YADO_TEST_LANGUAGES").unwrap_or_default();
    chosen.split(',').any(|word| word.trim() == "all" || word.trim() == language.name())
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// A store that begins with what the demonstration images were made of, where those are there.
fn store(dir: &Path) -> ImageStore {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image-store");
    if demo.is_dir() {
        let copied =
            Command::new("cp").arg("-a").arg(demo.canonicalize().unwrap()).arg(dir.join("store")).status();
        assert!(copied.unwrap().success());
    }
    ImageStore::open(dir.join("store")).unwrap()
}

fn made(language: Language, context: &Path, store: &ImageStore) -> (Image, Vec<String>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&steps);
    let progress = Progress::new(move |event| match event {
        Event::Step { step, state: StepState::Cached } => sink.lock().unwrap().push(format!("{step}:cached")),
        Event::Step { step, state: StepState::Done } => sink.lock().unwrap().push(format!("{step}:made")),
        _ => {}
    });
    let recipe = Recipe::Source {
        context: context.to_owned(),
        language: Some(language),
        processes: Vec::new(),
        left_out: Vec::new(),
    };
    let spec = BuildSpec { name: format!("yado.local/{language}:latest"), recipe };
    let image = build(&spec, store, &progress).unwrap();
    let steps = steps.lock().unwrap().clone();
    (image, steps)
}

/// Starts the image's command as a container would and gives what its address answers, or else what it printed.
fn answer(image: &Image, path: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    for dir in ["upper", "work", "root"] {
        fs::create_dir(scratch.path().join(dir)).unwrap();
    }
    let lower: Vec<String> = image.layers.iter().map(|l| l.display().to_string()).collect();
    let script = format!(
        "cd {at} && mount -t overlay overlay -o lowerdir={lower},upperdir=upper,workdir=work root && \
         mount -t proc proc root/proc && mount -t tmpfs -o mode=1777 tmpfs root/tmp && \
         mount --rbind /dev root/dev && ip link set lo up || exit 1
         chroot --userspec=app:app root /usr/bin/env -i -C /app \"$@\" PORT=8080 {program} > log 2>&1 &
         curl -s --retry 60 --retry-delay 1 --retry-connrefused --max-time 60 'http://127.0.0.1:8080{path}' || cat log",
        at = scratch.path().display(),
        lower = lower.join(":"),
        program = "/bin/sh -c \"$COMMAND\"",
    );
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh"])
        .args(&image.config.env)
        .env("COMMAND", &image.config.cmd[2])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn has(image: &Image, path: &str) -> bool {
    image.layers.iter().any(|layer| fs::symlink_metadata(layer.join(path)).is_ok())
}

/// One test, as installing what the languages need takes most of the time: each part finds what the one before made.
#[test]
fn o15_each_language_is_built_and_serves() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    credentials_are_in_no_layer(dir.path());
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let check_sample = |name: &str, language: Language, expect: &str, absent: &[&str]| {
        // The samples beside a language's own take the network besides, for minutes.
        if !wanted(language) || (name != language.name() && !chosen(language)) {
            yado_testkit::not_proved!("{name}; YADO_TEST_LANGUAGES=all builds it");
            return;
        }
        let context = sample(name);
        let (image, steps) = made(language, &context, &store);
        let told = answer(&image, "/");
        assert!(told.contains(expect), "{language}: {told}");
        assert_eq!((image.config.user.as_str(), image.config.working_dir.as_str()), ("app", "/app"));
        for path in absent {
            assert!(!has(&image, path), "{language}: {path} is in the image");
        }
        let (again, steps_again) = made(language, &context, &store);
        assert_eq!(again.id, image.id);
        assert!(steps_again.iter().all(|step| step.ends_with(":cached")), "{steps:?} {steps_again:?}");
        assert!(
            !steps_again.contains(&"tools:cached".to_owned()),
            "tools that nothing needs are not looked for"
        );
    };
    let check = |language: Language, expect: &str, absent: &[&str]| {
        check_sample(language.name(), language, expect, absent);
    };
    check(Language::Static, "static", &["run/home"]);
    // What builds is not there, nor what it was told and what it downloaded.
    check(Language::Python, "python flask", &["usr/bin/gcc", "run/home", "var/tmp/cache", "etc/pip.conf"]);
    check(Language::Node, "node true", &["opt/node/node_modules/.package-lock.json", "var/tmp/npm"]);
    check(Language::Go, "go serves", &["usr/bin/go", "usr/lib/go", "usr/bin/gcc", "opt/go"]);
    check(Language::Ruby, "ruby Sinatra", &["usr/bin/gcc"]);
    check(Language::Php, "php greets gd", &["usr/bin/composer"]);
    check(Language::Rust, "rust 42", &["usr/bin/cargo", "usr/bin/gcc", "opt/cargo"]);
    check(Language::Java, "java serves", &["usr/bin/javac", "usr/bin/mvn"]);
    check_sample("python-poetry", Language::Python, "poetry without pytest", &["var/tmp/poetry"]);
    for name in ["node-yarn", "node-pnpm"] {
        check_sample(name, Language::Node, "1m 1.2.3 no semver", &["opt/node-all"]);
    }
    check(Language::Rails, "rails 6.1", &["usr/bin/gcc"]);
    dependencies_are_made_anew_only_for_their_manifest(dir.path(), &store);
}

/// Builds the Python sample with settings that hold a secret.
fn credentials_are_in_no_layer(dir: &Path) {
    let home = dir.join("home");
    fs::create_dir_all(home.join(".config/pip")).unwrap();
    fs::write(home.join(".netrc"), "machine nowhere.example login x password HUNTER2\n").unwrap();
    fs::write(home.join(".npmrc"), "//nowhere.example/:_authToken=HUNTER2\n").unwrap();
    fs::write(home.join(".config/pip/pip.conf"), "[global]\n# HUNTER2\ntimeout = 60\n").unwrap();
    let told = in_child(&["env"], &[("YADO_TEST_SECRET", dir), ("HOME", &home)]);
    assert!(told.contains("built: true"), "{told}");
    let found = Command::new("grep").args(["-rl", "HUNTER2"]).arg(dir.join("store")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

fn dependencies_are_made_anew_only_for_their_manifest(dir: &Path, store: &ImageStore) {
    let context = dir.join("app");
    let copied = Command::new("cp").arg("-a").arg(sample("python")).arg(&context).status();
    assert!(copied.unwrap().success());
    let (first, _) = made(Language::Python, &context, store);
    fs::write(context.join("app.py"), "print('changed')\n").unwrap();
    let (changed, steps) = made(Language::Python, &context, store);
    assert_eq!(steps, ["base:cached", "packages:cached", "dependencies:cached", "app:made"]);
    assert_eq!(changed.layers[1..], first.layers[1..]);
    fs::write(context.join("requirements.txt"), "itsdangerous==2.2.0\n").unwrap();
    let (_, steps) = made(Language::Python, &context, store);
    assert_eq!(steps, ["base:cached", "packages:cached", "tools:cached", "dependencies:made", "app:made"]);

    // What cannot be had is one sentence of the tool's and what to do, and nothing is named.
    fs::write(context.join("requirements.txt"), "no-such-package-here-at-all==1\n").unwrap();
    let recipe = Recipe::Source {
        context,
        language: Some(Language::Python),
        processes: Vec::new(),
        left_out: Vec::new(),
    };
    let spec = BuildSpec { name: "broken".to_owned(), recipe };
    let error = build(&spec, store, &Progress::none()).unwrap_err().to_string();
    assert!(
        error.contains("installing the Python packages failed") && error.contains("check the"),
        "{error}"
    );
    assert!(store.get("broken").unwrap().is_none());
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

/// Runs this binary's `child` with a variable set and a program before it.
fn in_child(words: &[&str], variables: &[(&str, &Path)]) -> String {
    let (program, arguments) = words.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture"]).envs(variables.iter().copied());
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_full_disk_ends_a_build_and_leaves_nothing() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("small")).unwrap();
    let mount = format!("mount -t tmpfs -o size=96m tmpfs {}/small && exec \"$@\"", dir.path().display());
    let told =
        in_child(&["unshare", "--mount", "sh", "-c", &mount, "sh"], &[("YADO_TEST_SMALL", dir.path())]);
    assert!(told.contains("result: the disk is full: could not"), "{told}");
    assert!(told.contains("left: 0 images, 0 in tmp, 0 layers, 0 packages"), "{told}");
}

/// Not a test of its own: what others run in another process.
#[test]
fn child() {
    let count = |path: PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
    if let Some(dir) = std::env::var_os("YADO_TEST_SMALL") {
        let store = ImageStore::open(Path::new(&dir).join("small")).unwrap();
        let recipe = Recipe::Source {
            context: sample("static"),
            language: Some(Language::Static),
            processes: Vec::new(),
            left_out: Vec::new(),
        };
        let error =
            build(&BuildSpec { name: "x".to_owned(), recipe }, &store, &Progress::none()).unwrap_err();
        eprintln!("result: {error}");
        let packages = fs::read_dir(store.dir().join("build/apt/cache/archives")).unwrap().flatten();
        let packages = packages.filter(|e| e.path().extension().is_some_and(|e| e == "deb")).count();
        let (tmp, layers) = (count(store.dir().join("tmp")), count(store.dir().join("layers")));
        let images = store.list().unwrap().len();
        eprintln!("left: {images} images, {tmp} in tmp, {layers} layers, {packages} packages");
    }
    if let Some(dir) = std::env::var_os("YADO_TEST_SECRET") {
        let (image, _) = made(Language::Python, &sample("python"), &store(Path::new(&dir)));
        eprintln!("built: {}", has(&image, "opt/venv/bin/python"));
    }
}
