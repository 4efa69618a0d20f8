//! Ports, mounts, links and devices: what has a short form on one line and a long form as a mapping.

use std::net::IpAddr;

use crate::{
    compose::{
        fields::{self, Fields},
        load::Loader,
        model::{Device, Exposed, FileReference, Link, Mount, MountKind, PortMapping, VolumesFrom},
    },
    yaml::{Node, Value, scalar::ScalarMeaning},
};

/// `80`, `8080:80`, `127.0.0.1:8080-8081:80-81/udp`, or a mapping.
pub(super) fn ports(node: &Node, path: &str, loader: &mut Loader) -> Option<Vec<PortMapping>> {
    if node.as_mapping().is_some() {
        return long_port(node, path, loader).map(|port| vec![port]);
    }
    let text = fields::text_or_number(node, path, loader)?;
    let ports = short_ports(&text, node);
    if let Err(reason) = &ports {
        let sentence = format!(
            "{path} is not a valid port: {reason}; it is written as 80, 8080:80 or 127.0.0.1:8080:80/tcp"
        );
        loader.found.error(&node.at, sentence);
    }
    ports.ok()
}

fn short_ports(text: &str, node: &Node) -> Result<Vec<PortMapping>, String> {
    let (rest, protocol) = text.rsplit_once('/').map_or((text, "tcp"), |(rest, protocol)| (rest, protocol));
    let protocol = protocol_of(protocol)?;
    let (rest, target) = rest.rsplit_once(':').map_or((None, rest), |(rest, target)| (Some(rest), target));
    let (first, last) = range(target)?;
    let (host_ip, published) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            Some((ip, published)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), published),
            None => (None, rest),
        },
    };
    let host_ip = host_ip.filter(|ip| !ip.is_empty());
    if let Some(ip) = host_ip.filter(|ip| ip.parse::<IpAddr>().is_err()) {
        return Err(format!("{ip:?} is not a valid IP address"));
    }
    let published = if published.is_empty() { None } else { Some(range(published)?) };
    let one = |target: u16, published: Option<(u16, u16)>| PortMapping {
        at: node.at.clone(),
        target,
        published: published.map(|(first, _)| first),
        published_end: published.filter(|(first, last)| first != last).map(|(_, last)| last),
        host_ip: host_ip.map(String::from),
        protocol: protocol.into(),
        ..PortMapping::default()
    };
    match published {
        Some((from, to)) if first != last => {
            if to - from != last - first {
                return Err(format!(
                    "{} ports cannot go to {}",
                    u32::from(to - from) + 1,
                    u32::from(last - first) + 1
                ));
            }
            Ok((0..=last - first).map(|i| one(first + i, Some((from + i, from + i)))).collect())
        }
        _ => Ok((first..=last).map(|target| one(target, published)).collect()),
    }
}

fn protocol_of(text: &str) -> Result<&'static str, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok("tcp"),
        "udp" => Ok("udp"),
        "sctp" => Ok("sctp"),
        other => Err(format!("{other:?} is not a valid protocol: use tcp, udp or sctp")),
    }
}

/// `80` or `80-90`.
fn range(text: &str) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Err("a number is missing".into());
    }
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let port = if digits { text.parse::<u16>().ok() } else { None };
        port.ok_or_else(|| format!("{text:?} is not between 0 and 65535"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(format!("{text} ends before it begins")) } else { Ok((first, last)) }
}

fn long_port(node: &Node, path: &str, loader: &mut Loader) -> Option<PortMapping> {
    let mut f = Fields::open(node, path.into(), loader)?;
    let target = f.int("target", loader);
    let published = f.node("published").and_then(|(node, path)| fields::text_or_number(node, &path, loader));
    let mut port = PortMapping {
        at: node.at.clone(),
        host_ip: f.text("host_ip", loader),
        protocol: f.text("protocol", loader).unwrap_or_else(|| "tcp".into()).to_ascii_lowercase(),
        mode: f.text("mode", loader),
        name: f.text("name", loader),
        app_protocol: f.text("app_protocol", loader),
        ..PortMapping::default()
    };
    f.close(loader);
    if let Err(reason) = protocol_of(&port.protocol) {
        loader.found.error(&node.at, format!("{path}: {reason}"));
    }
    if let Some(ip) = port.host_ip.as_deref().filter(|ip| ip.parse::<IpAddr>().is_err()) {
        loader.found.error(&node.at, format!("{path}: {ip:?} is not a valid IP address"));
    }
    match published.as_deref().filter(|p| !p.is_empty()).map(range) {
        Some(Ok((first, last))) => {
            port.published = Some(first);
            port.published_end = (first != last).then_some(last);
        }
        Some(Err(reason)) => loader.found.error(&node.at, format!("{path}.published: {reason}")),
        None => {}
    }
    let fits = target.and_then(|t| u16::try_from(t).ok());
    if fits.is_none() && (target.is_some() || node.get("target").is_none()) {
        loader.found.error(&node.at, format!("{path} needs a target between 0 and 65535"));
    }
    port.target = fits?;
    Some(port)
}

/// `80`, `80-90`, `53/udp`.
pub(super) fn exposed(node: &Node, path: &str, loader: &mut Loader) -> Option<Vec<Exposed>> {
    let text = fields::text_or_number(node, path, loader)?;
    if text.is_empty() {
        loader.found.warn(&node.at, format!("{path} is empty, so it exposes nothing"));
        return None;
    }
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((&text, "tcp"));
    // `8080:80` publishes nothing here, but is in many files.
    let target = rest.rsplit(':').next().unwrap_or(rest);
    match (range(target), protocol_of(protocol)) {
        (Ok((first, last)), Ok(protocol)) => {
            let one = |port| Exposed { at: node.at.clone(), port, protocol: protocol.into() };
            Some((first..=last).map(one).collect())
        }
        (Err(reason), _) | (_, Err(reason)) => {
            loader.found.error(&node.at, format!("{path} is not a valid port: {reason}"));
            None
        }
    }
}

/// `db` or `db:database`.
pub(super) fn link(node: &Node, path: &str, loader: &mut Loader) -> Option<Link> {
    let text = fields::text(node, path, loader)?;
    let (target, alias) = text.split_once(':').unwrap_or((&text, &text));
    Some(Link { at: node.at.clone(), target: target.into(), alias: alias.into() })
}

/// `web`, `web:ro`, `container:other:ro`.
pub(super) fn volumes_from(node: &Node, path: &str, loader: &mut Loader) -> Option<VolumesFrom> {
    let text = fields::text(node, path, loader)?;
    let (container, rest) = match text.strip_prefix("container:") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("service:").unwrap_or(&text)),
    };
    let (source, mode) = rest.split_once(':').unwrap_or((rest, "rw"));
    if !matches!(mode, "ro" | "rw") {
        loader.found.error(&node.at, format!("{path}: {mode:?} has to be ro or rw"));
    }
    Some(VolumesFrom { at: node.at.clone(), source: source.into(), container, read_only: mode == "ro" })
}

/// `/dev/a`, `/dev/a:/dev/b`, `/dev/a:/dev/b:rwm`, or a mapping.
pub(super) fn device(node: &Node, path: &str, loader: &mut Loader) -> Option<Device> {
    let mut device = Device { at: node.at.clone(), permissions: "rwm".into(), ..Device::default() };
    if node.as_mapping().is_some() {
        let mut f = Fields::open(node, path.into(), loader)?;
        let source = f.text("source", loader);
        let target = f.text("target", loader);
        if let Some(permissions) = f.text("permissions", loader) {
            device.permissions = permissions;
        }
        f.close(loader);
        let Some(source) = source else {
            loader.found.error(&node.at, format!("{path} needs a source"));
            return None;
        };
        device.target = target.unwrap_or_else(|| source.clone());
        device.source = source;
        return Some(device);
    }
    let text = fields::text(node, path, loader)?;
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [source] => (device.source, device.target) = ((*source).into(), (*source).into()),
        [source, target] => (device.source, device.target) = ((*source).into(), (*target).into()),
        [source, target, permissions] => {
            (device.source, device.target) = ((*source).into(), (*target).into());
            device.permissions = (*permissions).into();
        }
        _ => {
            loader
                .found
                .error(&node.at, format!("{path} has too many colons: write source, target and permissions"));
            return None;
        }
    }
    Some(device)
}

/// A config or secret: its name, or a mapping.
pub(super) fn file_reference(node: &Node, path: &str, loader: &mut Loader) -> Option<FileReference> {
    let at = node.at.clone();
    if node.as_mapping().is_none() {
        let source = fields::text(node, path, loader)?;
        return Some(FileReference { at, source, ..FileReference::default() });
    }
    let mut f = Fields::open(node, path.into(), loader)?;
    let source = f.text("source", loader);
    let reference = FileReference {
        at,
        target: f.text("target", loader),
        uid: f.text("uid", loader),
        gid: f.text("gid", loader),
        mode: f.node("mode").and_then(|(node, path)| mode(node, &path, loader)),
        source: String::new(),
    };
    f.close(loader);
    let Some(source) = source else {
        loader.found.error(&node.at, format!("{path} needs a source"));
        return None;
    };
    Some(FileReference { source, ..reference })
}

/// Permissions: a number as YAML reads it (`0440` is octal), or text, which is octal.
fn mode(node: &Node, path: &str, loader: &mut Loader) -> Option<u32> {
    let mode = match node.meaning() {
        Some(ScalarMeaning::Int(i)) => u32::try_from(i).ok(),
        _ => node.printed().and_then(|t| u32::from_str_radix(t.trim_start_matches("0o"), 8).ok()),
    };
    if mode.is_none() {
        fields::wrong(node, path, "permissions such as 0440", loader);
    }
    mode
}

/// `name=address`, `name:address`, or a mapping, of which a value may be a list.
pub(super) fn extra_hosts(node: &Node, path: &str, loader: &mut Loader) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let bare = |ip: &str| ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip).to_string();
    match &node.value {
        Value::Mapping(mapping) => {
            for (name, entry) in mapping {
                let addresses = entry.value.as_sequence().unwrap_or(std::slice::from_ref(&entry.value));
                let texts =
                    addresses.iter().filter_map(|a| fields::text(a, &format!("{path}.{name}"), loader));
                all.extend(texts.map(|a| (name.clone(), bare(&a))));
            }
        }
        Value::Sequence(items) => {
            for item in items {
                let Some(text) = fields::text(item, path, loader) else { continue };
                match text.split_once('=').or_else(|| text.split_once(':')) {
                    Some((name, address)) if !name.is_empty() => {
                        all.push((name.trim().into(), bare(address.trim())))
                    }
                    _ => loader.found.error(&item.at, format!("{path}: {text:?} has to be NAME=ADDRESS")),
                }
            }
        }
        Value::Scalar(_) => fields::wrong(node, path, "a mapping or a list of NAME=ADDRESS", loader),
    }
    all.dedup();
    all
}

/// `/target`, `name:/target:ro`, `./dir:/target`, `C:\dir:/target`, or a mapping.
pub(super) fn mount(node: &Node, path: &str, loader: &mut Loader) -> Option<Mount> {
    if node.as_mapping().is_some() {
        return long_mount(node, path, loader);
    }
    let text = fields::text(node, path, loader)?;
    let mut mount = Mount { at: node.at.clone(), ..Mount::default() };
    let parts = match mount_parts(&text) {
        Ok(parts) => parts,
        Err(reason) => {
            let sentence = format!("{path}: {reason}; it is written as SOURCE:TARGET or SOURCE:TARGET:ro");
            loader.found.error(&node.at, sentence);
            return None;
        }
    };
    let source = match parts.as_slice() {
        [target] => {
            mount.target = clean_target(target);
            None
        }
        [source, target, options @ ..] => {
            mount.target = clean_target(target);
            for option in options.iter().flat_map(|o| o.split(',')) {
                mount_option(option, &mut mount);
            }
            Some(*source)
        }
        [] => None,
    };
    mount.kind = match source {
        Some(source) if source.starts_with("\\\\.\\pipe") => MountKind::NamedPipe,
        Some(source) if fields::is_path(source) => MountKind::Bind,
        _ => MountKind::Volume,
    };
    mount.create_host_path = mount.kind == MountKind::Bind;
    mount.source = source.map(|s| mount_source(s, &mount.kind, node, loader));
    Some(mount)
}

/// Splits at colons, but not at one after a drive's letter.
fn mount_parts(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(':') {
        let drive = at == start + 1
            && text.as_bytes()[start].is_ascii_alphabetic()
            && text[at + 1..].starts_with(['\\', '/']);
        // `a:/b` names a volume a, unless a second colon shows that it was a drive.
        if drive && (text[at + 1..].starts_with('\\') || text[at + 1..].contains(':')) {
            continue;
        }
        parts.push(&text[start..at]);
        start = at + 1;
    }
    parts.push(&text[start..]);
    if parts.iter().any(|p| p.is_empty()) {
        return Err(format!("{text:?} has nothing on one side of a colon"));
    }
    if parts.len() > 3 {
        return Err(format!("{text:?} has too many colons"));
    }
    Ok(parts)
}

fn mount_option(option: &str, mount: &mut Mount) {
    match option {
        "ro" => mount.read_only = true,
        "rw" => mount.read_only = false,
        "nocopy" => mount.nocopy = true,
        "z" | "Z" => mount.selinux = Some(option.into()),
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
            mount.propagation = Some(option.into())
        }
        "cached" | "delegated" | "consistent" => mount.consistency = Some(option.into()),
        // Docker compose lets any other word pass.
        _ => {}
    }
}

/// The path in a container without double slashes and dots.
fn clean_target(target: &str) -> String {
    if !target.starts_with('/') {
        return target.into();
    }
    crate::source::clean(std::path::Path::new(target)).to_string_lossy().into_owned()
}

/// The absolute path of a bind that is on this kind of machine; any other source as it is.
fn mount_source(source: &str, kind: &MountKind, node: &Node, loader: &Loader) -> String {
    let windows = source.as_bytes().get(1) == Some(&b':') || source.starts_with("\\\\");
    if *kind != MountKind::Bind || windows {
        return source.into();
    }
    loader.resolve(&node.at, source).to_string_lossy().into_owned()
}

fn long_mount(node: &Node, path: &str, loader: &mut Loader) -> Option<Mount> {
    const KINDS: [&str; 6] = ["bind", "volume", "tmpfs", "cluster", "npipe", "image"];
    let mut f = Fields::open(node, path.into(), loader)?;
    let kind = match f.word("type", &KINDS, loader).as_deref() {
        Some("bind") => MountKind::Bind,
        Some("tmpfs") => MountKind::Tmpfs,
        Some("cluster") => MountKind::Cluster,
        Some("npipe") => MountKind::NamedPipe,
        Some("image") => MountKind::Image,
        _ => MountKind::Volume,
    };
    let source = f.text("source", loader).filter(|s| !s.is_empty());
    let mut mount = Mount {
        at: node.at.clone(),
        source: source.map(|s| mount_source(&s, &kind, node, loader)),
        target: f.text("target", loader).map(|t| clean_target(&t)).unwrap_or_default(),
        read_only: f.bool("read_only", loader).unwrap_or_default(),
        consistency: f.text("consistency", loader),
        create_host_path: kind == MountKind::Bind,
        kind,
        ..Mount::default()
    };
    // Fields that Coolify adds. What is no file is made as a directory here anyway.
    f.bool("is_directory", loader);
    mount.content = f.text("content", loader);
    if mount.content.is_some() && mount.kind == MountKind::Bind {
        let sentence = format!(
            "{path}.content, a field of Coolify, is at {} as a config: the file on the machine is neither read nor made",
            mount.target
        );
        loader.found.warn(&node.at, sentence);
    } else if mount.content.is_some() {
        loader.found.error(&node.at, format!("{path} has content, which only a bind can have"));
    }
    if let Some(mut f) = f.node("bind").and_then(|(node, path)| Fields::open(node, path, loader)) {
        mount.propagation = f.text("propagation", loader);
        mount.create_host_path = f.bool("create_host_path", loader).unwrap_or(true);
        mount.recursive = f.word("recursive", &["enabled", "disabled", "writable", "readonly"], loader);
        mount.selinux = f.word("selinux", &["z", "Z"], loader);
        f.close(loader);
    }
    if let Some(mut f) = f.node("volume").and_then(|(node, path)| Fields::open(node, path, loader)) {
        mount.labels = f.labels("labels", loader);
        mount.nocopy = f.bool("nocopy", loader).unwrap_or_default();
        mount.subpath = f.text("subpath", loader);
        f.close(loader);
    }
    if let Some(mut f) = f.node("tmpfs").and_then(|(node, path)| Fields::open(node, path, loader)) {
        mount.tmpfs_size = f.bytes("size", loader);
        mount.tmpfs_mode = f.node("mode").and_then(|(node, path)| mode(node, &path, loader));
        f.close(loader);
    }
    if let Some(mut f) = f.node("image").and_then(|(node, path)| Fields::open(node, path, loader)) {
        mount.subpath = f.text("subpath", loader);
        f.close(loader);
    }
    f.close(loader);
    if node.get("type").is_none() {
        loader.found.error(&node.at, format!("{path} needs a type: bind, volume or tmpfs"));
    }
    if mount.target.is_empty() {
        loader.found.error(&node.at, format!("{path} needs a target, the path in the container"));
    }
    if mount.kind == MountKind::Bind && mount.source.is_none() {
        loader.found.error(&node.at, format!("{path} needs a source, the path on the machine"));
    }
    Some(mount)
}
