//! The writer thread, which decides transactions and makes them durable, with one sync for many.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::Shared;
use super::disk::{CommitFault, Disk};
use super::group::{Deciding, Group};
use crate::{Error, Result, Revision, Txn, TxnOutcome};

/// Maximum number of transactions in one commit: many times what 64 busy clients have in flight, and few
/// enough to delay the first of them by no more than some milliseconds.
const GROUP_TXNS: usize = 1024;

/// Size of a group in bytes of keys and values from which no transaction is added, for the same reason.
const GROUP_BYTES: usize = 8 << 20;

/// A queued transaction, with the channel for its outcome.
pub(crate) struct Request {
    pub(crate) txn: Txn,
    pub(crate) reply: oneshot::Sender<Result<TxnOutcome>>,
}

type Reply = (oneshot::Sender<Result<TxnOutcome>>, Result<TxnOutcome>);

/// State of the writer thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    /// A group whose commit failed such that it may be durable, until the database can be read again.
    in_doubt: Option<Group>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, disk: Disk) -> Writer {
        Writer { shared, disk, in_doubt: None }
    }

    /// Processes requests until all senders of the queue are dropped, which happens when the store is closed.
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
            // A conflict may have been caused by an earlier transaction of the group, so it fails as well.
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

    /// Makes a group durable and then visible. After an error it is not applied, except after
    /// [`Error::InDoubt`].
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

    /// Opens the database again after a failure and resolves the group in doubt. Fails if the disk still does.
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

    /// Determines by the database's revision whether a group became durable, and publishes it if so.
    /// Returns whether it did.
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
    // Sending fails if the caller has dropped its future; the write may take effect nevertheless.
    let _ = reply.send(outcome);
}
