//! Parses the address of a `source`: a local directory or a remote source, in Otto's notation.
//!
//! | written | is |
//! |---|---|
//! | `./db`, `../db`, `/srv/db`, `file:///srv/db`, `/srv//db` | a directory |
//! | `github.com/o/r`, `github.com/o/r/sub` | `git::https://github.com/o/r.git`, `...//sub`; so `bitbucket.org` and `gitlab.com` |
//! | `git@host:o/r.git` | `git::ssh://git@host/o/r.git` |
//! | `git://...`, `ssh://...`, `https://host/o/r.git`, `git::ADDRESS` | a git repository |
//! | `hg::ADDRESS` | a Mercurial repository |
//! | `https://host/a.tar.gz` | an archive |
//! | `https://host/page` | a page that names the source in a header or a `<meta>` tag |
//!
//! Each may end in `//SUBDIRECTORY` and then in `?ref=BRANCH`, `?rev=...`, `?archive=zip`, `?checksum=sha256:...`.

use std::fmt;

/// The location of a source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Located {
    /// On this machine. The tool (`git::./db`) and the query apply if it is a repository.
    Local {
        path: String,
        subdir: Option<String>,
        tool: Option<Tool>,
        revision: Option<String>,
    },
    Remote(Remote),
}

/// The tool that fetches a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Git,
    Hg,
    Http,
}

/// A remote source. Its `Display` form is the full address without passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub tool: Tool,
    /// The address passed to the tool.
    pub address: String,
    /// The directory within the source.
    pub subdir: Option<String>,
    /// The branch, tag or commit.
    pub revision: Option<String>,
    /// The kind of archive, if given by `?archive=`.
    pub archive: Option<String>,
    /// `sha256:...` of the archive.
    pub checksum: Option<String>,
}

/// Extensions of archives.
pub(crate) const ARCHIVES: [&str; 9] =
    ["tar.gz", "tgz", "tar.zst", "tar", "zip", "tar.bz2", "tbz2", "tar.xz", "txz"];

const HOSTS: [&str; 3] = ["github.com", "bitbucket.org", "gitlab.com"];

impl Remote {
    /// The whole source at `address`.
    pub fn new(tool: Tool, address: String) -> Self {
        Remote { tool, address, subdir: None, revision: None, archive: None, checksum: None }
    }

    /// The repository or archive that contains this source, without the directory.
    pub fn whole(&self) -> Remote {
        Remote { subdir: None, ..self.clone() }
    }

    /// The last part of the address, which serves as a name.
    pub fn base(&self) -> &str {
        let path = self.subdir.as_deref().unwrap_or(&self.address);
        let path = path.split('?').next().unwrap_or_default().trim_end_matches(['/', '*']);
        let base = path.rsplit(['/', ':']).next().unwrap_or_default();
        let base = base.strip_suffix(".git").unwrap_or(base);
        ARCHIVES.iter().find_map(|a| base.strip_suffix(a)?.strip_suffix('.')).unwrap_or(base)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tool {
            Tool::Git => f.write_str("git::")?,
            Tool::Hg => f.write_str("hg::")?,
            Tool::Http => {}
        }
        let address = without_password(&self.address);
        let (address, query) = address.split_once('?').unwrap_or((&address, ""));
        f.write_str(address)?;
        if let Some(subdir) = &self.subdir {
            write!(f, "//{subdir}")?;
        }
        let revision = if self.tool == Tool::Hg { "rev" } else { "ref" };
        let named = [(revision, &self.revision), ("archive", &self.archive), ("checksum", &self.checksum)];
        let named = named.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
        let query: Vec<String> =
            Some(query.to_string()).filter(|q| !q.is_empty()).into_iter().chain(named).collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

/// Removes the password from `https://name:secret@host/`.
pub(crate) fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.into() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else { return address.into() };
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}://{name}:***@{host}{path}"),
        None => address.into(),
    }
}

/// Parses the address of a source.
pub(crate) fn locate(source: &str) -> Result<Located, String> {
    let source = source.trim();
    let (forced, rest) = forced(source)?;
    let (written, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (main, subdir) = split_subdir(written);
    if let Some(subdir) = subdir.filter(|s| s.split('/').any(|part| part == "..")) {
        return Err(format!("the directory //{subdir} leads out of it"));
    }
    let is_path = main.starts_with(['.', '/']) || main.starts_with("file://");
    if is_path || (forced.is_none() && !is_address(main)) {
        let path = main.strip_prefix("file://").unwrap_or(main).to_string();
        let tool = forced.filter(|t| *t != Tool::Http);
        let mut repository = Remote::new(tool.unwrap_or(Tool::Http), String::new());
        repository.query(query)?;
        let subdir = subdir.map(str::to_string);
        return Ok(Located::Local { path, subdir, tool, revision: repository.revision });
    }
    let hosted = hosted(main, query);
    if forced == Some(Tool::Hg) && hosted.is_some() {
        return Err("is at a host that has git repositories only: leave out hg::".into());
    }
    let mut remote = hosted.unwrap_or_else(|| Remote::new(Tool::Http, main.to_string()));
    remote = addressed(remote, forced)?;
    if let Some(subdir) = subdir {
        let joined = remote.subdir.take().map_or_else(|| subdir.to_string(), |s| format!("{s}/{subdir}"));
        remote.subdir = Some(joined);
    }
    remote.query(query)?;
    Ok(Located::Remote(remote))
}

/// Splits off the tool of `git::ADDRESS`.
fn forced(source: &str) -> Result<(Option<Tool>, &str), String> {
    let Some((tool, rest)) = source.split_once("::") else { return Ok((None, source)) };
    match tool {
        "git" => Ok((Some(Tool::Git), rest)),
        "hg" => Ok((Some(Tool::Hg), rest)),
        "http" | "https" | "file" => Ok((Some(Tool::Http), rest)),
        other => Err(format!("{other}:: is not a supported way to fetch: use git::, hg:: or https://")),
    }
}

/// Splits at the `//` between the source and the directory in it, which is not that after the scheme.
fn split_subdir(written: &str) -> (&str, Option<&str>) {
    let start = written.find("://").map_or(0, |i| i + 3);
    match written[start..].find("//") {
        Some(i) => {
            let subdir = written[start + i..].trim_matches('/');
            (&written[..start + i], Some(subdir).filter(|s| !s.is_empty()))
        }
        None => (written, None),
    }
}

fn is_address(main: &str) -> bool {
    let hosted = HOSTS.iter().any(|h| main.strip_prefix(h).is_some_and(|rest| rest.starts_with('/')));
    hosted || main.contains("://") || scp(main).is_some()
}

/// `git@host:path`.
fn scp(main: &str) -> Option<(&str, &str)> {
    let (host, path) = main.split_once(':')?;
    (host.contains('@') && !host.contains('/') && !path.starts_with("//")).then_some((host, path))
}

/// Parses the address of a repository at a host whose addresses separate the repository from the directory in it.
fn hosted(main: &str, query: &str) -> Option<Remote> {
    let plain = main.strip_prefix("https://").or_else(|| main.strip_prefix("http://")).unwrap_or(main);
    let mut parts = plain.split('/').filter(|p| !p.is_empty());
    let host = parts.next().filter(|h| HOSTS.contains(h))?;
    let (owner, repository) = (parts.next()?, parts.next()?);
    let rest: Vec<&str> = parts.collect();
    let archive = plain != main
        && (ARCHIVES.iter().any(|a| plain.ends_with(a))
            || query.split('&').any(|q| q.starts_with("archive=")));
    if archive {
        return None;
    }
    let repository = repository.strip_suffix(".git").unwrap_or(repository);
    let mut remote = Remote::new(Tool::Git, format!("https://{host}/{owner}/{repository}.git"));
    // The address of a directory in the web interface.
    let subdir = match &rest[..] {
        ["tree" | "src", branch, directory @ ..] if plain != main => {
            remote.revision = Some((*branch).into());
            directory.join("/")
        }
        directory => directory.join("/"),
    };
    remote.subdir = Some(subdir).filter(|s| !s.is_empty());
    Some(remote)
}

/// Chooses the tool by the address, or adapts the address to the requested tool.
fn addressed(mut remote: Remote, forced: Option<Tool>) -> Result<Remote, String> {
    if let Some((host, path)) = scp(&remote.address) {
        remote.address = format!("ssh://{host}/{}", path.trim_start_matches('/'));
        remote.tool = Tool::Git;
    }
    let scheme = remote.address.split_once("://").map(|(scheme, _)| scheme.to_lowercase());
    remote.tool = match (forced, scheme.as_deref()) {
        (Some(tool @ (Tool::Git | Tool::Hg)), Some("http" | "https" | "ssh" | "git" | "file")) => tool,
        (_, Some("git" | "ssh")) => Tool::Git,
        (None, Some("http" | "https")) if remote.address.ends_with(".git") => Tool::Git,
        (_, Some("http" | "https")) => remote.tool,
        (_, Some(other)) => {
            return Err(format!("{other}:// is not a supported scheme: use https, http, git or ssh"));
        }
        (_, None) => {
            return Err(
                "is not a valid address: write SCHEME://HOST/PATH, or HOST/OWNER/REPOSITORY for github.com"
                    .into(),
            );
        }
    };
    Ok(remote)
}

impl Remote {
    /// Removes the parameters of the fetcher from the query; the others are passed to the server.
    fn query(&mut self, query: &str) -> Result<(), String> {
        let mut servers = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match (key, self.tool) {
                // Bitbucket once hosted Mercurial repositories, and `?rev=` has remained in addresses.
                ("rev" | "ref", Tool::Git | Tool::Hg) => {
                    if value.is_empty() || value.starts_with('-') {
                        return Err(format!("?{pair} names no branch, tag or commit"));
                    }
                    self.revision = Some(value);
                }
                // The depth of the history and the key do not change the result.
                ("depth", Tool::Git) => {}
                ("sshkey", Tool::Git) => {
                    return Err("?sshkey= is not taken from an Appfile: let ssh find the key, by its agent or configuration".into());
                }
                ("archive", Tool::Http) => self.archive = Some(value),
                ("checksum", Tool::Http) => self.checksum = Some(value),
                _ => servers.push(pair),
            }
        }
        if !servers.is_empty() {
            self.address = format!("{}?{}", self.address, servers.join("&"));
        }
        Ok(())
    }
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(code.unwrap_or(bytes[i]));
        i += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn o02_sources_are_local_or_remote() {
        let mut shown = String::new();
        for source in [
            "./child",
            "child",
            "../",
            "/srv/app",
            "/foo//bar",
            "file:///srv/app",
            "git::./child",
            "git::file:///srv/app",
            "github.com/hashicorp/otto/examples/mongodb",
            "github.com/hashicorp/otto//examples/mongodb?ref=v0.1.0",
            "github.com/a/b.git",
            "github.com/a/b/c//d",
            "https://github.com/a/b",
            "https://github.com/a/b/tree/main/c/d",
            "https://github.com/a/b/archive/v1.tar.gz//b-1",
            "bitbucket.org/a/b",
            "bitbucket.org/a/b/c//d?rev=1.0",
            "https://bitbucket.org/a/b/src/master/c",
            "http://bitbucket.org/a/b",
            "bitbucket.org/a",
            "hg::https://bitbucket.org/a/b",
            "git@bitbucket.org:a/b.git//c",
            "gitlab.com/a/b/c",
            "git::https://example.com/b.git//sub?ref=feature%2Fx",
            "https://example.com/b.git",
            "git://example.com/b.git",
            "ssh://git@example.com:22/b.git",
            "git@github.com:a/b.git",
            "git::git@example.com:/a/b.git//c",
            "hg::http://example.com/a?rev=tip",
            "hg::ssh://me@example.com/a//b?ref=1.0",
            "hg::../a//b?rev=1.0",
            "hg::http://example.com/a?rev=--config=x",
            "https://me:secret@example.com/a.tgz?checksum=sha256:00&x=1",
            "https://example.com/a?archive=zip",
            "https://example.com/a",
            "s3::https://s3.amazonaws.com/b",
            "ftp://example.com/a",
            "git::example.com",
            "git::https://example.com/b.git//../c",
            "github.com/a",
            "git::https://example.com/b?ref=--upload-pack=x",
        ] {
            let line = match locate(source) {
                Ok(Located::Local { path, subdir, tool, revision }) => {
                    format!("local {path} {subdir:?} {tool:?} {revision:?}")
                }
                Ok(Located::Remote(remote)) => format!("{remote} ({})", remote.base()),
                Err(sentence) => format!("error: {sentence}"),
            };
            shown.push_str(&format!("{source}\n    {line}\n"));
        }
        expect![[r#"
            ./child
                local ./child None None None
            child
                local child None None None
            ../
                local ../ None None None
            /srv/app
                local /srv/app None None None
            /foo//bar
                local /foo Some("bar") None None
            file:///srv/app
                local /srv/app None None None
            git::./child
                local ./child None Some(Git) None
            git::file:///srv/app
                local /srv/app None Some(Git) None
            github.com/hashicorp/otto/examples/mongodb
                git::https://github.com/hashicorp/otto.git//examples/mongodb (mongodb)
            github.com/hashicorp/otto//examples/mongodb?ref=v0.1.0
                git::https://github.com/hashicorp/otto.git//examples/mongodb?ref=v0.1.0 (mongodb)
            github.com/a/b.git
                git::https://github.com/a/b.git (b)
            github.com/a/b/c//d
                git::https://github.com/a/b.git//c/d (d)
            https://github.com/a/b
                git::https://github.com/a/b.git (b)
            https://github.com/a/b/tree/main/c/d
                git::https://github.com/a/b.git//c/d?ref=main (d)
            https://github.com/a/b/archive/v1.tar.gz//b-1
                https://github.com/a/b/archive/v1.tar.gz//b-1 (b-1)
            bitbucket.org/a/b
                git::https://bitbucket.org/a/b.git (b)
            bitbucket.org/a/b/c//d?rev=1.0
                git::https://bitbucket.org/a/b.git//c/d?ref=1.0 (d)
            https://bitbucket.org/a/b/src/master/c
                git::https://bitbucket.org/a/b.git//c?ref=master (c)
            http://bitbucket.org/a/b
                git::https://bitbucket.org/a/b.git (b)
            bitbucket.org/a
                error: is not a valid address: write SCHEME://HOST/PATH, or HOST/OWNER/REPOSITORY for github.com
            hg::https://bitbucket.org/a/b
                error: is at a host that has git repositories only: leave out hg::
            git@bitbucket.org:a/b.git//c
                git::ssh://git@bitbucket.org/a/b.git//c (c)
            gitlab.com/a/b/c
                git::https://gitlab.com/a/b.git//c (c)
            git::https://example.com/b.git//sub?ref=feature%2Fx
                git::https://example.com/b.git//sub?ref=feature/x (sub)
            https://example.com/b.git
                git::https://example.com/b.git (b)
            git://example.com/b.git
                git::git://example.com/b.git (b)
            ssh://git@example.com:22/b.git
                git::ssh://git@example.com:22/b.git (b)
            git@github.com:a/b.git
                git::ssh://git@github.com/a/b.git (b)
            git::git@example.com:/a/b.git//c
                git::ssh://git@example.com/a/b.git//c (c)
            hg::http://example.com/a?rev=tip
                hg::http://example.com/a?rev=tip (a)
            hg::ssh://me@example.com/a//b?ref=1.0
                hg::ssh://me@example.com/a//b?rev=1.0 (b)
            hg::../a//b?rev=1.0
                local ../a Some("b") Some(Hg) Some("1.0")
            hg::http://example.com/a?rev=--config=x
                error: ?rev=--config=x names no branch, tag or commit
            https://me:secret@example.com/a.tgz?checksum=sha256:00&x=1
                https://me:***@example.com/a.tgz?x=1&checksum=sha256:00 (a)
            https://example.com/a?archive=zip
                https://example.com/a?archive=zip (a)
            https://example.com/a
                https://example.com/a (a)
            s3::https://s3.amazonaws.com/b
                error: s3:: is not a supported way to fetch: use git::, hg:: or https://
            ftp://example.com/a
                error: ftp:// is not a supported scheme: use https, http, git or ssh
            git::example.com
                error: is not a valid address: write SCHEME://HOST/PATH, or HOST/OWNER/REPOSITORY for github.com
            git::https://example.com/b.git//../c
                error: the directory //../c leads out of it
            github.com/a
                error: is not a valid address: write SCHEME://HOST/PATH, or HOST/OWNER/REPOSITORY for github.com
            git::https://example.com/b?ref=--upload-pack=x
                error: ?ref=--upload-pack=x names no branch, tag or commit
        "#]]
        .assert_eq(&shown);
    }
}
