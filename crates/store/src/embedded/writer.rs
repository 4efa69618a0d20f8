//! The one thread that decides transactions and makes them durable, many with one sync.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::Shared;
use super::disk::{CommitFault, Disk};
use super::group::{Deciding, Group};
use crate::{Error, Result, Revision, Txn, TxnOutcome};

/// The most transactions of one commit: what 64 busy clients have waiting many times over, and few
/// enough to hold up the first of them by no more than some milliseconds.
const GROUP_TXNS: usize = 1024;

/// No transaction joins a group that has reached this size, for the same reason.
const GROUP_BYTES: usize = 8 << 20;

/// A transaction that waits for its turn.
pub(crate) struct Request {
    pub(crate) txn: Txn,
    pub(crate) reply: oneshot::Sender<Result<TxnOutcome>>,
}

type Reply = (oneshot::Sender<Result<TxnOutcome>>, Result<TxnOutcome>);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    /// A group that was committing when the disk failed and has not been read back.
    in_doubt: Option<Group>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, disk: Disk) -> Writer {
        Writer { shared, disk, in_doubt: None }
    }

    /// Serves until every sender of the queue is gone, which is when the store is closed.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.txn.size();
            let mut requests = vec![first];
            while requests.len() < GROUP_TXNS
                && bytes < GROUP_BYTES
                && let Ok(request) = queue.try_recv()
            {
                bytes += request.txn.size();
                requests.push(request);
            }
            self.serve(requests);
        }
        self.shared.watchers.close();
    }

    fn serve(&mut self, requests: Vec<Request>) {
        if self.disk.is_down()
            && let Err(error) = self.recover()
        {
            for request in requests {
                answer(request.reply, Err(error.clone()));
            }
            return;
        }
        let (group, replies) = self.decide(requests);
        let failed = if group.entries.is_empty() { None } else { self.commit(group).err() };
        for (reply, outcome) in replies {
            // A conflict, too, may have been decided upon a change that has now failed.
            answer(reply, failed.clone().map_or(outcome, Err));
        }
    }

    fn decide(&self, requests: Vec<Request>) -> (Group, Vec<Reply>) {
        let state = self.shared.state.read();
        let mut deciding = Deciding::new(&state, self.shared.max_bytes);
        let replies =
            requests.into_iter().map(|Request { txn, reply }| (reply, deciding.decide(txn))).collect();
        (deciding.finish(), replies)
    }

    /// Makes a group durable and then visible. On an error it is not applied, unless that says it is
    /// in doubt.
    fn commit(&mut self, group: Group) -> Result<()> {
        let (fault, may_be_durable) = match self.disk.commit(&group) {
            Ok(()) => {
                self.shared.publish(&group);
                return Ok(());
            }
            Err(CommitFault::Before(fault)) => (fault, false),
            Err(CommitFault::During(fault)) => (fault, true),
        };
        let path = self.disk.path().to_owned();
        warn!(path = %path.display(), ?fault, "a commit failed, opening the database again");
        match self.disk.reopen() {
            Ok(stored) => match self.settle(&group, stored) {
                Ok(true) => Ok(()),
                Ok(false) => Err(fault.not_applied(&path)),
                Err(error) => Err(error),
            },
            Err(_) if !may_be_durable => Err(fault.not_applied(&path)),
            Err(_) => {
                self.in_doubt = Some(group);
                Err(fault.in_doubt(&path))
            }
        }
    }

    /// Gets going again after the disk failed; an error if it is not back yet.
    fn recover(&mut self) -> Result<()> {
        let stored = match self.disk.reopen() {
            Ok(stored) => stored,
            Err(fault) => return Err(fault.not_applied(self.disk.path())),
        };
        let base = self.shared.state.read().revision();
        match self.in_doubt.take() {
            Some(group) => {
                self.settle(&group, stored)?;
            }
            None if stored != base => return Err(self.diverged(stored, base)),
            None => {}
        }
        info!(path = %self.disk.path().display(), revision = stored, "the database works again");
        Ok(())
    }

    /// Compares what the database holds with a group that may have reached it, and publishes the group
    /// if it did. Tells whether it did.
    fn settle(&mut self, group: &Group, stored: Revision) -> Result<bool> {
        if stored == group.revision() {
            self.shared.publish(group);
            Ok(true)
        } else if stored == group.base {
            Ok(false)
        } else {
            Err(self.diverged(stored, group.base))
        }
    }

    fn diverged(&mut self, stored: Revision, expected: Revision) -> Error {
        self.disk.abandon();
        let path = self.disk.path().to_owned();
        error!(path = %path.display(), stored, expected, "the database changed behind the store's back");
        Error::Damaged { path, reason: format!("it holds revision {stored} instead of {expected}") }
    }
}

fn answer(reply: oneshot::Sender<Result<TxnOutcome>>, outcome: Result<TxnOutcome>) {
    // Who no longer waits has dropped the future and knows that the write may happen.
    let _ = reply.send(outcome);
}
