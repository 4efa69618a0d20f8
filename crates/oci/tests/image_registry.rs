//! Images pulled from a real registry: Debian's `docker-registry`, on a loopback port of its own for each test.

#[path = "image/content.rs"]
mod content;

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use content::*;
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tempfile::TempDir;
use yado_oci::image::{
    Event, Image, ImageError, ImageStore, LayerState, Progress, RegistryAuth, RegistryAuths,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What the protected registry asks for.
const USER: (&str, &str) = ("ada", "correct horse");

struct Registry {
    process: Child,
    dir: TempDir,
    address: String,
    /// Sent with every upload.
    authorization: Option<String>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// Starts one on a port that the kernel chooses; `None`, with a word, where the programs are not installed.
    fn start(protected: bool) -> Option<Self> {
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !there("docker-registry") || (protected && !there("htpasswd")) {
            yado_testkit::skip!(
                "no docker-registry or htpasswd (Debian packages docker-registry, apache2-utils)"
            );
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            yado_testkit::skip!("unpacking layers needs root");
            return None;
        }
        // The client may be built without a TLS provider of its own; another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            dir.path().join("data").display()
        );
        let mut authorization = None;
        if protected {
            let (user, password) = USER;
            let entry = Command::new("htpasswd").args(["-Bbn", user, password]).output().unwrap();
            fs::write(dir.path().join("htpasswd"), entry.stdout).unwrap();
            let path = dir.path().join("htpasswd");
            config += &format!("auth:\n  htpasswd:\n    realm: yard\n    path: {}\n", path.display());
            let words = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            authorization = Some(format!("Basic {words}"));
        }
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let from = said.len();
            assert!(log.read_line(&mut said).unwrap() > 0, "the registry ended: {said}");
            if let Some((_, rest)) = said[from..].split_once("listening on ") {
                break rest.split(['"', ' ']).next().unwrap().to_owned();
            }
        };
        // It goes on talking, and must never wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self { process, dir, address, authorization })
    }

    /// One request; gives the status and the `Location` of the answer.
    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        if let Some(authorization) = &self.authorization {
            head += &format!("Authorization: {authorization}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        let location = location.unwrap_or("").replacen(&format!("http://{}", self.address), "", 1);
        (status, location)
    }

    fn push_blob(&self, repository: &str, blob: &[u8]) {
        let bytes = "application/octet-stream";
        let (status, location) =
            self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), bytes, b"");
        assert_eq!(status, 202);
        let (status, _) = self.request("PUT", &format!("{location}&digest={}", digest(blob)), bytes, blob);
        assert_eq!(status, 201);
    }

    fn push_manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &[u8]) {
        let (status, _) = self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, manifest);
        assert_eq!(status, 201);
    }

    /// Pushes an image and gives its manifest.
    fn push(&self, repository: &str, tag: &str, layers: &[Layer], architecture: &str) -> Vec<u8> {
        let config = config(layers, architecture);
        for layer in layers {
            self.push_blob(repository, &layer.blob);
        }
        self.push_blob(repository, &config);
        let manifest = manifest(&config, layers);
        self.push_manifest(repository, tag, MANIFEST, &manifest);
        manifest
    }

    /// Where it keeps a blob.
    fn blob_file(&self, blob: &[u8]) -> PathBuf {
        let digest = digest(blob);
        let hex = hex_of(&digest);
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// An error as users see it, without what differs from run to run.
    fn sentence(&self, result: Result<Image, ImageError>) -> String {
        let text = result.unwrap_err().to_string().replace(&self.address, "REGISTRY");
        assert!(!text.contains('\n') && !text.contains(". "), "more than a sentence: {text}");
        text
    }
}

/// A registry and an empty store.
fn with_registry<F: Future<Output = ()>>(
    protected: bool,
    test: impl FnOnce(Arc<Registry>, ImageStore, Arc<TempDir>) -> F,
) {
    let Some(registry) = Registry::start(protected) else { return };
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let store = ImageStore::open(dir.path()).unwrap();
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(test(Arc::new(registry), store, dir.clone()));
}

async fn pull(store: &ImageStore, name: &str) -> Result<Image, ImageError> {
    store.pull(name, &RegistryAuth::Anonymous, &Progress::none()).await
}

/// The last state of each layer, in the order of their first mention.
type States = Arc<Mutex<Vec<(String, LayerState)>>>;

fn recorder() -> (Progress, States) {
    let states = States::default();
    let sink = states.clone();
    let progress = Progress::new(move |event| {
        let Event::Layer { layer, state } = event else { return };
        let mut states = sink.lock().unwrap();
        match states.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, last)) => *last = state,
            None => states.push((layer, state)),
        }
    });
    (progress, states)
}

fn read(image: &Image, layer: usize, path: &str) -> String {
    fs::read_to_string(image.layers[layer].join(path)).unwrap()
}

#[test]
fn an_image_is_pulled_once() {
    with_registry(false, |registry, store, _| async move {
        let layers = [
            layer(&[("etc/a", "1"), ("etc/b", "1")], Packing::Gzip),
            layer(&[("etc/.wh.a", ""), ("etc/b", "2")], Packing::Zstd),
            layer(&[("big", &"x".repeat(3 << 20))], Packing::Plain),
        ];
        let manifest = registry.push("team/app", "v1", &layers, here());
        let name = registry.name("team/app:v1");
        let (progress, states) = recorder();
        let image = store.pull(&name, &RegistryAuth::Anonymous, &progress).await.unwrap();
        assert_eq!(image.id, digest(&config(&layers, here())));
        assert_eq!(image.names, [name.as_str()]);
        let by_digest = registry.name(&format!("team/app@{}", digest(&manifest)));
        assert_eq!(image.repo_digests, [by_digest.as_str()]);
        assert_eq!((image.config.cmd.join(" "), image.config.env.join(" ")), ("serve".into(), "A=1".into()));
        // Topmost first.
        assert_eq!((read(&image, 2, "etc/b"), read(&image, 1, "etc/b")), ("1".into(), "2".into()));
        assert_eq!(read(&image, 0, "big").len(), 3 << 20);
        assert!(states.lock().unwrap().iter().all(|(_, state)| *state == LayerState::Done));
        assert_eq!(states.lock().unwrap().len(), 3);

        // The second time no layer is asked for: the registry does not have them any more.
        for layer in &layers {
            fs::remove_file(registry.blob_file(&layer.blob)).unwrap();
        }
        for name in [&name, &by_digest] {
            let (progress, states) = recorder();
            let again = store.pull(name, &RegistryAuth::Anonymous, &progress).await.unwrap();
            assert_eq!((&again.id, &again.names), (&image.id, &image.names));
            assert!(states.lock().unwrap().iter().all(|(_, state)| *state == LayerState::Present));
        }

        // Another image of the same layers, and one more, fetches only that.
        let mut more = layers.to_vec();
        more.push(layer(&[("more", "3")], Packing::Gzip));
        registry.push("team/app", "v1", &more, here());
        let (progress, states) = recorder();
        let newer = store.pull(&name, &RegistryAuth::Anonymous, &progress).await.unwrap();
        assert_eq!(states.lock().unwrap().iter().filter(|(_, state)| *state == LayerState::Done).count(), 1);
        assert_eq!(
            (newer.names, read(&store.get(&name).unwrap().unwrap(), 0, "more")),
            (vec![name], "3".into())
        );
        assert_eq!(store.get(&image.id).unwrap().unwrap().names, [""; 0]);
    });
}

#[test]
fn a_protected_registry() {
    with_registry(true, |registry, store, dir| async move {
        registry.push("secret/app", "latest", &[layer(&[("f", "1")], Packing::Gzip)], here());
        let name = registry.name("secret/app");
        let basic = |username: &str, password: &str| RegistryAuth::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let refusal = expect![[
            r#"the registry refused access to `REGISTRY/secret/app:latest`; the image does not exist, or it needs a user name and password that are allowed to pull it"#
        ]];
        for auth in [RegistryAuth::Anonymous, basic(USER.0, "wrong"), basic("eve", USER.1)] {
            refusal.assert_eq(&registry.sentence(store.pull(&name, &auth, &Progress::none()).await));
        }
        assert_eq!(residue(dir.path()), [""; 0]);
        let words = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", USER.0, USER.1));
        let config = json!({"auths": {(&registry.address): {"auth": words}}}).to_string();
        let auths = RegistryAuths::from_docker_config(config.as_bytes()).unwrap();
        let wrong = [basic("eve", USER.1), basic(USER.0, "wrong")];
        refusal.assert_eq(&registry.sentence(store.pull_with_any(&name, &wrong, &Progress::none()).await));
        let found = auths.matching(&name.parse().unwrap()).into_iter().map(|(_, auth)| auth);
        let all: Vec<_> = wrong.into_iter().chain(found).collect();
        let image = store.pull_with_any(&name, &all, &Progress::none()).await.unwrap();
        assert_eq!(read(&image, 0, "f"), "1");
    });
}

#[test]
fn altered_content_is_refused() {
    with_registry(false, |registry, store, dir| async move {
        let check = async |spoil: &[u8], how: fn(&mut Vec<u8>), name: &str, expect: &Expect| {
            let path = registry.blob_file(spoil);
            let whole = fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            how(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let text = registry.sentence(pull(&store, &registry.name(name)).await);
            expect.assert_eq(
                &text
                    .replace(&digest(spoil), "DIGEST")
                    .replace(name, "NAME")
                    .replace(&digest(&bytes), "WRONG"),
            );
            fs::write(&path, whole).unwrap();
            // Layers that are whole may stay for the next attempt; garbage collection takes them.
            store.collect_garbage(&BTreeSet::new()).unwrap();
            assert_eq!(residue(dir.path()), [""; 0]);
            assert_eq!(store.list().unwrap(), []);
        };
        let flip = |bytes: &mut Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        };
        let good = layer(&[("good", "1")], Packing::Gzip);
        let altered = expect![
            "layer DIGEST of REGISTRY/NAME as transferred does not match its digest (expected DIGEST, got WRONG); it was altered or cut short, get it again"
        ];
        for (tag, packing) in [("gzip", Packing::Gzip), ("zstd", Packing::Zstd), ("plain", Packing::Plain)] {
            let bad = layer(&[("bad", &format!("{tag} {}", "y".repeat(200_000)))], packing);
            registry.push("app", tag, &[good.clone(), bad.clone()], here());
            let name = format!("app:{tag}");
            check(&bad.blob, flip, &name, &altered).await;
        }
        let layers = [good];
        let manifest = registry.push("app", "documents", &layers, here());
        check(&config(&layers, here()), flip, "app:documents", &expect!["the configuration of REGISTRY/NAME does not match its digest (expected DIGEST, got WRONG); it was altered or cut short, get it again"]).await;
        let by_digest = format!("app@{}", digest(&manifest));
        check(&manifest, |bytes| bytes.push(b' '), &by_digest, &expect!["the manifest of REGISTRY/app@DIGEST does not match its digest (expected DIGEST, got WRONG); it was altered or cut short, get it again"]).await;
        // The blob is as promised, but not what the image's configuration names.
        let mut swapped = layers.to_vec();
        swapped[0].diff_id = digest(b"something else");
        registry.push("app", "swapped", &swapped, here());
        let text = registry.sentence(pull(&store, &registry.name("app:swapped")).await);
        expect!["layer DIGEST of REGISTRY/app:swapped once unpacked does not match its digest (expected sha256:f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8, got sha256:747441ef50ce55ebf3f76b79ddeaa0e4b7aed601c992d34bcfb5c97a38a884f4); it was altered or cut short, get it again"].assert_eq(&text.replace(&digest(&layers[0].blob), "DIGEST"));
        assert_eq!(residue(dir.path()), [""; 0]);
        // Mended, it is pulled.
        assert_eq!(read(&pull(&store, &registry.name("app:documents")).await.unwrap(), 0, "good"), "1");
    });
}

#[test]
fn what_is_not_there() {
    with_registry(false, |registry, store, dir| async move {
        registry.push("app", "v1", &[], here());
        let rows = [
            (
                "app:v2",
                expect![
                    "could not pull `REGISTRY/app:v2`: REGISTRY has no such image; check the name and the tag"
                ],
            ),
            (
                "other",
                expect![
                    "could not pull `REGISTRY/other:latest`: REGISTRY has no such image; check the name and the tag"
                ],
            ),
            (
                "app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                expect![
                    "could not pull `REGISTRY/app@sha256:0000000000000000000000000000000000000000000000000000000000000000`: REGISTRY has no such image; check the name and the tag"
                ],
            ),
            (
                "Bad Name",
                expect![
                    "`REGISTRY/Bad Name` is not an image name: the repository must be in lower case; write it like `redis`, `redis:7` or `registry.example.org/team/app:v1`"
                ],
            ),
        ];
        for (name, expect) in rows {
            expect.assert_eq(&registry.sentence(pull(&store, &registry.name(name)).await));
        }
        assert_eq!(residue(dir.path()), [""; 0]);
        // An image without layers is an image.
        assert_eq!(pull(&store, &registry.name("app:v1")).await.unwrap().size, 0);
    });
}

#[test]
fn an_index_of_platforms() {
    with_registry(false, |registry, store, _| async move {
        let index = |entries: &[(&[u8], &str, &str)]| {
            let entry = |(manifest, os, architecture): &(&[u8], &str, &str)| {
                let mut entry = descriptor(MANIFEST, manifest);
                entry["platform"] = json!({"os": os, "architecture": architecture});
                entry
            };
            let manifests: Vec<Value> = entries.iter().map(entry).collect();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
            serde_json::to_vec(&index).unwrap()
        };
        let push = |architecture: &str| {
            let layers = [layer(&[("for", architecture)], Packing::Gzip)];
            registry.push("multi", architecture, &layers, architecture)
        };
        let (amd64, arm64, s390x) = (push("amd64"), push("arm64"), push("s390x"));
        let all = index(&[
            (&s390x, "linux", "s390x"),
            (&amd64, "unknown", "unknown"),
            (&arm64, "linux", "arm64"),
            (&amd64, "linux", "amd64"),
        ]);
        registry.push_manifest("multi", "all", INDEX, &all);
        let image = pull(&store, &registry.name("multi:all")).await.unwrap();
        assert_eq!((read(&image, 0, "for").as_str(), image.config.labels["for"].as_str()), (here(), here()));
        let own = if here() == "amd64" { &amd64 } else { &arm64 };
        let mut digests: Vec<String> =
            [&all, own].map(|manifest| registry.name(&format!("multi@{}", digest(manifest)))).into();
        digests.sort();
        assert_eq!(image.repo_digests, digests);
        // By either digest it is the same image, and it is here.
        for name in &digests {
            assert_eq!(pull(&store, name).await.unwrap().id, image.id);
            assert_eq!(store.get(name).unwrap().unwrap().id, image.id);
        }
        registry.push_manifest("multi", "none", INDEX, &index(&[(&s390x, "linux", "s390x")]));
        let text = registry.sentence(pull(&store, &registry.name("multi:none")).await);
        expect![
            "`REGISTRY/multi:none` has no image for linux/HERE, only for linux/s390x; choose another tag"
        ]
        .assert_eq(&text.replace(here(), "HERE"));
    });
}
