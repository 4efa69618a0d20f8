//! What the tools' complaints mean, and what to do about them.

/// How many lines of a tool's output tell why it failed.
const LINES: usize = 5;
/// And how many of one that begins with the reason.
const FIRST_LINES: usize = 3;

/// What to do where nothing is reached.
const UNREACHABLE: &str = "what it fetches from cannot be reached, check the network, the proxy settings and this \
                           machine's settings for mirrors";

/// The build reaches nobody: no second try would help.
const NO_NETWORK: &[&str] = &[
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve host",
    "Could not resolve:",
    "could not resolve host",
    "Name or service not known",
    "getaddrinfo",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ENETUNREACH",
    "ETIMEDOUT",
    "Network is unreachable",
    "Connection refused",
    "Connection timed out",
    "no such host",
    "dial tcp",
    "Unknown host",
    "UnknownHostException",
    "Could not reach host",
    "Could not fetch specs",
    "Could not find a version that satisfies the requirement pip",
    "Transfer failed for",
    "Could not transfer artifact",
    "curl error",
];

/// Beginnings of explanations: a piece of output, and what to do about it.
const ADVICE: &[(&str, &str)] = &[
    (
        "your Gemfile specified",
        "change the `ruby` line of the Gemfile, or build on a release of Debian that has that Ruby",
    ),
    (
        "can only install packages when your package.json and package-lock.json",
        "run `npm install` and keep the package-lock.json that it writes",
    ),
    ("Your lockfile needs to be updated", "run `yarn install` and keep the yarn.lock that it writes"),
    ("ERR_PNPM_OUTDATED_LOCKFILE", "run `pnpm install` and keep the pnpm-lock.yaml that it writes"),
    ("requires rustc", "use versions of the crates that the Rust of this machine's package sources compiles"),
    ("lock file version", "regenerate the Cargo.lock with an older cargo"),
    ("missing go.sum entry", "run `go mod tidy` and keep the go.mod and go.sum that it writes"),
    ("updates to go.mod needed", "run `go mod tidy` and keep the go.mod and go.sum that it writes"),
    (
        "checksum mismatch",
        "a module does not match its checksum in go.sum; find out why before you regenerate it",
    ),
    ("changed significantly since poetry.lock", "run `poetry lock` and keep the poetry.lock that it writes"),
    (
        "is no longer supported. Use",
        "raise `maven.compiler.source` and `target`, or what sets them, in the build file",
    ),
    (
        "release version",
        "this machine's package sources have an older Java; lower the release in the build file",
    ),
    (
        "invalid go version",
        "this machine's package sources have an older Go; lower the `go` line of the go.mod",
    ),
    (
        "note: module requires Go",
        "this machine's package sources have an older Go; lower the `go` line of the go.mod",
    ),
    ("No matching distribution found", "check the name and version in the requirements"),
    (
        "Could not find gem",
        "check the Gemfile's names and sources, or name the gems' Debian packages in an Aptfile",
    ),
    ("npm ERR! 404", "check the names and versions in the package.json"),
    ("npm error 404", "check the names and versions in the package.json"),
    ("Your requirements could not be resolved", "check the composer.json"),
    ("THESE PACKAGES DO NOT MATCH THE HASHES", "regenerate the hashes of the requirements"),
    ("No space left on device", "free some space"),
];

/// Whether a second try with compilers and headers could succeed.
pub(super) fn may_be_a_compiler(log: &str) -> bool {
    const NEVER: &[&str] =
        &["No matching distribution found", "404 Not Found", "can only install packages when your"];
    const SIGNS: &[&str] = &[
        "gcc",
        "g++",
        "cc1",
        "compiler",
        "Python.h",
        ".h: No such file",
        "node-gyp",
        "gyp ERR",
        "make",
        "extconf",
        "pg_config",
        "mysql_config",
        "Failed building wheel",
        "failed building wheel",
        "subprocess-exited-with-error",
        "cargo",
        "rustc",
        "pkg-config",
        "cmake",
        "swig",
        "git",
        "could not find ruby headers",
        "mkmf",
    ];
    let network = NO_NETWORK.iter().any(|sign| log.contains(sign));
    !network && !NEVER.iter().any(|sign| log.contains(sign)) && SIGNS.iter().any(|sign| log.contains(sign))
}

/// So many characters of a tool's own words leave room for what to do about them.
const STORY: usize = 270;

/// A tool's output in a sentence.
pub(super) fn explain(log: &str) -> String {
    let mut story = relevant(log);
    let network = NO_NETWORK.iter().any(|sign| log.contains(sign));
    let advice = ADVICE.iter().find(|(sign, _)| log.contains(sign)).map(|(_, advice)| *advice);
    let Some(advice) = advice.or(network.then_some(UNREACHABLE)) else { return story };
    if let Some((at, _)) = story.char_indices().nth(STORY) {
        story.truncate(at);
        story.push('…');
    }
    format!("{story}; {advice}")
}

/// The lines that speak of an error, or else the last ones.
pub(super) fn relevant(log: &str) -> String {
    let clean = |line: &str| -> String {
        let line = without_colours(line);
        let line = line.trim().trim_start_matches("[ERROR]");
        line.trim_matches(|c: char| c.is_whitespace() || "|│┃╭╰─".contains(c)).to_owned()
    };
    // Maven and gradle say why at once, and then at length where to read more.
    let plain = log.lines().map(without_colours).collect::<Vec<_>>().join("\n");
    let maven = plain.contains("[ERROR]").then(|| plain.lines().filter(|l| l.contains("[ERROR]")).collect());
    let gradle = log.split("* What went wrong:").nth(1).and_then(|rest| rest.split("* Try:").next());
    let told: Option<Vec<&str>> = maven.or(gradle.map(|text| text.lines().collect()));
    if let Some(told) = told {
        let first: Vec<String> = told
            .into_iter()
            .map(clean)
            .filter(|line| {
                line.chars().any(char::is_alphanumeric)
                    && ![
                        "To see the full",
                        "Re-run Maven",
                        "For more information",
                        "[Help ",
                        "-> [Help",
                        "After correcting",
                    ]
                    .iter()
                    .any(|words| line.starts_with(words))
            })
            .collect();
        return first.into_iter().take(FIRST_LINES).collect::<Vec<_>>().join("; ");
    }
    let lines: Vec<String> =
        log.lines().map(clean).filter(|line| line.chars().any(char::is_alphanumeric)).collect();
    let speaks = |line: &&String| {
        let lower = line.to_lowercase();
        ["error", "err!", "failed", "fatal", "cannot", "could not", "not found", "specified", "unable"]
            .iter()
            .any(|word| lower.contains(word))
            && !["complete log", "_logs/", "npm err! 404 note that", "retrying", "stack error"]
                .iter()
                .any(|word| lower.contains(word))
    };
    let mut errors: Vec<&String> = lines.iter().filter(speaks).collect();
    errors.dedup();
    let chosen: Vec<&String> = match errors.len() {
        0 => lines.iter().skip(lines.len().saturating_sub(LINES)).collect(),
        n => errors.into_iter().skip(n.saturating_sub(LINES)).collect(),
    };
    chosen.into_iter().map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// A line as it is read, without the codes that colour it on a terminal.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text +=
            part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').get(1..).unwrap_or_default();
    }
    text.retain(|c| !c.is_control());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_explained() {
        let check = |log: &str, compiler: bool, expect: &str| {
            assert_eq!(may_be_a_compiler(log), compiler, "{log}");
            assert_eq!(explain(log), expect);
        };
        check(
            "Collecting nosuch\nERROR: Could not find a version that satisfies the requirement nosuch\nERROR: No matching distribution found for nosuch\n",
            false,
            "ERROR: Could not find a version that satisfies the requirement nosuch; ERROR: No matching distribution \
             found for nosuch; check the name and version in the requirements",
        );
        check(
            "building\nerror: command 'gcc' failed: No such file\n",
            true,
            "error: command 'gcc' failed: No such file",
        );
        check(
            "npm ERR! code EAI_AGAIN\nnpm ERR! A complete log of this run can be found in: x\n",
            false,
            "npm ERR! code EAI_AGAIN; what it fetches from cannot be reached, check the network, the proxy \
             settings and this machine's settings for mirrors",
        );
        check("one\ntwo\n", false, "one; two");
        check("", false, "");
        check(
            "[INFO] x\n[\u{1b}[1;31mERROR\u{1b}[m] Plugin a:b:1 could not be resolved: Unknown host r.example\n[ERROR]\n\
             [ERROR] To see the full stack trace, use -e\n[ERROR] Re-run Maven with -X\n[ERROR] [Help 1] http://x\n",
            false,
            "Plugin a:b:1 could not be resolved: Unknown host r.example; what it \
             fetches from cannot be reached, check the network, the proxy settings and this machine's settings for mirrors",
        );
        check(
            "FAILURE: Build failed with an exception.\n\n* What went wrong:\nCould not resolve all files.\n\
             > Could not find x.\n\n* Try:\nRun with --stacktrace\n",
            false,
            "Could not resolve all files.; > Could not find x.",
        );
    }
}
