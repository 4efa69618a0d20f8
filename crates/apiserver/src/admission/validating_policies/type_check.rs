//! The status of policies: what is wrong with their expressions by the types of the objects that they match.
//!
//! As in Kubernetes it changes nothing about a policy: expressions see objects of any type, and may be meant for one of
//! several.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::policies;
use crate::admission::expressions;
use crate::admission::params::resource_of;
use crate::admission::policy::all;
use crate::cel::{self, Declarations, Program, Type, TypeKind, rules};
use crate::edit::{list, map_at, text};
use crate::object::{Object, meta};
use crate::resource::{Resource, Resources};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};

/// Kinds that the expressions of one policy are checked for.
const MAX_KINDS: usize = 10;
/// Until the next attempt at what failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Keeps the status of all policies up to date until the server ends.
pub(crate) async fn run(server: Arc<Inner>) {
    let Some(collection) = policies().and_then(|policies| server.collection(policies).ok()) else { return };
    let mut changed = collection.subscribe();
    loop {
        changed.borrow_and_update();
        let done = reconcile(&server).await;
        if let Err(failure) = &done {
            tracing::warn!(%failure, "the status of admission policies is not up to date; the next attempt follows");
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            ended = changed.changed() => if ended.is_err() { return },
            () = server.clock.sleep(RETRY_DELAY), if done.is_err() => {}
        }
    }
}

async fn reconcile(server: &Inner) -> Result<()> {
    let resource = policies().ok_or_else(Failure::no_such_resource)?;
    let is_outdated = |policy: &Value| {
        let observed = policy["status"]["observedGeneration"].as_i64().unwrap_or(0);
        policy["metadata"]["generation"].as_i64().unwrap_or(0) > observed
    };
    for policy in all(server, Some(resource)) {
        let value = policy.value();
        if !is_outdated(&value) {
            continue;
        }
        let warnings = check(&server.registry.current(), &value["spec"]);
        let ctx = WriteContext::internal(server, resource, Operation::Update);
        let written = server.modify(&ctx, ("", meta(&value, "name")), 0, |current: &Object| {
            let current = current.value();
            // A change of the spec meanwhile is another pass.
            if current["metadata"]["generation"] != value["metadata"]["generation"] {
                return Ok(Decision::Keep);
            }
            let mut next = Value::clone(&current);
            if let Some(status) = map_at(&mut next, &["status"]) {
                status.insert("observedGeneration".into(), value["metadata"]["generation"].clone());
                let found =
                    if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
                status.insert("typeChecking".into(), found);
            }
            Ok(Decision::Put(next))
        });
        match written.await {
            Ok(_) => {}
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// The warnings about the expressions of a policy's spec, compiled in one go: once for each kind that it matches.
fn check(resources: &Resources, spec: &Value) -> Vec<Value> {
    let types: Vec<(String, Type)> = matched(resources, &spec["matchConstraints"])
        .into_iter()
        .filter_map(|resource| {
            let kind = rules::declare_kind(&resource.schema)?;
            Some((format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind), kind))
        })
        .collect();
    let params = spec["paramKind"].is_object().then(|| {
        let resource = resource_of(resources, &spec["paramKind"]);
        let declared = resource.and_then(|resource| rules::declare_kind(&resource.schema));
        declared.unwrap_or_else(|| Type::of(TypeKind::Dyn))
    });
    let expressions: Vec<(String, &str)> = list(&spec["validations"])
        .iter()
        .enumerate()
        .flat_map(|(index, validation)| {
            ["expression", "messageExpression"]
                .map(|field| (format!("spec.validations[{index}].{field}"), text(&validation[field])))
        })
        .filter(|(_, expression)| !expression.is_empty())
        .collect();
    let mistakes: Vec<Vec<Option<String>>> = cel::batch(|| {
        let of_kind = |(_, kind): &(String, Type)| {
            let variables = expressions::typed(kind.clone(), params.clone(), true);
            let named = expressions::compose(&spec["variables"], &variables);
            let declared =
                Declarations { variables: &variables, composition: Some(&named), makes_patches: false };
            let mistake = |(_, expression): &(String, &str)| {
                let compiled = Program::compile_with(expression, declared);
                compiled.err().map(|error| error.to_string())
            };
            expressions.iter().map(mistake).collect()
        };
        types.iter().map(of_kind).collect()
    });
    let warning = |(at, (field, _)): (usize, &(String, &str))| {
        let found = types.iter().zip(&mistakes);
        let found =
            found.filter_map(|((name, _), of_kind)| Some(format!("{name}: {}\n", of_kind[at].as_ref()?)));
        let found: Vec<String> = found.collect();
        (!found.is_empty()).then(|| json!({"fieldRef": field, "warning": found.join("\n")}))
    };
    expressions.iter().enumerate().filter_map(warning).collect()
}

/// The resources that rules name without wildcards, by group, version and kind, as many as are checked.
fn matched<'r>(resources: &'r Resources, constraints: &Value) -> Vec<&'r Arc<Resource>> {
    let mut found: Vec<&Arc<Resource>> = Vec::new();
    for rule in list(&constraints["resourceRules"]) {
        let words = |field: &str| -> BTreeSet<&str> { list(&rule[field]).iter().map(text).collect() };
        let (groups, versions, plurals) = (words("apiGroups"), words("apiVersions"), words("resources"));
        if groups.contains("*") || versions.contains("*") {
            continue;
        }
        for group in &groups {
            for version in &versions {
                // Of subresources it is not known what kind they are.
                for plural in plurals.iter().filter(|plural| !plural.contains(['*', '/'])) {
                    let resource = resources.find(group, version, plural);
                    if found.len() < MAX_KINDS
                        && let Some(resource) =
                            resource.filter(|r| !found.iter().any(|known| known.schema == r.schema))
                    {
                        found.push(resource);
                    }
                }
            }
        }
    }
    found.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    found
}
