//! The building blocks of controllers:
//!
//! - [`Tasks`]: owns background tasks, and stops and joins them at shutdown.
//! - [`Informer`] and [`Informers`]: caches of the objects of a kind, shared by all readers and kept current by one watch,
//!   with [`Index`]es; [`ObjectInformer`] for one object among many.
//! - [`Queue`]: a work queue of keys, each at most once, with delays.
//! - [`run`]: the workers of a controller: take a key, reconcile it, retry failures with increasing delays.
//! - [`events`]: records Kubernetes Events about objects.
//! - [`leader`]: of several processes one does the work.
//!
//! ```text
//! API server --watch--> Informer --feed--> Queue --next--> reconcile(key) --writes--> API server
//!                           \--index--> Index <---reads----/
//! ```

mod change;
mod decoded;
pub mod events;
mod index;
mod informer;
pub mod leader;
mod queue;
mod tasks;

pub use change::Change;
pub use index::Index;
pub use informer::{Informer, Informers, Kind, ObjectInformer, revision_of};
pub use queue::{Next, Outcome, Queue, is_worth_a_warning, retry_delay, run};
pub use tasks::Tasks;
pub use yado_types::clock::{Clock, ManualClock, SystemClock};
pub use yado_types::key::ObjectKey;
