//! What every control loop stands on:
//!
//! - [`Tasks`]: every task has an owner that stops and joins it.
//! - [`Watch`] and [`Watches`]: one watch per kind, shared; its objects in memory, with [`Index`]es.
//! - [`Queue`]: which keys want a look, each at most once, some later.
//! - [`run`]: the loop itself: take a key, reconcile, retry with back-off.
//! - [`events`]: what happened, for people to read.
//!
//! ```text
//! API server --watch--> Watch --feed--> Queue --next--> reconcile(key) --writes--> API server
//!                         \--index--> Index <---reads----/
//! ```

mod decoded;
pub mod events;
mod index;
mod queue;
mod tasks;
mod watch;

pub use index::Index;
pub use queue::{Next, Outcome, Queue, run};
pub use tasks::Tasks;
pub use watch::{Change, Kind, Watch, Watches, revision_of};
pub use yado_types::clock::{Clock, ManualClock, SystemClock};
pub use yado_types::key::ObjectKey;
