//! What Otto's users know of compiling, fetching and dependencies, by the rows of the feature table.

mod loopback;

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use expect_test::{Expect, expect};
use loopback::{Repository, Server};
use yado_compile::{BuildMethod, Compiled, Diagnostics, Event, Events, Options, compile};

/// Lays files out in a directory: `name: text`.
fn lay_out(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn appfile(name: &str, dependencies: &[&str]) -> String {
    let dependencies: String =
        dependencies.iter().map(|d| format!("  dependency {{ source = \"{d}\" }}\n")).collect();
    format!("application {{\n  name = \"{name}\"\n  type = \"docker-external\"\n{dependencies}}}\n")
}

/// Compiles, with the stages that were told, a line each as `yado compile` words them.
fn compile_told(directory: &Path, options: Options) -> (Result<Compiled, Diagnostics>, String) {
    let told = Arc::new(Mutex::new(String::new()));
    let log = told.clone();
    let events = Events::new(move |event| {
        let line = match event {
            Event::Loading { path } => format!("load {}", path.file_name().unwrap().display()),
            Event::FetchingDependencies => "fetch all dependencies".into(),
            Event::Fetching { url } => format!("fetch {url}"),
            Event::Compiling { application, app_type, project, infrastructure } => {
                format!(
                    "compile {application} ({app_type}), project {project}, infrastructure {infrastructure}"
                )
            }
            Event::CompilingPart { part } => format!("part {part}"),
        };
        log.lock().unwrap().push_str(&format!("{line}\n"));
    });
    let compiled = compile(directory, &Options { events, ..options });
    let told = told.lock().unwrap().clone();
    (compiled, told)
}

/// The lines of `told` on fetching.
fn fetched(told: &str) -> Vec<&str> {
    told.lines().filter_map(|l| l.strip_prefix("fetch ")).filter(|l| *l != "all dependencies").collect()
}

/// A message without the directory and the server, which differ each time.
fn short(directory: &Path, server: Option<&Server>, text: impl ToString) -> String {
    let text = text.to_string().replace(&format!("{}/", directory.display()), "");
    let text = text.replace(&directory.display().to_string(), ".");
    server.map_or(text.clone(), |s| text.replace(s.url("").trim_end_matches('/'), "http://server"))
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn no_pages() -> HashMap<String, loopback::Answer> {
    HashMap::new()
}

#[test]
fn o01_an_appfile_names_the_application_its_type_and_its_dependencies() {
    let directory = temporary();
    lay_out(
        directory.path(),
        &[
            (
                "Appfile",
                "application {\n  name = \"web\"\n  type = \"node\"\n  dependency { source = \"./db\" }\n}\n",
            ),
            ("package.json", "{\"scripts\": {\"start\": \"node .\"}}"),
            ("db/Appfile", &appfile("db", &[])),
            ("db/.ottoid", "1\n"),
        ],
    );
    let compiled = compile(directory.path(), &Options::default()).unwrap();
    assert_eq!((compiled.app.as_str(), compiled.app_type.as_str()), ("web", "node"));
    assert_eq!(compiled.dependencies, ["db"]);
}

/// git is told to find github.com in a directory, so the address is used as it is, without a network. That takes
/// variables of the environment, which a test sets for a second run of itself.
#[test]
fn o02_o11_addresses_of_github_are_rewritten_printed_and_fetched() {
    let Some(base) = std::env::var_os("YADO_TEST_GITHUB") else {
        let directory = temporary();
        let repository = Repository::new(&directory.path().join("github/o/r.git"));
        repository.commit(&[
            ("sub/Appfile", &appfile("part", &[])),
            ("sub/.ottoid", "1\n"),
            ("README", "no application"),
        ]);
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "o02_o11_addresses_of_github_are_rewritten_printed_and_fetched"])
            .env("YADO_TEST_GITHUB", directory.path())
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", format!("url.file://{}/github/.insteadOf", directory.path().display()))
            .env("GIT_CONFIG_VALUE_0", "https://github.com/")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    };
    let app = Path::new(&base).join("app");
    lay_out(&app, &[("Appfile", &appfile("whole", &["github.com/o/r/sub"]))]);
    let (compiled, told) = compile_told(&app, Options::default());
    assert_eq!(compiled.unwrap().dependencies, ["part"]);
    assert_eq!(fetched(&told), ["git::https://github.com/o/r.git//sub"]);
    assert!(app.join(".yado/deps/part/Appfile").is_file());
    assert!(!app.join(".yado/deps/part/README").exists());
}

#[test]
fn o03_o04_dependencies_of_dependencies_are_fetched_once_each() {
    let directory = temporary();
    let server = Server::start(no_pages(), directory.path());
    let (left, right, base) = (server.url("git/left"), server.url("git/right"), server.url("git/base"));
    let source = |url: &str| format!("git::{url}");
    let base_source = source(&base);
    let left_file = appfile("left", &[&base_source]);
    let right_file = appfile("right", &[&base_source, &source(&left)]);
    for (name, text) in [("left", &left_file), ("right", &right_file), ("base", &appfile("base", &[]))] {
        Repository::new(&directory.path().join(name)).commit(&[("Appfile", text), (".ottoid", "1\n")]);
    }
    let app = directory.path().join("app");
    lay_out(&app, &[("Appfile", &appfile("top", &[&source(&left), &source(&right)]))]);
    let (compiled, told) = compile_told(&app, Options::default());
    let compiled = compiled.unwrap();
    assert_eq!(compiled.dependencies, ["base", "left", "right"]);
    assert_eq!(fetched(&told), [source(&left), base_source.clone(), source(&right)]);
    assert_eq!(server.asked("/git/base/info/refs"), 1);
    assert_eq!(compiled.warnings, []);
    // A second run has them already.
    let asked = server.asked("");
    let (again, told) = compile_told(&app, Options::default());
    assert_eq!(again.unwrap().objects, compiled.objects);
    assert_eq!((fetched(&told), server.asked("")), (vec![], asked));
}

#[test]
fn o05_o06_an_image_is_run_under_the_name_and_identity_of_the_application() {
    let directory = temporary();
    let text = "application {\n  name = \"mongodb\"\n  type = \"docker-external\"\n}\n\
                customization \"docker\" {\n  image = \"mongo:3.0\"\n  run_args = \"-p 27017:27017\"\n}\n";
    lay_out(directory.path(), &[("Appfile", text), (".ottoid", "24cbbebc\n\nDO NOT MODIFY\n")]);
    let compiled = compile(directory.path(), &Options::default()).unwrap();
    let deployment = compiled.objects.iter().find(|o| o.kind() == "Deployment").unwrap();
    assert_eq!(deployment.name(), "mongodb");
    assert_eq!(deployment.value["spec"]["template"]["spec"]["containers"][0]["image"], "mongo:3.0");
    assert_eq!(deployment.value["metadata"]["annotations"]["yado.dev/otto-id"], "24cbbebc");
    assert_eq!(compiled.missing_id, None);
}

#[test]
fn o07_o08_stages_are_told_in_order_with_defaults() {
    let directory = temporary();
    let db = appfile("db", &[]);
    lay_out(directory.path(), &[("db/Appfile", &db), ("db/.ottoid", "1\n")]);
    let told = |appfile: &str, expect: Expect| {
        lay_out(directory.path(), &[("Appfile", appfile)]);
        let (compiled, told) = compile_told(directory.path(), Options::default());
        let warnings: String = compiled.unwrap().warnings.iter().map(|w| format!("{w}\n")).collect();
        expect.assert_eq(&short(directory.path(), None, told + &warnings));
    };
    told(
        &appfile("shop", &["./db"]),
        expect![[r#"
        load Appfile
        fetch all dependencies
        compile shop (docker-external), project shop, infrastructure yado (simple)
        part infra
        part foundation: consul
        part dependency 'db'
        part main application
    "#]],
    );
    told(
        &(appfile("shop", &["./db"])
            + "project {\n  name = \"mall\"\n  infrastructure = \"prod\"\n}\n\
               infrastructure \"prod\" {\n  type = \"aws\"\n  flavor = \"simple\"\n  foundation \"consul\" { servers = 3 }\n}\n"),
        expect![[r#"
            load Appfile
            fetch all dependencies
            compile shop (docker-external), project mall, infrastructure aws (simple)
            part infra
            part foundation: consul
            part dependency 'db'
            part main application
            Appfile:10:16: nothing is set up at aws: the app runs where its objects are applied, on this machine's engine or on a cluster of yours
            Appfile:13:25: servers has no effect: names such as NAME.service.consul are answered by the engine, so there is no Consul to set up
        "#]],
    );
}

#[test]
fn o09_o10_fetched_dependencies_lie_in_folders_of_their_own_names() {
    let directory = temporary();
    let repository = Repository::new(&directory.path().join("otto-db-7f3a"));
    let first =
        repository.commit(&[("Appfile", &appfile("db", &[])), (".ottoid", "1\n"), ("run.sh", "#!/bin/sh\n")]);
    repository.git(&["tag", "v1"]);
    let source = format!("git::file://{}", repository.0.display());
    let app = directory.path().join("app");
    let appfile_with =
        |query: &str| lay_out(&app, &[("Appfile", &appfile("top", &[&format!("{source}{query}")]))]);
    let kept = || fs::read_to_string(app.join(".yado/deps/db/Appfile")).unwrap().contains("# new");
    let run = |update: bool| {
        let (compiled, told) = compile_told(&app, Options { update, ..Options::default() });
        compiled.unwrap();
        fetched(&told).len()
    };
    appfile_with("");
    assert_eq!(run(false), 1);
    let names = |path: &str| {
        let mut all: Vec<String> = fs::read_dir(app.join(path))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    };
    assert_eq!(names(".yado/deps"), [".lock", "db", "sources.json"]);
    assert_eq!(names(".yado/deps/db"), [".ottoid", "Appfile", "run.sh"]);
    assert!(fs::read_to_string(app.join(".yado/deps/sources.json")).unwrap().contains(&first));
    // It stays as it is until it is asked for anew.
    let second = repository.commit(&[("Appfile", &(appfile("db", &[]) + "# new\n"))]);
    assert_eq!((run(false), kept()), (0, false));
    assert_eq!((run(true), kept()), (1, true));
    // Another state is another source: a tag, a commit in full and short, a branch.
    for (query, new) in [
        ("?ref=v1", false),
        (&format!("?ref={second}"), true),
        (&format!("?ref={}", &first[..10]), false),
        ("?ref=main", true),
    ] {
        appfile_with(query);
        assert_eq!((run(false), kept()), (1, new), "{query}");
        assert_eq!(run(false), 0, "{query}");
    }
    assert_eq!(names(".yado/deps"), [".lock", "db", "sources.json"]);
}

#[test]
fn o11_a_subdirectory_reaches_its_neighbours_in_the_repository() {
    let directory = temporary();
    let repository = Repository::new(&directory.path().join("r"));
    repository.commit(&[
        ("apps/web/Appfile", &appfile("web", &["../db", "./cache"])),
        ("apps/web/.ottoid", "1\n"),
        ("apps/web/cache/Appfile", &appfile("cache", &["../../db"])),
        ("apps/web/cache/.ottoid", "2\n"),
        ("apps/db/Appfile", &appfile("db", &[])),
        ("apps/db/.ottoid", "3\n"),
    ]);
    let app = directory.path().join("app");
    let source = format!("git::file://{}//apps/web", repository.0.display());
    lay_out(&app, &[("Appfile", &appfile("top", &[&source]))]);
    let (compiled, told) = compile_told(&app, Options::default());
    assert_eq!(compiled.unwrap().dependencies, ["db", "cache", "web"]);
    assert_eq!(fetched(&told).len(), 2);
    let (again, told) = compile_told(&app, Options::default());
    assert_eq!((again.unwrap().dependencies.len(), fetched(&told).len()), (3, 0));
}

#[test]
fn o32_a_dependency_of_type_docker_is_deployed_as_any_other() {
    let directory = temporary();
    lay_out(
        directory.path(),
        &[
            ("Appfile", "application {\n  name = \"web\"\n  dependency { source = \"./db\" }\n}\n"),
            ("Procfile", "web: run"),
            ("db/Appfile", &appfile("db", &[]).replace("docker-external", "docker")),
            ("db/.ottoid", "1\n"),
        ],
    );
    let compiled = compile(directory.path(), &Options::default()).unwrap();
    let kinds: Vec<String> = compiled.objects.iter().map(|o| format!("{} {}", o.kind(), o.name())).collect();
    assert_eq!(
        kinds,
        ["Service db", "Deployment db", "Service web", "Deployment web-web", "Ingress web-web"]
    );
}

#[test]
fn o35_one_definition_gives_the_same_objects_wherever_it_is_compiled() {
    let text = appfile("web", &[]) + "customization { image = \"nginx\" }\n";
    let compiled = |domain: &str| {
        let directory = temporary();
        lay_out(directory.path(), &[("Appfile", &text)]);
        let options = Options { domain: domain.into(), ..Options::default() };
        let compiled = compile(directory.path(), &options).unwrap();
        compiled
            .objects
            .into_iter()
            .map(|o| o.value.to_string().replace(domain, "DOMAIN"))
            .collect::<Vec<_>>()
    };
    assert_eq!(compiled("localhost"), compiled("example.com"));
}

#[test]
fn ottos_own_examples_need_no_network() {
    let directory = temporary();
    let examples = ["memcached", "mongodb", "mysql", "postgresql", "redis"];
    let sources: Vec<String> =
        examples.iter().map(|e| format!("github.com/hashicorp/otto/examples/{e}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    lay_out(directory.path(), &[("Appfile", &appfile("top", &sources))]);
    let (compiled, told) = compile_told(directory.path(), Options::default());
    let compiled = compiled.unwrap();
    assert_eq!(compiled.dependencies, examples);
    assert_eq!(compiled.warnings, []);
    assert_eq!(fetched(&told)[1], "git::https://github.com/hashicorp/otto.git//examples/mongodb");
    let image = |name: &str| {
        let object = compiled.objects.iter().find(|o| (o.kind(), o.name()) == ("Deployment", name)).unwrap();
        object.value["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_string()
    };
    assert_eq!((image("mongodb"), image("postgresql")), ("mongo:3.0".into(), "postgres:9.5".into()));
}

fn tar_gz(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_and_pages_are_fetched_over_http() {
    let directory = temporary();
    let file = appfile("db", &[]);
    let whole = tar_gz(&[("Appfile", &file), (".ottoid", "1")]);
    let sum: String =
        <sha2::Sha256 as sha2::Digest>::digest(&whole).iter().map(|b| format!("{b:02x}")).collect();
    let nested = [
        ("r-1/Appfile", file.as_str()),
        ("r-1/.ottoid", "1"),
        ("r-1/sub/Appfile", &file),
        ("r-1/sub/.ottoid", "2"),
    ];
    let ok = |body: Vec<u8>| ("200 OK", Vec::new(), body);
    Repository::new(&directory.path().join("r")).commit(&[("Appfile", &file), (".ottoid", "1\n")]);
    let page =
        |server: &str| format!("<html><head><meta name=\"otto-get\" content=\"{server}\"></head></html>");
    let pages = HashMap::from([
        ("/a.tar.gz".to_string(), ok(whole)),
        ("/a.zip".into(), ok(zip(&nested))),
        ("/download".into(), ok(zip(&nested))),
        ("/moved.tgz".into(), ("302 Found", vec![("Location", "/a.tar.gz".to_string())], Vec::new())),
        ("/page".into(), ok(page("git::PLACE/git/r").into_bytes())),
        ("/header".into(), ("200 OK", vec![("X-Otto-Get", "PLACE/a.zip//r-1/sub".to_string())], Vec::new())),
        ("/nothing".into(), ok(b"<html></html>".to_vec())),
        ("/loop".into(), ok(page("PLACE/loop").into_bytes())),
        ("/broken.zip".into(), ok(b"no zip".to_vec())),
        ("/a.tar.bz2".into(), ok(b"x".to_vec())),
        ("/half.tgz".into(), ("200 OK", vec![], tar_gz(&nested)[..60].to_vec())),
    ]);
    // Pages name the server itself, whose port is not known before it is started: they are relative by a second one.
    let first = Server::start(no_pages(), directory.path());
    let replaced = |answer: loopback::Answer| {
        let place = first.url("").trim_end_matches('/').to_string();
        let text = String::from_utf8(answer.2.clone())
            .map(|t| t.replace("PLACE", &place).into_bytes())
            .unwrap_or(answer.2);
        let headers = answer.1.into_iter().map(|(n, v)| (n, v.replace("PLACE", &place))).collect();
        (answer.0, headers, text)
    };
    let archives = ["/a.zip".to_string()];
    let copies: HashMap<_, _> =
        pages.iter().filter(|(k, _)| archives.contains(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let pages = pages.into_iter().map(|(k, v)| (k, replaced(v))).collect();
    let server = Server::start(pages, directory.path());
    drop(copies);
    let mut shown = String::new();
    for (i, source) in [
        "a.tar.gz",
        &format!("a.tar.gz?checksum=sha256:{sum}"),
        &format!("a.tar.gz?checksum=sha256:{}", "0".repeat(64)),
        "a.zip",
        "a.zip//r-1/sub",
        "a.zip//*/sub",
        "a.zip//r-1/nosub",
        "download?archive=zip",
        "moved.tgz",
        "page",
        "nothing",
        "no.tgz",
        "broken.zip",
        "half.tgz",
        "a.tar.bz2",
        "a.tar.gz?archive=rar",
    ]
    .iter()
    .enumerate()
    {
        let app = directory.path().join(format!("app-{i}"));
        lay_out(&app, &[("Appfile", &appfile("top", &[&server.url(source)]))]);
        let line = match compile(&app, &Options::default()) {
            Ok(compiled) => format!("{:?}", compiled.dependencies),
            Err(mistakes) => {
                assert!(!app.join(".yado/deps/db").exists() && !app.join(".yado/deps/.fetching").exists());
                let text = short(&app, Some(&server), &mistakes);
                text.split_once("\" ").map_or(text.clone(), |(_, sentence)| sentence.to_string())
            }
        };
        shown.push_str(&format!("{}\n    {line}\n", source.replace(&sum, "SUM")));
    }
    expect![[r#"
        a.tar.gz
            ["db"]
        a.tar.gz?checksum=sha256:SUM
            ["db"]
        a.tar.gz?checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000
            cannot be fetched: its checksum is sha256:5ad4abfaf63d48ff2d6ae331d0980e1ab57504a2af0e469e0762e294e873c05b, not what ?checksum= says (http://server/a.tar.gz?checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000)
        a.zip
            ["db"]
        a.zip//r-1/sub
            ["db"]
        a.zip//*/sub
            ["db"]
        a.zip//r-1/nosub
            cannot be fetched: has no directory r-1/nosub (http://server/a.zip//r-1/nosub)
        download?archive=zip
            ["db"]
        moved.tgz
            ["db"]
        page
            ["db"]
        nothing
            cannot be fetched: is not an archive, and the page names no source: write git:: in front if it is a repository, or ?archive=zip behind if it is an archive (http://server/nothing)
        no.tgz
            cannot be fetched: the server answers 404 Not Found (http://server/no.tgz)
        broken.zip
            cannot be fetched: is not a valid zip archive: invalid Zip archive: Could not find EOCD (http://server/broken.zip)
        half.tgz
            cannot be fetched: is a broken tar archive: incomplete deflate stream (http://server/half.tgz)
        a.tar.bz2
            cannot be fetched: archives of kind tar.bz2 are not unpacked here: offer a tar.gz, tar.zst or zip (http://server/a.tar.bz2)
        a.tar.gz?archive=rar
            cannot be fetched: ?archive=rar is not a supported kind of archive: use one of tar.gz, tgz, tar.zst, tar, zip, tar.bz2, tbz2, tar.xz, txz (http://server/a.tar.gz?archive=rar)
    "#]].assert_eq(&shown);
}

#[test]
fn what_cannot_be_fetched_is_said_and_leaves_the_last_state() {
    let directory = temporary();
    let repository = Repository::new(&directory.path().join("r"));
    repository.commit(&[("Appfile", &appfile("db", &[])), (".ottoid", "1\n")]);
    let app = directory.path().join("app");
    let server = Server::start(no_pages(), directory.path());
    let source = format!("git::{}", server.url("git/r"));
    let compile_with = |source: &str, update: bool| {
        lay_out(&app, &[("Appfile", &appfile("top", &[source]))]);
        compile(&app, &Options { update, ..Options::default() })
    };
    compile_with(&source, false).unwrap();
    let mut shown = String::new();
    for source in [
        format!("{source}?ref=nowhere"),
        format!("{source}//nowhere"),
        format!("git::file://{}/none", directory.path().display()),
        format!("git::{}", server.url("git/none")),
        "git::http://127.0.0.1:1/r.git".into(),
    ] {
        let mistakes = compile_with(&source, false).unwrap_err();
        let text = short(directory.path(), Some(&server), mistakes);
        shown.push_str(text.split_once("\" ").unwrap().1);
        shown.push('\n');
        assert!(app.join(".yado/deps/db/Appfile").is_file());
        assert!(!app.join(".yado/deps/.fetching").exists());
    }
    // The repository is gone: a renewal fails, and what was fetched is used as before without one.
    fs::remove_dir_all(&repository.0).unwrap();
    assert!(compile_with(&source, true).is_err());
    compile_with(&source, false).unwrap();
    // What a killed run left is no hindrance.
    lay_out(&app, &[(".yado/deps/.fetching/checkout-0/half", ""), (".yado/deps/sources.json", "{")]);
    assert!(compile_with(&source, false).is_err());
    let shown = shown.lines().map(|l| l.split(" after ").next().unwrap()).collect::<Vec<_>>().join("\n");
    expect![[r#"
        cannot be fetched: it has no branch, tag or commit nowhere (git::http://server/git/r?ref=nowhere)
        cannot be fetched: has no directory nowhere (git::http://server/git/r//nowhere)
        does not exist: there is no directory none
        cannot be fetched: git says: fatal: repository 'http://server/git/none/' not found (git::http://server/git/none)
        cannot be fetched: git says: fatal: unable to access 'http://127.0.0.1:1/r.git/': Failed to connect to 127.0.0.1 port 1"#]].assert_eq(&shown);
}

#[test]
fn what_was_fetched_keeps_within_its_repository() {
    let directory = temporary();
    let repository = Repository::new(&directory.path().join("r"));
    lay_out(directory.path(), &[("secret/Appfile", &appfile("secret", &[])), ("secret/.ottoid", "1\n")]);
    let absolute = directory.path().join("secret").display().to_string();
    repository.commit(&[
        ("a/Appfile", &appfile("a", &["../../secret", &absolute, "../../../../secret", "../b"])),
        ("b/Appfile", &appfile("b", &[])),
    ]);
    let app = directory.path().join("app");
    let source = format!("git::file://{}//a", repository.0.display());
    lay_out(&app, &[("Appfile", &appfile("top", &[&source]))]);
    let mistakes = compile(&app, &Options::default()).unwrap_err();
    expect![[r#"
        app/.yado/deps/a/Appfile:4:25: dependency "../../secret" leads out of what was fetched (git::file://r)
        app/.yado/deps/a/Appfile:5:25: dependency "secret" is a path on this machine, which a fetched file must not name
        app/.yado/deps/a/Appfile:6:25: dependency "../../../../secret" leads out of what was fetched (git::file://r)"#]].assert_eq(&short(directory.path(), None, mistakes));
}

#[test]
fn a_fetched_dependency_may_lack_an_identity_and_two_cannot_share_a_name() {
    let directory = temporary();
    for name in ["r", "s"] {
        Repository::new(&directory.path().join(name)).commit(&[("Appfile", &appfile("db", &[]))]);
    }
    let app = directory.path().join("app");
    let source = |name: &str| format!("git::file://{}", directory.path().join(name).display());
    lay_out(&app, &[("Appfile", &appfile("top", &[&source("r")]))]);
    let warnings = compile(&app, &Options::default()).unwrap().warnings;
    let text: String = warnings.iter().map(|w| format!("{w}\n")).collect();
    lay_out(&app, &[("Appfile", &appfile("top", &[&source("r"), &source("s")]))]);
    let mistakes = compile(&app, &Options::default()).unwrap_err();
    expect![[r#"
        app/Appfile:4:25: dependency "git::file://r" has no .ottoid: it is known by its name alone until its author adds one
        app/Appfile:5:25: dependency "git::file://s" cannot be fetched: is an application called db, as git::file://r is: two of one name cannot run beside each other, so rename one (git::file://s)"#]].assert_eq(&short(directory.path(), None, format!("{text}{mistakes}")));
}

#[test]
fn imports_are_fetched_too() {
    let directory = temporary();
    for name in ["one/shared", "two/shared"] {
        let text = format!("customization \"env\" {{ {} = 1 }}\n", name[..3].to_uppercase());
        Repository::new(&directory.path().join(name)).commit(&[("Appfile", &text)]);
    }
    let import =
        |name: &str| format!("import \"git::file://{}\" {{}}\n", directory.path().join(name).display());
    let app = directory.path().join("app");
    let text = import("one/shared") + &import("two/shared") + &appfile("top", &[]);
    lay_out(&app, &[("Appfile", &text)]);
    for fetches in [2, 0] {
        let (compiled, told) = compile_told(&app, Options::default());
        let objects = compiled.unwrap().objects;
        let env = &objects.iter().find(|o| o.kind() == "Deployment").unwrap().value["spec"]["template"]["spec"]
            ["containers"][0]["env"];
        let names: Vec<&str> = env.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!((names, fetched(&told).len()), (vec!["ONE", "TWO"], fetches));
    }
}

/// The type that a directory shows, the language it is built in and how it is started.
#[test]
fn types_are_detected_and_started() {
    let mut shown = String::new();
    for files in [
        vec![("config.ru", "")],
        vec![("Gemfile", "gem 'sinatra'"), ("app.rb", "")],
        vec![("Gemfile", "source 'x'\ngem \"rails\", '~> 7'")],
        vec![("Gemfile", ""), ("config/application.rb", "")],
        vec![("package.json", "{\"scripts\": {\"start\": \"x\"}}")],
        vec![("package.json", "{}"), ("server.js", "")],
        vec![("package.json", "{\"main\": \"lib/main\"}"), ("lib/main.js", "")],
        vec![("package.json", "{}")],
        vec![("requirements.txt", "gunicorn\nflask"), ("app.py", "app = Flask(__name__)")],
        vec![("requirements.txt", "flask==3"), ("main.py", "app = Flask(__name__)")],
        vec![("requirements.txt", "fastapi\nuvicorn[standard]"), ("main.py", "app = FastAPI()")],
        vec![("app.py", "print(1)")],
        vec![("manage.py", ""), ("site/wsgi.py", "")],
        vec![("manage.py", ""), ("site/wsgi.py", ""), ("requirements.txt", "Django\ngunicorn>=20")],
        vec![("go.mod", "module example.com/x\n")],
        vec![("main.go", "package main")],
        vec![("Cargo.toml", "[package]\nname = \"x\"")],
        vec![("pom.xml", "")],
        vec![("build.gradle", "")],
        vec![("composer.json", "{}"), ("public/index.php", "")],
        vec![("wp-config-sample.php", ""), ("index.php", "")],
        vec![("index.html", "")],
        vec![("Gemfile", ""), ("package.json", "{}"), ("Procfile", "web: own")],
        vec![(
            "Appfile",
            "application { type = \"python\" }\ncustomization { python_entrypoint = \"site:wsgi\" }",
        )],
        vec![
            (
                "Appfile",
                "application { type = \"go\" }\ncustomization \"go\" { run_command = \"bin/x -serve\" }",
            ),
            ("m.go", ""),
        ],
    ] {
        let directory = temporary();
        let app = directory.path().join("app");
        lay_out(&app, &files);
        let names: Vec<&str> = files.iter().map(|(n, _)| *n).collect();
        let compiled = compile(&app, &Options::default()).unwrap();
        let build = compiled.builds.first().map(|b| match &b.method {
            BuildMethod::Source { language, processes } => {
                format!("{} {processes:?}", language.as_deref().unwrap_or("none"))
            }
            other => format!("{other:?}"),
        });
        let warnings: String = compiled.warnings.iter().map(|w| format!("\n    {}", w.message)).collect();
        shown.push_str(&format!(
            "{}: {}, {}{warnings}\n",
            names.join(" "),
            compiled.app_type,
            build.unwrap_or("nothing".into())
        ));
    }
    expect![[r#"
        config.ru: ruby, ruby [("web", "rackup config.ru -o 0.0.0.0 -p $PORT")]
        Gemfile app.rb: ruby, ruby [("web", "bundle exec ruby app.rb -o 0.0.0.0 -p $PORT")]
        Gemfile: rails, rails [("web", "bundle exec rails server -b 0.0.0.0 -p $PORT")]
        Gemfile config/application.rb: rails, rails [("web", "bundle exec rails server -b 0.0.0.0 -p $PORT")]
        package.json: node, node [("web", "npm start")]
        package.json server.js: node, node [("web", "node server.js")]
        package.json lib/main.js: node, node [("web", "node lib/main.js")]
        package.json: node, nothing
            no process of app is started: its package.json names no start script and no file, nor is there a server.js, and there is no Procfile; add one with a line like web: COMMAND
        requirements.txt app.py: python, python [("web", "gunicorn app:app --bind 0.0.0.0:$PORT")]
        requirements.txt main.py: python, python [("web", "flask --app main:app run --host 0.0.0.0 --port $PORT")]
        requirements.txt main.py: python, python [("web", "uvicorn main:app --host 0.0.0.0 --port $PORT")]
        app.py: python, python [("web", "python3 app.py")]
        manage.py site/wsgi.py: python, python [("web", "python3 manage.py runserver 0.0.0.0:$PORT")]
        manage.py site/wsgi.py requirements.txt: python, python [("web", "gunicorn site.wsgi --bind 0.0.0.0:$PORT")]
        go.mod: go, go []
        main.go: go, go []
        Cargo.toml: rust, rust []
        pom.xml: java, java []
        build.gradle: java, java []
        composer.json public/index.php: php, php []
        wp-config-sample.php index.php: wordpress, php []
            depends on mysql, as it is of type wordpress: write dependency { source = "github.com/hashicorp/otto/examples/mysql" } to say so, another source to choose another, or detect = false to have none
        index.html: static, static []
        Gemfile package.json Procfile: ruby, ruby []
        Appfile: python, python [("web", "gunicorn site:wsgi --bind 0.0.0.0:$PORT")]
            is served by gunicorn, which no list of requirements names: add it to requirements.txt
        Appfile m.go: go, go [("web", "bin/x -serve")]
    "#]].assert_eq(&shown);
}

#[test]
fn gems_bring_dependencies_that_what_is_written_replaces() {
    let directory = temporary();
    let dependencies = |text: &str| {
        lay_out(
            directory.path(),
            &[("Appfile", text), ("own/Appfile", &appfile("own", &[])), ("own/.ottoid", "1")],
        );
        compile(directory.path(), &Options::default()).unwrap().dependencies
    };
    lay_out(
        directory.path(),
        &[
            ("Gemfile", "gem 'pg'\ngem 'redis-rails'\n# gem 'dalli'"),
            ("Gemfile.lock", "GEM\n  specs:\n    redis (4.0)\n"),
        ],
    );
    assert_eq!(dependencies("application { name = \"a\" }"), ["postgresql", "redis"]);
    assert_eq!(dependencies("application {\n name = \"a\"\n dependency { source = \"./own\" }\n}"), ["own"]);
    assert_eq!(dependencies("application {\n type = \"ruby\"\n detect = false\n}"), Vec::<String>::new());
}

#[test]
fn links_give_names_and_variables() {
    let directory = temporary();
    let text = "application {\n  name = \"web\"\n  type = \"docker-external\"\n  dependency { source = \"./db\" }\n}\n\
                customization { run_args = \"--link db:database --link gone\" }\n";
    let db = appfile("db", &[])
        + "customization {\n  image = \"mysql\"\n  run_args = \"-p 3306:3306 -e A=b\"\n}\n";
    lay_out(directory.path(), &[("Appfile", text), ("db/Appfile", &db), ("db/.ottoid", "1\n")]);
    let compiled = compile(directory.path(), &Options::default()).unwrap();
    let web = compiled.objects.iter().find(|o| (o.kind(), o.name()) == ("Deployment", "web")).unwrap();
    let env = web.value["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let mut text: String = env
        .iter()
        .map(|e| format!("{}={}\n", e["name"].as_str().unwrap(), e["value"].as_str().unwrap()))
        .collect();
    let services =
        compiled.objects.iter().filter(|o| o.kind() == "Service").map(|o| format!("Service {}\n", o.name()));
    text.extend(services);
    text.extend(compiled.warnings.iter().map(|w| format!("{}\n", w.message)));
    expect![[r#"
        DATABASE_ENV_A=b
        DATABASE_NAME=/web/database
        DATABASE_PORT=tcp://database:3306
        DATABASE_PORT_3306_TCP=tcp://database:3306
        DATABASE_PORT_3306_TCP_ADDR=database
        DATABASE_PORT_3306_TCP_PORT=3306
        DATABASE_PORT_3306_TCP_PROTO=tcp
        Service db
        Service database
        Service web
        run_args: --link gone finds nothing: there is no application gone among those that are compiled
    "#]]
    .assert_eq(&text);
}

#[test]
fn app_json_says_environment_formation_and_languages() {
    let directory = temporary();
    let json = r#"{
      "name": "Start on Heroku",
      "env": {
        "PLAIN": "x",
        "GIVEN": {"description": "d"},
        "OPTIONAL": {"required": false},
        "KEY": {"generator": "secret"},
        "VALUE": {"value": "y", "required": true}
      },
      "formation": {"web": {"quantity": 2, "size": "standard-2x"}, "nothing": {"quantity": 1}},
      "addons": ["heroku-postgresql:mini", {"plan": "papertrail"}],
      "buildpacks": [{"url": "heroku/nodejs"}, {"url": "heroku/python"}, {"url": "https://example.com/odd"}],
      "scripts": {"postdeploy": "python seed.py"}
    }"#;
    let app = directory.path().join("app");
    lay_out(
        &app,
        &[("app.json", json), ("Procfile", "web: run\nrelease: migrate"), ("runtime.txt", "python-3.6.1\n")],
    );
    let missing = compile(&app, &Options::default()).unwrap_err();
    let options =
        || Options { env: [("GIVEN".to_string(), "from me".to_string())].into(), ..Options::default() };
    let compiled = compile(&app, &options()).unwrap();
    let mut text =
        format!("{missing}\n{} {} {:?}\n", compiled.app, compiled.app_type, compiled.builds[0].method);
    for object in &compiled.objects {
        text.push_str(&format!("{} {}\n", object.kind(), object.name()));
        if ["Deployment", "Job"].contains(&object.kind()) {
            let template = &object.value["spec"]["template"];
            text.push_str(&format!(
                "  {} {} {}\n",
                object.value["spec"]["replicas"],
                template["metadata"]["annotations"],
                template["spec"]["containers"][0]["env"]
            ));
        }
    }
    text.extend(compiled.warnings.iter().map(|w| format!("{w}\n")));
    expect![[r#"
        app.json:5:9: GIVEN is required and has no value: set it in your environment, or write "value" here
        app python Source { language: Some("python"), processes: [] }
        Secret app-env
        Job app-release
          null null [{"name":"GIVEN","valueFrom":{"secretKeyRef":{"key":"GIVEN","name":"app-env"}}},{"name":"KEY","valueFrom":{"secretKeyRef":{"key":"KEY","name":"app-env"}}},{"name":"PLAIN","value":"x"},{"name":"VALUE","value":"y"}]
        Service app
        Deployment app-web
          2 {"yado.dev/depends-on":"{\"release\":\"completed\"}"} [{"name":"GIVEN","valueFrom":{"secretKeyRef":{"key":"GIVEN","name":"app-env"}}},{"name":"KEY","valueFrom":{"secretKeyRef":{"key":"KEY","name":"app-env"}}},{"name":"PLAIN","value":"x"},{"name":"PORT","value":"8080"},{"name":"VALUE","value":"y"}]
        Ingress app-web
        app.json:10:21: size standard-2x has no effect: a process may use all of the machine
        app.json:11:18: the add-on heroku-postgresql is not provided: write dependency { source = "github.com/hashicorp/otto/examples/postgresql" } into the Appfile, and its address (postgresql.service.consul) into customization "env"
        app.json:11:44: the add-on papertrail is not provided: add a dependency that offers the same service
        app.json:12:74: the buildpack https://example.com/odd has no effect: it is not supported
        app.json:13:19: the script postdeploy is not run: run it once by hand, as `yado exec` does: python seed.py
        runtime.txt: asks for Python 3.6.1; it runs on Debian 12's, which is 3.11
        app.json:10:68: formation of nothing has no effect: there is no such process type
    "#]].assert_eq(&short(&app, None, text));
    // A secret is made once, and is nobody else's to read.
    assert_eq!(compile(&app, &options()).unwrap().objects, compiled.objects);
    let secrets = app.join(".yado/secrets.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&secrets).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!fs::read_to_string(&secrets).unwrap().contains("from me"));
    assert!(fs::read_to_string(app.join(".yado/.gitignore")).unwrap().contains("secrets.json"));
}

#[test]
fn appfiles_of_others_are_told_apart() {
    for (text, expect) in [
        (
            "# fastlane\napp_identifier(\"com.example\")\napple_id \"me@example.com\"\n",
            expect![
                "Appfile:2:1: is an Appfile of fastlane, as app_identifier shows, which names a mobile app's store account and nothing to run: name another file, or a directory with a Procfile or a compose file"
            ],
        ),
        (
            "for_platform :ios do\nend\n",
            expect![
                "Appfile:1:1: is an Appfile of fastlane, as for_platform shows, which names a mobile app's store account and nothing to run: name another file, or a directory with a Procfile or a compose file"
            ],
        ),
    ] {
        let directory = temporary();
        lay_out(directory.path(), &[("Appfile", text)]);
        let mistakes = compile(directory.path(), &Options::default()).unwrap_err();
        expect.assert_eq(&short(directory.path(), None, mistakes));
    }
}
