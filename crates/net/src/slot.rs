//! Several Yados on one machine do not collide: each claims a slot, which gives it device names, address ranges and a
//! table of its own, the same ones after a restart.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};

/// More Yados than this do not run on one machine: each has a second octet of 10.0.0.0/8 for Pods and one for Services.
const SLOTS: u8 = 32;
/// Pods of slot `i` are in 10.(192 + i).0.0/16.
const POD_OCTET: u8 = 192;
/// Services of slot `i` are in 10.(96 + i).0.0/16; slot 0 has the range that Kubernetes installers use.
const SERVICE_OCTET: u8 = 96;
/// In the data directory: which slot this Yado had last.
const REMEMBERED: &str = "net-slot";
/// In a slot's own folder: the data directory of the Yado that has it or had it last.
const OWNER: &str = "owner";

/// Why no slot could be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder failed.
    #[error("{path} cannot be used for the network's state: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// All are taken.
    #[error(
        "no range of Pod and Service addresses is free on this machine: every second octet from 10.{POD_OCTET} on is \
         routed elsewhere or used by another yado; stop one of them"
    )]
    NoneFree,
}

/// A claimed slot: free again when it is dropped and when the process ends.
#[derive(Debug)]
pub struct Slot {
    index: u8,
    device: String,
    run_dir: PathBuf,
    _lock: Flock<File>,
}

impl Slot {
    /// Claims the slot that this data directory had before if it is free, and otherwise the first free one whose
    /// ranges do not overlap `routed`, what this machine already routes. `run_dir` is one for the whole machine and
    /// does not outlive a reboot.
    pub fn claim(data_dir: &Path, run_dir: &Path, routed: &[Ipv4Net]) -> Result<Self, Error> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        fs::create_dir_all(run_dir).map_err(file_error(run_dir))?;
        let remembered = data_dir.join(REMEMBERED);
        let last: Option<u8> = fs::read_to_string(&remembered).ok().and_then(|text| text.trim().parse().ok());
        // A slot that was this one's before may still carry its routes.
        let before = last.filter(|i| *i < SLOTS).into_iter();
        // It remembers nothing where that file is lost, but its Pods may still run there.
        let owned = (0..SLOTS).filter(|i| owner(&run_dir.join(i.to_string())).as_deref() == Some(data_dir));
        let free =
            (0..SLOTS).filter(|i| !routed.iter().any(|r| overlap(pods(*i), *r) || overlap(services(*i), *r)));
        for index in before.chain(owned).chain(free) {
            let path = run_dir.join(format!("slot-{index}.lock"));
            let open = || File::options().create(true).truncate(false).write(true).open(&path);
            let file = open().or_else(|_| {
                // The last of the others may just have taken the directory with it.
                fs::create_dir_all(run_dir)?;
                open()
            });
            let file = file.map_err(file_error(&path))?;
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            // Its last holder may have removed the file after it was opened here: then others lock another one.
            if !is_at(&lock, &path) {
                continue;
            }
            let own_dir = run_dir.join(index.to_string());
            if is_awaited(&own_dir, data_dir) {
                continue;
            }
            fs::write(&remembered, index.to_string()).map_err(file_error(&remembered))?;
            fs::create_dir_all(own_dir.join("netns")).map_err(file_error(&own_dir))?;
            fs::create_dir_all(own_dir.join("pods")).map_err(file_error(&own_dir))?;
            let owner = own_dir.join(OWNER);
            fs::write(&owner, data_dir.as_os_str().as_bytes()).map_err(file_error(&owner))?;
            return Ok(Self { index, device: format!("yado{index}"), run_dir: own_dir, _lock: lock });
        }
        Err(Error::NoneFree)
    }

    /// The device that holds the gateway address; Pods' devices are named after it.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The packet filter's table.
    pub fn table(&self) -> &str {
        &self.device
    }

    /// Where Pods get their addresses from.
    pub fn pod_cidr(&self) -> Ipv4Net {
        pods(self.index)
    }

    /// Where Services get their addresses from.
    pub fn service_cidr(&self) -> Ipv4Net {
        services(self.index)
    }

    /// The node's own address in the Pod network: the Pods' gateway and name server.
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, ..] = self.pod_cidr().network().octets();
        Ipv4Addr::new(a, b, 0, 1)
    }

    /// Leaves nothing of the claim on the machine. It still holds until this is dropped.
    pub fn remove(&self) -> Result<(), Error> {
        let path = self.run_dir.with_file_name(format!("slot-{}.lock", self.index));
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::File { path, source }),
            _ => {
                // The last one of the machine leaves nothing; with others about it is not empty, and stays.
                let _ = path.parent().map(fs::remove_dir);
                Ok(())
            }
        }
    }

    /// State that lasts until a reboot.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }
}

/// Whether an open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
    place(file.metadata()).is_some_and(|open| place(fs::metadata(path)) == Some(open))
}

/// Whether another Yado that was killed has left Pods here: they still run, and it will come back for them. If its
/// data directory is gone, it will not.
fn is_awaited(own_dir: &Path, data_dir: &Path) -> bool {
    let Some(owner) = owner(own_dir) else { return false };
    let has_pods = || fs::read_dir(own_dir.join("pods")).is_ok_and(|mut pods| pods.next().is_some());
    owner != data_dir && owner.exists() && has_pods()
}

/// The data directory of the Yado that has a slot or had it last.
fn owner(own_dir: &Path) -> Option<PathBuf> {
    fs::read(own_dir.join(OWNER)).ok().map(|path| OsString::from_vec(path).into())
}

/// Whether two ranges share an address.
pub fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn pods(index: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, POD_OCTET + index, 0, 0), 16)
}

fn services(index: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, SERVICE_OCTET + index, 0, 0), 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_remembered_and_avoid_what_is_routed() {
        let run = tempfile::tempdir().expect("a folder");
        let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let routed = [Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 24)];
        let first = Slot::claim(a.path(), run.path(), &routed).expect("a slot");
        let second = Slot::claim(b.path(), run.path(), &routed).expect("a slot");
        assert_eq!((first.device(), second.device()), ("yado1", "yado2"));
        assert_eq!(second.pod_cidr().to_string(), "10.194.0.0/16");
        assert_eq!(second.service_cidr().to_string(), "10.98.0.0/16");
        drop(first);
        drop(second);
        let again = Slot::claim(b.path(), run.path(), &[]).expect("a slot");
        assert_eq!(again.device(), "yado2");
        assert!(again.pod_cidr().contains(&again.gateway()));
        assert!(!again.pod_cidr().contains(&Ipv4Addr::new(10, 195, 0, 1)));
        again.remove().expect("to remove");
        assert!(!run.path().join("slot-2.lock").exists());
    }

    #[test]
    fn a_slot_whose_pods_still_run_waits_for_its_owner() {
        let run = tempfile::tempdir().expect("a folder");
        let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let device_for = |data: &Path| {
            Slot::claim(data, run.path(), &[]).map(|slot| slot.device().to_owned()).expect("a slot")
        };
        assert_eq!(device_for(a.path()), "yado0");
        // Nothing runs there: anybody may have it.
        assert_eq!(device_for(b.path()), "yado0");
        assert_eq!(device_for(a.path()), "yado0");
        fs::write(run.path().join("0/pods/uid"), "").expect("to write");
        assert_eq!(device_for(b.path()), "yado1");
        assert_eq!(device_for(a.path()), "yado0");
        // Neither that nor a damaged memory loses it its Pods.
        fs::write(a.path().join(REMEMBERED), "garbage").expect("to damage");
        assert_eq!(device_for(a.path()), "yado0");
        drop(a);
        let c = tempfile::tempdir().expect("a folder");
        assert_eq!(device_for(c.path()), "yado0");
    }
}
