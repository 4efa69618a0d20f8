//! How many creations a second are acknowledged, by the number of writers.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use yado_store::{Config, Embedded, Store, Txn};

const CREATES: usize = 40_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for writers in [1, 16, 64] {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(Config::new(directory.path())).unwrap());
        let count = CREATES / if writers == 1 { 10 } else { 1 };
        let start = Instant::now();
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for writer in 0..writers {
                let store = store.clone();
                tasks.spawn(async move {
                    for number in 0..count / writers {
                        let key = format!("/registry/configmaps/default/{writer}-{number}");
                        store.txn(Txn::create(key, vec![b'x'; 512])).await.unwrap();
                    }
                });
            }
            tasks.join_all().await;
        });
        let rate = count as f64 / start.elapsed().as_secs_f64();
        eprintln!("{writers:3} writers: {rate:8.0} creates/s");
    }
}
