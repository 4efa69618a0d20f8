//! The behaviour of each kind: one module for a kind, with all that tells its objects from others.
//!
//! Generic code asks a kind through [`strategy::Strategy`] and never by its name; the table of kinds
//! ([`crate::schema::KINDS`]) says which strategy belongs to which. A new kind is a row there, its fields in
//! `schema/fields.txt`, and a module here where it has rules of its own.
//!
//! Shared by several kinds: [`pod_spec`] (Pods and templates), [`pod_template`] (what makes Pods), [`rollout`], [`volume`],
//! [`network`], [`data`], [`grants`], [`admission_policy`].

pub(crate) mod admission_policy;
pub(crate) mod api_service;
pub(crate) mod binding;
pub(crate) mod certificate_signing_request;
pub(crate) mod config_map;
pub(crate) mod controller_revision;
pub(crate) mod cron_job;
pub(crate) mod custom_resource;
pub(crate) mod custom_resource_definition;
pub(crate) mod daemon_set;
pub(crate) mod data;
pub(crate) mod deployment;
pub(crate) mod endpoint_slice;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod flow_schema;
pub(crate) mod grants;
pub(crate) mod ingress;
pub(crate) mod ingress_class;
pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod limit_range;
pub(crate) mod mutating_admission_policy;
pub(crate) mod mutating_admission_policy_binding;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod network_policy;
pub(crate) mod node;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
pub(crate) mod pod_spec;
pub(crate) mod pod_template;
pub(crate) mod priority_class;
pub(crate) mod priority_level_configuration;
pub(crate) mod replica_set;
pub(crate) mod replication_controller;
pub(crate) mod resource_quota;
pub(crate) mod review;
pub(crate) mod role;
pub(crate) mod role_binding;
pub(crate) mod rollout;
pub(crate) mod runtime_class;
pub(crate) mod scale;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod stateful_set;
pub(crate) mod storage_class;
pub(crate) mod strategy;
pub(crate) mod token_request;
pub(crate) mod token_review;
pub(crate) mod validating_admission_policy;
pub(crate) mod validating_admission_policy_binding;
pub(crate) mod volume;
pub(crate) mod webhook_configuration;
