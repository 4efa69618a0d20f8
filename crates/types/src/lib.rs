//! Types and rules that all crates share: names of labels and annotations, quantities, selectors, a Pod's requirements on
//! its node, validation of names, conversion of objects of removed API versions, the clock. Everything except the clock is pure.

pub mod address;
pub mod api_versions;
pub mod clock;
pub mod cron;
pub mod duration;
pub mod key;
pub mod labels;
pub mod links;
pub mod names;
pub mod placement;
pub mod pod;
pub mod procfile;
pub mod quantity;
pub mod resources;
pub mod selector;
pub mod sysctls;
pub mod taints;
pub mod time_zone;
pub mod tmpfs;
