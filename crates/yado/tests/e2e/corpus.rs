//! Descriptions written by others, compiled and given to a real API server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{Cluster, YADO, demo_image};

/// Where descriptions written by others are; `None`, with a word on standard error, where they are not.
pub fn corpus(below: &str) -> Option<PathBuf> {
    let path = std::env::var_os("YADO_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"), PathBuf::from);
    let path = path.join(below);
    if !path.exists() {
        yado_testkit::not_proved!("{} is not here", path.display());
        return None;
    }
    Some(path)
}

/// K13, K29, K36: the guestbook as it was written in 2016, for versions of the API that are gone.
#[test]
fn k29_the_guestbook_of_2016_runs_unmodified() {
    let Some(manifest) = corpus("kubernetes/guestbook-2016.yaml") else { return };
    if !demo_image("gb-frontend.tar").exists() {
        return yado_testkit::skip!("the demonstration images are not here");
    }
    let images = ["busybox.tar", "redis.tar", "gb-redisslave.tar", "gb-frontend.tar"];
    let Some(cluster) = Cluster::start(&images) else { return };
    let manifest = manifest.display().to_string();
    let yado = |args: &[&str]| {
        let output = cluster.command(YADO).args(args).output().expect("yado");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "yado {}: {text}", args.join(" "));
        text
    };
    yado(&["apply", "-f", &manifest, "--wait"]);
    let address = cluster.ok(&["get", "service", "frontend", "-o", "jsonpath={.spec.clusterIP}"]);
    let page = format!("http://{address}/guestbook.php?cmd");
    let set = format!("{page}=set&key=messages&value=Mio%20was%20here");
    cluster.until("the entry is taken", || cluster.curl(&[&set]).contains("Updated").then_some(()));
    cluster.until("the followers have it", || {
        cluster.curl(&[&format!("{page}=get&key=messages")]).contains("Mio was here").then_some(())
    });
    assert!(
        yado(&["apply", "-f", &manifest]).contains("0 added, 0 changed"),
        "a second time changes nothing"
    );
    yado(&["down", "-f", &manifest]);
    assert_eq!(cluster.ok(&["get", "deployments", "-o", "name"]), "");
}

/// Every description of the corpus below `root` that compiles.
fn descriptions(root: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(root).expect("a folder").flatten().map(|e| e.path()).collect();
    entries.sort();
    if entries.iter().any(|e| e.file_name().is_some_and(|n| n == "Appfile")) {
        return found.push(root.to_path_buf());
    }
    for entry in entries {
        if entry.is_dir() {
            descriptions(&entry, found);
        } else if entry
            .extension()
            .is_some_and(|e| ["yaml", "yml", "dab", "service"].iter().any(|known| e == *known))
        {
            found.push(entry);
        }
    }
}

/// What the compiler makes of others' descriptions is what the API takes: all of it, every field.
#[test]
fn the_api_accepts_what_the_corpus_compiles_to() {
    let Some(corpus) = corpus("") else { return };
    let Some(cluster) = Cluster::start(&[]) else { return };
    let mut all = Vec::new();
    descriptions(&corpus, &mut all);
    let mut compiled = Vec::new();
    for description in all {
        let out = cluster.data.path().join(format!("compiled/{}", compiled.len()));
        if compile(&cluster, &description, &out) {
            let shown = description.strip_prefix(&corpus).unwrap_or(&description).display().to_string();
            compiled.push((shown, out));
        }
    }
    let namespaces = namespaces(compiled.iter().map(|(_, out)| out.as_path()));
    cluster.apply(&namespaces);
    let try_out = |some: &[(String, PathBuf)]| {
        let mut command = cluster.command("kubectl");
        command.args(["apply", "--dry-run=server"]);
        some.iter().for_each(|(_, out)| _ = command.arg("-f").arg(out));
        command.output().expect("kubectl")
    };
    let (mut refused, mut accepted) = (String::new(), 0);
    // Many at once, as kubectl takes its time to start; one by one where one of them is refused.
    for some in compiled.chunks(16) {
        if try_out(some).status.success() {
            accepted += some.len();
            continue;
        }
        for one in some.chunks(1) {
            let answer = try_out(one);
            if answer.status.success() {
                accepted += 1;
                continue;
            }
            let reason = String::from_utf8_lossy(&answer.stderr);
            refused += &format!("{}: {}", one[0].0, reason.rsplit(": ").next().unwrap_or_default());
        }
    }
    // Their authors' own slips: a host that is a list, and a spec below metadata.
    expect_test::expect![[r#"
        kubernetes/contrib-ingress/echoheaders/05-AngularNginxPublicIngress.yaml: cannot unmarshal array into Go struct field IngressRule.spec.rules.host of type string
        kubernetes/contrib-ingress/echoheaders/ingress_controller.yml: unknown field "metadata.spec"
    "#]].assert_eq(&refused);
    assert!(accepted > 60, "{accepted} descriptions were accepted");
}

/// Compiles a description into a folder; whether there is anything that runs. Which ones fail, and how, is a snapshot of
/// the compiler's own tests.
fn compile(cluster: &Cluster, description: &Path, out: &Path) -> bool {
    // A copy of its directory, as compiling may write an identity beside an Appfile.
    let copy = tempfile::tempdir().expect("a folder");
    let (directory, name) = match description.is_dir() {
        true => (description, ""),
        false => (
            description.parent().expect("a folder"),
            description.file_name().and_then(|n| n.to_str()).unwrap_or(""),
        ),
    };
    let source = copy.path().join(directory.file_name().expect("a name"));
    let copied = Command::new("cp").arg("-rL").arg(directory).arg(&source).status().expect("cp");
    assert!(copied.success());
    let compiled = cluster.command(YADO).arg("compile").arg(source.join(name)).arg("--out").arg(out).output();
    // An Appfile without sources that could be started becomes nothing.
    compiled.expect("yado").status.success() && fs::read_dir(out).is_ok_and(|mut all| all.next().is_some())
}

/// The manifests of all namespaces that objects in these folders are in, but for the one that is always there.
fn namespaces<'a>(folders: impl Iterator<Item = &'a Path>) -> String {
    let files = folders.flat_map(|folder| fs::read_dir(folder).expect("objects").flatten());
    let texts: Vec<String> = files.map(|file| text(&file.path())).collect();
    let named = texts.iter().flat_map(|t| t.lines()).filter_map(|line| line.strip_prefix("  namespace: "));
    let names: BTreeSet<&str> = named.filter(|name| *name != "default").collect();
    let manifest =
        |name: &&str| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    names.iter().map(manifest).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("text")
}
