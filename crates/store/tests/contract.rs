//! The contract of [`Store`], as one suite: an implementation is a [`Subject`], and each test runs on every subject.

use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use yado_store::{
    Compare, Config, Embedded, Error, Op, Range, Revision, Store, Txn, TxnOutcome, Watch, WatchEvent,
};

/// An implementation under test.
#[async_trait::async_trait]
trait Subject: Send + Sync {
    /// A process's access to the store; all calls lead to the same store.
    async fn open(&self) -> Arc<dyn Store>;
}

/// The embedded store, which one process has to itself.
struct EmbeddedSubject(tempfile::TempDir);

#[async_trait::async_trait]
impl Subject for EmbeddedSubject {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Embedded::open(Config::new(self.0.path())).expect("a store"))
    }
}

fn subjects() -> Vec<Box<dyn Subject>> {
    vec![Box::new(EmbeddedSubject(tempfile::tempdir().expect("a directory")))]
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    let op = Op::Put { key: key.into(), value: value.to_owned().into() };
    match store.txn(Txn { compares: Vec::new(), ops: vec![op] }).await.expect("a commit") {
        TxnOutcome::Committed { revision } => revision,
        TxnOutcome::Conflict { .. } => panic!("nothing was compared"),
    }
}

/// The next item of a watch, if it is there without waiting for a further write.
async fn next(watch: &mut Watch) -> Vec<(String, Revision)> {
    let item = watch.next().await.expect("the watch goes on").expect("events");
    item.iter().map(|event| (event.key().to_string(), event.revision())).collect()
}

#[tokio::test]
async fn transactions_have_one_order_and_are_whole() {
    for subject in subjects() {
        let store = subject.open().await;
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut won = 0;
                    for _ in 0..25 {
                        let current = store.get("/counter").await.expect("a read");
                        let (count, at) = current.map_or((0, 0), |kv| {
                            let text = String::from_utf8(kv.value.to_vec()).expect("text");
                            (text.parse::<u64>().expect("a number"), kv.mod_revision)
                        });
                        let mut txn = Txn::update("/counter", at, (count + 1).to_string());
                        let mark =
                            Op::Put { key: format!("/mark/{writer}"), value: (count + 1).to_string().into() };
                        txn.ops.push(mark);
                        if matches!(store.txn(txn).await.expect("an outcome"), TxnOutcome::Committed { .. }) {
                            won += 1;
                        }
                    }
                    won
                })
            })
            .collect();
        let mut won = 0;
        for writer in writers {
            won += writer.await.expect("a writer");
        }
        let counter = store.get("/counter").await.expect("a read").expect("it was written");
        assert_eq!(counter.value, won.to_string(), "each commit counted once");
        assert_eq!(counter.version, won);
        let range = Range { start: "/mark/".into(), end: "/mark0".into(), limit: 100, revision: None };
        for mark in store.range(range).await.expect("a list").items {
            // The mark was written by the transaction that counted to it.
            let count: u64 = std::str::from_utf8(&mark.value).expect("text").parse().expect("a number");
            assert!(count <= won && mark.mod_revision <= counter.mod_revision);
        }
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_for_the_next_process() {
    for subject in subjects() {
        let store = subject.open().await;
        let revision = put(&*store, "/a", "1").await;
        store.close().await;
        let store = subject.open().await;
        assert!(store.latest().await.expect("a revision") >= revision);
        let found = store.get("/a").await.expect("a read").expect("it was acknowledged");
        assert_eq!((&*found.value, found.mod_revision), (&b"1"[..], revision));
        store.close().await;
    }
}

#[tokio::test]
async fn the_latest_revision_covers_what_was_acknowledged() {
    for subject in subjects() {
        let store = subject.open().await;
        for round in 0..20 {
            let revision = put(&*store, "/a", &round.to_string()).await;
            assert!(store.latest().await.expect("a revision") >= revision);
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_conflict_changes_nothing_and_shows_what_is_there() {
    for subject in subjects() {
        let store = subject.open().await;
        let at = put(&*store, "/a", "1").await;
        let mut txn = Txn::update("/a", at + 7, "2");
        txn.ops.push(Op::Put { key: "/b".into(), value: "x".into() });
        match store.txn(txn).await.expect("an outcome") {
            TxnOutcome::Conflict { current, .. } => {
                let found = current[0].as_ref().expect("the compared key");
                assert_eq!((&*found.value, found.mod_revision), (&b"1"[..], at));
            }
            TxnOutcome::Committed { .. } => panic!("the comparison does not hold"),
        }
        assert_eq!(store.get("/b").await.expect("a read"), None);
        assert_eq!(store.latest().await.expect("a revision"), at);
        store.close().await;
    }
}

#[tokio::test]
async fn a_watch_delivers_each_revision_once_and_says_how_far_it_is() {
    for subject in subjects() {
        let store = subject.open().await;
        let start = put(&*store, "/in/a", "1").await;
        let mut watch = store.watch("/in/".into(), "/in0".into(), start).await.expect("a watch");
        let outside = put(&*store, "/out", "1").await;
        let two = Txn {
            compares: Vec::new(),
            ops: vec![Op::Put { key: "/in/b".into(), value: "1".into() }, Op::Delete { key: "/in/a".into() }],
        };
        let TxnOutcome::Committed { revision } = store.txn(two).await.expect("a commit") else {
            panic!("compared")
        };
        assert!(outside < revision);
        assert_eq!(next(&mut watch).await, [("/in/b".to_owned(), revision), ("/in/a".to_owned(), revision)]);
        assert!(watch.progress() >= revision);
        // Opened again after the revision that was delivered, it neither loses nor repeats.
        drop(watch);
        let last = put(&*store, "/in/c", "1").await;
        let mut again = store.watch("/in/".into(), "/in0".into(), revision).await.expect("a watch");
        assert_eq!(next(&mut again).await, [("/in/c".to_owned(), last)]);
        assert!(again.next().now_or_never().is_none());
        // A list and a watch from its revision are one history.
        let listed =
            store.range(Range { start: "/in/".into(), end: "/in0".into(), limit: 9, revision: None }).await;
        let mut on = store
            .watch("/in/".into(), "/in0".into(), listed.expect("a list").revision)
            .await
            .expect("a watch");
        let after = put(&*store, "/in/d", "1").await;
        assert_eq!(next(&mut on).await, [("/in/d".to_owned(), after)]);
        store.close().await;
    }
}

#[tokio::test]
async fn events_show_the_state_before() {
    for subject in subjects() {
        let store = subject.open().await;
        let first = put(&*store, "/a", "1").await;
        put(&*store, "/a", "2").await;
        let mut watch = store.watch("/".into(), String::new(), first).await.expect("a watch");
        let item = watch.next().await.expect("an item").expect("events");
        let WatchEvent::Put { kv, previous } = &item[0] else { panic!("it was written") };
        assert_eq!((&*kv.value, kv.version), (&b"2"[..], 2));
        // A remote store may have compacted it; if it is there, it is the one before.
        assert!(previous.as_ref().is_none_or(|before| before.value == "1" && before.mod_revision == first));
        store.close().await;
    }
}

#[tokio::test]
async fn compaction_keeps_what_lives_and_refuses_what_it_dropped() {
    for subject in subjects() {
        let store = subject.open().await;
        let old = put(&*store, "/a", "1").await;
        put(&*store, "/b", "1").await;
        let new = put(&*store, "/a", "2").await;
        store.compact(new).await.expect("a compaction");
        assert_eq!(store.get("/b").await.expect("a read").expect("it lives").value, "1");
        let at =
            |revision| Range { start: "/".into(), end: String::new(), limit: 9, revision: Some(revision) };
        assert!(matches!(store.range(at(old)).await, Err(Error::Compacted { .. })));
        assert_eq!(store.range(at(new)).await.expect("a list").items.len(), 2);
        let watch = store.watch("/".into(), String::new(), old).await;
        assert!(matches!(watch.map(drop), Err(Error::Compacted { .. })));
        let future = store.watch("/".into(), String::new(), new + 100).await;
        assert!(matches!(future.map(drop), Err(Error::FutureRevision { .. })));
        store.close().await;
    }
}

#[tokio::test]
async fn a_replaced_holder_of_a_lease_writes_nothing() {
    for subject in subjects() {
        let store = subject.open().await;
        let mine = put(&*store, "/lease", "node-1").await;
        // Somebody else takes the lease over; the write of the first holder is still on its way.
        put(&*store, "/lease", "node-2").await;
        let late = Txn {
            compares: vec![Compare::ModRevision { key: "/lease".into(), equals: mine }],
            ops: vec![Op::Put { key: "/volume".into(), value: "node-1".into() }],
        };
        assert!(matches!(store.txn(late).await.expect("an outcome"), TxnOutcome::Conflict { .. }));
        assert_eq!(store.get("/volume").await.expect("a read"), None);
        store.close().await;
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    for subject in subjects() {
        let store = subject.open().await;
        let mut watch = store.watch("/".into(), String::new(), store.revision()).await.expect("a watch");
        store.close().await;
        assert_eq!(watch.next().await.expect("an end").map(drop), Err(Error::Closed));
        assert_eq!(store.get("/a").await.map(drop), Err(Error::Closed));
        assert!(!Error::Closed.is_transient());
    }
}
