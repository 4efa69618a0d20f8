//! The binary as users run it, with real clients, containers and networks. Each test has a network namespace, ports
//! and a data directory of its own.

mod bad_input;
mod certificates;
mod client;
mod cluster;
mod compose;
mod corpus;
mod described;
mod dev;
mod fleet;
mod flow;
mod kinds;
mod kubectl;
mod lives;
mod login;
mod network;
mod node;
mod pods;
mod published;
mod python;
mod secrets;
mod stateful;
mod tiers;
mod tokens;
mod truth;
mod usage;
