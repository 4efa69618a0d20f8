//! What long operations tell their caller, and how the caller stops them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ImageError, Result};

/// Something worth a line, or a change to a line, on a terminal.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A pull, an import or a build of this name has begun.
    Started {
        /// The reference, the archive's file name or the build's name.
        name: String,
    },
    /// A layer went on.
    Layer {
        /// The first twelve digits of its diffID.
        layer: String,
        /// How far it is.
        state: LayerState,
    },
    /// A step of a build went on.
    Step {
        /// What the step makes: `base`, `packages`, `tools`, `dependencies`, `app`, `compile`.
        step: &'static str,
        /// How far it is.
        state: StepState,
    },
    /// Something that the caller should know, while all is as it was asked for.
    Notice {
        /// A sentence.
        text: String,
    },
    /// Something is not as it was asked for, and the operation goes on without it.
    Warning {
        /// A sentence.
        text: String,
    },
}

/// How far a layer is.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerState {
    /// It was on this machine already.
    Present,
    /// It is being read and unpacked.
    Transferring {
        /// Bytes read so far, as transferred.
        done: u64,
        /// All of them; 0 where the source does not say.
        total: u64,
    },
    /// It failed and is tried again.
    Retrying {
        /// Which attempt is next, counted from 1.
        attempt: u32,
        /// Why the last one failed.
        reason: String,
    },
    /// It is unpacked and verified.
    Done,
}

/// How far a build step is.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    /// Nothing that it depends on has changed since it was last made.
    Cached,
    /// It is doing this.
    Running(String),
    /// It is made.
    Done,
}

/// Receives [`Event`]s and carries the wish to stop. Clones share both.
#[derive(Clone, Default)]
pub struct Progress {
    sink: Option<Arc<dyn Fn(Event) + Send + Sync>>,
    cancelled: Arc<AtomicBool>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

impl Progress {
    /// Tells nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Calls `sink` with each event, from whatever thread it happens on.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { sink: Some(Arc::new(sink)), cancelled: Arc::default() }
    }

    /// Makes the operation end soon with [`ImageError::Cancelled`]; it removes what it has half done.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`Progress::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(ImageError::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn report(&self, event: impl FnOnce() -> Event) {
        if let Some(sink) = &self.sink {
            sink(event());
        }
    }

    pub(crate) fn layer(&self, diff_id: &str, state: LayerState) {
        self.report(|| {
            let hex = diff_id.trim_start_matches("sha256:");
            Event::Layer { layer: hex.chars().take(12).collect(), state }
        });
    }

    pub(crate) fn step(&self, step: &'static str, state: StepState) {
        self.report(|| Event::Step { step, state });
    }
}
