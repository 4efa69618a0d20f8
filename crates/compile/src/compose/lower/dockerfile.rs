//! What a Dockerfile says of the container that its image makes, without building it.

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use crate::docker_run;

/// What a stage says, with what the stages say that it begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dockerfile {
    /// `EXPOSE`: port and protocol.
    pub exposed: Vec<(u16, String)>,
    /// `VOLUME`
    pub volumes: Vec<String>,
}

/// A stage under way.
#[derive(Debug, Clone, Default)]
struct Stage {
    says: Dockerfile,
    /// `ENV`, and `ARG` beneath it.
    variables: BTreeMap<String, String>,
}

/// Reads the stage `target`, by its name or number, or else the last one. `args` are the build's own arguments.
pub(super) fn read(text: &str, target: Option<&str>, args: &IndexMap<String, String>) -> Dockerfile {
    let mut stages: Vec<Stage> = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut before_first = Stage::default();
    for line in lines(text) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line.as_str(), ""));
        let word = word.to_ascii_uppercase();
        if word == "FROM" {
            let (base, name) = from(rest, &before_first.variables);
            let mut stage = names.get(&base).map(|at| stages[*at].clone()).unwrap_or_default();
            // Arguments belong to the stage that declares them, variables of the environment to those upon it.
            stage.variables.retain(|name, _| !name.starts_with(ARGUMENT));
            names.extend(name.map(|name| (name, stages.len())));
            stages.push(stage);
            continue;
        }
        instruction(&word, rest, stages.last_mut().unwrap_or(&mut before_first), args);
    }
    let wanted = target.and_then(|target| {
        let named = names.get(&target.to_ascii_lowercase()).copied();
        named.or_else(|| target.parse::<usize>().ok()).filter(|at| *at < stages.len())
    });
    let stage = wanted.map_or_else(|| stages.last(), |at| stages.get(at));
    stage.map(|stage| stage.says.clone()).unwrap_or_default()
}

/// Marks a variable that is an argument. No name of a variable begins with it.
const ARGUMENT: char = '=';

/// Lines with those that continue them, without comments and what stands in heredocs.
fn lines(text: &str) -> Vec<String> {
    let escape = if text.lines().take_while(|l| l.starts_with('#')).any(is_backtick) { '`' } else { '\\' };
    let (mut all, mut open) = (Vec::new(), String::new());
    let mut heredoc: Option<String> = None;
    for line in text.lines() {
        if let Some(end) = &heredoc {
            if line.trim_start_matches('\t') == end {
                heredoc = None;
            }
            continue;
        }
        let trimmed = line.trim();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        match trimmed.strip_suffix(escape) {
            Some(part) => {
                open.push_str(part);
                open.push(' ');
            }
            None => {
                open.push_str(trimmed);
                heredoc = heredoc_end(&open);
                all.push(std::mem::take(&mut open));
            }
        }
    }
    if !open.is_empty() {
        all.push(open);
    }
    all
}

fn is_backtick(line: &str) -> bool {
    let directive = line.trim_start_matches('#').replace(' ', "").to_ascii_lowercase();
    directive == "escape=`"
}

/// The word that ends the text after `RUN <<EOF` or `COPY <<EOF`.
fn heredoc_end(line: &str) -> Option<String> {
    let word = line.split_whitespace().next()?.to_ascii_uppercase();
    let (_, after) = line.split_once("<<").filter(|_| ["RUN", "COPY", "ADD"].contains(&&*word))?;
    let word = after.trim_start_matches('-').split_whitespace().next()?;
    let word: String = word.chars().filter(|c| !"\"'".contains(*c)).collect();
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.then_some(word)
}

/// What a stage begins with and what it is called, both in lower case as stages' names are compared.
fn from(rest: &str, variables: &BTreeMap<String, String>) -> (String, Option<String>) {
    let words: Vec<&str> = rest.split_whitespace().filter(|w| !w.starts_with("--")).collect();
    let base = expanded(words.first().copied().unwrap_or_default(), variables).to_ascii_lowercase();
    let name = match words[..] {
        [_, as_, name, ..] if as_.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    (base, name)
}

fn instruction(word: &str, rest: &str, stage: &mut Stage, args: &IndexMap<String, String>) {
    match word {
        "ARG" => {
            for pair in docker_run::split(rest).unwrap_or_default() {
                let (name, default) = pair.split_once('=').map_or((&*pair, None), |(n, v)| (n, Some(v)));
                let value =
                    args.get(name).cloned().or_else(|| default.map(|d| expanded(d, &stage.variables)));
                if let Some(value) = value {
                    stage.variables.insert(format!("{ARGUMENT}{name}"), value);
                }
            }
        }
        "ENV" => {
            let pairs = docker_run::split(rest).unwrap_or_default();
            match rest.split_once(char::is_whitespace) {
                // The old form has one variable and no sign.
                Some((name, value)) if !name.contains('=') => {
                    stage.variables.insert(name.into(), expanded(value.trim(), &stage.variables));
                }
                _ => {
                    for (name, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
                        stage.variables.insert(name.into(), expanded(value, &stage.variables));
                    }
                }
            }
        }
        "EXPOSE" => {
            let rest = expanded(rest, &stage.variables);
            let ports = rest.split_whitespace().flat_map(ports);
            stage.says.exposed.extend(ports);
        }
        "VOLUME" => {
            let rest = expanded(rest.trim(), &stage.variables);
            let list: Vec<String> =
                serde_json::from_str(&rest).or_else(|_| docker_run::split(&rest)).unwrap_or_default();
            stage.says.volumes.extend(list.into_iter().filter(|p| p.starts_with('/')));
        }
        _ => {}
    }
}

/// `80`, `53/udp`, `8000-8002`
fn ports(written: &str) -> Vec<(u16, String)> {
    let (ports, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first > 0 && ["tcp", "udp", "sctp"].contains(&&*protocol) => {
            (first..=last).map(|port| (port, protocol.clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// `$NAME`, `${NAME}` and `${NAME:-default}` replaced; what is not known becomes nothing.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let value =
        |name: &str| variables.get(name).or_else(|| variables.get(&format!("{ARGUMENT}{name}"))).cloned();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut all, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        all.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some((inner, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
            all.push_str(&value(name).filter(|v| !v.is_empty()).unwrap_or_else(|| default.into()));
            rest = after;
        } else {
            let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
            all.push_str(&value(&rest[..end]).unwrap_or_default());
            rest = &rest[end..];
        }
    }
    all + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_says_what_those_say_that_it_begins_with() {
        let check =
            |text: &str, target: Option<&str>, args: &[(&str, &str)], ports: &str, volumes: &[&str]| {
                let args = args.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
                let file = read(text, target, &args);
                let shown: Vec<String> =
                    file.exposed.iter().map(|(p, protocol)| format!("{p}/{protocol}")).collect();
                assert_eq!(shown.join(" "), ports, "{text}");
                assert_eq!(file.volumes, volumes, "{text}");
            };
        let last = "FROM a AS b\nEXPOSE 1\nFROM c\nexpose 80 53/udp \\\n 443/tcp $PORT\nVOLUME [\"/data\", \"/x\"]\nVOLUME /y /z\n";
        check(last, None, &[], "80/tcp 53/udp 443/tcp", &["/data", "/x", "/y", "/z"]);
        let stages =
            "FROM x AS Base\nEXPOSE 8000\nVOLUME /data\nFROM base AS dev\nCMD a\nFROM scratch\nEXPOSE 9000\n";
        check(stages, Some("dev"), &[], "8000/tcp", &["/data"]);
        check(stages, Some("DEV"), &[], "8000/tcp", &["/data"]);
        check(stages, Some("1"), &[], "8000/tcp", &["/data"]);
        check(stages, None, &[], "9000/tcp", &[]);
        check(stages, Some("none"), &[], "9000/tcp", &[]);
        let variables = "ARG BASE=one\nFROM x AS one\nEXPOSE 1\nFROM x AS two\nEXPOSE 2\nFROM ${BASE}\nARG PORT=80\nENV ALSO=$PORT OTHER=7\nEXPOSE $PORT ${ALSO}/udp ${NONE:-90}\n";
        check(variables, None, &[], "1/tcp 80/tcp 80/udp 90/tcp", &[]);
        check(variables, None, &[("BASE", "two"), ("PORT", "81")], "2/tcp 81/tcp 81/udp 90/tcp", &[]);
        check(
            "FROM a\nENV PORT 70\nEXPOSE $PORT 8000-8002\n",
            None,
            &[],
            "70/tcp 8000/tcp 8001/tcp 8002/tcp",
            &[],
        );
        check("FROM a\nRUN <<EOF\nEXPOSE 1\nEOF\n# EXPOSE 2\nEXPOSE 3\n", None, &[], "3/tcp", &[]);
        check("# escape=`\nFROM a\nEXPOSE 1 `\n 2\nVOLUME C:\\x\n", None, &[], "1/tcp 2/tcp", &[]);
    }
}
