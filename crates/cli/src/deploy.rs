//! Deploying: what a description asks for is put in place, what it no longer asks for is removed, and what several apps
//! depend on is there once.
//!
//! An application is a *unit*: the app itself, and each application that it depends on. A unit has a [`Record`] in the
//! cluster: which objects it consists of, which apps need it, and what it was last deployed as.
//!
//! ```text
//! compiled objects --units--> one per application --plan(records)--> apply, destroy, remember
//! ```
//!
//! So a dependency that two apps name is one unit that both need: the second app's deployment finds it unchanged, and it
//! goes when the last app that needs it does.

use std::collections::BTreeSet;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use yado_compile::{Compiled, ExternalEndpoint};
use yado_types::{clock::SystemClock, labels};

use crate::{
    apply::{FIELD_MANAGER, How, Outcome, apply_objects},
    connect::failed,
    progress::Progress,
    ready::{self, Wait},
    source::Source,
};

mod external;
mod plan;
pub mod record;
mod remove;

pub use external::check as check_external;
pub use plan::{Refusal, in_namespace};
pub use record::Record;
pub use remove::{Removed, remove};

/// How to deploy.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only find out what would become of each object.
    pub dry_run: bool,
    /// Wait for all that runs, and how.
    pub wait: Option<Wait>,
    /// Replace an app of the same name that was deployed from another place.
    pub take_over: bool,
}

/// What became of a deployment.
#[derive(Debug, Clone)]
pub struct Report {
    /// The app's record.
    pub record: Record,
    /// What became of each object.
    pub outcomes: Vec<Outcome>,
    /// What was not removed although the description no longer asks for it.
    pub kept: Vec<String>,
}

/// Deploys `compiled`, whose description is at `source`, to `namespace`. Where that namespace is not there, it is made.
///
/// # Errors
///
/// An object belongs to another app; the API server refuses one; or something does not become ready. What was done is
/// remembered, so that the next deployment goes on from there.
pub async fn deploy(
    client: &Client,
    namespace: &str,
    compiled: &Compiled,
    source: Option<Source>,
    options: Options,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let records = record::all(client, namespace).await?;
    let mut units = plan::units(compiled, source);
    leave_foreign_namespace(client, namespace, &mut units, &records).await?;
    let plan = plan::plan(units, &records, options.take_over)?;
    let objects: Vec<&Value> = compiled.objects.iter().map(|object| &object.value).collect();
    check_external(client, namespace, &objects).await?;
    plan.notes.iter().for_each(|note| progress.say(format!("            {note}")));
    let described = plan.units.iter().any(|unit| unit.makes_namespace(namespace));
    if !options.dry_run && !described {
        ensure_namespace(client, namespace).await?;
    }
    let how = How { dry_run: options.dry_run, ..How::deploying() };
    let mut outcomes = Vec::new();
    let mut applied: Vec<Value> = Vec::new();
    let mut latest = None;
    for unit in plan.units {
        // Objects of before and of now, until it is known that the former are gone.
        let known = records.iter().find(|r| r.app == unit.record.app);
        let mut first = Vec::new();
        if unit.makes_namespace(namespace) && !unit.objects.is_empty() {
            // What is remembered lies in it.
            let made =
                apply_objects(client, namespace, &unit.objects[..1], how, "", &Progress::none()).await?;
            first.extend(made);
        }
        if !options.dry_run && unit.is_new_to(known) {
            record::write(client, namespace, &unit.beginning(known)).await?;
        }
        let of_unit = format!("{}: ", unit.record.app);
        let rest = &unit.objects[first.len()..];
        let mut of_it = first;
        of_it.extend(apply_objects(client, namespace, rest, how, &of_unit, progress).await?);
        of_it.extend(
            remove::objects(client, namespace, &unit.destroy, options.dry_run, &of_unit, progress).await?,
        );
        let record = unit.finished(known, of_it.iter().any(Outcome::is_change), now());
        if !options.dry_run && known != Some(&record) {
            record::write(client, namespace, &record).await?;
        }
        outcomes.extend(of_it);
        applied.extend(unit.objects);
        latest = Some(record);
    }
    for released in plan.released {
        outcomes.extend(remove::release(client, namespace, released, options.dry_run, progress).await?);
    }
    let mut record = latest.context("the description has no application")?;
    if let Some(wait) = options.wait.filter(|_| !options.dry_run) {
        let waited = ready::wait_ready(client, namespace, &applied, wait, progress).await;
        remember_outcome(client, namespace, &mut record, &waited).await?;
        waited?;
    }
    Ok(Report { record, outcomes, kept: plan.kept })
}

/// Remembers whether the revision became ready, which `yado status` tells.
async fn remember_outcome(
    client: &Client,
    namespace: &str,
    record: &mut Record,
    waited: &anyhow::Result<()>,
) -> anyhow::Result<()> {
    let before = record.clone();
    match waited {
        Ok(()) => (record.served, record.failure) = (Some(record.revision), None),
        // The first line only: below it are words of the process, which may be anything.
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            record.failure = Some(first.trim_end_matches("; its last words:").to_owned());
        }
    }
    if *record == before { Ok(()) } else { record::write(client, namespace, record).await }
}

/// A namespace that was there before, and not made by Yado, is no part of an app: it would go with the app, and all in
/// it that is somebody else's.
async fn leave_foreign_namespace(
    client: &Client,
    namespace: &str,
    units: &mut [plan::Unit],
    records: &[Record],
) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api.get_metadata_opt(namespace).await;
    let found = found.map_err(failed(format!("namespace {namespace} cannot be read")))?;
    let Some(labels) = found.map(|n| n.metadata.labels.unwrap_or_default()) else { return Ok(()) };
    if labels.get(labels::APP_MANAGED_BY).is_some_and(|by| by == labels::MANAGED_BY_YADO) {
        return Ok(());
    }
    for unit in units.iter_mut() {
        let recorded = records
            .iter()
            .any(|r| r.objects.iter().any(|key| key.kind == "Namespace" && key.name == namespace));
        if !recorded && unit.makes_namespace(namespace) {
            unit.objects.remove(0);
            unit.record.objects.remove(0);
        }
    }
    Ok(())
}

fn now() -> String {
    SystemClock::shared().now().to_string()
}

async fn ensure_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let lost = || failed(format!("namespace {name} cannot be made"));
    if api.get_metadata_opt(name).await.map_err(lost())?.is_some() {
        return Ok(());
    }
    let labels = json!({labels::APP_MANAGED_BY: labels::MANAGED_BY_YADO});
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(namespace)).await.map_err(lost())?;
    Ok(())
}

/// Published ports with the numbers that the cluster has chosen for those that have none.
pub async fn reached(
    client: &Client,
    namespace: &str,
    published: &[ExternalEndpoint],
) -> Vec<ExternalEndpoint> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let mut found = published.to_vec();
    let open: BTreeSet<String> =
        found.iter().filter(|p| p.port.is_none()).map(|p| p.service.clone()).collect();
    for name in open {
        // A Service that is not there says nothing of its ports, which is what is shown then.
        let Ok(Some(service)) = api.get_opt(&name).await else { continue };
        for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            let chosen = port.node_port.and_then(|p| u16::try_from(p).ok());
            let target = match &port.target_port {
                Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(target)) => *target,
                _ => port.port,
            };
            let same = |p: &&mut ExternalEndpoint| {
                p.service == name && i32::from(p.target) == target && p.port.is_none()
            };
            found.iter_mut().filter(same).for_each(|p| p.port = chosen);
        }
    }
    found
}
