//! Directories that an image declares to be volumes. Each run of a container has its own: filled with what the image has in
//! its place, writable over a read-only root too, and removed together with the run's writable layer.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use yado_oci::spec::BindMount;

use crate::environment::ConfigError;

/// Volumes of one image. Real images declare a handful; each costs a mount at every start.
const MOST: usize = 64;
/// What the runtime itself provides is no image's to replace.
const OF_RUNTIME: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The mounts of the volumes that an image declares, in numbered directories of `dir`. A place where the Pod mounts
/// something itself needs none.
pub(crate) fn binds(
    declared: &[String],
    mounted: &[BindMount],
    dir: &Path,
) -> Result<Vec<BindMount>, ConfigError> {
    let taken: BTreeSet<PathBuf> = mounted.iter().map(|bind| normal(&bind.target)).collect();
    let declared: BTreeSet<PathBuf> = declared.iter().map(|path| normal(Path::new(path))).collect();
    let wanted: Vec<PathBuf> = declared
        .into_iter()
        .filter(|path| path != Path::new("/") && !taken.contains(path))
        .filter(|path| !OF_RUNTIME.iter().any(|own| path.starts_with(own)))
        .collect();
    if wanted.len() > MOST {
        return Err(ConfigError(format!(
            "its image declares {} volumes, of which at most {MOST} can be mounted; build it with fewer",
            wanted.len()
        )));
    }
    let bind = |(number, target): (usize, PathBuf)| BindMount {
        source: dir.join(number.to_string()),
        target,
        read_only: false,
    };
    Ok(wanted.into_iter().enumerate().map(bind).collect())
}

/// The absolute path that a declaration means, by its text alone: `data/` is `/data`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Makes the directories of these mounts, empty and root's where they are new.
pub(crate) fn make(binds: &[BindMount]) -> io::Result<()> {
    for bind in binds {
        if !bind.source.exists() {
            fs::create_dir_all(&bind.source)?;
            fs::set_permissions(&bind.source, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Removes the volumes of every run but `attempt` from a container's directory.
pub(crate) fn remove_others(container: &Path, attempt: u32) -> io::Result<()> {
    let entries = match fs::read_dir(container) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str() != Some(&attempt.to_string()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_volumes_get_directories_where_the_pod_mounts_nothing() {
        let mounted = [BindMount { source: "/v".into(), target: "/data/".into(), read_only: true }];
        let check = |declared: &[&str], expect: &[&str]| {
            let declared: Vec<String> = declared.iter().map(|d| (*d).to_owned()).collect();
            let binds = binds(&declared, &mounted, Path::new("/d")).expect("few");
            let said: Vec<_> =
                binds.iter().map(|b| format!("{} {}", b.source.display(), b.target.display())).collect();
            assert_eq!(said, expect, "{declared:?}");
        };
        check(&[], &[]);
        check(&["/data"], &[]);
        check(&["/data/sub", "/var/lib/db/"], &["/d/0 /data/sub", "/d/1 /var/lib/db"]);
        check(&["/a", "a/", "/b/../a"], &["/d/0 /a"]);
        check(&["/", ".", "..", "/proc", "/sys/fs", "/dev/shm"], &[]);
        check(&["/devices", "/etc/../srv"], &["/d/0 /devices", "/d/1 /srv"]);
        let many: Vec<String> = (0..=MOST).map(|n| format!("/v{n}")).collect();
        assert!(binds(&many, &mounted, Path::new("/d")).is_err());
    }

    #[test]
    fn volumes_go_with_their_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let container = dir.path().join("c");
        remove_others(&container, 3).expect("nothing to remove");
        for attempt in ["2", "3"] {
            let declared = binds(&["/data".to_owned()], &[], &container.join(attempt)).expect("one");
            make(&declared).expect("made");
            make(&declared).expect("made already");
        }
        remove_others(&container, 3).expect("removed");
        assert!(container.join("3/0").is_dir() && !container.join("2").exists());
    }
}
