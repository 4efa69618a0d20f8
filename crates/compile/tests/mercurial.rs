//! Dependencies in Mercurial's repositories, with Mercurial's own program: from a server and from a directory.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use yado_compile::{Options, compile};

/// A repository.
struct Repository(PathBuf);

impl Repository {
    /// A new one; `None` where Mercurial is not installed.
    fn new(path: &Path) -> Option<Repository> {
        if Command::new("hg").arg("version").output().is_err() {
            yado_testkit::skip!("Mercurial is not installed");
            return None;
        }
        fs::create_dir_all(path).unwrap();
        let repository = Repository(path.into());
        repository.hg(&["init"]);
        Some(repository)
    }

    fn commit(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.hg(&["commit", "--quiet", "--addremove", "--user", "Mio", "--message", "Change"]);
    }

    /// Runs Mercurial in it; what it prints.
    fn hg(&self, args: &[&str]) -> String {
        let out = Command::new("hg").env("HGPLAIN", "1").current_dir(&self.0).args(args).output().unwrap();
        assert!(out.status.success(), "hg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Serves it until what is returned is dropped.
    fn serve(&self) -> Server {
        let mut child = Command::new("hg")
            .env("HGPLAIN", "1")
            .current_dir(&self.0)
            .args(["serve", "--address", "127.0.0.1", "--port", "0", "--print-url"])
            .args(["--accesslog", "/dev/null", "--errorlog", "/dev/null"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        // It prints the machine's name, which not every machine can resolve.
        let port = url.trim().trim_end_matches('/').rsplit(':').next().unwrap().to_string();
        Server { child, url: format!("http://127.0.0.1:{port}") }
    }
}

struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn appfile(name: &str, dependency: &str) -> String {
    let dependency = if dependency.is_empty() {
        String::new()
    } else {
        format!("  dependency {{ source = \"{dependency}\" }}\n")
    };
    format!("application {{\n  name = \"{name}\"\n  type = \"docker-external\"\n{dependency}}}\n")
}

#[test]
fn o02_repositories_of_mercurial() {
    let directory = tempfile::tempdir().unwrap();
    let Some(repository) = Repository::new(&directory.path().join("repository")) else { return };
    repository.commit(&[
        ("Appfile", &appfile("old", "")),
        (".ottoid", "1\n"),
        ("sub/Appfile", &appfile("sub", "../beside")),
        ("sub/.ottoid", "2\n"),
        ("beside/Appfile", &appfile("beside", "")),
        ("beside/.ottoid", "3\n"),
    ]);
    repository.hg(&["tag", "--user", "Mio", "1.0"]);
    let first = repository.hg(&["identify", "--id", "--rev", "1.0"]).trim().to_string();
    repository.hg(&["branch", "--quiet", "next"]);
    repository.commit(&[("Appfile", &appfile("new", "")), ("run.sh", "#!/bin/sh\n")]);
    let server = repository.serve();
    let (url, path) = (&server.url, repository.0.display());
    for (number, (source, expect)) in [
        (format!("hg::{url}?rev=next"), Ok(vec!["new"])),
        (format!("hg::{url}?rev=1.0"), Ok(vec!["old"])),
        (format!("hg::{url}?ref={first}"), Ok(vec!["old"])),
        // The default branch has not got the change.
        (format!("hg::{url}"), Ok(vec!["old"])),
        (format!("hg::{url}//sub?rev=tip"), Ok(vec!["beside", "sub"])),
        (format!("hg::{path}?rev=next"), Ok(vec!["new"])),
        (format!("hg::file://{path}//sub"), Ok(vec!["beside", "sub"])),
        ("hg::../repository?rev=1.0".into(), Ok(vec!["old"])),
        (format!("hg::{url}?rev=none"), Err("hg says: abort: unknown revision 'none'")),
        (format!("hg::{url}//none"), Err("has no directory none")),
        ("hg::http://127.0.0.1:1/none".into(), Err("hg says: abort: error: Connection refused")),
        (format!("git::{path}"), Err("git says: fatal: ")),
    ]
    .into_iter()
    .enumerate()
    {
        let app = directory.path().join(format!("app-{number}"));
        fs::create_dir(&app).unwrap();
        fs::write(app.join("Appfile"), appfile("top", &source)).unwrap();
        match (compile(&app, &Options::default()), expect) {
            (Ok(compiled), Ok(names)) => {
                assert_eq!(compiled.dependencies, names, "{source}");
                assert!(!app.join(".yado/deps").join(names[0]).join(".hg").exists());
            }
            (Err(mistakes), Err(sentence)) => {
                assert!(mistakes.to_string().contains(sentence), "{source}: {mistakes}");
            }
            (got, expect) => panic!("{source}: {:?}, not {expect:?}", got.map(|c| c.dependencies)),
        }
    }
    let index = fs::read_to_string(directory.path().join("app-1/.yado/deps/sources.json")).unwrap();
    assert!(index.contains(&first), "{index}");
}
