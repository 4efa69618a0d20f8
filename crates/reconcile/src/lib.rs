//! The building blocks of controllers:
//!
//! - [`Tasks`]: owns background tasks, and stops and joins them at shutdown.
//! - [`Watch`] and [`Watches`]: shared informers, which cache the objects of a kind and keep them current by one watch, with
//!   [`Index`]es over the cache.
//! - [`Queue`]: a work queue of keys, each at most once, with delays.
//! - [`run`]: the workers of a controller: take a key, reconcile it, retry failures with increasing delays.
//! - [`events`]: records Kubernetes Events about objects.
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
