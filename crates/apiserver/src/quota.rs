//! ResourceQuotas: what the objects of a Namespace use, and that it stays within what is allowed.
//!
//! Usage is written and compared in the very transaction that writes the object which causes it: however many
//! writers race, and whenever the process dies, `status.used` is what the objects are. Kubernetes needs a controller for
//! that, which repairs afterwards; here the only thing left to do later is to count once for a quota that is new or
//! changed.

mod scope;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use yado_store::{Compare, Op};

use crate::cache::place;
use crate::edit::map_at;
use crate::kinds::pod_spec::amounts::{Amounts, amounts, shown as shown_amount};
use crate::object::{Object, encode_for_store, meta};
use crate::resource::{self, Resource};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};
use usage::{Amount, Usage};

/// Between full counts, which mend what a change of a quota's scopes or a count that raced with it left.
const COUNT_EVERY: Duration = Duration::from_secs(300);
/// Until the next count after one that failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Comparisons and operations that a write adds to its transaction so that quotas hold.
#[derive(Default)]
pub(crate) struct Charge {
    pub(crate) compares: Vec<Compare>,
    pub(crate) ops: Vec<Op>,
}

fn quotas() -> Option<&'static Arc<Resource>> {
    resource::find("", "v1", "resourcequotas")
}

impl Inner {
    /// The changes of the Namespace's quotas when `before` is replaced by `after`.
    ///
    /// # Errors
    /// 403 where more would be used than is allowed, or where an object does not say how much it uses of what is limited.
    pub(crate) fn charge(
        &self,
        written: &Resource,
        before: Option<&Object>,
        after: Option<&Value>,
    ) -> Result<Charge> {
        let mut charge = Charge::default();
        let Some(quotas) = quotas().filter(|quotas| written.namespaced && written.prefix != quotas.prefix)
        else {
            return Ok(charge);
        };
        let collection = self.collection(quotas)?;
        // Before anything is decoded: every write comes by here, and most clusters have no quotas.
        if collection.is_empty() {
            return Ok(charge);
        }
        let before = before.map(Object::value);
        let before = before.as_deref();
        let Some(object) = after.or(before) else { return Ok(charge) };
        let (namespace, name) = (meta(object, "namespace"), meta(object, "name"));
        for quota in collection.list(namespace, None, 0, |_| true).objects {
            let value = quota.value();
            let of = |object: Option<&Value>| match object {
                Some(object) => usage::of(written, object, &value),
                None => Usage::default(),
            };
            let (had, has) = (of(before), of(after));
            if before.is_none()
                && let Some(missing) = after.and_then(|after| usage::unstated(written, after, &value))
            {
                let why = format!("failed quota: {}: must specify {missing}", meta(&value, "name"));
                return Err(Failure::forbidden(written, name, &why));
            }
            if had == has {
                continue;
            }
            let mut next =
                charged(&value, &had, &has).map_err(|why| Failure::forbidden(written, name, &why))?;
            let key = format!("{}{}", quotas.prefix, place(quotas, namespace, meta(&value, "name")));
            charge.compares.push(Compare::ModRevision { key: key.clone(), equals: quota.revision });
            charge.ops.push(Op::Put { key, value: encode_for_store(&mut next) });
        }
        Ok(charge)
    }
}

/// A quota after an object that used `had` uses `has`.
fn charged(quota: &Value, had: &Usage, has: &Usage) -> std::result::Result<Value, String> {
    let hard = amounts(&quota["spec"]["hard"]);
    let mut used = amounts(&quota["status"]["used"]);
    let mut exceeded: BTreeMap<&str, (Amount, Amount, Amount)> = BTreeMap::new();
    for (name, limit) in &hard {
        let (before, after) = (had.get(name), has.get(name));
        let present = used.get(name).copied().unwrap_or_default();
        let next = (present + after - before).max(Amount::default());
        // What is above its limit already may shrink, and stay, but not grow.
        if after > before && next > *limit {
            exceeded.insert(name, (after - before, present, *limit));
        }
        used.insert(name.clone(), next);
    }
    if !exceeded.is_empty() {
        let shown = |pick: fn(&(Amount, Amount, Amount)) -> Amount| {
            let all =
                exceeded.iter().map(|(name, found)| format!("{name}={}", shown_amount(name, pick(found))));
            all.collect::<Vec<_>>().join(",")
        };
        return Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            meta(quota, "name"),
            shown(|found| found.0),
            shown(|found| found.1),
            shown(|found| found.2)
        ));
    }
    Ok(with_used(quota, &used))
}

/// A quota with this usage; of what it limits only.
fn with_used(quota: &Value, used: &Amounts) -> Value {
    let mut next = quota.clone();
    let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
    let shown = |name: &String| shown_amount(name, used.get(name).copied().unwrap_or_default());
    let used: Map<String, Value> = hard.keys().map(|name| (name.clone(), shown(name).into())).collect();
    if let Some(status) = map_at(&mut next, &["status"]) {
        status.insert("hard".into(), hard.into());
        status.insert("used".into(), used.into());
    }
    next
}

/// Counts what quotas use that are new or changed, and from time to time all of them. Ends with the server.
pub(crate) async fn run(server: Arc<Inner>) {
    let Some(collection) = quotas().and_then(|quotas| server.collection(quotas).ok()) else { return };
    let mut changed = collection.subscribe();
    // Its own timer: quotas that are charged all the time must not put the next full count off.
    let mut count_due = server.clock.sleep(Duration::ZERO);
    let mut all = false;
    loop {
        changed.borrow_and_update();
        let done = count(&server, all).await;
        if let Err(failure) = &done {
            tracing::warn!(%failure, "the usage of ResourceQuotas was not counted; the next attempt follows");
        }
        if all || done.is_err() {
            count_due = server.clock.sleep(if done.is_err() { RETRY_DELAY } else { COUNT_EVERY });
        }
        all = tokio::select! {
            () = server.stop.cancelled() => return,
            ended = changed.changed() => {
                if ended.is_err() {
                    return;
                }
                false
            }
            () = &mut count_due => true,
        };
    }
}

/// Whether what a quota limits has been counted.
fn is_counted(quota: &Value) -> bool {
    quota["status"]["hard"] == quota["spec"]["hard"] && !quota["status"].is_null()
}

async fn count(server: &Inner, all: bool) -> Result<()> {
    let Some(quotas) = quotas() else { return Ok(()) };
    for quota in server.collection(quotas)?.list("", None, 0, |_| true).objects {
        if !all && quota.derive(is_counted) {
            continue;
        }
        let value = quota.value();
        let (namespace, name) = (meta(&value, "namespace"), meta(&value, "name"));
        let ctx = &WriteContext::internal(server, quotas, Operation::Update);
        let counted = server.modify(ctx, (namespace, name), 0, |current: &Object| {
            let current = current.value();
            let next = with_used(&current, &used(server, &current)?);
            Ok(if next == *current { Decision::Keep } else { Decision::Put(next) })
        });
        match counted.await {
            Ok(_) => {}
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Usage of a quota's limited resources by the objects of its Namespace.
fn used(server: &Inner, quota: &Value) -> Result<Amounts> {
    let mut total: Amounts = BTreeMap::new();
    let served = server.registry.current();
    let mut seen: Vec<&str> = Vec::new();
    for r in served.iter().filter(|r| r.namespaced && r.is_stored() && usage::is_limited(r, quota)) {
        // Versions of one resource share their objects.
        if seen.contains(&r.prefix.as_str()) {
            continue;
        }
        seen.push(&r.prefix);
        for object in server.collection(r)?.list(meta(quota, "namespace"), None, 0, |_| true).objects {
            for (name, amount) in usage::of(r, &object.value(), quota).iter() {
                let so_far = total.entry(name.clone()).or_default();
                *so_far = *so_far + *amount;
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_used_is_charged_until_it_exceeds_the_quota() {
        let quota = json!({
            "metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "requests.cpu": "1"}},
            "status": {"hard": {"pods": "2", "requests.cpu": "1"}, "used": {"pods": "1", "requests.cpu": "500m"}},
        });
        let pods = resource::find("", "v1", "pods").expect("served");
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let nothing = Usage::default();
        for (pod, expect) in [
            (pod("200m"), r#"{"pods":"2","requests.cpu":"700m"}"#),
            (pod("500m"), r#"{"pods":"2","requests.cpu":"1"}"#),
            (
                pod("600m"),
                "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1",
            ),
        ] {
            let shown = match charged(&quota, &nothing, &usage::of(pods, &pod, &quota)) {
                Ok(next) => next["status"]["used"].to_string(),
                Err(why) => why,
            };
            assert_eq!(shown, expect, "{pod}");
        }
        let gone = charged(&quota, &usage::of(pods, &pod("500m"), &quota), &nothing).expect("less is used");
        assert_eq!(gone["status"]["used"], json!({"pods": "0", "requests.cpu": "0"}));
    }
}
