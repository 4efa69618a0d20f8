//! `yado image`: images on this machine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use yado_cli::args::{Format, ImageCommand};
use yado_oci::image::{Freed, Image};

use crate::build::images_of;
use crate::control::{Images, Request};

/// Carries the command out: through the engine of that data directory where one runs.
pub async fn run(command: &ImageCommand) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("images belong to root; run it again with sudo");
    }
    match command {
        ImageCommand::Import { archives, data_dir } => {
            for archive in archives {
                import(archive, data_dir).await?;
            }
            Ok(())
        }
        ImageCommand::Prune { all, data_dir } => prune(*all, data_dir).await,
        ImageCommand::Ls { data_dir, output } => list(&request(data_dir, Request::List).await?, *output),
    }
}

async fn prune(all: bool, data_dir: &Path) -> Result<()> {
    let (images, _held) = images_of(data_dir).await?;
    let left =
        std::fs::read_dir(data_dir.join("pods/sandboxes")).is_ok_and(|mut found| found.next().is_some());
    if left && matches!(images, Images::Here(_)) {
        bail!(
            "containers that a stopped engine has left may run from the images; start it with `yado up`, or remove \
             them with `yado reset`"
        );
    }
    let Freed { images, layers, bytes } = images.prune(all).await?;
    writeln!(io::stdout(), "removed {images} images and {layers} layers, {:.1} MB", bytes as f64 / 1e6)?;
    Ok(())
}

async fn request(data_dir: &Path, request: Request) -> Result<Vec<Image>> {
    let (images, _held) = images_of(data_dir).await?;
    images.ask(request, |_| ()).await
}

async fn import(archive: &Path, data_dir: &Path) -> Result<()> {
    let (shown, spooled, path);
    if archive == Path::new("-") {
        shown = "standard input".to_owned();
        spooled = spool(&mut io::stdin().lock())?;
        // As long as this process waits for the answer, the file without a name has this one.
        path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), spooled.as_raw_fd()));
    } else {
        shown = archive.display().to_string();
        // The engine has another working directory.
        path = archive.canonicalize().with_context(|| format!("{shown} cannot be read"))?;
    }
    let images = request(data_dir, Request::Import(path.clone())).await.map_err(|error| {
        let reason = format!("{error:#}").replace(&*path.to_string_lossy(), "it");
        anyhow::anyhow!("{shown} is not imported: {reason}")
    })?;
    for image in images {
        writeln!(io::stdout(), "{}", image.names.join("\n"))?;
    }
    Ok(())
}

/// Keeps what is read in a file that has no name and so cannot be left behind.
fn spool(input: &mut impl Read) -> Result<File> {
    let path = std::env::temp_dir().join(format!("yado-import-{}.tar", std::process::id()));
    let mut keep = || {
        let mut file = File::options().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        io::copy(input, &mut file)?;
        io::Result::Ok(file)
    };
    keep().with_context(|| format!("standard input cannot be kept in {}", std::env::temp_dir().display()))
}

fn list(images: &[Image], format: Option<Format>) -> Result<()> {
    let mut out = io::stdout().lock();
    let row =
        |i: &Image| json!({"names": i.names, "id": i.id, "repoDigests": i.repo_digests, "size": i.size});
    let rows = || images.iter().map(row).collect::<Vec<_>>();
    match format {
        Some(Format::Json) => writeln!(out, "{}", serde_json::to_string_pretty(&rows())?)?,
        Some(Format::Yaml) => write!(out, "{}", serde_norway::to_string(&rows())?)?,
        None => {
            let width = images.iter().flat_map(|i| &i.names).map(String::len).max().unwrap_or(0).max(5);
            writeln!(out, "{:<width$}  {:<12}  SIZE", "IMAGE", "ID")?;
            for image in images {
                let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
                let size = format!("{:.1} MB", image.size as f64 / 1e6);
                for name in &image.names {
                    writeln!(out, "{name:<width$}  {id:<12}  {size}")?;
                }
            }
        }
    }
    Ok(())
}
