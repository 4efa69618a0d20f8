//! What this machine is and has.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use yado_types::quantity::Quantity;

/// Facts of the machine, read once.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub hostname: String,
    pub address: IpAddr,
    pub cpu: Quantity,
    pub memory: Quantity,
    pub pods: u32,
    pub ephemeral_storage: Quantity,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    pub architecture: &'static str,
}

/// Reads a file of one line; empty where there is none.
fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Machine {
    /// Looks at this machine. `data_dir` is where Pods' files will lie.
    pub(crate) fn look(data_dir: &Path, most_pods: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let machine_id = line("/etc/machine-id");
        let boot_id = line("/proc/sys/kernel/random/boot_id");
        Self {
            hostname: line("/proc/sys/kernel/hostname"),
            address: address(),
            cpu: Quantity::from_units(i64::try_from(cores).unwrap_or(1)),
            memory: Quantity::from_units(
                memory_field(&line("/proc/meminfo"), "MemTotal").unwrap_or_default(),
            ),
            pods: most_pods,
            ephemeral_storage: Quantity::from_units(disk(data_dir).map_or(0, |d| d.total)),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            machine_id: if machine_id.is_empty() { boot_id.clone() } else { machine_id },
            boot_id,
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        }
    }
}

/// Bytes of a line of `/proc/meminfo`.
fn memory_field(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find(|l| l.starts_with(name) && l[name.len()..].starts_with(':'))?;
    let kilobytes: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Bytes that programs could still get without swapping.
pub(crate) fn available_memory() -> Option<i64> {
    memory_field(&line("/proc/meminfo"), "MemAvailable")
}

/// A file system's size and room, in bytes.
pub(crate) struct Disk {
    pub total: i64,
    pub available: i64,
}

/// The file system that holds `path`.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let s = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(s.fragment_size())).unwrap_or(i64::MAX);
    Some(Disk { total: bytes(s.blocks()), available: bytes(s.blocks_available()) })
}

/// The largest process id, and the number of processes and threads that there are.
pub(crate) fn processes() -> Option<(i64, i64)> {
    let most: i64 = line("/proc/sys/kernel/pid_max").parse().ok()?;
    let loadavg = line("/proc/loadavg");
    let running: i64 = loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((most, running))
}

/// Processes that may still be started.
pub(crate) fn free_processes() -> Option<i64> {
    processes().map(|(most, running)| most - running)
}

fn os_image(release: &str) -> String {
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".into(), |p| p.trim_matches('"').to_owned())
}

/// The address from which the machine would speak to the world; loopback where it has no route there. Nothing is
/// sent: connecting a datagram socket only asks the routing table.
/// The machine's address as others reach it: that of the way to the outside; loopback where there is none.
pub fn address() -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return loopback };
    // An address set aside for documentation: any route to the outside will do.
    match socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr()) {
        Ok(local) if !local.ip().is_unspecified() => local.ip(),
        _ => loopback,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(memory_field("MemTotal:       2048 kB\nMemFree: 1 kB", "MemTotal"), Some(2 << 20));
        assert_eq!(memory_field("MemTotalX: 1 kB", "MemTotal"), None);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\""), "Debian GNU/Linux 12");
        let machine = Machine::look(Path::new("/"), 110);
        assert!(
            machine.memory.units() > 0 && machine.ephemeral_storage.units() > 0 && !machine.kernel.is_empty()
        );
        assert!(available_memory() > Some(0) && free_processes() > Some(0));
    }
}
