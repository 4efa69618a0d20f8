//! The table of flags and their translation.

use super::{Context, Restart, RunCommand, ports};
use crate::{
    source::Source,
    workload::{
        Port, amount,
        name::is_service_name,
        pod::{HealthCheck, Unsupported},
    },
};

/// Long flags without a value, of Docker and Podman.
const SWITCHES: &[&str] = &[
    "detach",
    "disable-content-trust",
    "env-host",
    "help",
    "http-proxy",
    "init",
    "interactive",
    "no-healthcheck",
    "no-hostname",
    "no-hosts",
    "oom-kill-disable",
    "passwd",
    "privileged",
    "publish-all",
    "quiet",
    "read-only",
    "read-only-tmpfs",
    "replace",
    "rm",
    "rmi",
    "sig-proxy",
    "tls-verify",
    "tty",
    "use-api-socket",
];

/// Short flags without a value.
const SHORT_SWITCHES: &str = "ditPq";

/// Long flags that were written with one hyphen before Docker 1.0.
const ONCE_SHORT: &[&str] = &[
    "cidfile",
    "cpuset",
    "dns",
    "entrypoint",
    "expose",
    "link",
    "lxc-conf",
    "name",
    "privileged",
    "rm",
    "sig-proxy",
    "volumes-from",
];

/// Flags that configure the client or the engine and not the container.
const SILENT: &[&str] = &[
    "attach",
    "a",
    "authfile",
    "cgroupns",
    "cgroups",
    "cidfile",
    "conmon-pidfile",
    "detach-keys",
    "init-path",
    "pidfile",
    "sdnotify",
    "systemd",
    "image-volume",
    "decryption-key",
    "arch-variant",
    "retry",
    "retry-delay",
];

/// Flags without effect, and the reason.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("blkio-weight", "Pods share a disk evenly"),
    ("cgroup-parent", "the node manages the cgroups of Pods"),
    ("cpuset-mems", "a Pod's memory is where its processors are"),
    ("domainname", "a Pod's domain is its namespace's"),
    ("ip", "a Pod's address is assigned by the cluster: use its name"),
    ("ip6", "a Pod's address is assigned by the cluster: use its name"),
    ("kernel-memory", "it counts as memory"),
    ("log-driver", "a Pod's output is kept by its node, for yado logs"),
    ("log-opt", "a Pod's output is kept by its node, for yado logs"),
    ("mac-address", "a Pod's address is assigned by the cluster"),
    ("memory-swap", "Pods do not swap"),
    ("memory-swappiness", "Pods do not swap"),
    ("oom-score-adj", "it is derived from requests and limits"),
    ("pids-limit", "the node limits processes"),
    ("umask", "the image's own is kept"),
    ("uts", "a Pod's host name is its own"),
    ("volume-driver", "the cluster's storage class makes volumes"),
];

pub(super) struct Reader<'a> {
    pub(super) context: Context<'a>,
    pub(super) run: RunCommand,
    errors: Vec<String>,
    pub(super) health: HealthCheck,
    pub(super) cpu_period: Option<u64>,
    pub(super) cpu_quota: Option<i64>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(context: Context<'a>, run: RunCommand) -> Self {
        Reader {
            context,
            run,
            errors: Vec::new(),
            health: HealthCheck::default(),
            cpu_period: None,
            cpu_quota: None,
        }
    }

    /// Parses flags, an image and a command.
    pub(super) fn command(mut self, words: &[String]) -> Result<RunCommand, Vec<String>> {
        let rest = self.flags(words);
        match rest {
            Some([image, command @ ..]) => {
                self.run.image.clone_from(image);
                self.run.command = command.to_vec();
            }
            Some([]) => self.error("no image is named".into()),
            // The error that stopped the parser has been recorded.
            None => {}
        }
        self.finish()
    }

    /// Parses flags only.
    pub(super) fn flags_only(mut self, words: &[String]) -> Result<RunCommand, Vec<String>> {
        if let Some([word, ..]) = self.flags(words) {
            self.error(format!("\"{word}\" is not a valid flag: the image is named in image"));
        }
        self.finish()
    }

    fn finish(mut self) -> Result<RunCommand, Vec<String>> {
        if !self.health.command.is_empty() && !self.run.no_health {
            let health = std::mem::take(&mut self.health);
            self.run.part.health(&health);
        } else if self.health != HealthCheck::default() && !self.run.no_health {
            self.warn("--health-interval and the like have no effect without --health-cmd: the health check of the image is not known".into());
        }
        if let Some(quota) = self.cpu_quota.filter(|q| *q > 0) {
            let milli = quota as u64 * 1000 / self.cpu_period.unwrap_or(100_000).max(1);
            self.run.part.limit("cpu", amount::milli_cpus(milli));
        }
        if self.errors.is_empty() { Ok(self.run) } else { Err(self.errors) }
    }

    /// Parses flags up to the first word that is not a flag. `None` if parsing cannot continue.
    fn flags<'w>(&mut self, words: &'w [String]) -> Option<&'w [String]> {
        let mut place = 0;
        while let Some(word) = words.get(place) {
            if word == "--" {
                return Some(&words[place + 1..]);
            }
            if !word.starts_with('-') || word == "-" {
                return Some(&words[place..]);
            }
            place += 1;
            let (flag, inline) = word.split_once('=').map_or((word.as_str(), None), |(f, v)| (f, Some(v)));
            let long =
                flag.strip_prefix("--").or_else(|| flag.strip_prefix('-').filter(|f| ONCE_SHORT.contains(f)));
            let next = words.get(place).map(String::as_str);
            let used = match long {
                Some(long) => self.long(flag, long, inline, next)?,
                None => self.shorts(word, next)?,
            };
            place += usize::from(used);
        }
        Some(&[])
    }

    /// Parses one long flag. Returns whether it consumed the next word.
    fn long(&mut self, flag: &str, name: &str, inline: Option<&str>, next: Option<&str>) -> Option<bool> {
        if SWITCHES.contains(&name) {
            match inline.unwrap_or("true") {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => self.switch(name),
                "false" | "0" | "f" | "F" | "FALSE" | "False" => self.switched_off(name),
                other => self.error(format!("{flag}={other}: write true or false")),
            }
            return Some(false);
        }
        let Some(value) = inline.or(next) else {
            self.error(format!("{flag} has no value"));
            return Some(false);
        };
        let known = self.value(flag, name, value);
        // An unknown flag may or may not consume the next word, so parsing stops.
        (known || inline.is_some()).then_some(inline.is_none())
    }

    /// Parses short flags: `-it`, `-p80:80`, `-e=A=b`. Returns whether they consumed the next word.
    fn shorts(&mut self, word: &str, next: Option<&str>) -> Option<bool> {
        let letters = &word[1..];
        for (place, letter) in letters.char_indices() {
            let rest = &letters[place + letter.len_utf8()..];
            if SHORT_SWITCHES.contains(letter) {
                if let Some(value) = rest.strip_prefix('=') {
                    return self.long(&format!("-{letter}"), long_switch(letter), Some(value), None);
                }
                self.switch(long_switch(letter));
                continue;
            }
            let flag = format!("-{letter}");
            // In the first versions of Docker, `-n=false` meant `--network=none`.
            if letter == 'n' && rest.starts_with('=') {
                if rest == "=false" {
                    self.network("-n", "none");
                }
                return Some(false);
            }
            let Some(name) = long_value(letter) else {
                self.error(format!("{flag} is not supported: remove it"));
                return None;
            };
            let inline = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
            let Some(value) = inline.or(next) else {
                self.error(format!("{flag} has no value"));
                return Some(false);
            };
            self.value(&flag, name, value);
            return Some(inline.is_none());
        }
        Some(false)
    }

    fn switch(&mut self, name: &str) {
        let part = &mut self.run.part;
        match name {
            "tty" => part.container.tty = Some(true),
            "interactive" => part.container.stdin = Some(true),
            "privileged" => part.security().privileged = Some(true),
            "read-only" => part.security().read_only_root_filesystem = Some(true),
            "publish-all" => self.run.publish_all = true,
            "detach" => self.run.detached = true,
            "rm" => self.run.removed = true,
            "no-healthcheck" => self.run.no_health = true,
            "env-host" => {
                let all = self.context.env.iter().map(|(k, v)| (k.clone(), v.clone()));
                self.run.env.extend(all);
            }
            "oom-kill-disable" => {
                self.error(
                    "--oom-kill-disable is not supported: a Pod over its memory limit is killed".into(),
                );
            }
            "use-api-socket" => {
                self.error("--use-api-socket is not supported: there is no Docker API".into());
            }
            "help" => self.error("--help runs nothing".into()),
            // `--init`, and flags of the client.
            _ => {}
        }
    }

    fn switched_off(&mut self, name: &str) {
        match name {
            "privileged" => self.run.part.security().privileged = None,
            "read-only" => self.run.part.security().read_only_root_filesystem = None,
            "tty" => self.run.part.container.tty = None,
            "interactive" => self.run.part.container.stdin = None,
            "publish-all" => self.run.publish_all = false,
            "detach" => self.run.detached = false,
            "rm" => self.run.removed = false,
            _ => {}
        }
    }

    /// Applies a flag with a value. Returns false if the flag is unknown.
    fn value(&mut self, flag: &str, name: &str, value: &str) -> bool {
        if SILENT.contains(&name) {
            return true;
        }
        if let Some((_, reason)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
            let usual = (name == "log-driver"
                && ["json-file", "journald", "local", "k8s-file"].contains(&value))
                || (name == "memory-swap" && value == "-1");
            if !usual {
                self.warn(format!("{flag} {value} has no effect: {reason}"));
            }
            return true;
        }
        self.of_container(flag, name, value)
            || self.of_network(flag, name, value)
            || self.of_resources(flag, name, value)
            || self.of_health(flag, name, value)
            || {
                self.error(format!("{flag} is not supported: remove it"));
                false
            }
    }

    /// Applies flags of the container itself.
    fn of_container(&mut self, flag: &str, name: &str, value: &str) -> bool {
        let part = &mut self.run.part;
        match name {
            "name" => self.run.name = Some(value.into()),
            "env" => self.env(value),
            "unsetenv" => self.run.env.retain(|(name, _)| name != value),
            "tz" => self.run.env.push(("TZ".into(), value.into())),
            "env-file" => self.env_file(value),
            "volume" => self.volume(value),
            "mount" => self.mount(value),
            "tmpfs" => self.tmpfs(value),
            "volumes-from" => {
                let (container, mode) = value.split_once(':').unwrap_or((value, ""));
                self.run.volumes_from.push((container.into(), mode.split(',').any(|o| o == "ro")));
            }
            "workdir" => part.container.working_dir = Some(value.into()),
            "entrypoint" => part.container.command = Some(entrypoint(value)),
            "user" => part.user(value),
            "group-add" => {
                let remark = part.group(value);
                self.remark(flag, remark);
            }
            "cap-add" => part.capability(true, value),
            "cap-drop" => part.capability(false, value),
            "security-opt" => {
                let remark = part.security_opt(value);
                self.remark(flag, remark);
            }
            "device" => {
                let remark = part.device(value);
                self.remark(flag, remark);
            }
            "stop-signal" => {
                let remark = part.stop_signal(value);
                self.remark(flag, remark);
            }
            "stop-timeout" => match value.parse::<i64>() {
                Ok(seconds) if seconds >= 0 => part.pod.termination_grace_period_seconds = Some(seconds),
                // Docker waits without a limit, which a Pod cannot express; a year stands for it.
                Ok(_) => part.pod.termination_grace_period_seconds = Some(31_536_000),
                Err(_) => self.error(format!("{flag} {value} is not a valid number of seconds")),
            },
            "label" | "annotation" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                part.label(key, value);
            }
            "label-file" => self.label_file(value),
            "runtime" => {
                part.pod.runtime_class_name =
                    Some(value.into()).filter(|r: &String| !["runc", "crun"].contains(&r.as_str()))
            }
            "platform" => part.platform(value),
            "pull" => {
                part.container.image_pull_policy = match value {
                    "always" | "newer" | "true" => Some("Always".into()),
                    "never" | "false" => Some("Never".into()),
                    "missing" => Some("IfNotPresent".into()),
                    _ => return self.known_error(format!("{flag} {value}: it is always, missing or never")),
                }
            }
            "restart" => self.restart(flag, value),
            "requires" => self.run.requires.extend(value.split(',').map(Into::into)),
            _ => return false,
        }
        true
    }

    /// Applies flags of networks, ports and names.
    fn of_network(&mut self, flag: &str, name: &str, value: &str) -> bool {
        let part = &mut self.run.part;
        match name {
            "publish" => self.publish(flag, value),
            "expose" => match ports::exposed(value) {
                Some((ports, protocol)) => ports.for_each(|p| self.port(p, &protocol)),
                None => self.error(format!("{flag} {value} is not a valid port: write 1 to 65535")),
            },
            "hostname" => self.hostname(flag, value),
            "network" | "net" => self.network(flag, value),
            "network-alias" | "net-alias" => self.run.aliases.push(value.into()),
            "pod" => self.run.joins.push(value.trim_start_matches("new:").into()),
            "link" => {
                let (container, alias) = value.split_once(':').unwrap_or((value, value));
                // `docker inspect` prints links as `/name:/alias/x`.
                let bare = |name: &str| name.trim_start_matches('/').to_string();
                self.run.links.push((bare(container), bare(alias)));
            }
            "dns" => part.dns().nameservers.get_or_insert_default().push(value.into()),
            "dns-search" => part.dns().searches.get_or_insert_default().push(value.into()),
            "dns-option" | "dns-opt" => part.dns_option(value),
            "add-host" => {
                let Some((host, address)) = value.split_once(['=', ':']) else {
                    return self.known_error(format!("{flag} {value}: write {flag} HOST:ADDRESS"));
                };
                let remark = part.extra_host(host, address);
                self.remark(flag, remark);
            }
            "pid" | "ipc" | "userns" => self.namespace(flag, name, value),
            _ => return false,
        }
        true
    }

    fn publish(&mut self, flag: &str, value: &str) {
        let Some((ports, other)) = ports::published(value) else {
            return self.error(format!(
                "{flag} {value} is not a valid port: write -p PORT or -p OUTSIDE:INSIDE, each 1 to 65535"
            ));
        };
        if let Some(address) = other {
            self.warn(format!(
                "{flag} {value} is reached at every address of the node, not at {address} alone"
            ));
        }
        for port in ports {
            self.port(port.target, &port.protocol.clone());
            if !self.run.published.contains(&port) {
                self.run.published.push(port);
            }
        }
    }

    /// Adds a port that the process listens on.
    fn port(&mut self, port: u16, protocol: &str) {
        if self.run.ports.iter().all(|p| (p.container, p.protocol.as_str()) != (port, protocol)) {
            self.run.ports.push(Port::new(port, port, protocol));
        }
    }

    fn env(&mut self, value: &str) {
        match value.split_once('=') {
            Some((key, value)) => self.run.env.push((key.into(), value.into())),
            None => match self.context.env.get(value) {
                Some(given) => self.run.env.push((value.into(), given.clone())),
                // As in Docker, a variable that is not set for the caller is not passed.
                None => self.warn(format!("-e {value} passes nothing on, as {value} is not set")),
            },
        }
    }

    fn env_file(&mut self, value: &str) {
        for line in self.lines("--env-file", value) {
            self.env(&line);
        }
    }

    fn label_file(&mut self, value: &str) {
        for line in self.lines("--label-file", value) {
            let (key, value) = line.split_once('=').unwrap_or((&line, ""));
            self.run.part.label(key, value);
        }
    }

    fn lines(&mut self, flag: &str, value: &str) -> Vec<String> {
        match Source::read(&self.context.directory.join(value)) {
            Ok(source) => {
                let lines = source.text.lines().map(str::trim_start);
                lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(Into::into).collect()
            }
            Err(mistake) => {
                self.error(format!("{flag}: {mistake}"));
                Vec::new()
            }
        }
    }

    fn hostname(&mut self, flag: &str, value: &str) {
        // `-h db.example.org`: the first label is the host's name.
        let label = value.split('.').next().unwrap_or(value);
        if yado_types::names::dns_label(label).is_err() {
            let hostname = crate::workload::name::sanitised(label, 63);
            self.warn(format!("{flag} {value} is {hostname}, as host names have to be"));
            self.run.part.pod.hostname = Some(hostname).filter(|h| !h.is_empty());
            return;
        }
        self.run.part.pod.hostname = Some(label.into());
        if is_service_name(label) && label == value && !self.run.aliases.iter().any(|a| a == label) {
            self.run.aliases.push(label.into());
        }
    }

    fn network(&mut self, flag: &str, value: &str) {
        // `--network name=app,alias=db`.
        let mut name = value;
        if value.contains('=') {
            for option in value.split(',') {
                match option.split_once('=') {
                    Some(("name", network)) => name = network,
                    Some(("alias", alias)) => self.run.aliases.push(alias.into()),
                    _ => self.warn(format!(
                        "{flag}: {option} has no effect: a Pod's address is assigned by the cluster"
                    )),
                }
            }
        }
        match name.split_once(':') {
            Some(("container", container)) => self.run.joins.push(container.into()),
            Some(("slirp4netns" | "pasta", _)) => {}
            None if name == "host" => self.run.part.host_network(),
            None if name == "none" => {
                self.warn(format!("{flag} {value}: every Pod has a network, so this one has, too"));
            }
            None if ["bridge", "default", "slirp4netns", "pasta", "private"].contains(&name) => {}
            _ => self.run.networks.push(name.into()),
        }
    }

    fn namespace(&mut self, flag: &str, name: &str, value: &str) {
        if let Some(container) = value.strip_prefix("container:") {
            self.run.joins.push(container.into());
            if name == "pid" {
                self.run.part.pod.share_process_namespace = Some(true);
            }
            return;
        }
        match (name, value) {
            ("pid", "host") => self.run.part.pod.host_pid = Some(true),
            ("ipc", "host") => self.run.part.pod.host_ipc = Some(true),
            ("userns", "host") => self.run.part.pod.host_users = Some(true),
            // These are the behaviour of a Pod.
            (_, "" | "private" | "shareable" | "none") => {}
            _ => self.warn(format!("{flag} {value} has no effect in a Pod")),
        }
    }

    fn restart(&mut self, flag: &str, value: &str) {
        let (policy, times) = value.split_once(':').map_or((value, None), |(p, t)| (p, Some(t)));
        self.run.restart = Some(match (policy, times.map(str::parse)) {
            ("no" | "never" | "", None) => Restart::No,
            ("always", _) => Restart::Always,
            ("unless-stopped", _) => Restart::UnlessStopped,
            ("on-failure", None) => Restart::OnFailure(None),
            ("on-failure", Some(Ok(times))) => Restart::OnFailure(Some(times)),
            _ => {
                return self
                    .error(format!("{flag} {value}: it is no, on-failure[:N], always or unless-stopped"));
            }
        });
    }

    pub(super) fn remark(&mut self, flag: &str, remark: Option<Unsupported>) {
        match remark {
            Some(Unsupported::Warning(sentence)) => self.warn(format!("{flag}: {sentence}")),
            Some(Unsupported::Error(sentence)) => self.error(format!("{flag}: {sentence}")),
            None => {}
        }
    }

    /// Records an error in the value of a known flag; returns true, as the flag is known.
    fn known_error(&mut self, sentence: String) -> bool {
        self.error(sentence);
        true
    }

    pub(super) fn error(&mut self, sentence: String) {
        self.errors.push(sentence);
    }

    pub(super) fn warn(&mut self, sentence: String) {
        self.run.warnings.push(sentence);
    }
}

fn long_switch(letter: char) -> &'static str {
    match letter {
        'd' => "detach",
        'i' => "interactive",
        't' => "tty",
        'P' => "publish-all",
        _ => "quiet",
    }
}

fn long_value(letter: char) -> Option<&'static str> {
    Some(match letter {
        'a' => "attach",
        'c' => "cpu-shares",
        'e' => "env",
        'h' => "hostname",
        'l' => "label",
        'm' => "memory",
        'p' => "publish",
        'u' => "user",
        'v' => "volume",
        'w' => "workdir",
        _ => return None,
    })
}

/// `--entrypoint` is one word, but Podman takes a list.
fn entrypoint(value: &str) -> Vec<String> {
    json_list(value).unwrap_or_else(|| vec![value.into()])
}

pub(super) fn json_list(value: &str) -> Option<Vec<String>> {
    value.starts_with('[').then(|| serde_json::from_str(value).ok())?
}
