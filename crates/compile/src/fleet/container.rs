//! Translates `docker run` lines to containers.

use std::{collections::BTreeMap, collections::BTreeSet, path::Path};

use k8s_openapi::api::core::v1::{ConfigMapEnvSource, EnvFromSource, EnvVar};

use super::{
    host,
    plan::DockerRun,
    text::{CLOSE, Fact, OPEN, Piece, Word, is_name},
    unit::Service,
};
use crate::{
    diagnostic::Findings,
    docker_run::{self, Context, RunCommand},
};

/// The result of translating a `docker run` line.
#[derive(Debug)]
pub enum Outcome {
    /// A container.
    Run(Box<RunCommand>),
    /// It depends on values known only on the machine, so Docker has to run it there.
    Machine,
    /// It has errors, which have been reported.
    Invalid,
}

/// Translates a line. `name` is the name of the container if the line has none.
pub fn read(
    line: &DockerRun,
    service: &Service,
    directory: &Path,
    name: &str,
    found: &mut Findings,
) -> Outcome {
    let (words, files) = prepared(line, service, directory, found);
    if words.iter().any(|w| w.facts().any(|f| matches!(f, Fact::Output(_)))) {
        return Outcome::Machine;
    }
    let env: BTreeMap<String, String> =
        service.variables.known.iter().map(|(k, v)| (k.clone(), v.docker())).collect();
    let texts: Vec<String> = words.iter().map(Word::docker).collect();
    let unknown = words.iter().any(|w| w.facts().next().is_some());
    let mut run = match docker_run::parse(&texts, Context { directory, env: &env }) {
        Ok(run) => run,
        Err(_) if unknown => return Outcome::Machine,
        Err(mistakes) => {
            for mistake in mistakes {
                found.error(&line.at, mistake);
            }
            return Outcome::Invalid;
        }
    };
    if run.image.is_empty() {
        found.error(&line.at, "no image is named: nothing here sets the variable that stands for it");
        return Outcome::Invalid;
    }
    if run.image.contains(OPEN) || run.part.container.command.iter().flatten().any(|c| c.starts_with(OPEN)) {
        return Outcome::Machine;
    }
    for warning in std::mem::take(&mut run.warnings) {
        found.warn(&line.at, warning);
    }
    run.name = run.name.map(|name| without_facts(&name));
    run.part.container.name = name.into();
    host_paths(&mut run, line, found);
    run.finish_container();
    named(&mut run);
    facts(&mut run, &words, line, found);
    if !files.is_empty() {
        let source = |name: &String| EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: name.clone(), optional: Some(true) }),
            ..EnvFromSource::default()
        };
        run.part.container.env_from = Some(files.iter().map(source).collect());
    }
    Outcome::Run(Box::new(run))
}

/// Removes arguments that a Pod handles differently: the machine's address before a published port, and environment files
/// on the machine. The second value are the ConfigMaps that replace those files.
fn prepared(
    line: &DockerRun,
    service: &Service,
    directory: &Path,
    found: &mut Findings,
) -> (Vec<Word>, Vec<String>) {
    let (mut words, mut files): (Vec<Word>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = line.words.iter().peekable();
    while let Some(word) = rest.next() {
        let text = word.lossy();
        let host_name = ["-h", "-h=", "--hostname", "--hostname="].contains(&text.as_str());
        let own = word.facts().next().is_some();
        if host_name && (own || rest.peek().is_some_and(|w| w.facts().next().is_some())) {
            if !own {
                rest.next();
            }
            let sentence = "the host name is the machine's, which a Pod cannot take: it keeps its own";
            found.warn(&line.at, sentence);
            continue;
        }
        // Pods use the DNS of the cluster, which forwards to that of the machine.
        let names = ["--dns", "--dns=", "--dns-search", "--dns-search="].contains(&text.as_str());
        if names && (own || rest.peek().is_some_and(|w| w.facts().next().is_some())) {
            if !own {
                rest.next();
            }
            found.warn(
                &line.at,
                format!("{} is left out: its value is known only on the machine", text.trim_end_matches('=')),
            );
            continue;
        }
        let after_e = words.last().is_some_and(|w| ["-e", "--env"].contains(&w.lossy().as_str()));
        if after_e
            && service.variables.files
            && is_name(&text)
            && !service.variables.known.contains_key(&text)
        {
            let value = Piece::Node(Fact::Variable(text.clone()));
            words.push(Word(vec![Piece::Known(format!("{text}=")), value]));
            continue;
        }
        let file = match text.strip_prefix("--env-file") {
            Some("") => rest.peek().map(|w| w.lossy()),
            Some(value) => value.strip_prefix('=').map(str::to_string),
            None => None,
        };
        // A file beside the unit is read at compile time.
        if let Some(file) = file.filter(|f| f.starts_with('/') || !directory.join(f).is_file()) {
            if text == "--env-file" {
                rest.next();
            }
            let name = host::config_map(&file);
            found.warn(
                &line.at,
                format!("--env-file {file} is a file of the machine: its variables come from the ConfigMap {name}, if there is one (kubectl create configmap {name} --from-env-file={file})"),
            );
            files.push(name);
            continue;
        }
        if let [Piece::Node(Fact::Words(name))] = word.0.as_slice() {
            let sentence = format!("${name} is known only on the machine, so it is left out");
            found.warn(&line.at, sentence);
            continue;
        }
        words.push(without_address(word));
    }
    (words, files)
}

/// Removes the address of `${COREOS_PRIVATE_IPV4}:80:80`, since ports are published on every address.
fn without_address(word: &Word) -> Word {
    let at = word.0.iter().position(|p| matches!(p, Piece::Node(_)));
    let Some(at) = at.filter(|_| word.facts().count() == 1) else { return word.clone() };
    let before = Word(word.0[..at].to_vec()).lossy();
    let after = Word(word.0[at + 1..].to_vec()).lossy();
    let flag = ["", "-p", "-p=", "--publish=", "-publish="].contains(&before.as_str());
    let Some(ports) = after.strip_prefix(':').filter(|_| flag) else { return word.clone() };
    let ports = ports.strip_prefix(':').unwrap_or(ports);
    if !ports.is_empty() && ports.chars().all(|c| c.is_ascii_digit() || ":-/tcpud".contains(c)) {
        return Word::of(&format!("{before}{ports}"));
    }
    word.clone()
}

/// Removes values known only on the machine from a text.
fn without_facts(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        out.push_str(before);
        rest = after.split_once(CLOSE).map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// Removes values known only on the machine from node paths, which cannot contain them.
fn host_paths(run: &mut RunCommand, line: &DockerRun, found: &mut Findings) {
    for volume in run.part.pod.volumes.iter_mut().flatten() {
        if let Some(host) = volume.host_path.as_mut().filter(|h| h.path.contains(OPEN)) {
            let path = without_facts(&host.path);
            found.warn(&line.at, format!("the mounted path is {path} on every machine"));
            host.path = path;
        }
    }
}

/// Replaces the markers of node values by Kubernetes variable references.
fn named(run: &mut RunCommand) {
    let container = &mut run.part.container;
    let texts = container.command.iter_mut().chain(&mut container.args).flatten();
    let values = container.env.iter_mut().flatten().filter_map(|e| e.value.as_mut());
    for text in texts.chain(values) {
        *text = text.replace(OPEN, "$(").replace(CLOSE, ")");
    }
}

/// Adds the variables that the arguments and variables of the container refer to.
fn facts(run: &mut RunCommand, words: &[Word], line: &DockerRun, found: &mut Findings) {
    let container = &mut run.part.container;
    let texts = container.command.iter().chain(&container.args).flatten();
    let values = container.env.iter().flatten().filter_map(|e| e.value.as_ref());
    let used: Vec<String> = texts.chain(values).cloned().collect();
    let facts: BTreeSet<&Fact> = words.iter().flat_map(Word::facts).collect();
    let mut env = Vec::new();
    for fact in facts.into_iter().filter(|f| used.iter().any(|t| t.contains(&format!("$({})", f.variable()))))
    {
        match fact {
            Fact::MachineId => found.warn(&line.at, "the machine's ID, %m, is the name of the node here"),
            Fact::BootId => found.warn(&line.at, "the boot's ID, %b, is the Pod's own here"),
            Fact::Kernel => found.warn(&line.at, "the kernel's version, %v, is not known here"),
            Fact::Variable(name) | Fact::Words(name) if !host::is_own_address(name) => found.warn(
                &line.at,
                format!(
                    "{name} is in a file of the machine: here it comes from the ConfigMap {}, if there is one (kubectl create configmap {0} --from-env-file=/etc/environment)",
                    host::ENVIRONMENT
                ),
            ),
            _ => {}
        }
        env.extend(host::fact(fact));
    }
    // A variable that refers to itself needs no second entry.
    let itself = |e: &EnvVar| e.value.as_ref().is_some_and(|v| *v == format!("$({})", e.name));
    env.extend(container.env.take().into_iter().flatten().filter(|e| !itself(e)));
    container.env = (!env.is_empty()).then_some(env);
}
