//! Classifies the commands of a unit: a container, a Docker management command that needs no equivalent, or a program of
//! the machine.

use super::{
    shell,
    text::{CLOSE, Fact, OPEN, Piece, Variables, Word},
};

/// The action that a command stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `docker run`: its arguments.
    Run(Vec<Word>),
    /// `docker start`, `attach`, `wait` or `logs`: the name of the container, which an earlier line creates.
    Start(String),
    /// `docker pull`: the image.
    Pull(String),
    /// `docker exec`: the container and the command.
    Exec(String, Vec<Word>),
    /// `docker stop`: its timeout in seconds.
    Stop(i64),
    /// A management command without an equivalent.
    Nothing,
    /// A program of the machine.
    Host(Vec<Word>),
}

/// Docker commands that have no lasting effect, or remove objects that do not exist in a cluster.
const HOUSEKEEPING: [&str; 28] = [
    "kill",
    "rm",
    "rmi",
    "stop",
    "wait",
    "ps",
    "images",
    "inspect",
    "history",
    "version",
    "info",
    "login",
    "logout",
    "logs",
    "top",
    "port",
    "events",
    "stats",
    "tag",
    "commit",
    "push",
    "save",
    "volume",
    "network",
    "container",
    "image",
    "system",
    "rename",
];

/// Commands that only inspect, wait or filter text.
const HARMLESS: [&str; 28] = [
    "true", ":", "exit", "echo", "sleep", "grep", "egrep", "awk", "sed", "cut", "tr", "head", "tail", "wc",
    "sort", "uniq", "xargs", "test", "[", "cd", "mkdir", "set", "printf", "date", "tee", "cat", "which",
    "command",
];

/// Classifies a command line.
pub fn actions(words: &[Word], variables: &Variables) -> Vec<Action> {
    let host = || vec![Action::Host(words.to_vec())];
    let inner = unwrapped(words);
    let Some(program) = inner.first().and_then(Word::known) else { return host() };
    match program.rsplit('/').next().unwrap_or_default() {
        "docker" | "docker.io" | "systemd-docker" | "podman" | "nerdctl" => {
            docker(&inner[1..]).map_or_else(host, |action| vec![action])
        }
        "rkt" => rkt(&inner[1..]).map_or_else(host, |action| vec![action]),
        "sh" | "bash" | "dash" | "ash" => script(&inner[1..], variables).unwrap_or_else(host),
        "true" | "sleep" => vec![Action::Nothing],
        _ => host(),
    }
}

/// The container manager of the machine that a command line would call.
pub fn called(words: &[Word]) -> Option<&'static str> {
    const MANAGERS: [&str; 6] = ["docker-compose", "docker", "rkt", "podman", "nerdctl", "weave"];
    let named = |manager: &str| {
        words.iter().map(Word::lossy).any(|text| {
            text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c)))
                .any(|w| w.rsplit('/').next() == Some(manager))
        })
    };
    MANAGERS.into_iter().find(|m| named(m))
}

/// Strips programs that only execute another one, such as `sudo` and `env`.
fn unwrapped(words: &[Word]) -> &[Word] {
    let mut rest = words;
    // Each round removes a word, so the loop ends.
    while let Some(program) = rest.first().and_then(Word::known) {
        let skip = |takes_value: &[&str], assignments: bool| {
            let mut at = 1;
            while let Some(word) = rest.get(at).and_then(Word::known) {
                if takes_value.contains(&word.as_str()) {
                    at += 2;
                } else if word.starts_with('-') || assignments && word.contains('=') {
                    at += 1;
                } else {
                    break;
                }
            }
            at
        };
        let at = match program.rsplit('/').next().unwrap_or_default() {
            "sudo" => skip(&["-u", "-g", "--user", "--group"], true),
            "env" => skip(&["-u"], true),
            "exec" | "nohup" | "setsid" | "command" => skip(&[], false),
            "nice" => skip(&["-n"], false),
            "ionice" => skip(&["-c", "-n"], false),
            "timeout" => skip(&["-s", "-k"], false) + 1,
            "flock" => skip(&["-w", "--timeout", "-E"], false) + 1,
            _ => return rest,
        };
        match rest.get(at..).filter(|r| !r.is_empty()) {
            Some(inner) => rest = inner,
            None => return words,
        }
    }
    rest
}

fn docker(words: &[Word]) -> Option<Action> {
    // Flags before the command select the Docker daemon.
    let mut at = 0;
    while let Some(word) = words.get(at).and_then(Word::known).filter(|w| w.starts_with('-')) {
        let takes_value =
            ["-H", "--host", "-l", "--log-level", "--config", "-c", "--context", "--cgroups", "-p", "-n"];
        at += if takes_value.contains(&word.as_str()) { 2 } else { 1 };
    }
    let verb = words.get(at).and_then(Word::known)?;
    let rest = &words[at + 1..];
    let text = |word: &Word| word.known();
    match verb.as_str() {
        "run" | "create" => Some(Action::Run(rest.to_vec())),
        "container" if rest.first().and_then(text).is_some_and(|v| v == "run" || v == "create") => {
            Some(Action::Run(rest[1..].to_vec()))
        }
        "start" | "attach" | "wait" | "logs" => {
            let name = rest.iter().rev().find_map(text).filter(|n| !n.starts_with('-'))?;
            Some(Action::Start(name))
        }
        "pull" => {
            // An image known only on the node is pulled when it is used, like any other.
            let image = rest.iter().find(|w| text(w).is_none_or(|w| !w.starts_with('-')))?;
            Some(Action::Pull(text(image).unwrap_or_default()))
        }
        "exec" => {
            let mut container = 0;
            while let Some(flag) = rest.get(container).and_then(text).filter(|w| w.starts_with('-')) {
                let takes_value =
                    ["-u", "--user", "-e", "--env", "-w", "--workdir", "--env-file", "--detach-keys"];
                container += if takes_value.contains(&flag.as_str()) { 2 } else { 1 };
            }
            Some(Action::Exec(text(rest.get(container)?)?, rest[container + 1..].to_vec()))
        }
        "stop" => {
            let seconds = rest.iter().filter_map(text).enumerate().find_map(|(i, word)| {
                let value =
                    word.strip_prefix("--time=").or(word.strip_prefix("-t=")).or(word.strip_prefix("-t"));
                match value {
                    Some("") => rest.get(i + 1).and_then(text)?.parse().ok(),
                    None if word == "--time" => rest.get(i + 1).and_then(text)?.parse().ok(),
                    value => value?.parse().ok(),
                }
            });
            // Docker's default timeout.
            Some(Action::Stop(seconds.unwrap_or(10)))
        }
        verb if HOUSEKEEPING.contains(&verb) => Some(Action::Nothing),
        _ => None,
    }
}

/// Flags of `rkt run` without effect on the container, alone or with `=VALUE`.
const RKT_NO_EFFECT: [&str; 7] = [
    "insecure-options",
    "stage1-from-dir",
    "trust-keys-from-https",
    "inherit-env",
    "interactive",
    "store-only",
    "no-store",
];
/// Flags of `rkt run` without effect on the container whose value may be the next word.
const RKT_NO_EFFECT_WITH_VALUE: [&str; 4] = ["uuid-file-save", "stage1-path", "stage1-name", "dns"];

/// Translates `rkt run` to the equivalent `docker run`.
fn rkt(words: &[Word]) -> Option<Action> {
    let mut out: Vec<Word> = Vec::new();
    let mut volumes: Vec<(String, String)> = Vec::new();
    let mut rest = words.iter().skip_while(|w| w.known().is_some_and(|w| w.starts_with("--")));
    match rest.next().and_then(Word::known)?.as_str() {
        "run" => {}
        "gc" | "rm" | "stop" | "fetch" | "trust" | "list" | "status" | "image" => {
            return Some(Action::Nothing);
        }
        _ => return None,
    }
    let mut image = None;
    let mut command: Vec<Word> = Vec::new();
    let mut rest = rest.peekable();
    while let Some(word) = rest.next() {
        let text = word.known()?;
        let Some(flag) = text.strip_prefix("--") else {
            image.get_or_insert(text.trim_start_matches("docker://").to_string());
            continue;
        };
        let (flag, value) = flag.split_once('=').map_or((flag, None), |(f, v)| (f, Some(v.to_string())));
        let mut value = || value.clone().or_else(|| rest.next().and_then(Word::known));
        match flag {
            "" => {
                command = rest.cloned().collect();
                break;
            }
            flag if RKT_NO_EFFECT.contains(&flag) => {}
            flag if RKT_NO_EFFECT_WITH_VALUE.contains(&flag) => {
                if !text.contains('=') {
                    rest.next();
                }
            }
            "net" => out.push(Word::of(&format!("--net={}", value().filter(|v| v == "host")?))),
            "set-env" | "environment" => out.extend([Word::of("-e"), Word::of(&value()?)]),
            "hostname" => out.extend([Word::of("--hostname"), Word::of(&value()?)]),
            "exec" => out.extend([Word::of("--entrypoint"), Word::of(&value()?)]),
            "memory" => out.extend([Word::of("-m"), Word::of(&value()?.to_lowercase())]),
            "port" => {
                let value = value()?;
                out.extend([
                    Word::of("-p"),
                    Word::of(value.rsplit(':').next().filter(|p| !p.contains('-'))?),
                ]);
            }
            "volume" => {
                let value = value()?;
                let (name, rest) = value.split_once(',')?;
                let source = rest.split(',').find_map(|p| p.strip_prefix("source="));
                volumes.push((name.into(), source.unwrap_or_default().into()));
            }
            "mount" => {
                let value = value()?;
                let part = |key: &str| value.split(',').find_map(|p| p.strip_prefix(key).map(str::to_string));
                let (volume, target) = (part("volume=")?, part("target=")?);
                let source = &volumes.iter().find(|(name, _)| *name == volume)?.1;
                let bind = if source.is_empty() { target } else { format!("{source}:{target}") };
                out.extend([Word::of("-v"), Word::of(&bind)]);
            }
            _ => return None,
        }
    }
    out.push(Word::of(&image?));
    out.extend(command);
    Some(Action::Run(out))
}

/// Classifies the commands of a shell script `-c TEXT`; `None` unless all of them are understood.
fn script(words: &[Word], variables: &Variables) -> Option<Vec<Action>> {
    let flags = words.iter().take_while(|w| w.known().is_some_and(|w| w.starts_with(['-', '+']))).count();
    let is_c = words.get(flags.checked_sub(1)?)?.known()?.ends_with('c');
    // Further words are the script's own arguments.
    let [text] = words.get(flags..).filter(|_| is_c)? else { return None };
    called(words)?;
    let script = Script::of(text);
    // The output of a command may be an argument of Docker; otherwise the command itself counts too.
    let prints = |words: &[Word]| words.iter().any(|w| w.facts().any(|f| matches!(f, Fact::Output(_))));
    let understood = |c: &Vec<Word>| plain(c).filter(|_| is_docker(c) || !prints(c));
    if let Some(commands) = script.commands(variables, false)
        && let Some(actions) = commands.iter().map(understood).collect::<Option<Vec<_>>>()
    {
        return Some(actions);
    }
    // A pipe that only finds and removes old containers.
    let commands = script.commands(variables, true)?;
    let actions = commands.iter().map(|c| plain(c)).collect::<Option<Vec<_>>>()?;
    actions.iter().all(|a| matches!(a, Action::Nothing | Action::Stop(_))).then_some(actions)
}

/// A shell script in which each node value is replaced by its index between [`OPEN`] and [`CLOSE`].
struct Script<'a> {
    text: String,
    facts: Vec<&'a Fact>,
}

impl<'a> Script<'a> {
    fn of(word: &'a Word) -> Self {
        let mut script = Script { text: String::new(), facts: Vec::new() };
        for part in &word.0 {
            match part {
                Piece::Known(text) => script.text.push_str(text),
                Piece::Node(fact) => {
                    script.text.push_str(&format!("{OPEN}{}{CLOSE}", script.facts.len()));
                    script.facts.push(fact);
                }
            }
        }
        script
    }

    fn commands(&self, variables: &Variables, pipes: bool) -> Option<Vec<Vec<Word>>> {
        let commands = shell::commands(&self.text, variables, pipes)?;
        if self.facts.is_empty() {
            return Some(commands);
        }
        Some(
            commands
                .into_iter()
                .map(|words| words.into_iter().map(|w| self.with_facts(w)).collect())
                .collect(),
        )
    }

    /// Replaces the indexes in a word by the node values.
    fn with_facts(&self, word: Word) -> Word {
        let mut out = Vec::new();
        for part in word.0 {
            let Piece::Known(text) = part else {
                out.push(part);
                continue;
            };
            let mut pieces = text.split(OPEN);
            out.extend(pieces.next().filter(|t| !t.is_empty()).map(|t| Piece::Known(t.into())));
            for piece in pieces {
                let (number, rest) = piece.split_once(CLOSE).unwrap_or(("", piece));
                let fact = number.parse().ok().and_then(|n: usize| self.facts.get(n));
                out.extend(fact.map(|fact| Piece::Node((*fact).clone())));
                out.extend(Some(rest).filter(|t| !t.is_empty()).map(|t| Piece::Known(t.into())));
            }
        }
        Word(out)
    }
}

fn is_docker(words: &[Word]) -> bool {
    let program = unwrapped(words).first().and_then(Word::known).unwrap_or_default();
    ["docker", "docker.io"].contains(&program.rsplit('/').next().unwrap_or_default())
}

/// Classifies a command of a script: a Docker command or one without effect.
fn plain(words: &[Word]) -> Option<Action> {
    let inner = unwrapped(words);
    let program = inner.first()?.known()?;
    match program.rsplit('/').next().unwrap_or_default() {
        "docker" | "docker.io" => docker(&inner[1..]),
        // The command that `xargs` executes counts too.
        "xargs" => {
            let command = inner.iter().skip(1).position(|w| w.known().is_some_and(|w| !w.starts_with('-')));
            command.map_or(Some(Action::Nothing), |at| plain(&inner[at + 1..]))
        }
        name => HARMLESS.contains(&name).then_some(Action::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::words;

    fn shown(words: &[Word]) -> String {
        words.iter().map(Word::kubernetes).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn c04_lines_of_docker() {
        let check = |line: &str, expect: &[&str]| {
            let words: Vec<Word> = words::split(line).unwrap().iter().map(|w| Word::of(&w.text)).collect();
            let found: Vec<String> = actions(&words, &Variables::default())
                .iter()
                .map(|action| match action {
                    Action::Run(words) => format!("run {}", shown(words)),
                    Action::Start(name) => format!("start {name}"),
                    Action::Pull(image) => format!("pull {image}"),
                    Action::Exec(name, words) => format!("exec {name}: {}", shown(words)),
                    Action::Stop(seconds) => format!("stop {seconds}"),
                    Action::Nothing => "nothing".into(),
                    Action::Host(words) => format!("host {}", words.len()),
                })
                .collect();
            assert_eq!(found, expect, "{line}");
        };
        check("/usr/bin/docker run --rm --name web nginx", &["run --rm --name web nginx"]);
        check("/usr/bin/env docker -H unix:///x run nginx", &["run nginx"]);
        check("sudo -E docker run nginx", &["run nginx"]);
        check("/bin/sh -c 'docker run nginx'", &["run nginx"]);
        check("/bin/bash -lc 'exec /usr/bin/docker run nginx'", &["run nginx"]);
        check("/bin/sh -c 'docker rm -f a; docker run --name a nginx echo $$x'", &["host 3"]);
        check(
            "/bin/sh -c 'docker inspect d || docker run --name d -v /d busybox true'",
            &["nothing", "run --name d -v /d busybox true"],
        );
        check("/bin/sh -c 'docker history x >/dev/null || docker pull x'", &["nothing", "pull x"]);
        check("/bin/sh -c 'docker ps -aq | xargs docker rm'", &["nothing", "nothing"]);
        check("/bin/sh -c 'docker ps | grep x | xargs -r rm -rf /'", &["host 3"]);
        check("/bin/sh -c 'while true; do docker run x; done'", &["host 3"]);
        check("/bin/sh -c 'docker run $(etcdctl get x)'", &["run $(UNIT_OUTPUT)"]);
        check("/bin/sh -c 'etcdctl set x y'", &["host 3"]);
        check("/usr/bin/docker kill web", &["nothing"]);
        check("docker volume create --name x", &["nothing"]);
        check("docker stop -t 30 web", &["stop 30"]);
        check("docker stop --time=5 web", &["stop 5"]);
        check("docker stop web", &["stop 10"]);
        check("docker pull quay.io/a/b:1", &["pull quay.io/a/b:1"]);
        check("docker start -a web", &["start web"]);
        check("docker logs -f web", &["start web"]);
        check("docker create --name web nginx", &["run --name web nginx"]);
        check("docker exec -it web ls -l", &["exec web: ls -l"]);
        check("docker exec -u root --env=A=b web ls", &["exec web: ls"]);
        check("docker exec -u", &["host 3"]);
        check("/bin/bash -c 'docker exec web sh -c \"a b\"'", &["exec web: sh -c a b"]);
        check("/bin/sh -c 'docker stop $(cat /run/x.cid)'", &["stop 10"]);
        check("/bin/sh -c 'docker rm -v $(docker ps -aq --filter name=x)'", &["nothing"]);
        check("/bin/sh -c 'docker rm x; echo $(etcdctl set x y)'", &["host 3"]);
        check("/bin/sh -c 'docker pull $(cat x)'", &["pull "]);
        check(
            "/bin/sh -c 'IMAGE=`get x` && docker history $IMAGE || flock -w 9 /l docker pull $IMAGE'",
            &["nothing", "pull "],
        );
        check("/usr/local/bin/nerdctl run nginx", &["run nginx"]);
        check("docker build -t x .", &["host 5"]);
        check("docker-compose up", &["host 2"]);
        check("/usr/bin/etcdctl set a b", &["host 4"]);
        check(
            "/usr/bin/rkt --insecure-options=image run --net=host --volume d,kind=host,source=/d --mount volume=d,target=/x \
             --set-env=A=b docker://redis:3 -- --port 1",
            &["run --net=host -v /d:/x -e A=b redis:3 --port 1"],
        );
        check("rkt run --odd coreos.com/etcd:v2", &["host 4"]);
        check("sudo", &["host 1"]);
        check("timeout 5", &["host 2"]);
    }
}
