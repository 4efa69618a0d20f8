//! Images from a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::layer::{self, Expected};
use super::manifest::{self, ConfigBlob, Descriptor, MAX_DOCUMENT, Manifest, digest_of};
use super::store::NewImage;
use super::{Event, Image, ImageError, ImageStore, LayerState, Progress, Reference, RegistryAuth, Result};

/// Layers fetched at once. Registries limit connections per client; three to four saturate most lines.
const PARALLEL: usize = 4;
/// Attempts for one request: with the pauses below a registry has eight seconds to come back.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; it doubles before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(1100);
/// Pieces between the network and the unpacking thread. A piece is at most some 16 KiB: half a megabyte a layer.
const IN_FLIGHT: usize = 32;
/// A registry that sends nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
/// A registry that cannot be connected to in this time is taken for dead.
const CONNECT: Duration = Duration::from_secs(15);

impl ImageStore {
    /// Fetches an image for this machine's platform from its registry. Layers that are here already are not fetched;
    /// the others are fetched, verified and unpacked at the same time, a few at once. A registry on a loopback
    /// address is spoken to by plain HTTP, any other by HTTPS; for that the process must have installed a
    /// cryptography provider of `rustls`.
    ///
    /// A network failure is retried with growing pauses; content that does not match its digest is refused at once.
    /// Dropping the future, or [`Progress::cancel`], ends it and removes what is half done.
    ///
    /// # Errors
    /// Nothing is named in the store then.
    pub async fn pull(&self, reference: &str, auth: &RegistryAuth, progress: &Progress) -> Result<Image> {
        let reference: Reference = reference.parse()?;
        progress.report(|| Event::Started { name: reference.to_string() });
        let puller = Puller::new(self.clone(), reference, auth, progress.clone());
        Box::pin(puller.pull()).await
    }

    /// The same with one of these credentials after the other, until the registry accepts one. A registry may refuse an
    /// image that it does not want to show by saying that it is not there, so that is tried again, too.
    ///
    /// # Errors
    /// What the last of them met; [`ImageError::Unauthorized`] where there are none.
    pub async fn pull_with_any(
        &self,
        reference: &str,
        all: &[RegistryAuth],
        progress: &Progress,
    ) -> Result<Image> {
        let mut refused = ImageError::Unauthorized(reference.to_owned());
        for auth in all {
            match self.pull(reference, auth, progress).await {
                Err(error @ (ImageError::Unauthorized(_) | ImageError::Registry { .. })) => refused = error,
                other => return other,
            }
        }
        Err(refused)
    }
}

struct Puller {
    store: ImageStore,
    reference: Reference,
    /// The same in the client's words.
    remote: oci_client::Reference,
    auth: oci_client::secrets::RegistryAuth,
    client: oci_client::Client,
    progress: Progress,
    /// The threads that unpack.
    unpacking: TaskTracker,
}

impl Puller {
    fn new(store: ImageStore, reference: Reference, auth: &RegistryAuth, progress: Progress) -> Self {
        let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
        let remote = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_owned()),
            (None, tag) => {
                oci_client::Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned())
            }
        };
        let protocol = match reference.is_loopback() {
            true => ClientProtocol::HttpsExcept(vec![remote.resolve_registry().to_owned()]),
            false => ClientProtocol::Https,
        };
        let client = oci_client::Client::new(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("yado/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        let auth = match auth.clone() {
            RegistryAuth::Anonymous => oci_client::secrets::RegistryAuth::Anonymous,
            RegistryAuth::Basic { username, password } => {
                oci_client::secrets::RegistryAuth::Basic(username, password)
            }
            RegistryAuth::Bearer(token) => oci_client::secrets::RegistryAuth::Bearer(token),
        };
        Self { store, reference, remote, auth, client, progress, unpacking: TaskTracker::new() }
    }

    async fn pull(self) -> Result<Image> {
        let (manifest, digests) = self.manifest().await?;
        let parsed = Manifest::parse(&manifest).map_err(|reason| self.bad(reason))?;
        let (config, layers) = parsed.image().map_err(|reason| self.bad(reason))?;
        let config = self.document(&config).await?;
        let diff_ids = ConfigBlob::parse(&config).map_err(|reason| self.bad(reason))?.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            let (named, listed) = (diff_ids.len(), layers.len());
            return Err(self.bad(format!("its configuration names {named} layers, its manifest {listed}")));
        }
        let mut pins = Vec::with_capacity(diff_ids.len());
        let mut wanted = Vec::new();
        let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (diff_id, layer) in diff_ids.into_iter().zip(layers) {
            let (pin, present) = self.store.inner.pin(&diff_id);
            pins.push(pin);
            let blobs = seen.entry(diff_id.clone()).or_default();
            let fresh = blobs.insert(layer.digest.clone());
            if present && blobs.len() == 1 {
                self.progress.layer(&diff_id, LayerState::Present);
            } else if fresh {
                // One diff_id with two blobs: both are fetched, since each must hold what the configuration says.
                wanted.push((diff_id, layer));
            }
        }
        // A loop, not a closure: a closure over a reference would keep callers from boxing this future as `Send`.
        let mut fetches = Vec::with_capacity(wanted.len());
        for (diff_id, layer) in &wanted {
            fetches.push(self.layer(diff_id, layer));
        }
        let fetched =
            futures::stream::iter(fetches).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await;
        // Where one failed, the others end because nothing more comes. Nothing half done is left when this returns.
        self.unpacking.close();
        self.unpacking.wait().await;
        fetched?;
        self.commit(config, manifest, digests, pins).await
    }

    async fn commit(
        self,
        config: Vec<u8>,
        manifest: Bytes,
        digests: Vec<String>,
        pins: Vec<super::store::Pin>,
    ) -> Result<Image> {
        // A name with a digest stands for that content for ever and is found by the digest; only a tag is a name.
        let names = match self.reference.digest() {
            Some(_) => Vec::new(),
            None => vec![self.reference.to_string()],
        };
        let repo_digests = digests.iter().map(|digest| self.reference.at_digest(digest)).collect();
        let inner = Arc::clone(&self.store.inner);
        let commit = move || {
            let image = inner.commit(NewImage { config: &config, manifest: &manifest, names, repo_digests });
            drop(pins);
            image
        };
        join(tokio::task::spawn_blocking(commit).await)
    }

    /// The manifest for this machine, and the digests under which it was asked for.
    async fn manifest(&self) -> Result<(Bytes, Vec<String>)> {
        let bytes = self.manifest_of(&self.remote, self.reference.digest()).await?;
        let mut digests = vec![digest_of(&bytes)];
        let parsed = Manifest::parse(&bytes).map_err(|reason| self.bad(reason))?;
        let Some(entries) = &parsed.manifests else { return Ok((bytes, digests)) };
        let entry = manifest::choose(entries, &self.reference.to_string())?;
        let at = self.remote.clone_with_digest(entry.digest.clone());
        let bytes = self.manifest_of(&at, Some(&entry.digest)).await?;
        digests.push(entry.digest.clone());
        Ok((bytes, digests))
    }

    async fn manifest_of(&self, at: &oci_client::Reference, digest: Option<&str>) -> Result<Bytes> {
        let fetch = || self.client.pull_manifest_raw(at, &self.auth, manifest::ACCEPTED);
        let (bytes, _) = self.retrying("", || async { fetch().await.map_err(|e| self.failure(e)) }).await?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::TooLarge {
                what: format!("the manifest of {}", self.reference),
                limit: MAX_DOCUMENT,
            });
        }
        match digest {
            Some(expected) if digest_of(&bytes) != expected => {
                let (what, got) = (format!("the manifest of {}", self.reference), digest_of(&bytes));
                Err(ImageError::Digest { what, expected: expected.to_owned(), got })
            }
            _ => Ok(bytes),
        }
    }

    /// A configuration.
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let fetch = || async {
            let blob = self.client.pull_blob_stream(&self.remote, descriptor.digest.as_str()).await;
            let mut stream = blob.map_err(|e| self.failure(e))?.stream;
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                match piece {
                    Ok(piece) => bytes.extend_from_slice(&piece),
                    Err(e) if is_digest_error(&e) => break,
                    Err(e) => return Err(Failure::again(self.bad(causes(&e)))),
                }
                if bytes.len() as u64 > MAX_DOCUMENT {
                    let what = format!("the configuration of {}", self.reference);
                    return Err(Failure::now(ImageError::TooLarge { what, limit: MAX_DOCUMENT }));
                }
            }
            Ok(bytes)
        };
        let bytes = self.retrying("", fetch).await?;
        let got = digest_of(&bytes);
        if got == descriptor.digest {
            return Ok(bytes);
        }
        let what = format!("the configuration of {}", self.reference);
        Err(ImageError::Digest { what, expected: descriptor.digest.clone(), got })
    }

    /// Fetches and unpacks one layer.
    async fn layer(&self, diff_id: &str, descriptor: &Descriptor) -> Result<()> {
        self.retrying(diff_id, || self.try_layer(diff_id, descriptor)).await
    }

    async fn try_layer(&self, diff_id: &str, descriptor: &Descriptor) -> Result<(), Failure> {
        let blob = self.client.pull_blob_stream(&self.remote, descriptor.digest.as_str()).await;
        let mut stream = blob.map_err(|e| self.failure(e))?.stream;
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let expected = Expected {
            blob: Some(descriptor.digest.clone()),
            diff_id: diff_id.to_owned(),
            size: descriptor.size,
            origin: format!("{} of {}", descriptor.digest, self.reference),
        };
        let (inner, progress) = (Arc::clone(&self.store.inner), self.progress.clone());
        let unpack = self.unpacking.spawn_blocking(move || {
            layer::add(&inner, Pieces { receiver, current: Bytes::new() }, &expected, &progress)
        });
        let transfer = async {
            while let Some(piece) = stream.next().await {
                let (piece, last) = match piece {
                    Ok(piece) => (Ok(piece), false),
                    // The unpacking side computes the digest too and says what differs.
                    Err(e) if is_digest_error(&e) => break,
                    Err(e) => (Err(io::Error::other(self.bad(causes(&e)))), true),
                };
                // A closed channel means that unpacking has failed; its own error says why.
                if sender.send(piece).await.is_err() || last {
                    break;
                }
            }
            drop(sender);
        };
        let (unpacked, ()) = tokio::join!(unpack, transfer);
        join(unpacked).map_err(|error| match error {
            ImageError::Registry { .. } => Failure::again(error),
            other => Failure::now(other),
        })
    }

    /// Calls `attempt` until it succeeds, fails for good or has failed too often.
    async fn retrying<T, F>(&self, diff_id: &str, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut pause = FIRST_PAUSE;
        for next in 2..=ATTEMPTS {
            self.progress.check()?;
            match attempt().await {
                Err(Failure { error, again: true }) => {
                    let reason = error.to_string();
                    tracing::debug!(reference = %self.reference, %reason, "trying again");
                    if !diff_id.is_empty() {
                        self.progress.layer(diff_id, LayerState::Retrying { attempt: next, reason });
                    }
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other.map_err(|failure| failure.error),
            }
        }
        self.progress.check()?;
        attempt().await.map_err(|failure| failure.error)
    }

    fn bad(&self, reason: impl std::fmt::Display) -> ImageError {
        ImageError::registry(&self.reference, reason)
    }

    /// Sorts what the client reports by whether another attempt may help.
    fn failure(&self, error: OciDistributionError) -> Failure {
        use oci_client::errors::OciErrorCode as Code;
        let registry = self.reference.registry();
        match error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => {
                Failure::now(ImageError::Unauthorized(self.reference.to_string()))
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let denied: fn(&Code) -> bool = |c| matches!(c, Code::Denied | Code::Unauthorized);
                let absent: fn(&Code) -> bool =
                    |c| matches!(c, Code::ManifestUnknown | Code::NameUnknown | Code::NotFound);
                let any = |test: fn(&Code) -> bool| envelope.errors.iter().any(|e| test(&e.code));
                if any(denied) {
                    Failure::now(ImageError::Unauthorized(self.reference.to_string()))
                } else if any(absent) {
                    Failure::now(
                        self.bad(format!("{registry} has no such image; check the name and the tag")),
                    )
                } else {
                    let again = any(|c| matches!(c, Code::Toomanyrequests));
                    Failure { error: self.bad(format!("{registry} answered: {envelope}")), again }
                }
            }
            OciDistributionError::ImageManifestNotFoundError(_) => {
                Failure::now(self.bad(format!("{registry} has no such image; check the name and the tag")))
            }
            OciDistributionError::ServerError { code: 404, .. } => {
                Failure::now(self.bad(format!("{registry} has no such image; check the name and the tag")))
            }
            OciDistributionError::ServerError { code, message, .. } => {
                let error = self.bad(format!("{registry} answered {code}: {message}"));
                Failure { error, again: code >= 500 || code == 429 || code == 408 }
            }
            OciDistributionError::RequestError(e) => {
                Failure::again(self.bad(format!("{registry} could not be reached ({})", causes(&e))))
            }
            OciDistributionError::DigestError(DigestError::VerificationError { expected, actual }) => {
                let what = format!("the manifest of {}", self.reference);
                Failure::now(ImageError::Digest { what, expected, got: actual })
            }
            other => Failure::now(self.bad(other)),
        }
    }
}

/// An error, and whether another attempt may help.
struct Failure {
    error: ImageError,
    again: bool,
}

impl Failure {
    fn now(error: ImageError) -> Self {
        Self { error, again: false }
    }

    fn again(error: ImageError) -> Self {
        Self { error, again: true }
    }
}

fn is_digest_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<DigestError>())
}

/// An error with what caused it: the outermost text of a transport error says the least.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// A blocking task's result; its panic goes on here.
fn join<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match joined {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(ImageError::Cancelled),
        },
    }
}

/// What the network gave, read by the unpacking thread.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
