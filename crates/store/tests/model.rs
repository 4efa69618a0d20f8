//! The store against the simplest model of it: a copy of all keys for every revision.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use yado_store::{
    Compare, Config, Embedded, Error, KeyValue, Op, Range, Revision, Sealing, Store, Txn, TxnOutcome, Watch,
    WatchEvent, key_after,
};

#[derive(Clone, Debug)]
enum Step {
    Txn { compares: Vec<(usize, bool)>, ops: Vec<ModelOp> },
    Range { start: usize, end: usize, limit: usize, back: u64 },
    Watch { start: usize, end: usize, back: u64 },
    Compact { back: u64 },
    Reopen,
}

#[derive(Clone, Debug)]
enum ModelOp {
    Put(usize, u8),
    Delete(usize),
    DeleteRange(usize, usize),
}

/// Keys that are prefixes of each other, and one whose order differs between bytes and UTF-16.
const KEYS: [&str; 8] = ["a", "a/", "a/b", "a0", "b", "b/\u{e000}", "b/\u{10000}", "c"];

fn op() -> impl Strategy<Value = ModelOp> {
    prop_oneof![
        6 => (0..KEYS.len(), any::<u8>()).prop_map(|(key, value)| ModelOp::Put(key, value)),
        2 => (0..KEYS.len()).prop_map(ModelOp::Delete),
        1 => (0..KEYS.len(), 0..=KEYS.len()).prop_map(|(start, end)| ModelOp::DeleteRange(start, end)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ends = (0..KEYS.len(), 0..=KEYS.len());
    prop_oneof![
        12 => (
            prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.8)), 0..3),
            prop::collection::vec(op(), 0..4),
        )
            .prop_map(|(compares, ops)| Step::Txn { compares, ops }),
        4 => (ends.clone(), 0..4usize, 0..8u64)
            .prop_map(|((start, end), limit, back)| Step::Range { start, end, limit, back }),
        2 => (ends, 0..8u64).prop_map(|((start, end), back)| Step::Watch { start, end, back }),
        1 => (0..8u64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ]
}

fn sorted_keys() -> Vec<&'static str> {
    let mut keys = KEYS.to_vec();
    keys.sort_unstable();
    keys
}

/// The key with this number, in order; the one after the last is "no end".
fn key(number: usize) -> String {
    sorted_keys().get(number).map_or(String::new(), |key| (*key).to_owned())
}

fn within(key: &str, start: &str, end: &str) -> bool {
    key >= start && (end.is_empty() || key < end)
}

struct Model {
    /// What each revision held.
    revisions: BTreeMap<Revision, BTreeMap<String, KeyValue>>,
    events: Vec<WatchEvent>,
    compacted: Revision,
}

impl Model {
    fn new() -> Model {
        Model { revisions: BTreeMap::from([(1, BTreeMap::new())]), events: Vec::new(), compacted: 1 }
    }

    fn revision(&self) -> Revision {
        *self.revisions.keys().next_back().unwrap()
    }

    fn latest(&self) -> &BTreeMap<String, KeyValue> {
        &self.revisions[&self.revision()]
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnOutcome, Error> {
        if let Some(key) = duplicate(txn) {
            return Err(Error::DuplicateKey { key });
        }
        let latest = self.latest();
        let holds = txn.compares.iter().all(|Compare::ModRevision { key, equals }| {
            latest.get(key).map_or(0, |kv| kv.mod_revision) == *equals
        });
        if !holds {
            let current = txn.compares.iter().map(|compare| latest.get(compare.key()).cloned()).collect();
            return Ok(TxnOutcome::Conflict { current, revision: self.revision() });
        }
        let revision = self.revision() + 1;
        let mut keys = latest.clone();
        let before = self.events.len();
        for op in &txn.ops {
            self.apply(op, revision, &mut keys);
        }
        if self.events.len() == before {
            return Ok(TxnOutcome::Committed { revision: self.revision() });
        }
        self.revisions.insert(revision, keys);
        Ok(TxnOutcome::Committed { revision })
    }

    fn apply(&mut self, op: &Op, revision: Revision, keys: &mut BTreeMap<String, KeyValue>) {
        let doomed: Vec<String> = match op {
            Op::Put { key, value } => {
                let previous = keys.get(key).cloned();
                let kv = KeyValue {
                    key: key.as_str().into(),
                    value: value.clone(),
                    create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
                    mod_revision: revision,
                    version: previous.as_ref().map_or(1, |kv| kv.version + 1),
                };
                keys.insert(key.clone(), kv.clone());
                self.events.push(WatchEvent::Put { kv, previous });
                return;
            }
            Op::Delete { key } => vec![key.clone()],
            Op::DeleteRange { start, end } => {
                keys.keys().filter(|key| within(key, start, end)).cloned().collect()
            }
        };
        for key in doomed {
            if let Some(previous) = keys.remove(&key) {
                let key = previous.key.clone();
                self.events.push(WatchEvent::Delete { key, revision, previous: Some(previous) });
            }
        }
    }

    /// Whether a revision can be read.
    fn readable(&self, revision: Revision) -> Result<(), Error> {
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, oldest: self.compacted });
        }
        if revision > self.revision() {
            return Err(Error::FutureRevision { requested: revision, current: self.revision() });
        }
        Ok(())
    }
}

/// A key that is put and touched by another operation as well.
fn duplicate(txn: &Txn) -> Option<String> {
    let touches = |op: &Op, key: &str| match op {
        Op::Put { key: other, .. } | Op::Delete { key: other } => other == key,
        Op::DeleteRange { start, end } => within(key, start, end),
    };
    txn.ops.iter().find_map(|op| match op {
        Op::Put { key, .. } if txn.ops.iter().filter(|op| touches(op, key)).count() > 1 => Some(key.clone()),
        _ => None,
    })
}

struct Watching {
    watch: Watch,
    start: String,
    end: String,
    after: Revision,
}

struct Run {
    directory: tempfile::TempDir,
    store: Embedded,
    model: Model,
    watches: Vec<Watching>,
}

impl Run {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Txn { compares, ops } => self.txn(compares, ops).await,
            Step::Range { start, end, limit, back } => self.range(key(start), key(end), limit, back).await,
            Step::Watch { start, end, back } => self.watch(key(start), key(end), back).await,
            Step::Compact { back } => {
                let before = (self.model.revision() + 1).saturating_sub(back);
                let expected = match before > self.model.revision() {
                    true => self.model.readable(before),
                    false => Ok(()),
                };
                assert_eq!(self.store.compact(before).await, expected);
                if expected.is_ok() {
                    self.model.compacted = self.model.compacted.max(before);
                }
            }
            Step::Reopen => {
                self.check_watches(true).await;
                self.store = open(&self.directory);
                self.model.compacted = self.model.revision();
            }
        }
        assert_eq!(self.store.revision(), self.model.revision());
    }

    async fn txn(&mut self, compares: Vec<(usize, bool)>, ops: Vec<ModelOp>) {
        let compare = |(number, right): (usize, bool)| {
            let revision = self.model.latest().get(&key(number)).map_or(0, |kv| kv.mod_revision);
            Compare::ModRevision { key: key(number), equals: if right { revision } else { revision + 1 } }
        };
        let op = |op| match op {
            ModelOp::Put(number, value) => Op::Put { key: key(number), value: vec![value; 3].into() },
            ModelOp::Delete(number) => Op::Delete { key: key(number) },
            ModelOp::DeleteRange(start, end) => Op::DeleteRange { start: key(start), end: key(end) },
        };
        let txn = Txn {
            compares: compares.into_iter().map(compare).collect(),
            ops: ops.into_iter().map(op).collect(),
        };
        let expected = self.model.txn(&txn);
        let outcome = self.store.txn(txn).await;
        match (&outcome, &expected) {
            // Which one of several duplicates is named does not matter.
            (Err(Error::DuplicateKey { .. }), Err(Error::DuplicateKey { .. })) => {}
            _ => assert_eq!(outcome, expected),
        }
        for name in KEYS {
            assert_eq!(self.store.get(name).await.unwrap().as_ref(), self.model.latest().get(name));
        }
    }

    /// Reads a range page by page.
    async fn range(&self, mut start: String, end: String, limit: usize, back: u64) {
        let revision = (self.model.revision() + 1).saturating_sub(back);
        let asked = (back > 1 || back == 0).then_some(revision);
        let revision = asked.unwrap_or(self.model.revision());
        let first = Range { start: start.clone(), end: end.clone(), limit, revision: asked };
        if let Err(error) = self.model.readable(revision) {
            assert_eq!(self.store.range(first).await, Err(error));
            return;
        }
        let mut expected: Vec<&KeyValue> = self.model.revisions[&revision]
            .iter()
            .filter(|(key, _)| within(key, &start, &end))
            .map(|(_, kv)| kv)
            .collect();
        loop {
            let range = Range { start: start.clone(), end: end.clone(), limit, revision: asked };
            let page = self.store.range(range).await.unwrap();
            let size = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
            let rest = expected.split_off(size);
            assert_eq!(page.items.iter().collect::<Vec<_>>(), expected);
            assert_eq!((page.more, page.remaining), (!rest.is_empty(), rest.len() as u64));
            assert_eq!(page.revision, revision);
            if !page.more {
                return;
            }
            start = key_after(&page.items.last().unwrap().key);
            expected = rest;
        }
    }

    async fn watch(&mut self, start: String, end: String, back: u64) {
        let after = (self.model.revision() + 1).saturating_sub(back);
        let watch = self.store.watch(start.clone(), end.clone(), after).await;
        match (watch, self.model.readable(after)) {
            (Ok(watch), Ok(())) => self.watches.push(Watching { watch, start, end, after }),
            (watch, expected) => assert_eq!(watch.map(|_| ()), expected),
        }
    }

    /// Every watch has got exactly the events of its range, those of a revision together.
    async fn check_watches(&mut self, close: bool) {
        if close {
            self.store.close().await;
        }
        for Watching { mut watch, start, end, after } in std::mem::take(&mut self.watches) {
            assert!(watch.progress() >= after);
            let mut seen = Vec::new();
            let mut last = after;
            let ended = loop {
                let progress = watch.progress();
                match watch.next().now_or_never() {
                    Some(Some(Ok(events))) => {
                        let revision = events[0].revision();
                        assert!(revision > last && revision > progress);
                        assert!(events.iter().all(|event| event.revision() == revision));
                        assert!(watch.progress() >= revision);
                        last = revision;
                        seen.extend(events.iter().cloned());
                    }
                    Some(Some(Err(error))) => {
                        assert_eq!(error, Error::Closed);
                        assert!(watch.next().await.is_none());
                        break true;
                    }
                    Some(None) => panic!("a watch ended without saying why"),
                    None => break false,
                }
            };
            let expected: Vec<_> = (self.model.events.iter())
                .filter(|event| event.revision() > after && within(event.key(), &start, &end))
                .cloned()
                .collect();
            assert_eq!(seen, expected);
            assert_eq!(ended, close);
            if !close {
                assert_eq!(watch.progress(), self.model.revision());
            }
        }
    }
}

/// Some keys are sealed, some are prefixes of those.
fn open(directory: &tempfile::TempDir) -> Embedded {
    let prefixes = vec!["a/".to_owned(), "b".to_owned()];
    let sealing = Sealing { prefixes, keys: directory.path().join("keys"), create: true };
    let config = Config { sealing: Some(sealing), ..Config::new(directory.path().join("store")) };
    Embedded::open(config).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = open(&directory);
            let mut run = Run { directory, store, model: Model::new(), watches: Vec::new() };
            for step in steps {
                run.step(step).await;
            }
            run.check_watches(false).await;
        });
    }
}
