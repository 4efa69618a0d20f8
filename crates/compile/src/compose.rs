//! The compose front end: compose files of every age, and `.dab` bundles, become a [`model::Project`], and that becomes
//! objects.

pub mod lower;
pub mod model;
