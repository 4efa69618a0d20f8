//! A directory of built images, so that whoever shares it need not build what another has built.
//!
//! ```text
//! NAME-KEY.tar     the image, as `docker load` and `yado image import` read it
//! NAME-KEY.json    which image that is: its id, its size, and when it was built of what
//! ```
//!
//! KEY is a digest of the sources: names, modes and content of every file, and how they are built. So the same sources
//! find the same archive, on any machine that has the directory.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use yado_oci::build::files_of;
use yado_oci::image::Image;

use crate::builder::{Order, pinned};
use crate::control::{Images, Request, Update};

/// No sources have so many files; a directory that has is something else.
const MOST_FILES: u64 = 1 << 20;
/// Characters of a key: collisions do not happen by chance.
const KEY: usize = 20;

/// Such a directory.
pub struct Artifacts(PathBuf);

/// What `NAME-KEY.json` holds.
#[derive(Serialize, Deserialize)]
struct Record {
    image: String,
    id: String,
    size: u64,
}

impl Artifacts {
    /// Opens the directory, making it if need be.
    pub fn open(directory: &Path) -> Result<Self> {
        let unusable = || format!("the directory of artifacts {} cannot be used", directory.display());
        fs::create_dir_all(directory).with_context(unusable)?;
        Ok(Self(directory.canonicalize().with_context(unusable)?))
    }

    /// The image of an order: as it is in `known` or in the directory, or else built, and then put there.
    pub async fn build(
        &self,
        order: Order,
        images: &Images,
        known: &[Image],
        say: impl Fn(Update) + Send + Sync + Clone + 'static,
    ) -> Result<Option<Image>> {
        let hashed = order.clone();
        let key = tokio::task::spawn_blocking(move || key(&hashed)).await.context("it ended early")??;
        let name: String = order.image.rsplit('/').next().into_iter().collect();
        let name = name.split(':').next().unwrap_or_default();
        let (archive, record) = (self.path(name, &key, "tar"), self.path(name, &key, "json"));
        let recorded = fs::read(&record).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        if let Some(recorded) = recorded.filter(|_| archive.is_file()) {
            if let Some(here) = known.iter().find(|image| image.id == recorded.id) {
                return Ok(Some(here.clone()));
            }
            say(Update::Doing(format!("reading {}", archive.display())));
            let imported = images.ask(Request::Import(archive.clone()), |_| ()).await;
            let imported =
                imported.with_context(|| format!("{} cannot be used; remove it", archive.display()))?;
            return Ok(imported.into_iter().next());
        }
        let built = images.ask(Request::Build(order.clone()), say.clone()).await?;
        let Some(image) = built.into_iter().next() else { return Ok(None) };
        say(Update::Doing(format!("writing {}", archive.display())));
        let pinned = pinned(&order.image, &image.id);
        images.ask(Request::Save { image: pinned.clone(), file: archive }, say).await?;
        let text =
            serde_json::to_vec_pretty(&Record { image: pinned, id: image.id.clone(), size: image.size })?;
        fs::write(&record, text).with_context(|| format!("{} cannot be written", record.display()))?;
        Ok(Some(image))
    }

    fn path(&self, name: &str, key: &str, extension: &str) -> PathBuf {
        self.0.join(format!("{name}-{key}.{extension}"))
    }
}

/// The digest of the sources of an order. Blocks.
fn key(order: &Order) -> Result<String> {
    let mut hash = Sha256::new();
    // What is not in the sources but in the image.
    hash.update(format!("{:?}\0{:?}\0", order.language, order.processes));
    let context = order.context.canonicalize().with_context(|| unreadable(&order.context))?;
    for name in files_of(&context, &order.left_out, MOST_FILES)? {
        let path = context.join(&name);
        let meta = fs::symlink_metadata(&path).with_context(|| unreadable(&path))?;
        let mode = if meta.permissions().mode() & 0o111 != 0 { 'x' } else { '-' };
        hash.update(format!("{}\0{mode}\0", name.display()));
        if meta.is_symlink() {
            let target = fs::read_link(&path).with_context(|| unreadable(&path))?;
            hash.update(target.as_os_str().as_encoded_bytes());
        } else if meta.is_file() {
            content(&path, &mut hash).with_context(|| unreadable(&path))?;
        }
    }
    Ok(hex(&hash.finalize()).chars().take(KEY).collect())
}

fn unreadable(path: &Path) -> String {
    format!("{} cannot be read", path.display())
}

fn content(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0u64;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            // So that two files are not one that is cut elsewhere.
            hash.update(total.to_le_bytes());
            return Ok(());
        }
        total += read as u64;
        hash.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o25_the_same_sources_have_the_same_key() {
        let make = |files: &[(&str, &str)]| {
            let directory = tempfile::tempdir().expect("a folder");
            for (name, text) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                fs::write(path, text).expect("a file");
            }
            directory
        };
        let key_of = |directory: &tempfile::TempDir, language: Option<&str>| {
            let context = directory.path().to_owned();
            let language = language.map(str::to_owned);
            let left_out = vec![context.join("prod.env")];
            key(&Order { image: "a".into(), context, language, processes: Vec::new(), left_out })
                .expect("a key")
        };
        let one = make(&[("Procfile", "web: a"), ("src/a", "1")]);
        let same = make(&[
            ("src/a", "1"),
            ("Procfile", "web: a"),
            (".git/HEAD", "x"),
            (".yado/compiled/a", "y"),
            ("prod.env", "A=1"),
        ]);
        let other = make(&[("Procfile", "web: a"), ("src/a", "2")]);
        assert_eq!(key_of(&one, None), key_of(&same, None));
        assert_ne!(key_of(&one, None), key_of(&other, None));
        assert_ne!(key_of(&one, None), key_of(&one, Some("ruby")));
    }
}
