//! Builds and saves images in an image store: the work of an engine, or of a command that runs without one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use yado_oci::build::{BuildSpec, Language, Recipe, build};
use yado_oci::image::{Image, ImageStore, Progress};

/// Characters of an image's digest in a name: as many as `docker images` shows.
const SHORT: usize = 12;

/// An image to build, as sent to an engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The image's name.
    pub image: String,
    /// The directory of the sources, absolute.
    pub context: PathBuf,
    /// Their language.
    pub language: Option<String>,
    /// Process types and commands, used if there is no Procfile.
    pub processes: Vec<(String, String)>,
    /// Files with secrets named by the description, absolute; they are excluded from the image.
    pub left_out: Vec<PathBuf>,
}

/// Builds an image and tags it by its content too; that tag never changes its meaning. Blocks.
///
/// # Errors
/// As for [`build`], and a language that is not supported.
pub fn carry_out(order: &Order, store: &ImageStore, progress: &Progress) -> Result<Image> {
    let language: Option<Language> = order.language.as_deref().map(str::parse).transpose()?;
    let recipe = Recipe::Source {
        context: order.context.clone(),
        language,
        processes: order.processes.clone(),
        left_out: order.left_out.clone(),
    };
    let image = build(&BuildSpec { name: order.image.clone(), recipe }, store, progress)?;
    Ok(store.tag(&order.image, &pinned(&order.image, &image.id))?)
}

/// The name with the image's digest as tag: `yado.local/guestbook:0123456789ab` for `yado.local/guestbook:latest`.
pub fn pinned(name: &str, id: &str) -> String {
    let digest: String = id.trim_start_matches("sha256:").chars().take(SHORT).collect();
    // A registry's port is before the last slash.
    let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    format!("{}:{digest}", &name[..tag.unwrap_or(name.len())])
}

/// Writes an image as an archive; the file is there as a whole or not at all. Blocks.
///
/// # Errors
/// The image is not there, or the file cannot be written.
pub fn save(image: &str, file: &Path, store: &ImageStore, progress: &Progress) -> Result<()> {
    let unwritable = || format!("{} cannot be written", file.display());
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let out = std::io::BufWriter::new(fs::File::create(&beside).with_context(unwritable)?);
    let saved = store.save(&[image], out, progress).map_err(anyhow::Error::from);
    let saved = saved.and_then(|()| fs::rename(&beside, file).with_context(unwritable));
    if saved.is_err() {
        // Half an archive is of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    saved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_content() {
        let id = "sha256:0123456789abcdef";
        for (name, expect) in [
            ("yado.local/shop:latest", "yado.local/shop:0123456789ab"),
            ("yado.local/shop", "yado.local/shop:0123456789ab"),
            ("registry:5000/shop", "registry:5000/shop:0123456789ab"),
        ] {
            assert_eq!(pinned(name, id), expect);
        }
    }
}
