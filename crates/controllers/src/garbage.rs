//! The garbage collector: deletes objects whose owners are gone.
//!
//! ```text
//! every kind --metadata--> Graph: owner -> dependents
//!                            `--> delete, drop a dead owner, drop a finalizer
//! ```
//!
//! Watches the metadata of every kind the server has (events excepted). Deletes objects all of whose owners are gone;
//! serves foreground deletion (the owner waits for the dependents that block it) and orphaning (the dependents lose
//! their owner first).

mod graph;
mod run;

pub(crate) use run::start;
