//! What every other crate agrees on: names of labels and annotations, quantities, selectors, what a Pod asks of its node,
//! rules for names, the clock. Pure but for the clock.

pub mod address;
pub mod clock;
pub mod key;
pub mod labels;
pub mod links;
pub mod names;
pub mod placement;
pub mod pod;
pub mod quantity;
pub mod resources;
pub mod selector;
pub mod sysctls;
pub mod taints;
pub mod tmpfs;
