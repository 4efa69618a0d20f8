//! What the tools' complaints mean, and what to do about them.

/// How many lines of a tool's output tell why it failed.
const LINES: usize = 5;

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
    ("lock file version", "write the Cargo.lock anew with an older cargo"),
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
    ("THESE PACKAGES DO NOT MATCH THE HASHES", "write the requirements' hashes anew"),
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

/// A tool's output in a sentence.
pub(super) fn explain(log: &str) -> String {
    let story = relevant(log);
    if let Some((_, advice)) = ADVICE.iter().find(|(sign, _)| log.contains(sign)) {
        return format!("{story}; {advice}");
    }
    if NO_NETWORK.iter().any(|sign| log.contains(sign)) {
        return format!(
            "{story}; what it fetches from cannot be reached, check the network and the proxy settings"
        );
    }
    story
}

/// The last lines that speak of an error, or else the last ones.
pub(super) fn relevant(log: &str) -> String {
    let clean = |line: &str| -> String {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        line.trim().to_owned()
    };
    let lines: Vec<String> =
        log.lines().map(clean).filter(|line| line.chars().any(char::is_alphanumeric)).collect();
    let speaks = |line: &&String| {
        let lower = line.to_lowercase();
        ["error", "err!", "failed", "fatal", "cannot", "could not", "not found", "specified", "unable"]
            .iter()
            .any(|word| lower.contains(word))
            && !["complete log", "a complete log", "retrying", "stack error"]
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
            "npm ERR! code EAI_AGAIN; what it fetches from cannot be reached, check the network and the proxy settings",
        );
        check("one\ntwo\n", false, "one; two");
        check("", false, "");
    }
}
