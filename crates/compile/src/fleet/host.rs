//! Containers that run programs of the machine, in the image `host`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, Container, EnvVar, EnvVarSource, ExecAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, PodSpec,
};
use yado_types::labels;

use super::{
    docker,
    text::{Fact, Word, literal, quoted},
    unit::{Command, EnvironmentFile, Service, ServiceType},
};
use crate::workload::{
    name::sanitised,
    pod::{ContainerMount, MountSource, PodFragment},
};

/// A container that runs `command` as systemd would: without a shell, unless a value has to be read on the machine first.
/// With `stays`, the container keeps running after `command` has ended.
pub fn main(command: &Command, service: &Service, stays: bool) -> PodFragment {
    let stays = stays || service.kind == ServiceType::Forking;
    let mut part = part("main", program(command, service, stays));
    part.pod.host_network = Some(true);
    part.container.working_dir = service.directory.clone();
    environment(&mut part, service, std::slice::from_ref(command));
    reach_docker(&mut part, command);
    if let Some((user, _)) = service.user.as_ref().filter(|_| !command.privileged) {
        match &service.group {
            Some((group, _)) => part.user(&format!("{user}:{group}")),
            None => part.user(user),
        }
    } else if let Some(group) = service.group.as_ref().and_then(|(g, _)| g.parse().ok()) {
        part.security().run_as_group = Some(group);
    }
    for (name, (soft, hard)) in &service.limits {
        part.ulimit(name, *soft, *hard);
    }
    if let Some(memory) = &service.memory {
        part.limit("memory", memory.clone());
    }
    if let Some(cpu) = &service.cpu {
        part.limit("cpu", cpu.clone());
    }
    part
}

/// An init container.
pub fn before(command: &Command, service: &Service, number: usize) -> PodFragment {
    let words = if command.may_fail {
        shell(&script(std::slice::from_ref(command), service, false))
    } else {
        program(command, service, false)
    };
    let mut part = part(&format!("pre-{number}"), words);
    part.container.working_dir = service.directory.clone();
    environment(&mut part, service, std::slice::from_ref(command));
    reach_docker(&mut part, command);
    part
}

/// Mounts the socket of the machine's Docker, since the program has its own `/run`.
fn reach_docker(part: &mut PodFragment, command: &Command) {
    const SOCKET: &str = "/run/docker.sock";
    if !docker::called(&command.words).is_some_and(|m| ["docker", "docker-compose", "weave"].contains(&m)) {
        return;
    }
    part.mount(ContainerMount {
        source: MountSource::HostPath(SOCKET.into(), Some("Socket".into())),
        path: SOCKET.into(),
        read_only: false,
        sub_path: None,
        propagation: None,
    });
}

/// A sidecar for a main container from an image: it runs `after` when it starts and `stop` when it stops.
pub fn beside(after: &[Command], stop: &[Command], service: &Service) -> PodFragment {
    let mut text = script(after, service, false);
    text.push_str("trap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done");
    let mut part = part("unit", shell(&text));
    let commands: Vec<Command> = after.iter().chain(stop).cloned().collect();
    environment(&mut part, service, &commands);
    on_stop(&mut part.container, stop, service);
    part
}

/// Sets `commands` as the postStart hook of `container`.
pub fn on_start(container: &mut Container, commands: &[Command], service: &Service) {
    if !commands.is_empty() {
        let lifecycle = container.lifecycle.get_or_insert_default();
        lifecycle.post_start = Some(handler(commands, service));
    }
}

/// Sets `commands` as the preStop hook of `container`.
pub fn on_stop(container: &mut Container, commands: &[Command], service: &Service) {
    if !commands.is_empty() {
        let lifecycle: &mut Lifecycle = container.lifecycle.get_or_insert_default();
        lifecycle.pre_stop = Some(handler(commands, service));
    }
}

fn handler(commands: &[Command], service: &Service) -> LifecycleHandler {
    // Kubernetes does not expand variables in hooks.
    let known = |words: &[Word]| words.iter().map(Word::known).collect::<Option<Vec<_>>>();
    let command = match commands {
        [one] if !one.may_fail && service.files.is_empty() => known(&one.words),
        _ => None,
    };
    let command = command
        .unwrap_or_else(|| ["/bin/sh", "-c", &script(commands, service, true)].map(String::from).into());
    LifecycleHandler { exec: Some(ExecAction { command: Some(command) }), ..LifecycleHandler::default() }
}

fn part(name: &str, command: Vec<String>) -> PodFragment {
    let container = Container {
        name: name.into(),
        image: Some(labels::HOST_IMAGE.into()),
        command: Some(command),
        ..Container::default()
    };
    let selector = BTreeMap::from([(labels::HOST_IMAGE_ALLOWED.to_string(), "true".to_string())]);
    PodFragment::new(container, PodSpec { node_selector: Some(selector), ..PodSpec::default() })
}

/// The command line that starts `command`.
fn program(command: &Command, service: &Service, stays: bool) -> Vec<String> {
    let direct = command.words.iter().all(|w| w.facts().all(|f| *f == Fact::HostName));
    if stays {
        // The started process ends; the processes that it forked live as long as the container.
        let mut text = script(std::slice::from_ref(command), service, false);
        text.push_str("trap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done");
        return shell(&text);
    }
    if direct && service.files.is_empty() {
        return command.words.iter().map(Word::kubernetes).collect();
    }
    let words: Vec<String> = command.words.iter().map(Word::shell).collect();
    shell(&format!("{}exec {}", files(&service.files), words.join(" ")))
}

/// A container command `sh -c TEXT`, escaped for Kubernetes' expansion of `$(NAME)`.
fn shell(text: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), literal(text)]
}

/// A script of the commands in sequence. It ends with the first failure that is not allowed.
fn script(commands: &[Command], service: &Service, last_is_all: bool) -> String {
    let mut text = files(&service.files);
    for command in commands {
        let words: Vec<String> = command.words.iter().map(Word::shell).collect();
        let or = if command.may_fail {
            " || true"
        } else if last_is_all && commands.len() == 1 {
            ""
        } else {
            " || exit $?"
        };
        text.push_str(&format!("{}{or}\n", words.join(" ")));
    }
    text
}

/// Shell code that reads environment files on the machine. They are not shell scripts: the value is the text after `=`,
/// which may contain blanks, `&` and dollar signs.
fn files(files: &[EnvironmentFile]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let mut text = r#"environment() {
  while IFS= read -r _line || [ -n "$_line" ]; do
    _key=${_line%%=*} _value=${_line#*=}
    case $_key in "$_line"|''|[0-9]*|*[!A-Za-z0-9_]*) continue ;; esac
    case $_value in \"*\"|\'*\') _value=${_value#?} _value=${_value%?} ;; esac
    export "$_key=$_value"
  done <"$1"
}
"#
    .to_string();
    for file in files {
        let path = quoted(&file.path);
        text.push_str(&match file.optional {
            true => format!("[ ! -r {path} ] || environment {path}\n"),
            false => format!("environment {path} || exit 1\n"),
        });
    }
    text
}

/// Adds the unit's variables, and the node values that the commands refer to.
fn environment(part: &mut PodFragment, service: &Service, commands: &[Command]) {
    let mut asked: BTreeSet<&Fact> = BTreeSet::new();
    let known = service.variables.known.values();
    for word in commands.iter().flat_map(|c| &c.words).chain(known) {
        // Other values are read by the shell.
        asked.extend(word.facts().filter(|f| **f == Fact::HostName));
    }
    let mut env: Vec<EnvVar> = asked.into_iter().filter_map(fact).collect();
    env.extend(service.variables.known.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(value.kubernetes()),
        value_from: None,
    }));
    part.container.env = (!env.is_empty()).then_some(env);
}

/// The variable that holds a node value, if Kubernetes provides it.
pub fn fact(fact: &Fact) -> Option<EnvVar> {
    let field = |path: &str| EnvVarSource {
        field_ref: Some(ObjectFieldSelector { field_path: path.into(), ..ObjectFieldSelector::default() }),
        ..EnvVarSource::default()
    };
    let value_from = match fact {
        Fact::HostName | Fact::MachineId => field("spec.nodeName"),
        Fact::BootId => field("metadata.uid"),
        Fact::Kernel | Fact::Output(_) => return None,
        Fact::Variable(name) | Fact::Words(name) if is_own_address(name) => field("status.hostIP"),
        Fact::Variable(name) | Fact::Words(name) => EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: ENVIRONMENT.into(),
                key: name.clone(),
                optional: Some(true),
            }),
            ..EnvVarSource::default()
        },
    };
    Some(EnvVar { name: fact.variable().into(), value: None, value_from: Some(value_from) })
}

/// The ConfigMap that replaces `/etc/environment` for containers, which do not see the machine's file.
pub const ENVIRONMENT: &str = "etc-environment";

/// Whether a variable is one in which CoreOS stores the machine's address.
pub fn is_own_address(name: &str) -> bool {
    let known = [
        "COREOS_PRIVATE_IPV4",
        "COREOS_PUBLIC_IPV4",
        "DEFAULT_IPV4",
        "private_ipv4",
        "public_ipv4",
        "HOST_IP",
    ];
    known.contains(&name)
        || name.starts_with("COREOS_") && (name.ends_with("_IPV4") || name.ends_with("_V4_0"))
}

/// The name of the ConfigMap that replaces an environment file.
pub fn config_map(path: &str) -> String {
    match sanitised(path, 63) {
        name if name.is_empty() => ENVIRONMENT.into(),
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By this machine's shell, as systemd reads such a file.
    #[test]
    fn files_of_variables_are_no_scripts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("own.env");
        std::fs::write(
            &path,
            "# a comment\n; another\n\nA=one two\nB=http://h/?a=1&b=$C;d\nC=\"three  four\"\nD='it \"is\"'\nE=\nexport F=no\n1=no\nno\n_G=`end`",
        )
        .unwrap();
        let file = |path: &std::path::Path, optional| EnvironmentFile {
            path: path.to_string_lossy().into(),
            optional,
        };
        let run = |all: &[EnvironmentFile]| {
            let script = files(all) + "for v in A B C D E F _G; do eval \"echo \\\"$v=\\$$v\\\"\"; done";
            let out =
                std::process::Command::new("/bin/sh").args(["-c", &script]).env_clear().output().unwrap();
            (out.status.success(), String::from_utf8(out.stdout).unwrap())
        };
        let expect = "A=one two\nB=http://h/?a=1&b=$C;d\nC=three  four\nD=it \"is\"\nE=\nF=\n_G=`end`\n";
        let absent = directory.path().join("absent");
        assert_eq!(run(&[file(&absent, true), file(&path, false)]), (true, expect.into()));
        assert_eq!(run(&[file(&absent, false), file(&path, false)]), (false, String::new()));
    }
}
