//! The user's wish to stop.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and what service managers send.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    /// From now on the signals no longer end the process by themselves.
    pub fn listen() -> Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Ready at the next of them.
    pub async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Ready once the user presses Ctrl-C again. A terminal that closes and a session that ends send several of the
    /// other signals for one wish.
    pub async fn insisted(&mut self) {
        self.interrupt.recv().await;
    }
}
