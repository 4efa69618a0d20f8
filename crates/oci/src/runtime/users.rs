//! Which user and groups a container's process gets: an image's user string against the container's own `/etc/passwd`
//! and `/etc/group`.

use crate::spec::LARGEST_ID;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, sorted, without duplicates.
    pub groups: Vec<u32>,
    /// For `HOME` where nothing else sets it.
    pub home: String,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// `name:password:uid:gid:gecos:home:shell`; lines that are not like this are skipped, as in libc.
fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

/// `name:password:gid:member,member`.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// The id that `text` states, if it is a number at all. A number is never looked up as a name: an image could give
/// the name `1000` to root.
///
/// # Errors
/// A number outside 0 to [`LARGEST_ID`].
pub fn number(what: &str, text: &str) -> Result<Option<u32>, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse::<u32>().ok().filter(|id| *id <= LARGEST_ID);
    id.map(Some).ok_or_else(|| format!("the {what} id {text} is not between 0 and {LARGEST_ID}"))
}

fn in_range(what: &str, name: &str, id: u32) -> Result<u32, String> {
    if id <= LARGEST_ID {
        return Ok(id);
    }
    Err(format!("the {what} {name} has the id {id} in the image, which is not between 0 and {LARGEST_ID}"))
}

/// Resolves `name`, `uid`, `name:group`, `uid:gid`, with empty for root. A number needs no entry; a name does. As in
/// Docker, a user's groups of `/etc/group` count unless a group is given.
///
/// # Errors
/// A name without an entry, and an id outside 0 to [`LARGEST_ID`] wherever it comes from.
pub fn resolve(user: &str, further: &[u32], passwd_text: &str, group_text: &str) -> Result<User, String> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, (!group.is_empty()).then_some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let id = number("user", name)?;
    let entry = passwd(passwd_text).find(|entry| match id {
        Some(id) => entry.uid == id,
        None => entry.name == name,
    });
    let uid = match (&entry, id) {
        (_, Some(id)) => id,
        (Some(entry), None) => in_range("user", name, entry.uid)?,
        (None, None) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    };
    let mut supplementary = Vec::new();
    for gid in further {
        supplementary.push(in_range("group", &gid.to_string(), *gid)?);
    }
    let gid = match group {
        Some(group) => match number("group", group)? {
            Some(gid) => gid,
            None => {
                let named = groups(group_text).find(|(name, ..)| *name == group);
                let (_, gid, _) = named.ok_or_else(|| {
                    format!("unable to find group {group}: no matching entries in group file")
                })?;
                in_range("group", group, gid)?
            }
        },
        None => {
            if let Some(entry) = &entry {
                let member = |members: &str| members.split(',').any(|member| member == entry.name);
                for (name, gid, _) in groups(group_text).filter(|group| member(group.2)) {
                    supplementary.push(in_range("group", name, gid)?);
                }
            }
            entry.as_ref().map_or(Ok(0), |entry| in_range("group of user", entry.name, entry.gid))?
        }
    };
    supplementary.sort_unstable();
    supplementary.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(User { uid, gid, groups: supplementary, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_as_images_write_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# junk\nredis:x:999:998::/data:/bin/false\n7:x:0:71::/seven:\n\
             4294967296:x:0:0::/:\nmost:x:4294967295:0::/:\nwide:x:5:4294967295::/:\nover:x:4294967296:0::/:\n\
             listed:x:6:6::/:\n";
        let group = "root:x:0:\nredis:x:998:\nvideo:x:44:redis,x\nadm:x:4:redis\n9:x:0:\n\
             most:x:4294967295:listed\nlast:x:2147483647:\n";
        let user = |uid, gid, groups: &[u32], home: &str| {
            Ok(User { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
        };
        let err = |text: &str| Err(text.to_owned());
        let outside =
            |what: &str, id: &str| Err(format!("the {what} id {id} is not between 0 and 2147483647"));
        let rows: [(&str, &[u32], Result<User, String>); 24] = [
            ("", &[], user(0, 0, &[], "/root")),
            ("redis", &[], user(999, 998, &[4, 44], "/data")),
            ("999", &[5, 44], user(999, 998, &[4, 5, 44], "/data")),
            ("redis:video", &[], user(999, 44, &[], "/data")),
            ("redis:", &[], user(999, 998, &[4, 44], "/data")),
            ("1234", &[], user(1234, 0, &[], "/")),
            ("1234:5678", &[9], user(1234, 5678, &[9], "/")),
            // A number is a number, whatever names the image has.
            ("7", &[], user(7, 0, &[], "/")),
            ("999:9", &[], user(999, 9, &[], "/data")),
            ("+7", &[], user(7, 0, &[], "/")),
            ("nobody", &[], err("unable to find user nobody: no matching entries in passwd file")),
            ("0:staff", &[], err("unable to find group staff: no matching entries in group file")),
            ("over", &[], err("unable to find user over: no matching entries in passwd file")),
            ("2147483647:2147483647", &[2147483647], user(2147483647, 2147483647, &[2147483647], "/")),
            ("2147483648", &[], outside("user", "2147483648")),
            ("4294967295", &[], outside("user", "4294967295")),
            ("4294967296", &[], outside("user", "4294967296")),
            ("18446744073709551616", &[], outside("user", "18446744073709551616")),
            ("-1", &[], outside("user", "-1")),
            ("5:4294967295", &[], outside("group", "4294967295")),
            (
                "most",
                &[],
                err(
                    "the user most has the id 4294967295 in the image, which is not between 0 and 2147483647",
                ),
            ),
            (
                "wide",
                &[],
                err(
                    "the group of user wide has the id 4294967295 in the image, which is not between 0 and 2147483647",
                ),
            ),
            (
                "listed",
                &[],
                err(
                    "the group most has the id 4294967295 in the image, which is not between 0 and 2147483647",
                ),
            ),
            ("redis:last", &[], user(999, 2147483647, &[], "/data")),
        ];
        for (input, further, expect) in rows {
            assert_eq!(resolve(input, further, passwd, group), expect, "{input:?}");
        }
        assert_eq!(resolve("", &[], "", ""), user(0, 0, &[], "/"));
    }
}
