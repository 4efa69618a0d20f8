//! Bind mounts of node paths.

use std::path::Path;

use super::pod::MountSource;
use crate::source::clean;

/// The volume source for a bind mount of a node path. As in Docker, a missing directory is created, unless the path looks
/// like a socket, since the socket's server could no longer listen there. Symbolic links are kept: they may resolve
/// differently on the node, as `/etc/localtime` does.
pub fn host_path(path: &Path) -> MountSource {
    let absolute = clean(&std::path::absolute(path).unwrap_or_else(|_| path.into()));
    let type_ = match absolute.metadata() {
        Err(_) if is_socket_path(&absolute) => Some("Socket"),
        Ok(meta) if meta.is_file() => Some("File"),
        // Sockets and devices: Kubernetes does not check the type.
        Ok(meta) if !meta.is_dir() => None,
        _ => Some("DirectoryOrCreate"),
    };
    MountSource::HostPath(absolute.to_string_lossy().into_owned(), type_.map(Into::into))
}

/// Whether a path names a socket, judging by its file name.
fn is_socket_path(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path == Path::new("/dev/log")
        || [".sock", ".socket", "_socket"].iter().any(|end| name.ends_with(end) && name.len() > end.len())
}

/// The warning about a mounted node path, if it is Docker's socket or a socket that does not exist.
pub fn socket_remark(path: &Path) -> Option<String> {
    let shown = path.display();
    let docker = path.file_name().is_some_and(|name| name == "docker.sock");
    match (docker, path.exists()) {
        (true, true) => Some(format!(
            "requests to {shown} are answered by the Docker of the machine, which does not know the containers of Pods"
        )),
        (true, false) => Some(format!(
            "{shown} does not exist on this machine and no Docker serves it: nothing is created in its place, so the container starts only when a server listens there; remove this mount"
        )),
        (false, false) if is_socket_path(path) => Some(format!(
            "{shown} does not exist on this machine: nothing is created in its place, so the container starts only when a server listens there"
        )),
        _ => None,
    }
}
