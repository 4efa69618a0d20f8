//! Who a process of a container is: an image's user string against the container's own `/etc/passwd` and
//! `/etc/group`.

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

/// Resolves `name`, `uid`, `name:group`, `uid:gid`, with empty for root. A number needs no entry; a name does. As in
/// Docker, a user's groups of `/etc/group` count unless a group is given.
pub fn resolve(user: &str, further: &[u32], passwd_text: &str, group_text: &str) -> Result<User, String> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, (!group.is_empty()).then_some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd(passwd_text)
        .find(|entry| entry.name == name)
        .or_else(|| passwd(passwd_text).find(|entry| Some(entry.uid) == number));
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    };
    let mut supplementary = further.to_vec();
    let gid = match group {
        Some(group) => {
            let named = groups(group_text).find(|(name, ..)| *name == group).map(|(_, gid, _)| gid);
            named
                .or_else(|| group.parse().ok())
                .ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))?
        }
        None => {
            if let Some(entry) = &entry {
                let member = |members: &str| members.split(',').any(|member| member == entry.name);
                supplementary.extend(groups(group_text).filter(|group| member(group.2)).map(|group| group.1));
            }
            entry.as_ref().map_or(0, |entry| entry.gid)
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
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n# junk\nredis:x:999:998::/data:/bin/false\n7:x:70:71::/seven:\n";
        let group = "root:x:0:\nredis:x:998:\nvideo:x:44:redis,x\nadm:x:4:redis\n";
        let user = |uid, gid, groups: &[u32], home: &str| {
            Ok(User { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
        };
        let rows: [(&str, &[u32], Result<User, String>); 10] = [
            ("", &[], user(0, 0, &[], "/root")),
            ("redis", &[], user(999, 998, &[4, 44], "/data")),
            ("999", &[5, 44], user(999, 998, &[4, 5, 44], "/data")),
            ("redis:video", &[], user(999, 44, &[], "/data")),
            ("redis:", &[], user(999, 998, &[4, 44], "/data")),
            ("1234", &[], user(1234, 0, &[], "/")),
            ("1234:5678", &[9], user(1234, 5678, &[9], "/")),
            // A name that looks like a number is a name first.
            ("7", &[], user(70, 71, &[], "/seven")),
            ("nobody", &[], Err("unable to find user nobody: no matching entries in passwd file".to_owned())),
            ("0:staff", &[], Err("unable to find group staff: no matching entries in group file".to_owned())),
        ];
        for (input, further, expect) in rows {
            assert_eq!(resolve(input, further, passwd, group), expect, "{input:?}");
        }
        assert_eq!(resolve("", &[], "", ""), user(0, 0, &[], "/"));
    }
}
