//! Who owns whom, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use yado_reconcile::ObjectKey;
use yado_types::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};

/// Uids remembered as gone, so that what they owned goes without a question to the server. An older one costs one.
const MAX_GONE: usize = 10_000;

/// An object's identity.
pub type Uid = String;

/// Which kind an object is of: an index that the caller gives.
pub type Kind = usize;

/// An object as far as ownership goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Where it is.
    pub key: ObjectKey,
    /// The version that decisions rest on.
    pub resource_version: Option<String>,
    owners: Vec<OwnerReference>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Object {
    fn of(kind: Kind, meta: &ObjectMeta) -> Self {
        let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
        Self {
            kind,
            key: ObjectKey::of(meta),
            resource_version: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FINALIZER_FOREGROUND),
            orphan: has(FINALIZER_ORPHAN),
        }
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// How a deletion goes on to what the object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The dependents go after it.
    Background,
    /// The dependents go before it.
    Foreground,
    /// The dependents stay.
    Orphan,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask the server whether these owners exist, and decide again.
    Verify(Vec<OwnerReference>),
    /// Delete the object.
    Delete(Policy),
    /// Take these owners off the object.
    DropOwners(BTreeSet<Uid>),
    /// Take this object, as an owner, off another.
    Orphan(Uid),
    /// Take a finalizer off the object.
    DropFinalizer(&'static str),
    /// Look at another object.
    Look(Uid),
}

/// Every object and who owns it.
#[derive(Default)]
pub struct Graph {
    objects: HashMap<Uid, Object>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    gone: HashSet<Uid>,
    gone_order: VecDeque<Uid>,
}

impl Graph {
    /// An object, if it is known.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The uids known of a kind.
    pub fn of_kind(&self, kind: Kind) -> Vec<Uid> {
        self.objects.iter().filter(|(_, o)| o.kind == kind).map(|(uid, _)| uid.clone()).collect()
    }

    /// An object is there or has changed. Gives the objects to look at.
    pub fn applied(&mut self, kind: Kind, meta: &ObjectMeta) -> Vec<Uid> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let object = Object::of(kind, meta);
        let mut look = Vec::new();
        let old = self.objects.get(&uid);
        let ownership_changed = old.is_none_or(|o| o.owners != object.owners);
        if ownership_changed {
            for owner in old.map(|o| o.owners.clone()).unwrap_or_default() {
                self.unlink(&owner.uid, &uid);
                look.extend(self.waiting(&owner.uid));
            }
            for owner in &object.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
        }
        let old = self.objects.get(&uid);
        let deletion_changed = old.is_none_or(|o| {
            (o.deleting, o.foreground, o.orphan) != (object.deleting, object.foreground, object.orphan)
        });
        let concerns_us =
            !object.owners.is_empty() || (object.deleting && (object.foreground || object.orphan));
        if (ownership_changed || deletion_changed) && concerns_us {
            look.push(uid.clone());
        }
        self.objects.insert(uid, object);
        look
    }

    /// An object is gone. Gives the objects to look at: what it owned, and owners that waited for it.
    pub fn deleted(&mut self, uid: &str) -> Vec<Uid> {
        let mut look: Vec<Uid> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if let Some(object) = self.objects.remove(uid) {
            for owner in object.owners {
                self.unlink(&owner.uid, uid);
                look.extend(self.waiting(&owner.uid));
            }
        }
        self.set_gone(uid);
        look
    }

    /// The server says that no object has this uid.
    pub fn set_gone(&mut self, uid: &str) {
        if self.gone.insert(uid.to_owned()) {
            self.gone_order.push_back(uid.to_owned());
        }
        if self.gone_order.len() > MAX_GONE
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// The owner, if it waits for its dependents.
    fn waiting(&self, owner: &str) -> Option<Uid> {
        self.objects.get(owner).filter(|o| o.waits_for_dependents()).map(|_| owner.to_owned())
    }

    /// Decides what an object needs. `verified` holds owners that the server was asked for and has.
    pub fn decide(&self, uid: &str, verified: &HashSet<Uid>) -> Vec<Action> {
        let Some(object) = self.objects.get(uid) else { return Vec::new() };
        if object.deleting {
            return self.serve_deletion(uid, object);
        }
        if object.owners.is_empty() {
            return Vec::new();
        }
        let (mut solid, mut dead, mut leaving, mut unknown) =
            (false, BTreeSet::new(), BTreeSet::new(), Vec::new());
        for owner in &object.owners {
            match self.objects.get(&owner.uid) {
                Some(o) if o.waits_for_dependents() => {
                    leaving.insert(owner.uid.clone());
                }
                Some(_) => solid = true,
                None if verified.contains(&owner.uid) => solid = true,
                None if self.gone.contains(&owner.uid) => {
                    dead.insert(owner.uid.clone());
                }
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return vec![Action::Verify(unknown)];
        }
        if solid {
            dead.append(&mut leaving);
            return if dead.is_empty() { Vec::new() } else { vec![Action::DropOwners(dead)] };
        }
        vec![Action::Delete(self.policy(uid, object, !leaving.is_empty()))]
    }

    fn policy(&self, uid: &str, object: &Object, owner_waits: bool) -> Policy {
        let owns = self.dependents.get(uid).is_some_and(|d| !d.is_empty());
        if object.orphan {
            Policy::Orphan
        } else if object.foreground || (owner_waits && owns) {
            Policy::Foreground
        } else {
            Policy::Background
        }
    }

    fn serve_deletion(&self, uid: &str, object: &Object) -> Vec<Action> {
        let dependents: BTreeMap<&Uid, &Object> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|d| Some((d, self.objects.get(d)?)))
            .collect();
        if object.orphan {
            let mut actions: Vec<_> = dependents.keys().map(|d| Action::Orphan((*d).clone())).collect();
            actions.push(Action::DropFinalizer(FINALIZER_ORPHAN));
            return actions;
        }
        if !object.foreground {
            return Vec::new();
        }
        let blocks =
            |o: &Object| o.owners.iter().any(|r| r.uid == uid && r.block_owner_deletion == Some(true));
        let mut actions: Vec<_> =
            dependents.iter().filter(|(_, o)| !o.deleting).map(|(d, _)| Action::Look((*d).clone())).collect();
        if !dependents.values().any(|o| blocks(o)) {
            actions.push(Action::DropFinalizer(FINALIZER_FOREGROUND));
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `uid`, its owners (`!` before one that it blocks), finalizers; `deleting` as a finalizer marks deletion.
    fn meta(uid: &str, owners: &[&str], marks: &[&str]) -> ObjectMeta {
        let owner = |o: &&str| {
            let uid = o.trim_start_matches('!');
            let block = o.starts_with('!');
            json!({"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid, "blockOwnerDeletion": block})
        };
        let mut value = json!({
            "uid": uid, "name": uid, "namespace": "n",
            "ownerReferences": owners.iter().map(owner).collect::<Vec<Value>>(),
            "finalizers": marks.iter().filter(|m| **m != "deleting").collect::<Vec<_>>(),
        });
        if marks.contains(&"deleting") {
            value["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(value).expect("metadata")
    }

    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

    fn graph(rows: &[Row<'_>], gone: &[&str]) -> Graph {
        let mut graph = Graph::default();
        for (uid, owners, marks) in rows {
            graph.applied(0, &meta(uid, owners, marks));
        }
        gone.iter().for_each(|uid| graph.set_gone(uid));
        graph
    }

    fn check(rows: &[Row<'_>], gone: &[&str], uid: &str, expect: &[Action]) {
        assert_eq!(graph(rows, gone).decide(uid, &HashSet::new()), expect, "{uid} of {rows:?}");
    }

    #[test]
    fn what_an_object_needs_follows_from_its_owners() {
        let set = |uids: &[&str]| uids.iter().map(|u| (*u).to_owned()).collect::<BTreeSet<_>>();
        let foreground: &[&str] = &["deleting", "foregroundDeletion"];
        check(&[("a", &[], &[])], &[], "a", &[]);
        check(&[("a", &[], &[]), ("b", &["a"], &[])], &[], "b", &[]);
        check(&[("b", &["a"], &[])], &["a"], "b", &[Action::Delete(Policy::Background)]);
        check(&[("b", &["a"], &["orphan"])], &["a"], "b", &[Action::Delete(Policy::Orphan)]);
        check(&[("c", &[], &[]), ("b", &["a", "c"], &[])], &["a"], "b", &[Action::DropOwners(set(&["a"]))]);
        check(&[("b", &["a"], &["deleting"])], &["a"], "b", &[]);
        // A foreground deletion takes dependents in the background, and those that own more in the foreground too.
        check(
            &[("a", &[], foreground), ("b", &["!a"], &[])],
            &[],
            "b",
            &[Action::Delete(Policy::Background)],
        );
        let rows: &[Row<'_>] = &[("a", &[], foreground), ("b", &["!a"], &[]), ("c", &["!b"], &[])];
        check(rows, &[], "b", &[Action::Delete(Policy::Foreground)]);
        check(rows, &[], "a", &[Action::Look("b".into())]);
        // It is over once nothing blocks.
        check(&[("a", &[], foreground)], &[], "a", &[Action::DropFinalizer(FINALIZER_FOREGROUND)]);
        let unblocking = [Action::Look("b".into()), Action::DropFinalizer(FINALIZER_FOREGROUND)];
        check(&[("a", &[], foreground), ("b", &["a"], &[])], &[], "a", &unblocking);
        check(&[("a", &[], foreground), ("b", &["!a"], &["deleting"])], &[], "a", &[]);
        let orphaning = [Action::Orphan("b".into()), Action::DropFinalizer(FINALIZER_ORPHAN)];
        check(&[("a", &[], &["deleting", "orphan"]), ("b", &["a"], &[])], &[], "a", &orphaning);
    }

    #[test]
    fn an_unknown_owner_is_asked_for() {
        let graph = graph(&[("b", &["a"], &[])], &[]);
        assert!(
            matches!(graph.decide("b", &HashSet::new()).as_slice(), [Action::Verify(o)] if o[0].uid == "a")
        );
        assert_eq!(graph.decide("b", &HashSet::from(["a".to_owned()])), []);
    }

    #[test]
    fn changes_say_whom_to_look_at() {
        let mut graph = graph(&[("a", &[], &[]), ("b", &["!a"], &[]), ("c", &["!a"], &[])], &[]);
        assert_eq!(graph.applied(0, &meta("b", &["!a"], &[])), Vec::<Uid>::new(), "nothing new");
        assert_eq!(graph.applied(0, &meta("a", &[], &["deleting", "foregroundDeletion"])), ["a"]);
        assert_eq!(graph.deleted("b"), ["a"], "who waits for it");
        assert_eq!(graph.applied(0, &meta("c", &[], &[])), ["a"], "an owner that lost a dependent");
        graph.applied(0, &meta("d", &["a"], &[]));
        assert_eq!(graph.deleted("a"), ["d"], "what it owned");
        assert_eq!(graph.decide("d", &HashSet::new()), [Action::Delete(Policy::Background)]);
    }

    #[test]
    fn what_is_remembered_as_gone_is_bounded() {
        let mut graph = Graph::default();
        (0..2 * MAX_GONE).for_each(|i| graph.set_gone(&i.to_string()));
        assert_eq!((graph.gone.len(), graph.gone_order.len()), (MAX_GONE, MAX_GONE));
    }
}
