//! The directory that holds everything a Yado keeps: claimed by one process at a time.
//!
//! ```text
//! lock           held while a yado runs; its content is that yado's process id
//! store/         the API's objects; Secrets are encrypted
//! secrets.key    with these keys, unless `yado up --secrets-key` names others
//! pki/           the CA and what it signed; sa.key signs tokens of ServiceAccounts
//! oci/           images, by content
//! images/        archives that are imported at each start
//! pods/          sandboxes and their volumes
//! volumes/       persistent volumes: NAMESPACE_CLAIM_UID
//! kubeconfig     how clients reach the API
//! control.sock   how `yado image`, `build` and `deploy` reach the engine
//! engine.json    what it says of itself once it is ready
//! engine.log     what it wrote when it was started in the background; dev.log the same of `yado dev`
//! net-slot       which names and address ranges the network had last
//! node-name      the name of its node, whatever the host is called
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// The file of the keys that encrypt Secrets.
pub const SECRETS_KEY: &str = "secrets.key";
/// The file of the node's name.
pub const NODE_NAME: &str = "node-name";

/// A data directory, claimed.
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes the directory if need be and claims it.
    pub fn claim(path: &Path) -> Result<Self> {
        require_root()?;
        let unusable = || format!("the data directory {} cannot be used", path.display());
        fs::create_dir_all(path).with_context(unusable)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(unusable)?;
        let path = path.canonicalize().with_context(unusable)?;
        let lock = path.join("lock");
        let file = File::options().create(true).read(true).write(true).truncate(false).open(&lock);
        match Flock::lock(file.with_context(unusable)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                write_pid(&mut lock).with_context(unusable)?;
                Ok(Self { path, _lock: lock })
            }
            Err((mut file, _)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                bail!(
                    "the data directory {} is in use by another yado (process {}); stop it or choose another with \
                     --data-dir",
                    path.display(),
                    pid.trim()
                )
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, made if need be.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(path)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes a directory of it with all that is inside.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Containers, networks and mounts are root's to make.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("yado must run as root to make containers; run it again with sudo");
    }
    Ok(())
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
