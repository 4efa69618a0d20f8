//! The flags of `docker run`, as `run_args` of an Appfile carries them, to parts of a Pod.
//!
//! A flag that has a meaning in a Pod gets it; one that only says how Docker's client behaves (`-d`, `--rm`) is
//! silent, as every Pod behaves so; one whose promise is kept differently draws a warning; any other is a mistake.

use std::path::Path;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EmptyDirVolumeSource, HostPathVolumeSource, PodSpec, ResourceRequirements,
        SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{appfile::Text, diagnostic::Findings, source::Source, workload::Port};

/// As many ports as a range may publish; more would be a slip, and a Service lists each.
const MAX_PORT_RANGE: u16 = 100;

/// The Pod that `docker run` with some flags would have been.
pub struct Run {
    pub container: Container,
    pub pod: PodSpec,
    pub ports: Vec<Port>,
    pub env: Vec<(String, String)>,
}

/// Flags without a value that have a meaning or are silent.
const SWITCHES: [&str; 10] =
    ["-d", "--detach", "-i", "--interactive", "-t", "--tty", "--rm", "--init", "--privileged", "--read-only"];

/// Reads `args` into `container` and `pod`. Paths in them are relative to `directory`.
pub fn read(args: &Text, directory: &Path, container: Container, pod: PodSpec, found: &mut Findings) -> Run {
    let run = Run { container, pod, ports: Vec::new(), env: Vec::new() };
    let mut reader = Reader { args, directory, found, run };
    match words(&args.value) {
        Ok(words) => reader.flags(words),
        Err(mistake) => reader.found.error(&args.at, format!("run_args: {mistake}")),
    }
    reader.run
}

/// Splits as a shell does: quotes group, a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed"),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(inner) => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

struct Reader<'a> {
    args: &'a Text,
    directory: &'a Path,
    found: &'a mut Findings,
    run: Run,
}

impl Reader<'_> {
    fn flags(&mut self, words: Vec<String>) {
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (flag, inline) = split_flag(&word);
            if !flag.starts_with('-') {
                self.error(format!("\"{word}\" is no flag: the image is named in image"));
                return;
            }
            // `-dit` is `-d -i -t`.
            let group = flag.strip_prefix('-').filter(|g| g.len() > 1 && !g.starts_with('-'));
            if let Some(group) = group.filter(|g| g.chars().all(|c| "dit".contains(c))) {
                group.chars().for_each(|c| self.switch(&format!("-{c}")));
            } else if SWITCHES.contains(&flag) {
                match inline {
                    Some("false") => {}
                    _ => self.switch(flag),
                }
            } else {
                let value = inline.map(str::to_string).or_else(|| words.next());
                let Some(value) = value else {
                    return self.error(format!("{flag} has no value"));
                };
                self.flag(flag, &value);
            }
        }
    }

    fn switch(&mut self, flag: &str) {
        match flag {
            "-t" | "--tty" => self.run.container.tty = Some(true),
            "-i" | "--interactive" => self.run.container.stdin = Some(true),
            "--privileged" => self.security().privileged = Some(true),
            "--read-only" => self.security().read_only_root_filesystem = Some(true),
            // In the background, removed when over, with an init that reaps: a Pod is all that.
            _ => {}
        }
    }

    fn flag(&mut self, flag: &str, value: &str) {
        match flag {
            "-p" | "--publish" => self.publish(value),
            "--expose" => self.publish(value),
            "-e" | "--env" => self.env(value),
            "--env-file" => self.env_file(value),
            "-v" | "--volume" => self.volume(value),
            "-h" | "--hostname" => self.run.pod.hostname = Some(value.into()),
            "-w" | "--workdir" => self.run.container.working_dir = Some(value.into()),
            "--entrypoint" => self.run.container.command = Some(vec![value.into()]),
            "-u" | "--user" => self.user(value),
            "-m" | "--memory" => self.limit("memory", memory(value), value),
            "--cpus" => self.limit("cpu", value.parse::<f64>().ok().map(|_| value.to_string()), value),
            "--cap-add" => self.capabilities().add.get_or_insert_default().push(value.into()),
            "--cap-drop" => self.capabilities().drop.get_or_insert_default().push(value.into()),
            "--net" | "--network" if value == "host" => self.run.pod.host_network = Some(true),
            "--net" | "--network" if value == "none" || value.starts_with("container:") => {
                self.error(format!("{flag} {value} has no meaning here: every Pod has a network of its own"));
            }
            "--name" | "--link" | "--net" | "--network" => {
                // Every application is found by its own name, on one network that all share.
            }
            "--restart" => self.restart(value),
            _ => self.error(format!("{flag} has no meaning here: remove it")),
        }
    }

    fn publish(&mut self, value: &str) {
        let Some(ports) = published(value) else {
            return self.error(format!(
                "-p {value} is no port: write -p PORT or -p OUTSIDE:INSIDE, each 1 to 65535"
            ));
        };
        for port in ports {
            let known =
                self.run.ports.iter().any(|p| p.service == port.service && p.protocol == port.protocol);
            if !known {
                self.run.ports.push(port);
            }
        }
    }

    fn env(&mut self, value: &str) {
        match value.split_once('=') {
            Some((key, value)) => self.run.env.push((key.into(), value.into())),
            None => self.error(format!(
                "-e {value} takes its value from the caller's environment: write -e {value}=VALUE"
            )),
        }
    }

    fn env_file(&mut self, value: &str) {
        let source = match Source::read(&self.directory.join(value)) {
            Ok(source) => source,
            Err(mistake) => return self.error(format!("--env-file: {mistake}")),
        };
        let lines = source.text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        lines.for_each(|line| self.env(line));
    }

    fn volume(&mut self, value: &str) {
        let mut parts = value.split(':');
        let (first, second, mode) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let (from, to) = match second {
            Some(to) => (Some(first), to),
            None => (None, first),
        };
        if !to.starts_with('/') {
            return self.error(format!("-v {value}: the path inside is not absolute"));
        }
        let volumes = self.run.pod.volumes.get_or_insert_default();
        let name = format!("volume-{}", volumes.len() + 1);
        let mut volume = Volume { name: name.clone(), ..Volume::default() };
        match from.filter(|f| f.starts_with(['.', '/', '~'])) {
            Some(host) => volume.host_path = Some(host_path(&self.directory.join(host))),
            None => volume.empty_dir = Some(EmptyDirVolumeSource::default()),
        }
        let lasting = volume.empty_dir.is_some() && from.is_some();
        volumes.push(volume);
        self.run.container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name,
            mount_path: to.into(),
            read_only: mode.filter(|m| m.split(',').any(|o| o == "ro")).map(|_| true),
            ..VolumeMount::default()
        });
        if lasting {
            let sentence = format!("run_args: what is written to -v {value} lasts as long as its Pod");
            self.found.warn(&self.args.at, sentence);
        }
    }

    fn user(&mut self, value: &str) {
        let mut ids = value.split(':').map(str::parse::<i64>);
        let (user, group) = (ids.next(), ids.next());
        match (user, group) {
            (Some(Ok(user)), None) => self.security().run_as_user = Some(user),
            (Some(Ok(user)), Some(Ok(group))) => {
                self.security().run_as_user = Some(user);
                self.security().run_as_group = Some(group);
            }
            _ => {
                self.error(format!("-u {value}: a Pod names its user by number: write -u UID or -u UID:GID"))
            }
        }
    }

    fn limit(&mut self, resource: &str, amount: Option<String>, written: &str) {
        let Some(amount) = amount else {
            return self.error(format!("{written} is no amount of {resource}"));
        };
        let resources = self.run.container.resources.get_or_insert_with(ResourceRequirements::default);
        resources.limits.get_or_insert_default().insert(resource.into(), Quantity(amount));
    }

    fn restart(&mut self, value: &str) {
        if !value.starts_with("always") && !value.starts_with("unless-stopped") {
            let sentence =
                format!("run_args: --restart {value} has no effect, as a Deployment always restarts");
            self.found.warn(&self.args.at, sentence);
        }
    }

    fn security(&mut self) -> &mut SecurityContext {
        self.run.container.security_context.get_or_insert_default()
    }

    fn capabilities(&mut self) -> &mut Capabilities {
        self.security().capabilities.get_or_insert_default()
    }

    fn error(&mut self, mistake: String) {
        self.found.error(&self.args.at, format!("run_args: {mistake}"));
    }
}

/// A path on the node, made where it is missing, as Docker does.
fn host_path(path: &Path) -> HostPathVolumeSource {
    let absolute = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
    let type_ = (!absolute.exists()).then(|| "DirectoryOrCreate".to_string());
    HostPathVolumeSource { path: absolute.to_string_lossy().into_owned(), type_ }
}

/// `--flag=value`, `-pvalue` and the flag alone.
fn split_flag(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        };
    }
    let takes_value = word.chars().nth(1).is_some_and(|c| "pevhwum".contains(c));
    match word.get(2..).filter(|rest| takes_value && !rest.is_empty()) {
        Some(rest) => (&word[..2], Some(rest.strip_prefix('=').unwrap_or(rest))),
        None => (word, None),
    }
}

/// `[[IP:]OUTSIDE:]INSIDE[/PROTOCOL]`, each port or range of ports.
fn published(value: &str) -> Option<Vec<Port>> {
    let (ports, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let protocol = protocol.to_uppercase();
    if !["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) {
        return None;
    }
    let mut parts = ports.rsplit(':');
    let inside = range(parts.next()?)?;
    // Docker picks a port where the outer one is left out; by name, the inner one is as good.
    let outside = match parts.next().filter(|p| !p.is_empty()) {
        Some(outside) => range(outside)?,
        None => inside.clone(),
    };
    if inside.len() != outside.len() {
        return None;
    }
    Some(outside.zip(inside).map(|(service, container)| Port::new(service, container, &protocol)).collect())
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last && last - first < MAX_PORT_RANGE).then_some(first..=last)
}

/// Docker's `512m` is Kubernetes' `512Mi`.
fn memory(value: &str) -> Option<String> {
    let lower = value.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    digits.parse::<u64>().ok()?;
    let unit = match &lower[digits.len()..] {
        "" | "b" => "",
        "k" | "kb" => "Ki",
        "m" | "mb" => "Mi",
        "g" | "gb" => "Gi",
        _ => return None,
    };
    Some(format!("{digits}{unit}"))
}
