//! Which processes belong to one that was started by exec: its session and its descendants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Who started a process and which session it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kin {
    parent: i32,
    session: i32,
}

/// Those of `processes` that are in the session of `leader` or were started by it, directly or not. A process that made a
/// session of its own and whose parent has ended is nobody's any more.
pub fn of(leader: i32, processes: &BTreeSet<i32>) -> BTreeSet<i32> {
    let read = |pid: &i32| Some((*pid, parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?));
    among(leader, &processes.iter().filter_map(read).collect())
}

fn among(leader: i32, all: &BTreeMap<i32, Kin>) -> BTreeSet<i32> {
    let mut family = BTreeSet::from([leader]);
    loop {
        let before = family.len();
        for (pid, kin) in all {
            if kin.session == leader || family.contains(&kin.parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            family.retain(|pid| all.contains_key(pid));
            return family;
        }
    }
}

/// Fields 4 and 6 of `/proc/PID/stat`. The name before them may hold blanks and parentheses.
fn parse(stat: &str) -> Option<Kin> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    Some(Kin { parent, session: fields.nth(1)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_session_and_its_descendants() {
        let kin = |parent, session| Kin { parent, session };
        assert_eq!(parse("12 (a) b (c) S 3 12 7 0 -1"), Some(kin(3, 7)));
        assert_eq!(parse("12 (cut S 3"), None);
        // 20 leads; 21 is its child, 22 a daemon of 21 with a session of its own, 23 an orphan of the session.
        let all = [
            (10, kin(1, 10)),
            (11, kin(10, 10)),
            (20, kin(1, 20)),
            (21, kin(20, 20)),
            (22, kin(21, 22)),
            (23, kin(1, 20)),
        ];
        assert_eq!(among(20, &all.into()), [20, 21, 22, 23].into());
        assert_eq!(among(99, &all.into()), [].into());
    }
}
