//! Mount options of tmpfs file systems in the syntax of `mount -o` and Docker's `--tmpfs`, as far as they apply to volumes
//! of a Pod.

use std::fmt;

/// Maximum user or group id of a Pod; Kubernetes' limit.
const MAX_ID: u32 = i32::MAX as u32;

/// Mount options of a tmpfs other than its size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Permission bits of the root directory.
    pub mode: Option<u32>,
    /// User id of the root directory's owner.
    pub uid: Option<u32>,
    /// Group id of the root directory.
    pub gid: Option<u32>,
    /// Maximum number of inodes.
    pub inodes: Option<u64>,
    /// Whether execution of programs is denied (`noexec`).
    pub no_exec: bool,
}

/// A parsed list of options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedOptions {
    /// Options that a Pod's volume supports.
    pub options: Options,
    /// Value of `size` as written.
    pub size: Option<String>,
    /// Whether the file system is read-only (`ro`).
    pub read_only: bool,
    /// Options that are not supported or whose value is not valid, as written.
    pub unsupported: Vec<String>,
}

/// Parses a list such as `mode=0700,uid=1000,noexec,size=64m`. Of contradicting options, the last one is used.
pub fn parse(list: &str) -> ParsedOptions {
    let mut all = ParsedOptions::default();
    for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
        let id = || value.and_then(|v| v.parse::<u32>().ok()).filter(|id| *id <= MAX_ID);
        let options = &mut all.options;
        let known = match (name, value) {
            // Defaults of volumes, and options without an effect.
            (
                "rw" | "nosuid" | "nodev" | "defaults" | "async" | "relatime" | "norelatime" | "noatime",
                None,
            ) => {
                all.read_only &= name != "rw";
                true
            }
            ("ro", None) => {
                all.read_only = true;
                true
            }
            ("noexec", None) | ("exec", None) => {
                options.no_exec = name == "noexec";
                true
            }
            ("size", Some(size)) => {
                all.size = Some(size.into());
                true
            }
            ("mode", Some(mode)) => {
                let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
                options.mode = mode.or(options.mode);
                mode.is_some()
            }
            ("uid", Some(_)) => {
                options.uid = id().or(options.uid);
                id().is_some()
            }
            ("gid", Some(_)) => {
                options.gid = id().or(options.gid);
                id().is_some()
            }
            ("nr_inodes", Some(number)) => {
                let number = amount(number);
                options.inodes = number.or(options.inodes);
                number.is_some()
            }
            _ => false,
        };
        if !known {
            all.unsupported.push(option.into());
        }
    }
    all
}

/// Parses a number with the kernel's suffixes k, m and g, such as `10k`.
fn amount(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for Options {
    /// The list of options in the syntax that [`read`] parses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<String> = Vec::new();
        all.extend(self.mode.map(|mode| format!("mode={mode:04o}")));
        all.extend(self.uid.map(|uid| format!("uid={uid}")));
        all.extend(self.gid.map(|gid| format!("gid={gid}")));
        all.extend(self.inodes.map(|inodes| format!("nr_inodes={inodes}")));
        all.extend(self.no_exec.then(|| "noexec".into()));
        f.write_str(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_written() {
        for (list, options, size, read_only, others) in [
            ("", "", None, false, &[][..]),
            ("mode=0700,uid=1000,noexec,size=1m", "mode=0700,uid=1000,noexec", Some("1m"), false, &[]),
            ("rw,noexec,nosuid,nodev,size=65536k", "noexec", Some("65536k"), false, &[]),
            ("noexec,exec,ro", "", None, true, &[]),
            ("ro,rw", "", None, false, &[]),
            ("mode=1777,gid=5,nr_inodes=4k", "mode=1777,gid=5,nr_inodes=4096", None, false, &[]),
            ("uid=4294967295", "", None, false, &["uid=4294967295"]),
            (
                "mode=999,uid=app,huge=always,suid",
                "",
                None,
                false,
                &["mode=999", "uid=app", "huge=always", "suid"],
            ),
        ] {
            let all = parse(list);
            assert_eq!(all.options.to_string(), options, "{list}");
            assert_eq!((all.size.as_deref(), all.read_only), (size, read_only), "{list}");
            assert_eq!(all.unsupported, others, "{list}");
            assert_eq!(parse(options).options, all.options, "{list}");
        }
    }
}
