//! Taking down what was deployed.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject},
};

use super::{
    plan::KEPT,
    record::{self, Key, Record},
};
use crate::{
    apply::{Kinds, Outcome, Verb},
    claims,
    connect::failed,
    progress::Progress,
    workloads,
};

/// As long as a Pod's own grace period and as much again; after that something holds it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often to look whether an object is gone. A watch would be one connection more for a thing that takes moments.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What became of taking an app down.
#[derive(Debug, Clone, Default)]
pub struct Removed {
    /// Every object that is there no more.
    pub outcomes: Vec<Outcome>,
    /// Sentences on what is still there, and why.
    pub kept: Vec<String>,
}

/// Takes an app down, and the dependencies that no other app needs. Volumes stay unless `volumes`.
///
/// # Errors
///
/// The API server refuses, or a Pod does not go.
pub async fn remove(
    client: &Client,
    namespace: &str,
    app: &Record,
    records: &[Record],
    volumes: bool,
    progress: &Progress,
) -> anyhow::Result<Removed> {
    let mut removed = Removed::default();
    if !app.needed_by.is_empty() {
        let users = app.needed_by.iter().cloned().collect::<Vec<_>>().join(", ");
        removed.kept.push(format!("{} stays: it is needed by {users}", app.app));
        let stays = Record { asked: false, ..app.clone() };
        if *app != stays {
            record::write(client, namespace, &stays).await?;
        }
        return Ok(removed);
    }
    take_down(client, namespace, app, records, volumes, progress, &mut removed).await?;
    // The last one found is the deepest one down, which others among them may need.
    for name in app.dependencies.iter().rev() {
        let Some(known) = records.iter().find(|r| r.app == *name) else { continue };
        let mut released = known.clone();
        released.needed_by.remove(&app.app);
        if !released.is_wanted() {
            take_down(client, namespace, &released, records, volumes, progress, &mut removed).await?;
            continue;
        }
        let users: Vec<&str> = released.needed_by.iter().map(String::as_str).collect();
        let word = match users.as_slice() {
            [] => "was deployed by itself".to_owned(),
            users => format!("is needed by {}", users.join(", ")),
        };
        removed.kept.push(format!("{name} stays: it {word}"));
        record::write(client, namespace, &released).await?;
    }
    Ok(removed)
}

async fn take_down(
    client: &Client,
    namespace: &str,
    unit: &Record,
    records: &[Record],
    volumes: bool,
    progress: &Progress,
    removed: &mut Removed,
) -> anyhow::Result<()> {
    let mut unit = unit.clone();
    let claims = claims_of_sets(client, namespace, &unit).await?;
    unit.objects.extend(claims);
    let (kept, gone) = split(&unit, records, volumes);
    let of_unit = format!("{}: ", unit.app);
    removed.outcomes.extend(objects(client, namespace, &gone, false, &of_unit, progress).await?);
    let data: Vec<String> = kept.iter().filter(|k| k.kind != "Namespace").map(ToString::to_string).collect();
    if !data.is_empty() {
        removed.kept.push(format!(
            "{} of {} stays: `yado down {} --volumes` removes it",
            data.join(", "),
            unit.app,
            unit.app
        ));
        let left = Record {
            asked: false,
            needed_by: Default::default(),
            objects: kept,
            images: Vec::new(),
            ..unit.clone()
        };
        return record::write(client, namespace, &left).await;
    }
    // A namespace that goes takes its records along.
    if gone.iter().any(|key| key.kind == "Namespace" && key.name == namespace) {
        return Ok(());
    }
    record::delete(client, namespace, &unit.app).await
}

/// Claims that a unit's StatefulSets have made and its record does not name yet.
async fn claims_of_sets(client: &Client, namespace: &str, unit: &Record) -> anyhow::Result<Vec<Key>> {
    let mut found = Vec::new();
    for key in unit.objects.iter().filter(|key| key.kind == "StatefulSet") {
        let within = key.namespace.as_deref().unwrap_or(namespace);
        let api: Api<StatefulSet> = Api::namespaced(client.clone(), within);
        let set = api.get_opt(&key.name).await.map_err(failed(format!("{key} cannot be read")))?;
        let sets: Vec<StatefulSet> = set.into_iter().collect();
        found.extend(claims::of_sets(client, within, &sets).await?.into_iter().map(|name| Key {
            api_version: "v1".into(),
            kind: "PersistentVolumeClaim".into(),
            namespace: key.namespace.clone(),
            name,
        }));
    }
    found.retain(|claim| !unit.objects.contains(claim));
    Ok(found)
}

/// Which objects of a unit stay, and which go.
fn split(unit: &Record, records: &[Record], volumes: bool) -> (Vec<Key>, Vec<Key>) {
    let is_data = |key: &Key| key.kind != "Namespace" && KEPT.contains(&key.kind.as_str());
    let others = records.iter().any(|r| r.app != unit.app && !r.objects.is_empty() && r.is_wanted());
    let has_data = unit.objects.iter().any(is_data);
    let stays = |key: &Key| match key.kind.as_str() {
        // With it would go all that is in it.
        "Namespace" => others || (has_data && !volumes),
        _ => is_data(key) && !volumes,
    };
    unit.objects.iter().cloned().partition(stays)
}

/// Removes a unit that an app no longer needs, unless somebody else does.
pub(super) async fn release(
    client: &Client,
    namespace: &str,
    released: Record,
    dry_run: bool,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    if dry_run {
        let gone = if released.is_wanted() { Vec::new() } else { split(&released, &[], false).1 };
        return objects(client, namespace, &gone, true, "", progress).await;
    }
    if released.is_wanted() {
        record::write(client, namespace, &released).await?;
        return Ok(Vec::new());
    }
    let mut removed = Removed::default();
    take_down(client, namespace, &released, &[], false, progress, &mut removed).await?;
    removed.kept.iter().for_each(|sentence| progress.say(format!("            {sentence}")));
    Ok(removed.outcomes)
}

/// Routes go first, as what is being stopped should get no more requests; then what runs; what holds all else goes last.
fn order(key: &Key) -> u8 {
    match key.kind.as_str() {
        "Ingress" => 0,
        kind if workloads::KINDS.contains(&kind) => 1,
        "Service" => 2,
        "PersistentVolumeClaim" => 4,
        "PersistentVolume" => 5,
        "Namespace" => 6,
        _ => 3,
    }
}

/// Deletes objects and waits until they are gone, with all that they own.
pub(super) async fn objects(
    client: &Client,
    namespace: &str,
    keys: &[Key],
    dry_run: bool,
    of_unit: &str,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    let outcome = |key: &Key| Outcome { object: key.to_string(), verb: Verb::Deleted, fields: Vec::new() };
    if dry_run || keys.is_empty() {
        return Ok(keys.iter().map(outcome).collect());
    }
    let step = progress.step("destroy", format!("{of_unit}{} objects", keys.len()));
    let mut kinds = Kinds::new(client.clone(), namespace);
    let mut sorted: Vec<&Key> = keys.iter().collect();
    // The newest first within a kind.
    sorted.reverse();
    sorted.sort_by_key(|key| order(key));
    let mut outcomes = Vec::new();
    let mut going: Vec<(&Key, Api<DynamicObject>)> = Vec::new();
    let mut at = 0;
    for key in sorted {
        // What the next kinds hold up must be gone before them.
        if order(key) != at {
            wait_gone(&mut going, of_unit, &step).await?;
            at = order(key);
        }
        let api = kinds.api(&key.object()).await?;
        match api.delete(&key.name, &DeleteParams::foreground()).await {
            Ok(_) => {
                outcomes.push(outcome(key));
                going.push((key, api));
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(failed(format!("{key} cannot be deleted"))(error)),
        }
    }
    wait_gone(&mut going, of_unit, &step).await?;
    step.done(format!("{of_unit}{} destroyed", outcomes.len()));
    Ok(outcomes)
}

async fn wait_gone(
    going: &mut Vec<(&Key, Api<DynamicObject>)>,
    of_unit: &str,
    step: &crate::progress::Step,
) -> anyhow::Result<()> {
    let gone = async {
        while let Some((key, api)) = going.last() {
            // An answer that does not come is waited for like an object that does not go.
            if let Ok(None) = api.get_metadata_opt(&key.name).await {
                going.pop();
                continue;
            }
            step.detail(format!("{of_unit}waiting for {key} to be gone"));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(TIMEOUT, gone).await.is_err() {
        let first = going.last().map(|(key, _)| key.to_string()).unwrap_or_default();
        anyhow::bail!("{first} is not gone after {} s: see `yado ps`", TIMEOUT.as_secs());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_what_holds_it_stay() {
        let key = |kind: &str| Key {
            api_version: "v1".into(),
            kind: kind.into(),
            namespace: None,
            name: "a".into(),
        };
        let unit = |kinds: &[&str]| Record {
            app: "shop".into(),
            asked: true,
            objects: kinds.iter().map(|k| key(k)).collect(),
            ..Record::default()
        };
        let other =
            Record { app: "other".into(), asked: true, objects: vec![key("Pod")], ..Record::default() };
        let check = |kinds: &[&str], others: &[Record], volumes, expect: &[&str]| {
            let unit = unit(kinds);
            let kept: Vec<String> = split(&unit, others, volumes).0.into_iter().map(|k| k.kind).collect();
            assert_eq!(kept, expect, "{kinds:?} {volumes}");
        };
        let all = ["Namespace", "PersistentVolumeClaim", "Deployment"];
        check(&all, &[], false, &["Namespace", "PersistentVolumeClaim"]);
        check(&all, &[], true, &[]);
        check(&["Namespace", "Deployment"], &[], false, &[]);
        check(&["Namespace", "Deployment"], &[other], false, &["Namespace"]);
    }
}
