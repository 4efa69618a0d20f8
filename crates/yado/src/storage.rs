//! Opens the containers and images of a data directory, for the engine and for commands that run without one.

use std::path::Path;

use anyhow::{Context, Result};
use yado_oci::image::{ImageStore, Progress};
use yado_oci::runtime::{self, Runtime};

use crate::data_dir::DataDir;

/// State that lasts until a reboot: network namespaces and claims.
pub const RUN_DIR: &str = "/run/yado";
/// The directory of the image store in a data directory.
pub const IMAGES: &str = "oci";

/// The container runtime of a data directory.
pub fn open_runtime(data: &DataDir) -> Result<Runtime> {
    Ok(Runtime::new(runtime::Config {
        state_dir: data.dir("pods/sandboxes")?,
        shim_exe: "/proc/self/exe".into(),
        cgroup_root: format!("yado/{}", instance(data.path())),
    })?)
}

/// A name of a data directory that is the same at every start. It separates the cgroups of several Yados on a machine.
pub fn instance(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let hash = bytes.iter().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// Opens the image store of a data directory, and imports the archives in its directory `images`.
pub async fn open_images(data: &DataDir) -> Result<ImageStore> {
    let (dir, archives) = (data.dir(IMAGES)?, data.dir("images")?);
    let opened = tokio::task::spawn_blocking(move || {
        let images = ImageStore::open(dir)?;
        for imported in images.import_dir(archives, &Progress::none())? {
            if let Err(error) = imported.result {
                tracing::warn!(archive = %imported.path.display(), %error, "an archive is not imported");
            }
        }
        anyhow::Ok(images)
    });
    opened.await.context("the images could not be opened")?
}
