//! Manifests that other projects publish for their users, where the corpus has them: the server takes all of them, and a
//! second time changes nothing.

use std::path::{Path, PathBuf};

use yado_store::Store;

use super::{Kubectl, serve};

/// Lines of kubectl about kinds that neither this server nor a definition in the same manifest has.
const UNSERVED: [&str; 3] =
    ["no matches for kind", "resource mapping not found", "ensure CRDs are installed first"];

fn manifests() -> Vec<PathBuf> {
    let corpus = std::env::var_os("YADO_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"), PathBuf::from);
    let mut found: Vec<PathBuf> = std::fs::read_dir(corpus.join("published"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    found.sort();
    found
}

/// What a command prints, on its standard output and on its standard error.
fn output(kubectl: &Kubectl, arguments: &[&str]) -> (String, String) {
    let output = kubectl.command().args(arguments).output().expect("kubectl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What kubectl says against a manifest.
fn refusals(kubectl: &Kubectl, manifest: &Path) -> Vec<String> {
    let path = manifest.display().to_string();
    let text = std::fs::read_to_string(manifest).expect("a manifest");
    let named = text.lines().filter_map(|line| line.trim_start().strip_prefix("namespace: "));
    for namespace in named.map(|name| name.trim_matches('"')).collect::<std::collections::BTreeSet<_>>() {
        // Those that are there already stay as they are.
        _ = output(kubectl, &["create", "namespace", namespace]);
    }
    let mut problems = Vec::new();
    for pass in ["the first time", "the second time"] {
        let (_, errors) = output(kubectl, &["apply", "--server-side", "--force-conflicts", "-f", &path]);
        let is_refusal = |line: &&str| {
            !line.starts_with("Warning: ") && !UNSERVED.iter().any(|known| line.contains(known))
        };
        let refused = errors.lines().filter(is_refusal);
        problems.extend(refused.map(|line| format!("{path}, {pass}: {line}")));
    }
    let (differences, _) = output(kubectl, &["diff", "--server-side", "-f", &path]);
    problems.extend(differences.lines().map(|line| format!("{path} differs: {line}")));
    // Nobody serves what they call, and objects of the next manifest would be refused.
    let webhooks = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
    _ = output(kubectl, &["delete", webhooks, "--all"]);
    problems
}

#[tokio::test(flavor = "multi_thread")]
async fn published_manifests_are_taken_and_change_nothing_twice() {
    let manifests = manifests();
    if manifests.is_empty() {
        return yado_testkit::not_proved!("there are no published manifests in the corpus");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (server, store, stop, serving) = serve(directory.path()).await;
    let kubectl = Kubectl { directory: directory.path().to_owned() };
    let problems = tokio::task::spawn_blocking(move || {
        manifests.iter().flat_map(|manifest| refusals(&kubectl, manifest)).collect::<Vec<_>>()
    });
    let problems = problems.await.expect("the commands");
    stop.cancel();
    serving.await.expect("serving");
    server.shutdown().await;
    store.close().await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
