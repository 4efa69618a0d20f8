//! Parsers of `-v`, `--mount` and `--tmpfs`.

use std::path::PathBuf;

use super::flags::Reader;
use crate::workload::{
    VolumeClaim, amount,
    name::sanitised,
    pod::{ContainerMount, MountSource, Tmpfs, host_path, socket_remark},
};

impl Reader<'_> {
    /// Applies `-v TARGET` or `-v SOURCE:TARGET[:OPTIONS]`.
    pub(super) fn volume(&mut self, value: &str) {
        let mut parts = value.split(':');
        let (first, second, options) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let (source, path) = match second {
            // `-v /data:ro` has no source.
            Some(mode) if !mode.starts_with('/') && first.starts_with('/') && is_mode(mode) => (None, first),
            Some(target) => (Some(first), target),
            None => (None, first),
        };
        if !path.starts_with('/') {
            return self.error(format!("-v {value}: the path inside is not absolute"));
        }
        let from = self.source(source);
        let options: Vec<&str> = options.unwrap_or_default().split(',').collect();
        let propagation = options.iter().find_map(|o| propagation(o));
        let read_only = options.contains(&"ro") || options.contains(&"readonly") || second == Some("ro");
        let own = matches!(from, MountSource::EmptyDir);
        self.run.part.mount(ContainerMount {
            source: from,
            path: path.into(),
            read_only,
            sub_path: None,
            propagation,
        });
        if options.contains(&"nocopy") {
            return self.run.part.leave_as_it_is(path);
        }
        if let Some(mount) =
            self.run.part.container.volume_mounts.iter().flatten().next_back().filter(|_| own)
        {
            let name = mount.name.clone();
            self.run.part.fill(&name);
        }
    }

    /// The source of a mount: a node path, a named volume or, without a source, an anonymous volume.
    fn source(&mut self, source: Option<&str>) -> MountSource {
        match source.filter(|s| !s.is_empty()) {
            None => MountSource::EmptyDir,
            Some(path) if path.starts_with(['.', '/', '~']) || path.contains('/') => self.host(path),
            Some(name) => MountSource::Claim(self.claim(name)),
        }
    }

    fn host(&mut self, path: &str) -> MountSource {
        let home = self.context.env.get("HOME").map_or("/root", String::as_str);
        let path = match path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(rest) => PathBuf::from(format!("{home}{rest}")),
            None => self.context.directory.join(path),
        };
        if let Some(sentence) = socket_remark(&path) {
            self.warn(sentence);
        }
        host_path(&path)
    }

    /// Returns the claim of a named volume, adding it if necessary.
    fn claim(&mut self, volume: &str) -> String {
        let name = match sanitised(volume, 63) {
            name if name.is_empty() => "volume".into(),
            name => name,
        };
        if self.run.claims.iter().all(|c| c.name != name) {
            self.run.claims.push(VolumeClaim::new(&name));
        }
        name
    }

    /// Applies `--mount type=bind,source=/a,target=/b,readonly`.
    pub(super) fn mount(&mut self, value: &str) {
        let (mut kind, mut source, mut path) = ("volume", None, None);
        let (mut read_only, mut sub_path, mut spread) = (false, None, None);
        let (mut memory, mut nocopy) = (Tmpfs::default(), false);
        for option in value.split(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, "true"));
            match key.trim() {
                "type" => kind = value,
                "source" | "src" => source = Some(value),
                "target" | "dst" | "destination" => path = Some(value),
                "readonly" | "ro" => read_only = value == "true" || value == "1",
                "rw" => read_only = false,
                "volume-subpath" | "subpath" => sub_path = Some(value.to_string()),
                "bind-propagation" => spread = propagation(value),
                "tmpfs-size" => match amount::memory(value) {
                    Some(amount) => memory.size = Some(amount),
                    None => {
                        self.error(format!("--mount: tmpfs-size {value} is not a valid amount of memory"))
                    }
                },
                "volume-nocopy" => nocopy = value == "true" || value == "1",
                "tmpfs-mode" => match u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777) {
                    Some(mode) => memory.options.mode = Some(mode),
                    None => self.error(format!(
                        "--mount: tmpfs-mode {value} is not a valid mode: write one such as 1777"
                    )),
                },
                "consistency" | "relabel" | "U" | "chown" | "bind-nonrecursive" | "bind-recursive"
                | "tmpcopyup" | "notmpcopyup" => {}
                "volume-driver" | "volume-opt" | "volume-label" => {
                    self.warn(format!(
                        "--mount: {key} has no effect: the cluster's storage class makes volumes"
                    ));
                }
                _ => self.error(format!("--mount: {key} is not supported: remove it")),
            }
        }
        let Some(path) = path.filter(|p| p.starts_with('/')) else {
            return self.error(format!("--mount {value}: target is not an absolute path"));
        };
        let from = match (kind, source) {
            ("bind", Some(source)) => self.host(source),
            ("bind", None) => return self.error(format!("--mount {value}: a bind has a source")),
            ("volume", Some(source)) => MountSource::Claim(self.claim(source)),
            ("volume", None) => MountSource::EmptyDir,
            ("tmpfs" | "ramfs", _) => MountSource::Tmpfs(memory),
            _ => {
                return self
                    .error(format!("--mount: type {kind} is not supported: use bind, volume or tmpfs"));
            }
        };
        self.run.part.mount(ContainerMount {
            source: from,
            path: path.into(),
            read_only,
            sub_path,
            propagation: spread,
        });
        if nocopy {
            self.run.part.leave_as_it_is(path);
        }
    }

    /// Applies `--tmpfs /run:rw,size=64k`.
    pub(super) fn tmpfs(&mut self, value: &str) {
        let (path, options) = value.split_once(':').unwrap_or((value, ""));
        if !path.starts_with('/') {
            return self.error(format!("--tmpfs {value}: the path inside is not absolute"));
        }
        let (memory, read_only, others) = Tmpfs::read(options);
        if !others.is_empty() {
            self.warn(format!("--tmpfs {path}: {} has no effect", others.join(", ")));
        }
        let from = MountSource::Tmpfs(memory);
        self.run.part.mount(ContainerMount {
            source: from,
            path: path.into(),
            read_only,
            sub_path: None,
            propagation: None,
        });
    }
}

fn is_mode(word: &str) -> bool {
    word.split(',').all(|o| ["ro", "rw", "z", "Z", "nocopy", "U"].contains(&o))
}

fn propagation(option: &str) -> Option<String> {
    match option {
        "shared" | "rshared" => Some("Bidirectional".into()),
        "slave" | "rslave" => Some("HostToContainer".into()),
        _ => None,
    }
}
