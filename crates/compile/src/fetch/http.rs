//! Fetches archives and pages over HTTP.

use std::{fs::File, io::Read, path::Path, time::Duration};

use sha2::{Digest, Sha256, Sha512};

use super::{
    archive,
    source::{ARCHIVES, Remote},
};

/// Timeout of a request, long enough for a large archive over a slow connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit of an archive in bytes, far above the sources of any application.
const MAX_ARCHIVE: u64 = 512 << 20;
/// Limit of a page in bytes; the rest of a longer page is ignored.
const MAX_PAGE: u64 = 1 << 20;

/// Result of fetching an address.
pub(super) enum Fetched {
    /// An archive, which has been unpacked; its checksum.
    Unpacked(String),
    /// A page that names another source.
    Redirect(String),
}

/// Fetches the archive at `remote` into the directory `into`, or reads the page at `remote` for the source that it names.
pub(super) fn fetch(remote: &Remote, into: &Path, scratch: &Path) -> Result<Fetched, String> {
    match kind(remote)? {
        Some(kind) => {
            let file = scratch.join("archive");
            let sum = download(&remote.address, &file, remote.checksum.as_deref())?;
            archive::unpack(&file, kind, into)?;
            Ok(Fetched::Unpacked(sum))
        }
        None => elsewhere(&remote.address).map(Fetched::Redirect),
    }
}

/// The kind of archive by `?archive=` or by the extension; `None` for a page.
fn kind(remote: &Remote) -> Result<Option<&str>, String> {
    if let Some(written) = remote.archive.as_deref() {
        return match written {
            "false" | "0" => Ok(None),
            kind if ARCHIVES.contains(&kind) => Ok(Some(kind)),
            other => Err(format!(
                "?archive={other} is not a supported kind of archive: use one of {}",
                ARCHIVES.join(", ")
            )),
        };
    }
    let path = remote.address.split('?').next().unwrap_or_default();
    Ok(ARCHIVES.into_iter().find(|kind| path.strip_suffix(kind).is_some_and(|rest| rest.ends_with('.'))))
}

fn client() -> Result<reqwest::blocking::Client, String> {
    // The first call installs the provider; all callers choose the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::blocking::Client::builder()
        .user_agent(concat!("yado/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .build()
        .map_err(|e| format!("cannot speak HTTP: {}", causes(&e)))
}

/// Sends a GET request for `address` on a separate thread, as the blocking client must not run on an async runtime.
fn get<T: Send>(
    address: &str,
    read: impl FnOnce(reqwest::blocking::Response) -> Result<T, String> + Send,
) -> Result<T, String> {
    let ask = || {
        let response = client()?.get(address).send().map_err(|e| causes(&e.without_url()))?;
        match response.status() {
            status if status.is_success() => read(response),
            status => Err(format!("the server answers {status}")),
        }
    };
    let asked = std::thread::scope(|scope| scope.spawn(ask).join());
    asked.unwrap_or_else(|_| Err("the HTTP client broke down".into()))
}

/// An error with its sources, which contain the actual cause.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Downloads `address` to `file`. Returns the SHA-256.
fn download(address: &str, file: &Path, expected: Option<&str>) -> Result<String, String> {
    let expected = expected.map(parse_checksum).transpose()?;
    get(address, |response| {
        let cannot = |e: std::io::Error| format!("broke off: {e}");
        let mut out = File::create(file).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        let (mut short, mut long) = (Sha256::new(), Sha512::new());
        let (mut body, mut buffer, mut read) = (response.take(MAX_ARCHIVE + 1), vec![0; 64 << 10], 0);
        loop {
            let n = body.read(&mut buffer).map_err(cannot)?;
            if n == 0 {
                break;
            }
            read += n as u64;
            if read > MAX_ARCHIVE {
                return Err(format!("is larger than {} MiB", MAX_ARCHIVE >> 20));
            }
            short.update(&buffer[..n]);
            long.update(&buffer[..n]);
            std::io::Write::write_all(&mut out, &buffer[..n]).map_err(cannot)?;
        }
        let (short, long) = (hex(&short.finalize()), hex(&long.finalize()));
        match expected {
            Some(sum) if sum != short && sum != long => {
                Err(format!("its checksum is sha256:{short}, not what ?checksum= says"))
            }
            _ => Ok(format!("sha256:{short}")),
        }
    })
}

/// Parses `sha256:...` or `sha512:...` to its hexadecimal digits.
fn parse_checksum(written: &str) -> Result<String, String> {
    let (kind, digits) = written.split_once(':').unwrap_or(("", written));
    let length = match kind {
        "sha256" => Some(64),
        "sha512" => Some(128),
        "" => Some(digits.len()).filter(|n| [64, 128].contains(n)),
        _ => None,
    };
    let digits = digits.to_lowercase();
    let sound = length == Some(digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    sound.then_some(digits).ok_or_else(|| {
        format!("?checksum={written} is not a supported checksum: write sha256: or sha512: and its hexadecimal digits")
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The source that a page names: in the header `X-Otto-Get`, or in `<meta name="otto-get" content="...">`.
fn elsewhere(address: &str) -> Result<String, String> {
    let joint = if address.contains('?') { '&' } else { '?' };
    get(&format!("{address}{joint}otto-get=1"), |response| {
        let header = ["x-otto-get", "x-terraform-get"].iter().find_map(|name| response.headers().get(*name));
        if let Some(named) = header.and_then(|value| value.to_str().ok()) {
            return Ok(named.into());
        }
        let mut page = Vec::new();
        response.take(MAX_PAGE).read_to_end(&mut page).map_err(|e| format!("broke off: {e}"))?;
        meta(&String::from_utf8_lossy(&page)).ok_or_else(|| {
            "is not an archive, and the page names no source: write git:: in front if it is a repository, or ?archive=zip \
             behind if it is an archive"
                .into()
        })
    })
}

fn meta(page: &str) -> Option<String> {
    page.split('<').filter(|tag| tag.get(..5).is_some_and(|t| t.eq_ignore_ascii_case("meta "))).find_map(
        |tag| {
            let tag = &tag[..tag.find('>')?];
            let named = ["otto-get", "terraform-get"].contains(&attribute(tag, "name")?);
            named.then(|| attribute(tag, "content").map(str::to_string)).flatten()
        },
    )
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let after = &tag[tag.find(&format!("{name}="))? + name.len() + 1..];
    let quote = after.chars().next().filter(|c| "\"'".contains(*c))?;
    after[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_checksums() {
        for (page, expect) in [
            (
                "<html><meta charset=x><META name=\"otto-get\" content=\"git::https://a/b\"/>",
                Some("git::https://a/b"),
            ),
            ("<meta content='x' name='terraform-get'>", Some("x")),
            ("<meta name=\"other\" content=\"x\">", None),
            ("<meta name=otto-get", None),
        ] {
            assert_eq!(meta(page).as_deref(), expect, "{page}");
        }
        assert!(parse_checksum(&format!("sha256:{}", "0".repeat(64))).is_ok());
        assert!(parse_checksum("md5:00").is_err() && parse_checksum("sha256:xyz").is_err());
    }
}
