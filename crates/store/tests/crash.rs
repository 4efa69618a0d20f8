//! A process that writes is killed at random and its store opened again.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use bytes::Bytes;
use tokio::task::JoinSet;
use yado_store::{Config, Embedded, KeyValue, Op, Range, Revision, Sealing, Store, Txn, TxnOutcome};

const DIRECTORY: &str = "YADO_STORE_CRASH_DIRECTORY";
const ROUND: &str = "YADO_STORE_CRASH_ROUND";
const WRITERS: u64 = 8;
const ROUNDS: u64 = 16;

/// A value from which a mix-up or a cut can be seen, of a size from 1 byte to beyond several pages.
fn value(seed: u64) -> Bytes {
    let size = match seed % 7 {
        0 => 20_000 + seed as usize % 9_000,
        other => 1 + other as usize * 97,
    };
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Half of the keys are sealed.
fn config(directory: &std::path::Path) -> Config {
    let sealing = Sealing { prefixes: vec!["right/".into()], keys: directory.join("keys"), create: true };
    Config { sealing: Some(sealing), ..Config::new(directory.join("store")) }
}

/// Each transaction creates two keys, replaces a third and deletes an old one.
fn txn(writer: u64, round: u64, number: u64) -> Txn {
    let seed = (round * WRITERS + writer) * 1_000_000 + number;
    let put = |key: String| Op::Put { key, value: value(seed) };
    let mut ops = vec![
        put(format!("left/{seed:012}")),
        put(format!("right/{seed:012}")),
        put(format!("last/{writer}")),
    ];
    if number >= 20 {
        ops.push(Op::Delete { key: format!("left/{:012}", seed - 20) });
        ops.push(Op::Delete { key: format!("right/{:012}", seed - 20) });
    }
    Txn { compares: Vec::new(), ops }
}

/// Writes until it is killed, with a line for every write that is acknowledged.
#[test]
fn child_that_writes() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = std::sync::Arc::new(Embedded::open(config(directory.as_ref())).unwrap());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                for number in 0.. {
                    let outcome = store.txn(txn(writer, round, number)).await.unwrap();
                    let TxnOutcome::Committed { revision } = outcome else { panic!("{outcome:?}") };
                    let line = format!("ACK {writer} {number} {revision}\n");
                    // One write to the pipe, so that a kill leaves no half line behind.
                    std::io::stderr().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}

/// Runs a writer until about `lines` writes are acknowledged, and tells which were.
fn write_and_kill(directory: &std::path::Path, round: u64, lines: usize) -> Vec<(u64, u64, Revision)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    let output = BufReader::new(child.stderr.take().unwrap()).lines();
    if lines == 0 {
        child.kill().unwrap();
    }
    for line in output {
        let line = line.unwrap();
        let Some(numbers) = line.strip_prefix("ACK ") else { panic!("the writer says: {line}") };
        let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        acknowledged.push((numbers[0], numbers[1], numbers[2]));
        if acknowledged.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged
}

#[test]
fn every_acknowledged_write_survives_a_kill_and_none_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut revision = 1;
    for round in 0..ROUNDS {
        // A spread of moments; at 0 the kill falls into opening or creating.
        let lines = (round * round * 37 % 600) as usize;
        let acknowledged = write_and_kill(directory.path(), round, lines);
        assert!(acknowledged.len() >= lines);
        let store = Embedded::open(config(directory.path())).unwrap();
        assert!(store.revision() >= revision, "the revision fell");
        revision = store.revision();
        let all = runtime.block_on(store.range(Range::default())).unwrap().items;
        let keys: HashMap<String, KeyValue> = all.into_iter().map(|kv| (kv.key.to_string(), kv)).collect();
        check_acknowledged(&keys, round, &acknowledged, revision);
        check_whole(&keys, revision);
        drop(store);
    }
}

fn check_acknowledged(
    keys: &HashMap<String, KeyValue>,
    round: u64,
    acknowledged: &[(u64, u64, Revision)],
    revision: Revision,
) {
    let mut newest = BTreeMap::new();
    let mut revisions = std::collections::HashSet::new();
    for (writer, number, at) in acknowledged {
        assert!(*at <= revision && revisions.insert(at), "revision {at} was given twice or is lost");
        newest.insert(*writer, *number);
    }
    for (writer, number, at) in acknowledged {
        let seed = (round * WRITERS + writer) * 1_000_000 + number;
        for side in ["left", "right"] {
            match keys.get(&format!("{side}/{seed:012}")) {
                Some(kv) => assert_eq!((kv.mod_revision, &kv.value), (*at, &value(seed))),
                // The write after the last acknowledged one may have been applied, too.
                None => assert!(newest[writer] + 1 >= number + 20, "{side}/{seed} is lost"),
            }
        }
    }
}

/// Whatever is there is there as a whole, also if nobody was told.
fn check_whole(keys: &HashMap<String, KeyValue>, revision: Revision) {
    for (key, kv) in keys {
        assert!(kv.create_revision <= kv.mod_revision && kv.mod_revision <= revision);
        if let Some(seed) = key.strip_prefix("left/") {
            assert_eq!(kv.value, value(seed.parse().unwrap()), "{key} is torn");
            let other = &keys[&format!("right/{seed}")];
            assert_eq!((&other.value, other.mod_revision), (&kv.value, kv.mod_revision));
        }
    }
    let count = |side: &str| keys.keys().filter(|key| key.starts_with(side)).count();
    assert_eq!(count("left/"), count("right/"));
}
