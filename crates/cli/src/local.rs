//! What an engine of this machine says of itself in its data directory, for commands that look for it.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use yado_compile::ExternalEndpoint;

use crate::args::DEFAULT_DATA_DIR;

/// The file's name.
const FILE: &str = "engine.json";
/// The socket on which an engine answers: whether anybody does says whether it runs.
pub const SOCKET: &str = "control.sock";

/// A path of a data directory's socket that is always short enough to bind or connect to: the kernel takes no more than
/// 107 bytes, which a data directory alone may have. It leads through the open directory, as long as this is there.
pub struct SocketPath {
    directory: fs::File,
}

impl SocketPath {
    /// Of the socket in a data directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened.
    pub fn of(data_dir: &Path) -> std::io::Result<Self> {
        let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
        let directory = fs::File::options().read(true).custom_flags(flags).open(data_dir)?;
        Ok(SocketPath { directory })
    }

    /// The path, for this process.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()).into()
    }
}

/// An engine that runs and is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// The node's name.
    pub node: String,
    /// Address of the API.
    pub api: String,
    /// The router's port.
    pub http_port: u16,
    /// The app, where `yado dev` is what runs.
    pub dev: Option<DevApp>,
}

/// The app of a `yado dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevApp {
    /// Its name.
    pub name: String,
    /// Its description.
    pub path: PathBuf,
    /// The namespace of its objects.
    pub namespace: String,
    /// Where it answers.
    pub addresses: Vec<String>,
}

impl Running {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let beside = data_dir.join(format!("{FILE}.{}", self.pid));
        fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(beside, data_dir.join(FILE))
    }

    /// Removes the file.
    pub fn remove(data_dir: &Path) {
        // It says nothing where nobody answers.
        let _ = fs::remove_file(data_dir.join(FILE));
    }

    /// The engine of a data directory, if one runs there and is ready.
    pub fn find(data_dir: &Path) -> Option<Self> {
        UnixStream::connect(SocketPath::of(data_dir).ok()?.path()).ok()?;
        let running: Running = serde_json::from_slice(&fs::read(data_dir.join(FILE)).ok()?).ok()?;
        // One that was killed leaves its file; another one may be starting.
        Path::new("/proc").join(running.pid.to_string()).exists().then_some(running)
    }

    /// Where the data of the engine is that commands mean when they name none.
    pub fn default_data_dir() -> PathBuf {
        std::env::var_os("YADO_DATA_DIR").map_or_else(|| PathBuf::from(DEFAULT_DATA_DIR), PathBuf::from)
    }
}

/// The addresses at which an app answers: by its host name through the router at `http_port`, and at the ports that it
/// publishes.
pub fn addresses(host: Option<&str>, published: &[ExternalEndpoint], http_port: Option<u16>) -> Vec<String> {
    let url = |host: &str| match http_port {
        Some(80) | None => format!("http://{host}"),
        Some(port) => format!("http://{host}:{port}"),
    };
    let mut addresses: Vec<String> = host.into_iter().map(url).collect();
    for port in published {
        if let Some(host) = &port.host {
            addresses.push(url(host));
        }
        let Some(number) = port.port else { continue };
        let scheme = match (port.protocol.as_str(), port.web || port.host.is_some()) {
            ("TCP", true) => "http",
            ("TCP", false) => "tcp",
            (other, _) => &other.to_lowercase(),
        };
        addresses.push(format!("{scheme}://localhost:{number}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(address.clone()));
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_a_directory_of_any_length_is_bound_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(200));
        fs::create_dir(&deep).unwrap();
        let _listener =
            std::os::unix::net::UnixListener::bind(SocketPath::of(&deep).unwrap().path()).unwrap();
        assert!(deep.join(SOCKET).exists());
        UnixStream::connect(SocketPath::of(&deep).unwrap().path()).unwrap();
    }

    #[test]
    fn every_address_is_said_once() {
        let published = |port, protocol: &str, host: Option<&str>| ExternalEndpoint {
            component: "web".into(),
            service: "web-public".into(),
            port,
            target: 80,
            protocol: protocol.into(),
            web: host.is_some(),
            host: host.map(Into::into),
        };
        let ports = [
            published(Some(8080), "TCP", Some("shop.localhost")),
            published(Some(5432), "TCP", None),
            published(Some(53), "UDP", None),
            published(None, "TCP", Some("web.shop.localhost")),
        ];
        assert_eq!(
            addresses(Some("shop.localhost"), &ports, Some(8081)),
            [
                "http://shop.localhost:8081",
                "http://localhost:8080",
                "tcp://localhost:5432",
                "udp://localhost:53",
                "http://web.shop.localhost:8081",
            ]
        );
        assert_eq!(addresses(Some("a.example"), &[], None), ["http://a.example"]);
        // A page that only this machine reaches has no host name.
        let local = ExternalEndpoint { web: true, ..published(Some(9000), "TCP", None) };
        assert_eq!(addresses(None, &[local], Some(80)), ["http://localhost:9000"]);
    }
}
