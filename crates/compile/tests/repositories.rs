//! Compose files in git repositories, as `include` and `extends` name them.

mod loopback;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use expect_test::{Expect, expect};
use loopback::{Repository, Server};
use yado_compile::{
    Event, Events, Options,
    compose::{self, model::MountKind},
};

/// The images of services and the sources of their binds, each address that was fetched, or the mistakes.
fn shown(directory: &Path, server: &Server, options: Options) -> String {
    let fetched = Arc::new(Mutex::new(Vec::new()));
    let told = fetched.clone();
    let events = Events::new(move |event| {
        if let Event::Fetching { url } = event {
            told.lock().unwrap().push(format!("fetched {url}\n"));
        }
    });
    let mut text = match compose::load(directory, &Options { events, ..options }) {
        Ok(project) => project.services.values().fold(String::new(), |text, service| {
            let binds = service.volumes.iter().filter(|m| m.kind == MountKind::Bind);
            let binds: Vec<&str> = binds.filter_map(|m| m.source.as_deref()).collect();
            format!("{text}{} {} {binds:?}\n", service.name, service.image.as_deref().unwrap_or("-"))
        }),
        Err(mistakes) => format!("{mistakes}\n"),
    };
    text.push_str(&fetched.lock().unwrap().concat());
    text.replace(&directory.display().to_string(), "")
        .replace(server.url("").trim_end_matches('/'), "http://server")
}

fn check(server: &Server, file: &str, expect: Expect) {
    let directory = tempfile::tempdir().unwrap();
    let file = file.replace("http://server/", &server.url(""));
    std::fs::write(directory.path().join("compose.yaml"), file).unwrap();
    expect.assert_eq(&shown(directory.path(), server, Options::default()));
}

#[test]
fn y12_files_of_repositories_are_included_and_extended() {
    let root = tempfile::tempdir().unwrap();
    let repository = Repository::new(&root.path().join("stack.git"));
    repository.commit(&[
        ("compose.yaml", "services: {web: {image: 'web:1', volumes: ['./site:/site']}}\n"),
        ("sub/docker-compose.yml", "include: [../db.yaml]\nservices: {job: {image: 'job:1'}}\n"),
        ("db.yaml", "services: {db: {image: 'db:1', volumes: ['./data:/data']}}\n"),
        ("empty/README", "no compose file"),
    ]);
    repository.git(&["tag", "v1"]);
    repository.commit(&[("compose.yaml", "services: {web: {image: 'web:2'}}\n")]);
    std::os::unix::fs::symlink("/etc/hostname", repository.0.join("out.yaml")).unwrap();
    repository.commit(&[]);
    let server = Server::start(HashMap::new(), root.path());
    check(
        &server,
        "include: ['http://server/git/stack.git']\n",
        expect![[r#"
        web web:2 []
        fetched git::http://server/git/stack.git
    "#]],
    );
    check(
        &server,
        "include: ['http://server/git/stack.git#v1:sub', {path: 'http://server/git/stack.git#v1'}]\n",
        expect![[r#"
            web web:1 ["/.yado/imports/stack/site"]
            db db:1 ["/.yado/imports/stack/data"]
            job job:1 []
            fetched git::http://server/git/stack.git?ref=v1
        "#]],
    );
    check(
        &server,
        "services: {a: {extends: {file: 'http://server/git/stack.git#:db.yaml', service: db}, image: a}}\n",
        expect![[r#"
            a a ["/.yado/imports/stack/data"]
            fetched git::http://server/git/stack.git
        "#]],
    );
    for (inside, expect) in [
        (
            "#:empty",
            expect![[r#"
            /compose.yaml:1:11: http://server/git/stack.git#:empty has no compose file there: name one, as in #main:sub/file.yaml
            fetched git::http://server/git/stack.git
        "#]],
        ),
        (
            "#:none.yaml",
            expect![[r#"
            /compose.yaml:1:11: http://server/git/stack.git#:none.yaml has no none.yaml in it
            fetched git::http://server/git/stack.git
        "#]],
        ),
        (
            "#v9",
            expect![[r#"
                /compose.yaml:1:11: http://server/git/stack.git#v9 cannot be fetched: it has no branch, tag or commit v9
                fetched git::http://server/git/stack.git?ref=v9
            "#]],
        ),
        (
            "#:out.yaml",
            expect![[r#"
            /compose.yaml:1:11: http://server/git/stack.git#:out.yaml has no out.yaml in it
            fetched git::http://server/git/stack.git
        "#]],
        ),
        (
            "#:a/../../x",
            expect![[r#"
            /compose.yaml:1:11: http://server/git/stack.git#:a/../../x names a/../../x, which leads out of it
        "#]],
        ),
    ] {
        check(&server, &format!("include: ['http://server/git/stack.git{inside}']\n"), expect);
    }
    check(
        &server,
        "include: ['http://server/compose.yaml', 'oci://server/stack:1']\n",
        expect![[r#"
        /compose.yaml:1:11: http://server/compose.yaml is not a git repository, as its address does not end in .git: fetch it and name the file
        /compose.yaml:1:50: oci://server/stack:1 is in an image registry, which is not asked for compose files: name a git repository or a file
    "#]],
    );
}

/// A file that is there stays, until its address changes or somebody asks for a newer one.
#[test]
fn y12_what_was_fetched_is_fetched_again_when_asked() {
    let root = tempfile::tempdir().unwrap();
    let repository = Repository::new(&root.path().join("stack.git"));
    repository.commit(&[("compose.yaml", "services: {web: {image: 'web:1'}}\n")]);
    let server = Server::start(HashMap::new(), root.path());
    let directory = root.path().join("app");
    std::fs::create_dir(&directory).unwrap();
    let file = format!("include: ['{}']\n", server.url("git/stack.git"));
    std::fs::write(directory.join("compose.yaml"), file).unwrap();
    let image = |update: bool| shown(&directory, &server, Options { update, ..Options::default() });
    let fetched = "fetched git::http://server/git/stack.git\n";
    assert_eq!(image(false), format!("web web:1 []\n{fetched}"));
    repository.commit(&[("compose.yaml", "services: {web: {image: 'web:2'}}\n")]);
    let asked = server.asked("stack.git");
    assert_eq!(image(false), "web web:1 []\n");
    assert_eq!(server.asked("stack.git"), asked);
    assert_eq!(image(true), format!("web web:2 []\n{fetched}"));
}
