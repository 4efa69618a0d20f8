//! The `Aptfile`, a list of Debian packages, by the conventions of Heroku's buildpack for apt.

use crate::image::{ImageError, Result};

fn wrong<T>(file: &str, line: usize, reason: impl Into<String>) -> Result<T> {
    Err(ImageError::BuildFile { file: file.to_owned(), line, reason: reason.into() })
}

/// Reads an Aptfile: Debian packages, one on a line or several with blanks between, as `apt-get install` takes them
/// (`redis-server`, `redis-server=5:7.0.15-1`). `#` begins a comment. `file` is what to call it in errors.
///
/// # Errors
/// With the line, for further repositories, packages by address, and what is no package name.
pub fn parse_aptfile(file: &str, text: &str) -> Result<Vec<String>> {
    let mut packages: Vec<String> = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with(":repo:") {
            let reason =
                "`:repo:` is not supported; add the repository to this machine's own package sources";
            return wrong(file, number, reason);
        }
        for word in line.split_whitespace() {
            if word.contains("://") || word.ends_with(".deb") {
                let reason = format!(
                    "`{word}` is the address of a package; name a package of the machine's package sources"
                );
                return wrong(file, number, reason);
            }
            if !is_package(word) {
                return wrong(file, number, format!("`{word}` is not the name of a Debian package"));
            }
            if !packages.iter().any(|p| p == word) {
                packages.push(word.to_owned());
            }
        }
    }
    Ok(packages)
}

/// `NAME[:ARCH][=VERSION]` by Debian's rules. Nothing that `apt-get` could take for an option or a pattern.
pub(super) fn is_package(word: &str) -> bool {
    let (name, version) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    let (name, arch) = name.split_once(':').map_or((name, None), |(n, a)| (n, Some(a)));
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() >= 2
        && lower(name.as_bytes()[0])
        && name.bytes().all(|b| lower(b) || matches!(b, b'+' | b'-' | b'.'))
        // `apt-get` reads a last `-` or `+` as "remove" and "install".
        && !name.ends_with('-')
        && arch.is_none_or(|a| !a.is_empty() && a.bytes().all(|b| lower(b) || b == b'-'))
        && version.is_none_or(|v| {
            !v.is_empty() && v.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-:~".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(result: Result<Vec<String>>, expect: Expect) {
        let text = match result {
            Ok(lines) => lines.join("\n"),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn aptfiles() {
        let parse = |text: &str| parse_aptfile("Aptfile", text);
        check(
            parse("# all\npython3-flask\nredis-server=5:7.0.15-1~deb12u5 # pinned\nlibc6:amd64 g++ g++\n"),
            expect![[r#"
            python3-flask
            redis-server=5:7.0.15-1~deb12u5
            libc6:amd64
            g++"#]],
        );
        check(
            parse(":repo:deb http://x y z"),
            expect![
                "Aptfile, line 1: `:repo:` is not supported; add the repository to this machine's own package sources"
            ],
        );
        check(
            parse("a1\nhttp://x.org/a.deb"),
            expect![
                "Aptfile, line 2: `http://x.org/a.deb` is the address of a package; name a package of the machine's package sources"
            ],
        );
        check(
            parse("--allow-unauthenticated"),
            expect!["Aptfile, line 1: `--allow-unauthenticated` is not the name of a Debian package"],
        );
        check(parse("dpkg-"), expect!["Aptfile, line 1: `dpkg-` is not the name of a Debian package"]);
        check(parse(""), expect![""]);
    }
}
