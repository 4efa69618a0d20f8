//! Files that look like secrets: by their names, as those of the usual tools, and keys by what is in them.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Keys and settings have some thousand bytes, and keys say what they are at their beginning.
const SECRET_WITHIN: u64 = 4096;
/// What a private key in text form has in its first line, whatever its kind.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";
/// What a settings file of npm or yarn sets where it holds a credential; with `${` it is a variable's name.
const NODE_CREDENTIALS: &[&str] = &["_authtoken", "_auth", "_password", "npmauthtoken", "npmauthident"];

/// Whole names, in lower case.
const NAMES: &[&str] = &[
    ".dockercfg",
    ".git-credentials",
    ".htpasswd",
    ".netrc",
    ".pgpass",
    ".pypirc",
    "application_default_credentials.json",
    "client_secret.json",
    "credentials.json",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_rsa",
    "kubeconfig",
    "master.key",
    "secrets.json",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
    "service-account.json",
    "terraform.tfstate",
    "terraform.tfvars",
];
/// Ends of names, in lower case.
const ENDS: &[&str] = &[".jks", ".kdbx", ".keystore", ".ovpn", ".p12", ".pfx", ".ppk", ".tfstate", ".tfvars"];
/// Ends of files that may hold a private key, or only a certificate or a list of them.
const MAY_HOLD_KEYS: &[&str] = &[".key", ".pem"];
/// Parts of an env file's name that say that it is an example.
const EXAMPLES: &[&str] = &["dist", "example", "sample", "template", "tmpl", "test"];

/// Whether a file of the sources may hold a secret; `path` is relative to them, `length` in bytes.
pub(super) fn may_be_secret(source: &Path, path: &Path, length: u64) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
    if length == 0 {
        return false;
    }
    if MAY_HOLD_KEYS.iter().any(|end| name.ends_with(end)) && name != "master.key" {
        return start_of(&source.join(path)).contains(PRIVATE_KEY);
    }
    if matches!(&*name, ".npmrc" | ".yarnrc" | ".yarnrc.yml") {
        return start_of(&source.join(path)).lines().any(is_node_credential);
    }
    let of_tool = name == "credentials" && parent == ".aws" || name == "config.json" && parent == ".docker";
    NAMES.contains(&&*name) || ENDS.iter().any(|end| name.ends_with(end)) || of_tool || is_env_file(&name)
}

/// `.env.production`, `prod.env`, `.envrc`, but not `.env.example`.
fn is_env_file(name: &str) -> bool {
    let env = name.starts_with(".env.") || name.ends_with(".env") || name == ".envrc";
    env && !name.split(['.', '-', '_']).any(|part| EXAMPLES.contains(&part))
}

/// Whether a line such as `//registry.example.com/:_authToken=npm_x` or `npmAuthToken: x` sets a credential.
fn is_node_credential(line: &str) -> bool {
    let Some((name, value)) = line.split_once('=').or_else(|| line.rsplit_once(": ")) else { return false };
    let name = name.rsplit(':').next().unwrap_or_default().trim().to_lowercase();
    NODE_CREDENTIALS.contains(&&*name) && !value.trim().trim_matches('"').starts_with("${")
}

/// A file that cannot be read cannot be copied either, which is said there.
fn start_of(path: &Path) -> String {
    let mut start = Vec::new();
    match File::open(path).and_then(|file| file.take(SECRET_WITHIN).read_to_end(&mut start)) {
        Ok(_) => String::from_utf8_lossy(&start).into_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name_or_content() {
        let source = tempfile::tempdir().expect("a directory");
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n";
        for (name, text, expect) in [
            ("prod.env", "A=1", true),
            (".env.production", "A=1", true),
            (".env.example", "A=1", false),
            ("sample.env", "A=1", false),
            ("empty.env", "", false),
            ("environment", "A=1", false),
            ("config/master.key", "0123", true),
            ("tls.pem", key, true),
            ("ca.pem", "-----BEGIN CERTIFICATE-----\n", false),
            ("server.key", key, true),
            ("translations.key", "hello=world", false),
            (".ssh/id_ed25519", "x", true),
            (".ssh/id_ed25519.pub", "x", false),
            (".aws/credentials", "x", true),
            ("app/credentials", "x", false),
            (".npmrc", "registry=https://r.test/\n//r.test/:_authToken=npm_x\n", true),
            (".npmrc", "//r.test/:_authToken=${NPM_TOKEN}\nlegacy-peer-deps=true\n", false),
            ("web/.yarnrc.yml", "npmScopes:\n  me:\n    npmAuthToken: x\n", true),
            (".yarnrc.yml", "npmAuthToken: \"${TOKEN}\"\nnodeLinker: node-modules\n", false),
            ("store.P12", "x", true),
            ("app.py", "x", false),
        ] {
            let path = source.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(&path, text).expect("a file");
            assert_eq!(may_be_secret(source.path(), Path::new(name), text.len() as u64), expect, "{name}");
        }
    }
}
