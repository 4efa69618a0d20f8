//! A firewall that drops what a machine forwards, as Docker sets one up, keeps Pods from everybody and from each other.
//!
//! An accepting rule of our own table does not help: every table has its say. So wherever a chain drops by policy what
//! none of its rules accepts, rules that accept what comes from Pods and goes to them are added at its end. They
//! override only the policy: whatever the chain's own rules refuse stays refused. They go with the network.
//!
//! Chains of the tools `nft` and `iptables` (in its present form, over nf_tables) are seen; those of `iptables-legacy`
//! and rules at the end of a chain that refuse everything (firewalld) are not: there Pods must be let through by hand.

use super::inspect::{Object, find, get, kind, list};
use super::message::{Batch, Error, Expression as E, FAMILY_IPV4, Reg, string};

const FAMILY_INET: u8 = 1;
/// Number of the hook that forwarded packets pass.
const FORWARD: u32 = 2;
const DROP: u32 = 0;

/// Adds what is missing. Returns the chains, as `TABLE CHAIN`, that had to be changed.
pub fn open(device: &str) -> Result<Vec<String>, Error> {
    let mark = mark(device);
    let mut opened = Vec::new();
    for chain in forward_chains()?.iter().filter(|chain| chain.number(5) == Some(DROP)) {
        let (Some(table), Some(name)) = (chain.text(1), chain.text(3)) else { continue };
        if !marked(chain.family, table, name, &mark)?.is_empty() {
            continue;
        }
        let mut batch = Batch::of_family(chain.family, table);
        let of_pods = format!("{device}-");
        for side in [E::InputDevice, E::OutputDevice] {
            let pods = [side(Reg::R0), E::equals(Reg::R0, of_pods.as_bytes()), E::Accept];
            batch.add_marked_rule(name, &mark, pods);
        }
        batch.commit()?;
        opened.push(format!("{table} {name}"));
    }
    Ok(opened)
}

/// Takes away what [`open`] added.
pub fn close(device: &str) -> Result<(), Error> {
    let mark = mark(device);
    for chain in forward_chains()? {
        let (Some(table), Some(name)) = (chain.text(1), chain.text(3)) else { continue };
        let handles = marked(chain.family, table, name, &mark)?;
        if !handles.is_empty() {
            let mut batch = Batch::of_family(chain.family, table);
            handles.iter().for_each(|handle| batch.delete_rule(name, handle));
            batch.commit()?;
        }
    }
    Ok(())
}

/// Whether a table of ours is there, and with how much in it.
pub fn uses(table: &str) -> Result<Option<u32>, Error> {
    Ok(get(kind::TABLE, FAMILY_IPV4, &string(1, table))?.and_then(|table| table.number(3)))
}

fn forward_chains() -> Result<Vec<Object>, Error> {
    let is_it = |chain: &Object| {
        let hook = chain.attribute(4).and_then(|hook| find(hook, 1)).and_then(|n| n.try_into().ok());
        hook.map(u32::from_be_bytes) == Some(FORWARD) && [FAMILY_IPV4, FAMILY_INET].contains(&chain.family)
    };
    Ok(list(kind::CHAIN, 0, &[])?.into_iter().filter(is_it).collect())
}

/// Handles of the rules with this mark.
fn marked(family: u8, table: &str, chain: &str, mark: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let rules = list(kind::RULE, family, &[string(1, table), string(2, chain)].concat())?;
    let ours = rules.iter().filter(|rule| rule.attribute(7) == Some(mark));
    Ok(ours.filter_map(|rule| rule.attribute(3).map(<[u8]>::to_vec)).collect())
}

/// A comment, as `nft` writes and shows it: type 0, length, text.
fn mark(device: &str) -> Vec<u8> {
    let text = format!("Pods of {device}\0");
    [&[0, text.len() as u8], text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::message::Hook;
    use super::*;

    #[test]
    fn a_closed_firewall_lets_pods_through_and_is_left_as_it_was() {
        if !nix::unistd::geteuid().is_root() {
            yado_testkit::skip!("network namespaces need root");
            return;
        }
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace");
            assert_eq!(open("yado7").expect("to look"), Vec::<String>::new());
            for (family, table) in [(FAMILY_IPV4, "filter"), (FAMILY_INET, "mine")] {
                let mut batch = Batch::of_family(family, table);
                batch.add_table();
                batch.add_closed_chain("FORWARD", Hook::filter_forward());
                batch.add_chain("open", Some(Hook::filter_forward()));
                batch.add_rule("FORWARD", [E::Drop]);
                batch.commit().expect("a firewall");
            }
            let rules = |family, table| {
                let chain = [string(1, table), string(2, "FORWARD")].concat();
                list(kind::RULE, family, &chain).expect("rules").len()
            };
            let mut opened = open("yado7").expect("to open");
            opened.sort();
            assert_eq!(opened, ["filter FORWARD", "mine FORWARD"]);
            assert_eq!([rules(FAMILY_IPV4, "filter"), rules(FAMILY_INET, "mine")], [3, 3]);
            assert!(open("yado7").expect("to look again").is_empty(), "once is enough");
            assert_eq!(open("yado8").expect("to open").len(), 2, "another one's are its own");
            close("yado7").expect("to close");
            close("yado8").expect("to close");
            assert_eq!([rules(FAMILY_IPV4, "filter"), rules(FAMILY_INET, "mine")], [1, 1]);
            assert_eq!(uses("filter").expect("to look"), Some(2));
            assert_eq!(uses("nobodys").expect("to look"), None);
        });
        thread.join().expect("the test");
    }

    /// Whether a Pod reaches another's port within so many seconds.
    fn reaches(from: &std::path::Path, to: &crate::pods::Attachment, seconds: u64) -> bool {
        use std::os::fd::AsFd;
        let inside = |netns: &std::path::Path| {
            let file = std::fs::File::open(netns).expect("the namespace");
            nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("to enter");
        };
        let (from, there) = (from.to_owned(), to.netns.clone());
        let address = std::net::SocketAddr::new(to.address, 7000);
        let bound = std::thread::spawn(move || {
            inside(&there);
            std::net::TcpListener::bind("0.0.0.0:7000").expect("to listen")
        });
        let _listener = bound.join().expect("a listener");
        let asked = std::thread::spawn(move || {
            inside(&from);
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(seconds)).is_ok()
        });
        asked.join().expect("an answer")
    }

    #[test]
    fn pods_reach_each_other_behind_a_closed_firewall() {
        if !nix::unistd::geteuid().is_root() {
            yado_testkit::skip!("network namespaces need root");
            return;
        }
        let thread = std::thread::spawn(|| {
            let flags = nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWNS;
            nix::sched::unshare(flags).expect("namespaces");
            let (none, private) =
                (None::<&str>, nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE);
            nix::mount::mount(none, "/", none, private, none).expect("mounts");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (data, run) =
                    (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
                let slot = crate::slot::Slot::claim(data.path(), run.path(), &[]).expect("a slot");
                let network = crate::pods::PodNetwork::start(&slot).await.expect("the Pod network");
                let a = network.attach("a").await.expect("a Pod");
                let b = network.attach("b").await.expect("a Pod");
                let mut batch = Batch::of_family(FAMILY_IPV4, "filter");
                batch.add_table();
                batch.add_closed_chain("FORWARD", Hook::filter_forward());
                batch.commit().expect("a firewall");
                assert!(!reaches(&a.netns, &b, 1), "the firewall is closed");
                let _table = super::super::Table::create(&slot).expect("the table");
                assert!(reaches(&a.netns, &b, 30));
                super::super::Table::remove(&slot).expect("to remove");
                assert!(!reaches(&a.netns, &b, 1), "it is as it was");
                network.tear_down().await.expect("to tear down");
            });
        });
        thread.join().expect("the test");
    }
}
