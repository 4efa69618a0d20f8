//! The kernel's table of mounts, `/proc/PID/mountinfo`, of which proc_pid_mountinfo(5) gives the format.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The mount points in a table, in its order: the order of mounting.
pub fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape)
}

/// A path of the table. The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
pub fn unescape(field: &str) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_kernel_are_undone() {
        for (field, path) in [
            ("/", "/"),
            ("/a\\040b", "/a b"),
            ("/t\\011n\\012b\\134", "/t\tn\nb\\"),
            ("/caf\u{e9}\\040", "/caf\u{e9} "),
            ("/back\\slash", "/back\\slash"),
            ("/end\\04", "/end\\04"),
            ("/\\134040", "/\\040"),
        ] {
            assert_eq!(unescape(field), PathBuf::from(path), "{field}");
        }
        let table = "36 35 98:0 / /a\\040b rw,noatime master:1 - ext4 /dev/x rw\n37 35 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), [PathBuf::from("/a b"), "/proc".into()]);
    }
}
