//! The machine's own settings for languages' tools: where packages are fetched from, through which proxy, with which
//! credentials, and whose certificates count.
//!
//! They are copied to where a step runs, outside of what it keeps, so the step cannot change them and none becomes
//! part of a layer.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::base::APP_ID;
use super::chroot::Root;
use crate::image::{IoContext as _, Result};

/// The home directory of steps, in memory.
pub(super) const HOME: &str = "/run/home";
/// Settings have some lines; a larger file is something else.
const MAX_FILE: u64 = 1 << 20;
/// Where a machine keeps the certificates that it trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Settings of the whole machine.
const SYSTEM_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/npmrc",
    "/etc/gemrc",
    "/etc/gitconfig",
    "/etc/maven/settings.xml",
    // Java's own form of the certificates that the machine trusts.
    "/etc/ssl/certs/java/cacerts",
];

/// Settings of who builds, from the home directory.
const HOME_FILES: &[&str] = &[
    ".config/pip/pip.conf",
    ".pip/pip.conf",
    ".config/uv/uv.toml",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".gemrc",
    ".gem/credentials",
    ".bundle/config",
    ".composer/auth.json",
    ".composer/config.json",
    ".config/composer/auth.json",
    ".config/composer/config.json",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".gradle/init.gradle",
    ".gradle/init.gradle.kts",
    ".config/go/env",
    ".netrc",
    ".gitconfig",
    ".git-credentials",
    ".config/git/config",
];

/// Of cargo's settings, those that say where crates come from; others name programs and directories of this machine.
const CARGO_FILES: &[&str] = &[".cargo/config.toml", ".cargo/config"];
const CARGO_TABLES: &[&str] = &["source", "registries", "registry", "http", "net", "credential-alias"];

/// Variables by their beginnings, and what of those concerns directories here and not there.
const PREFIXES: &[&str] = &[
    "PIP_",
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "npm_config_",
    "NPM_CONFIG_",
    "YARN_NPM_",
    "YARN_REGISTRY",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "BUNDLE_MIRROR",
];
const NAMES: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "ftp_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "GOPROXY",
    "GOPRIVATE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOSUMDB",
    "GOINSECURE",
    "GONOSUMCHECK",
    "MAVEN_ARGS",
    "MAVEN_OPTS",
    "GRADLE_OPTS",
    "COMPOSER_AUTH",
    "RUBYGEMS_HOST",
    "NPM_TOKEN",
    "NODE_AUTH_TOKEN",
];
const NOT_HERE: &[&str] = &[
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_SRC",
    "PIP_CACHE_DIR",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_LOG",
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
    "PIP_PYTHON",
];
/// Of npm's: the registry and how to reach it.
const NPM: &[&str] = &[
    "registry",
    "proxy",
    "https_proxy",
    "noproxy",
    "strict_ssl",
    "_auth",
    "_authtoken",
    "fetch_retries",
    "fetch_timeout",
    "maxsockets",
];
/// What the tools call the file of the certificates that count.
const CERTIFICATE_NAMES: &[&str] = &[
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "BUNDLE_SSL_CA_CERT",
];

/// The settings of one machine, or rather of who builds on it.
pub(super) struct Machine {
    home: Option<PathBuf>,
    env: Vec<(String, String)>,
}

impl Machine {
    /// This one's.
    pub(super) fn here() -> Self {
        let env =
            std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        Self {
            home: std::env::var_os("HOME").map(PathBuf::from).filter(|h| h.is_absolute()),
            env: env.collect(),
        }
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The certificates that count here.
    fn certificates(&self) -> Option<PathBuf> {
        let named = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]
            .iter()
            .filter_map(|name| self.var(name));
        named.chain([CERTIFICATES]).map(PathBuf::from).find(|path| path.is_file())
    }

    /// Variables for the tools.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let mut env: Vec<_> =
            self.env.iter().filter(|(name, _)| self.concerns_tools(name)).cloned().collect();
        let named = self.named_in_settings();
        env.extend(self.env.iter().filter(|(name, _)| named.contains(name)).cloned());
        if let Some(proxy) = self.proxy_of_java() {
            for name in ["MAVEN_OPTS", "GRADLE_OPTS"] {
                let own = self.var(name).map(|own| format!(" {own}")).unwrap_or_default();
                env.push((name.to_owned(), format!("{proxy}{own}")));
            }
        }
        if self.certificates().is_some() {
            env.extend(CERTIFICATE_NAMES.iter().map(|name| ((*name).to_owned(), CERTIFICATES.to_owned())));
        }
        env
    }

    fn concerns_tools(&self, name: &str) -> bool {
        if NOT_HERE.contains(&name) {
            return false;
        }
        let lower = name.to_ascii_lowercase();
        match lower.strip_prefix("npm_config_") {
            Some(setting) => {
                NPM.contains(&setting) || setting.starts_with("//") || setting.ends_with(":registry")
            }
            None => {
                // `BUNDLE_GEMS__EXAMPLE__COM` has the credentials of a host.
                let of_host = name.starts_with("BUNDLE_") && name.contains("__");
                of_host || NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            }
        }
    }

    /// The proxy, for the tools that do not go by the variables of all others.
    fn proxy_of_java(&self) -> Option<String> {
        let mut options = Vec::new();
        for scheme in ["http", "https"] {
            let names = [format!("{scheme}_proxy"), format!("{}_PROXY", scheme.to_uppercase())];
            let url = names.iter().find_map(|name| self.var(name)).filter(|url| !url.is_empty());
            let Some(url) = url else { continue };
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            let rest = rest.rsplit('@').next().unwrap_or(rest).trim_end_matches('/');
            let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "80"));
            options.push(format!("-D{scheme}.proxyHost={host} -D{scheme}.proxyPort={port}"));
        }
        let direct = ["no_proxy", "NO_PROXY"].into_iter().find_map(|name| self.var(name));
        if let Some(direct) = direct.filter(|_| !options.is_empty()) {
            let hosts = direct.split(',').map(str::trim).filter(|host| !host.is_empty());
            let hosts: Vec<String> = hosts
                .map(|host| host.strip_prefix('.').map_or_else(|| host.to_owned(), |h| format!("*.{h}")))
                .collect();
            options.push(format!("-Dhttp.nonProxyHosts={}", hosts.join("|")));
        }
        (!options.is_empty()).then(|| options.join(" "))
    }

    /// Directories of this machine that settings name as places to fetch from.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut named = BTreeSet::new();
        let files = self.files();
        let texts = files.iter().map(|(_, content)| String::from_utf8_lossy(content).into_owned());
        for text in self.env().into_iter().map(|(_, value)| value).chain(texts) {
            let ends = |c: char| c.is_whitespace() || "\"'<>,|?#".contains(c);
            let by_url = text.split("file://").skip(1);
            named.extend(by_url.filter_map(|rest| rest.split(ends).next()).map(PathBuf::from));
        }
        named.extend(
            self.var("PIP_FIND_LINKS").into_iter().flat_map(str::split_whitespace).map(PathBuf::from),
        );
        for (name, content) in &files {
            let text = String::from_utf8_lossy(content);
            let keys: &[&str] = match name.rsplit('/').next() {
                Some("pip.conf") => &["find-links"],
                Some("config.toml") => &["directory", "local-registry"],
                _ => continue,
            };
            let values = text.lines().filter_map(|line| line.split_once('='));
            let values = values.filter(|(key, _)| keys.contains(&key.trim()));
            named.extend(values.map(|(_, value)| PathBuf::from(value.trim().trim_matches(['"', '\'']))));
        }
        // Nothing of the machine's system: only what is a directory beside it.
        named
            .into_iter()
            .filter(|dir| dir.components().count() > 2 && dir.is_absolute() && dir.is_dir())
            .collect()
    }

    /// `${NAME}` in npm's and yarn's settings.
    fn named_in_settings(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for file in [".npmrc", ".yarnrc.yml"] {
            let Some(text) = self.home.as_ref().and_then(|home| read(&home.join(file))) else { continue };
            let text = String::from_utf8_lossy(&text).into_owned();
            let references = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
            names.extend(references.map(|(name, _)| name.trim_end_matches('?').to_owned()));
        }
        names
    }

    /// The files that the tools look for, by where they look.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for path in SYSTEM_FILES {
            files.extend(read(Path::new(path)).map(|content| ((*path).to_owned(), content)));
        }
        if let Some(certificates) = self.certificates() {
            // There may be hundreds of them.
            files.extend(fs::read(certificates).ok().map(|content| (CERTIFICATES.to_owned(), content)));
        }
        let Some(home) = &self.home else { return files };
        for name in HOME_FILES {
            files.extend(read(&home.join(name)).map(|content| (format!("{HOME}/{name}"), content)));
        }
        let cargo = CARGO_FILES.iter().find_map(|name| read(&home.join(name)));
        if let Some(text) = cargo {
            let content = cargo_sources(&String::from_utf8_lossy(&text)).into_bytes();
            files.push((format!("{HOME}/.cargo/config.toml"), content));
        }
        files
    }

    /// Lays the files out, and makes those directories visible, for reading, that they name.
    pub(super) fn install(&self, root: &Root<'_>) -> Result<()> {
        let home = root.path.join(HOME.trim_start_matches('/'));
        fs::create_dir(&home).at("make the directory", &home)?;
        // Of its own, so that what is written there counts for nobody else's share of memory.
        mount(Some("tmpfs"), &home, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=700,size=256m"))
            .at("mount", &home)?;
        chown(&home, Some(APP_ID), Some(APP_ID)).at("change the owner of", &home)?;
        for (name, content) in self.files() {
            let path = root.path.join(name.trim_start_matches('/'));
            let private = name.starts_with(HOME);
            let mut missing = Vec::new();
            let mut parent = path.parent();
            while let Some(dir) = parent.filter(|dir| !dir.is_dir()) {
                missing.push(dir.to_owned());
                parent = dir.parent();
            }
            for dir in missing.iter().rev() {
                fs::create_dir(dir).at("make the directory", dir)?;
                if private {
                    chown(dir, Some(APP_ID), Some(APP_ID)).at("change the owner of", dir)?;
                }
            }
            // A package may have a link there, which must not be followed out of the root.
            if fs::symlink_metadata(&path).is_ok() {
                fs::remove_file(&path).at("replace", &path)?;
            }
            fs::write(&path, content).at("write", &path)?;
            let mode = if private { 0o400 } else { 0o444 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("change", &path)?;
            if private {
                chown(&path, Some(APP_ID), Some(APP_ID)).at("change the owner of", &path)?;
            }
        }
        self.directories().iter().try_for_each(|dir| show(root, dir))
    }
}

/// Makes a directory of the machine visible at the same place, unless something of the root's own is there.
fn show(root: &Root<'_>, dir: &Path) -> Result<()> {
    let path = root.path.join(dir.strip_prefix("/").unwrap_or(dir));
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(&path).at("make the directory", &path)?;
    let none: Option<&str> = None;
    mount(Some(dir), &path, none, MsFlags::MS_BIND, none).at("mount", &path)?;
    let only_read = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &path, none, only_read, none).at("mount", &path)
}

/// A file of settings, if it is one.
fn read(path: &Path) -> Option<Vec<u8>> {
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return None;
    }
    fs::read(path).ok()
}

/// Those tables of cargo's settings that say where crates come from.
fn cargo_sources(text: &str) -> String {
    let mut wanted = false;
    let mut kept = String::new();
    for line in text.lines() {
        if let Some(header) = line.trim().strip_prefix('[') {
            let name = header.trim_start_matches('[').split(['.', ']', '"', ' ']).next().unwrap_or_default();
            wanted = CARGO_TABLES.contains(&name);
        }
        if wanted {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(env: &[(&str, &str)], home: &[(&str, &str)], expect: Expect) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in home {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let machine = Machine { home: Some(dir.path().to_owned()), env };
        let mut text = String::new();
        for (name, value) in machine.env().iter().filter(|(_, value)| value != CERTIFICATES) {
            text += &format!("{name}={value}\n");
        }
        for (name, content) in machine.files().iter().filter(|(name, _)| name.starts_with(HOME)) {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(content).replace('\n', "|"));
        }
        expect.assert_eq(&text);
    }

    #[test]
    fn settings_of_tools_are_handed_on_and_others_are_not() {
        check(
            &[
                ("https_proxy", "http://proxy:1"),
                ("PIP_INDEX_URL", "https://i/simple"),
                ("PIP_TARGET", "/x"),
                ("NPM_CONFIG_REGISTRY", "https://n"),
                ("npm_config_prefix", "/y"),
                ("AWS_SECRET_ACCESS_KEY", "no"),
                ("MY_TOKEN", "t"),
                ("OTHER_TOKEN", "no"),
                ("CARGO_TARGET_DIR", "/z"),
                ("GOPROXY", "https://g"),
                ("BUNDLE_GEMS__EXAMPLE__COM", "u:p"),
                ("BUNDLE_PATH", "/no"),
                ("NO_PROXY", "localhost,.example.com"),
                ("MAVEN_OPTS", "-Xmx1g"),
            ],
            &[
                (".npmrc", "//n/:_authToken=${MY_TOKEN}\n"),
                (".ssh/id_rsa", "no"),
                (
                    ".cargo/config.toml",
                    "[build]\nrustc-wrapper = \"sccache\"\n[source.crates-io]\nreplace-with = \"m\"\n[target.x]\nlinker = \"l\"\n",
                ),
            ],
            expect![[r#"
                https_proxy=http://proxy:1
                PIP_INDEX_URL=https://i/simple
                NPM_CONFIG_REGISTRY=https://n
                GOPROXY=https://g
                BUNDLE_GEMS__EXAMPLE__COM=u:p
                NO_PROXY=localhost,.example.com
                MAVEN_OPTS=-Xmx1g
                MY_TOKEN=t
                MAVEN_OPTS=-Dhttps.proxyHost=proxy -Dhttps.proxyPort=1 -Dhttp.nonProxyHosts=localhost|*.example.com -Xmx1g
                GRADLE_OPTS=-Dhttps.proxyHost=proxy -Dhttps.proxyPort=1 -Dhttp.nonProxyHosts=localhost|*.example.com
                /run/home/.npmrc: //n/:_authToken=${MY_TOKEN}|
                /run/home/.cargo/config.toml: [source.crates-io]|replace-with = "m"|
            "#]],
        );
    }

    #[test]
    fn directories_that_packages_come_from_are_named_by_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["wheels", "proxy", "repository", "crates", "other"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::create_dir_all(path("home/.m2")).unwrap();
        fs::create_dir_all(path("home/.cargo")).unwrap();
        let url = format!("<mirror><url>file://{}</url></mirror>", path("repository").display());
        fs::write(path("home/.m2/settings.xml"), url).unwrap();
        let vendored = format!("[source.vendored]\ndirectory = \"{}\"\n", path("crates").display());
        fs::write(path("home/.cargo/config.toml"), vendored).unwrap();
        let env = [
            ("GOPROXY", format!("file://{},direct", path("proxy").display())),
            ("PIP_FIND_LINKS", format!("{} https://x /no/such", path("wheels").display())),
            ("OTHER", format!("file://{}", path("other").display())),
            ("NPM_CONFIG_REGISTRY", "file:///".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).into();
        let machine = Machine { home: Some(path("home")), env };
        let found: Vec<_> = machine.directories().into_iter().filter(|d| d.starts_with(dir.path())).collect();
        assert_eq!(found, ["crates", "proxy", "repository", "wheels"].map(path));
        assert!(!machine.directories().contains(Path::new("/")));
    }
}
