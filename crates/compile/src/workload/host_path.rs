//! Paths of the node that a container sees.

use std::path::Path;

use super::pod::MountSource;
use crate::source::clean;

/// A path on the node as a bind mount's source: a directory is made where there is nothing, as Docker does, unless the
/// path is known to be a socket's, whose server could not listen there any more. Links in it stay, since they may lead
/// elsewhere when it is mounted, as `/etc/localtime` does on another node.
pub fn host_path(path: &Path) -> MountSource {
    let absolute = clean(&std::path::absolute(path).unwrap_or_else(|_| path.into()));
    let type_ = match absolute.metadata() {
        Err(_) if is_socket_path(&absolute) => Some("Socket"),
        Ok(meta) if meta.is_file() => Some("File"),
        // Sockets and devices: whatever is there.
        Ok(meta) if !meta.is_dir() => None,
        _ => Some("DirectoryOrCreate"),
    };
    MountSource::Host(absolute.to_string_lossy().into_owned(), type_.map(Into::into))
}

/// Whether a path is that of a socket, by what sockets are called.
fn is_socket_path(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path == Path::new("/dev/log")
        || [".sock", ".socket", "_socket"].iter().any(|end| name.ends_with(end) && name.len() > end.len())
}

/// What to tell of a path of the node that is mounted: of Docker's socket, and of another that is not there.
pub fn socket_remark(path: &Path) -> Option<String> {
    let shown = path.display();
    let docker = path.file_name().is_some_and(|name| name == "docker.sock");
    match (docker, path.exists()) {
        (true, true) => Some(format!(
            "whoever asks {shown} is answered by the Docker of the machine, which does not know the containers here"
        )),
        (true, false) => Some(format!(
            "there is no {shown} on this machine, and no Docker is behind it: nothing is made in its place, so the container starts only when something listens there; remove this mount"
        )),
        (false, false) if is_socket_path(path) => Some(format!(
            "there is no {shown} on this machine: nothing is made in its place, so the container starts only when something listens there"
        )),
        _ => None,
    }
}
