//! From a Pod's container and an image to what the runtime is told; pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use yado_oci::image::Image;
use yado_oci::spec::{BindMount, ContainerSpec, HostRoot, Limit, LogSpec};

use crate::environment::{ConfigError, expand_text};
use crate::lifecycle::ContainerRecord;
use crate::security::Identity;
use crate::{hostfiles, resources};

/// A log file is rotated at this size; Kubernetes' default.
const LOG_BYTES: u64 = 10 << 20;
/// Log files of one run, the current one included; Kubernetes' default.
const LOG_FILES: u32 = 5;
/// `PATH` of a container if neither image nor Pod sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Path of the termination message in a container; Kubernetes' default.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Label of a container in its sandbox: its name in the Pod.
pub(crate) const LABEL_NAME: &str = "name";
/// Label of a container in its sandbox: number of the run.
pub(crate) const LABEL_ATTEMPT: &str = "attempt";
/// Label of a container in its sandbox: digest of its image.
pub(crate) const LABEL_IMAGE: &str = "image-id";
/// Label of a container in its sandbox: number of its stop signal.
pub(crate) const LABEL_STOP_SIGNAL: &str = "stop-signal";

/// The directory of a Pod's files on the node: `DATA/pods/UID`.
#[derive(Clone, Debug)]
pub(crate) struct PodDir(PathBuf);

impl PodDir {
    /// The directory of the Pod with this uid.
    pub(crate) fn new(data_dir: &Path, uid: &str) -> Self {
        Self(data_dir.join("pods").join(uid))
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The directory of its volumes, by volume name.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// Where an image is looked into for the `number`th time. It lies with the volumes, so that whatever stays mounted goes
    /// with them.
    pub(crate) fn scratch(&self, number: u64) -> PathBuf {
        self.0.join(format!("volumes/..image_{number}"))
    }

    /// The volumes that a container's image declares: a directory for each run.
    pub(crate) fn image_volumes(&self, container: &str) -> PathBuf {
        self.0.join("volumes/..of-images").join(container)
    }

    /// The directory of the files `hosts`, `hostname` and `resolv.conf`, which are mounted into its containers.
    pub(crate) fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// The directory of a container's log files.
    pub(crate) fn logs(&self, container: &str) -> PathBuf {
        self.0.join("logs").join(container)
    }

    /// The current log file of one run.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs(container).join(format!("{attempt}.log"))
    }

    /// The file for the termination message of one run.
    pub(crate) fn termination(&self, container: &str, attempt: u32) -> PathBuf {
        self.0.join("termination").join(format!("{container}-{attempt}"))
    }
}

/// The inputs of [`specify`].
pub(crate) struct ContainerInputs<'a> {
    pub pod: &'a Pod,
    pub spec: &'a PodSpec,
    pub container: &'a Container,
    pub attempt: u32,
    pub image: &'a Image,
    pub env: Vec<(String, OsString)>,
    pub binds: Vec<BindMount>,
    pub identity: Identity,
    pub dir: &'a PodDir,
    pub node_name: &'a str,
    pub domain: &'a str,
    pub machine_memory: i64,
    /// What stays hidden of the machine where the image is its own root.
    pub host: Option<HostRoot>,
    pub limits: BTreeMap<String, Limit>,
}

/// Computes the runtime's specification of a container.
pub(crate) fn specify(from: ContainerInputs) -> Result<ContainerSpec, ConfigError> {
    let container = from.container;
    let args = command_line(container, from.image, &from.env)?;
    let mounts = with_own_files(&from);
    let labels = BTreeMap::from([
        (LABEL_NAME.to_owned(), container.name.clone()),
        (LABEL_ATTEMPT.to_owned(), from.attempt.to_string()),
        (LABEL_IMAGE.to_owned(), from.image.id.clone()),
        (LABEL_STOP_SIGNAL.to_owned(), stop_signal(container, from.image).to_string()),
    ]);
    let cwd = container.working_dir.as_deref().filter(|d| !d.is_empty());
    let cwd = cwd.unwrap_or(&from.image.config.working_dir);
    Ok(ContainerSpec {
        id: ContainerRecord::id(&container.name, from.attempt),
        layers: from.image.layers.clone(),
        host: from.host.clone(),
        limits: from.limits.clone(),
        read_only_root: from.identity.read_only_root,
        args,
        env: environment(&from),
        cwd: PathBuf::from(if cwd.is_empty() { "/" } else { cwd }),
        user: from.identity.user,
        run_as_non_root: from.identity.run_as_non_root,
        groups: from.identity.groups,
        mounts,
        capabilities: from.identity.capabilities,
        privileged: from.identity.privileged,
        no_new_privileges: from.identity.no_new_privileges,
        seccomp: from.identity.seccomp,
        resources: resources::of_container(container),
        oom_score_adj: resources::oom_score_adj(from.spec, container, from.machine_memory),
        terminal: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        log: LogSpec {
            path: from.dir.log(&container.name, from.attempt),
            max_bytes: LOG_BYTES,
            max_files: LOG_FILES,
        },
        labels,
    })
}

/// `command` replaces the image's entrypoint and its arguments, `args` only the arguments.
fn command_line(
    container: &Container,
    image: &Image,
    env: &[(String, OsString)],
) -> Result<Vec<String>, ConfigError> {
    let expanded =
        |words: &[String]| words.iter().map(|w| expand_text(w, env)).collect::<Result<Vec<_>, _>>();
    let command = container.command.as_deref().filter(|c| !c.is_empty());
    let arguments = container.args.as_deref().filter(|a| !a.is_empty());
    let mut line = command.map_or_else(|| Ok(image.config.entrypoint.clone()), expanded)?;
    match (command, arguments) {
        (_, Some(arguments)) => line.extend(expanded(arguments)?),
        (None, None) => line.extend(image.config.cmd.iter().cloned()),
        (Some(_), None) => {}
    }
    if line.is_empty() {
        return Err(ConfigError(format!(
            "no command specified: neither container \"{}\" nor its image says what to run; set command",
            container.name
        )));
    }
    Ok(line)
}

fn environment(from: &ContainerInputs) -> Vec<OsString> {
    let mut env = from.image.config.env.clone();
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.insert(0, format!("PATH={DEFAULT_PATH}"));
    }
    env.push(format!("HOSTNAME={}", hostfiles::uts_name(from.pod, from.node_name, from.domain)));
    if from.container.tty == Some(true) {
        env.push("TERM=xterm".into());
    }
    let own = from.env.iter().map(|(name, value)| {
        let mut entry = OsString::from(format!("{name}="));
        entry.push(value);
        entry
    });
    env.into_iter().map(OsString::from).chain(own).collect()
}

/// The Pod's own files, unless it mounts something in their place.
fn with_own_files(from: &ContainerInputs) -> Vec<BindMount> {
    let etc = from.dir.etc();
    let read_only = from.identity.read_only_root;
    let message = from.container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    let own = [
        (etc.join("hosts"), PathBuf::from("/etc/hosts"), read_only),
        (etc.join("hostname"), PathBuf::from("/etc/hostname"), read_only),
        (etc.join("resolv.conf"), PathBuf::from("/etc/resolv.conf"), read_only),
        (
            from.dir.termination(&from.container.name, from.attempt),
            PathBuf::from(message.unwrap_or(TERMINATION_LOG)),
            false,
        ),
    ];
    let taken = |target: &Path| from.binds.iter().any(|b| b.target == target);
    let own = own.into_iter().filter(|(_, target, _)| !taken(target));
    let own = own.map(|(source, target, read_only)| BindMount { source, target, read_only });
    // Ours come last: a volume on /etc would otherwise cover them.
    let mut all = from.binds.clone();
    all.sort_by_key(|b| b.target.components().count());
    all.extend(own);
    all
}

/// The number of the signal that asks a container to end: its own, else its image's, else SIGTERM.
pub(crate) fn stop_signal(container: &Container, image: &Image) -> i32 {
    let own = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    let name = own.unwrap_or(&image.config.stop_signal).trim().to_ascii_uppercase();
    signal_number(name.strip_prefix("SIG").unwrap_or(&name)).unwrap_or(libc::SIGTERM)
}

/// A number, or a name without `SIG`, real-time ones counted as Kubernetes and Docker do: `RTMIN+3`, `RTMAX-1`.
fn signal_number(name: &str) -> Option<i32> {
    /// The C library keeps the first two real-time signals to itself.
    const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
    let offset = |text: &str, sign| {
        if text.is_empty() { Some(0) } else { text.strip_prefix(sign)?.parse::<i32>().ok() }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        REAL_TIME.start().checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        REAL_TIME.end().checked_sub(offset(rest, '-')?)?
    } else {
        let known = || format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|s| s as i32).ok();
        return name.parse().ok().filter(|n| (1..=64).contains(n)).or_else(known);
    };
    REAL_TIME.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};
    use yado_oci::image::ImageConfig;

    use super::*;

    fn check(container: Value, expect: Expect) {
        let mut container = container;
        container["name"] = json!("c");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u"}, "spec": {"containers": [container]},
        }))
        .expect("a Pod");
        let spec = pod.spec.clone().unwrap_or_default();
        let image = Image {
            id: "sha256:1".into(),
            names: Vec::new(),
            repo_digests: Vec::new(),
            size: 0,
            config: ImageConfig {
                entrypoint: vec!["/entry".into()],
                cmd: vec!["serve".into()],
                env: vec!["A=image".into()],
                working_dir: "/srv".into(),
                user: "app".into(),
                stop_signal: "QUIT".into(),
                ..Default::default()
            },
            layers: vec!["/layer".into()],
        };
        let dir = PodDir::new("/d".as_ref(), "u");
        let said = specify(ContainerInputs {
            pod: &pod,
            spec: &spec,
            container: &spec.containers[0],
            attempt: 2,
            image: &image,
            env: vec![("WHO".into(), "me".into())],
            binds: crate::volumes::binds(&dir.volumes(), &spec, &spec.containers[0], &[]).expect("no mounts"),
            identity: crate::security::of(
                &spec,
                &spec.containers[0],
                &image.config.user,
                None,
                "/p".as_ref(),
            )
            .expect("plain"),
            dir: &dir,
            node_name: "n",
            domain: "cluster.local",
            machine_memory: 1 << 30,
            host: None,
            limits: BTreeMap::new(),
        })
        .map_or_else(
            |e| e.to_string(),
            |s| {
                let mounts: Vec<_> = s.mounts.iter().map(|m| m.target.display().to_string()).collect();
                format!(
                    "{} {:?} {:?} {:?} {:?} {:?} {:?}",
                    s.id, s.args, s.env, s.cwd, s.user, mounts, s.labels["stop-signal"]
                )
            },
        );
        expect.assert_eq(&said);
    }

    #[test]
    fn image_and_pod_are_merged() {
        check(
            json!({}),
            expect![[
                r#"c-2 ["/entry", "serve"] ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=image", "HOSTNAME=web-1", "WHO=me"] "/srv" "app" ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"] "3""#
            ]],
        );
        check(
            json!({"args": ["$(WHO)", "$$(WHO)", "$(NOBODY)"], "workingDir": "/w", "terminationMessagePath": "/t"}),
            expect![[
                r#"c-2 ["/entry", "me", "$(WHO)", "$(NOBODY)"] ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=image", "HOSTNAME=web-1", "WHO=me"] "/w" "app" ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/t"] "3""#
            ]],
        );
        check(
            json!({"command": ["sh"], "lifecycle": {"stopSignal": "SIGRTMIN+3"}, "workingDir": "/", "args": ["x"]}),
            expect![[
                r#"c-2 ["sh", "x"] ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=image", "HOSTNAME=web-1", "WHO=me"] "/" "app" ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"] "37""#
            ]],
        );
        check(
            json!({"command": ["sh"]}),
            expect![[
                r#"c-2 ["sh"] ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=image", "HOSTNAME=web-1", "WHO=me"] "/srv" "app" ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"] "3""#
            ]],
        );
    }

    #[test]
    fn signals_have_many_names() {
        let rows = [
            ("QUIT", Some(3)),
            ("15", Some(15)),
            ("RTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMAX", Some(64)),
            ("RTMIN-1", None),
            ("RTMIN+99", None),
            ("0", None),
            ("65", None),
            ("", None),
            ("NOSUCH", None),
        ];
        for (name, expect) in rows {
            assert_eq!(signal_number(name), expect, "{name}");
        }
    }
}
