//! `yado reset`: removes what a yado that is not running has left, whatever became of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use yado_cli::args::ResetArgs;
use yado_net::nft::Table;
use yado_net::pods::PodNetwork;
use yado_net::slot::Slot;
use yado_oci::mountinfo::mount_points;

use crate::data_dir::{DataDir, NODE_NAME, SECRETS_KEY, require_root};
use crate::kubeconfig;
use crate::storage::{RUN_DIR, open_runtime};

/// Removes containers, networks and state; images stay.
pub async fn run(args: &ResetArgs) -> Result<()> {
    require_root()?;
    // What was never there is not made to be removed.
    if !args.data_dir.exists() {
        return Ok(());
    }
    let data = DataDir::claim(&args.data_dir)?;
    let runtime = open_runtime(&data)?;
    for found in runtime.sandboxes().await? {
        runtime.destroy(&found.spec.id).await?;
    }
    let slot = Slot::claim(data.path(), Path::new(RUN_DIR), &[])?;
    Table::remove(&slot)?;
    PodNetwork::start(&slot).await?.tear_down().await?;
    slot.remove()?;
    files(&data, &[data.file("kubeconfig")])
}

/// Removes the state in the data directory and its kubeconfig, and takes this cluster out of other ones.
pub fn files(data: &DataDir, kubeconfigs: &[PathBuf]) -> Result<()> {
    let unmounted = unmount_below(&data.file("pods")).context("a volume is still in use");
    let mut removed = unmounted;
    for name in ["store", "pods", "pki", "volumes"] {
        removed = removed.and(data.remove(name));
    }
    let own = data.file("kubeconfig");
    for path in kubeconfigs.iter().filter(|path| **path != own) {
        let text = fs::read_to_string(&own).unwrap_or_default();
        removed = removed.and(kubeconfig::remove(path, &text));
    }
    // The key after what it opens.
    let files =
        ["kubeconfig", "control.sock", "engine.json", NODE_NAME, SECRETS_KEY].map(|name| data.file(name));
    for path in files {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                removed =
                    removed.and(Err(error).with_context(|| format!("{} cannot be removed", path.display())));
            }
            _ => {}
        }
    }
    removed
}

/// Unmounts everything below a directory, the innermost first.
fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("the list of mounts cannot be read")?;
    let mut below: Vec<PathBuf> =
        mount_points(&mounts).filter(|point| point.starts_with(directory)).collect();
    below.sort();
    for point in below.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("{} cannot be unmounted", point.display()))?;
    }
    Ok(())
}
