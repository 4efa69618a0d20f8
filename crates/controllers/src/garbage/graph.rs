//! The ownership graph of all objects, and the pure decisions of the garbage collector on it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use yado_reconcile::ObjectKey;
use yado_types::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};

/// Maximum number of uids remembered as deleted. Dependents of a remembered owner are deleted without a request; for an
/// owner that was evicted from this list, the server is asked.
const MAX_GONE: usize = 10_000;

/// An object's `metadata.uid`.
pub type Uid = String;

/// Index of a kind in the caller's list of watched kinds.
pub type KindIndex = usize;

/// Group and kind, as owner references name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindName {
    /// Its API group, empty for the core group. References of every version of the group name the same kind.
    pub group: String,
    /// The kind in upper camel case, such as `ConfigMap`.
    pub kind: String,
}

impl KindName {
    /// The kind that an owner reference names.
    pub fn of(reference: &OwnerReference) -> Self {
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        Self { group: group.to_owned(), kind: reference.kind.clone() }
    }
}

/// What the graph knows of an object: its identity, its owners and its state of deletion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Index of its kind.
    pub kind: KindIndex,
    /// The kind's group and name, which its objects share.
    pub kind_name: Arc<KindName>,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The resource version that was observed last.
    pub resource_version: Option<String>,
    owners: Vec<OwnerReference>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Object {
    fn of(kind: KindIndex, kind_name: &Arc<KindName>, meta: &ObjectMeta) -> Self {
        let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
        Self {
            kind,
            kind_name: kind_name.clone(),
            key: ObjectKey::of(meta),
            resource_version: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FINALIZER_FOREGROUND),
            orphan: has(FINALIZER_ORPHAN),
        }
    }

    /// Whether `reference`, found on an object of `namespace`, is valid for this object, whose uid it has: group, kind and
    /// name agree, and this object is cluster-wide or in the same namespace.
    fn is_meant_by(&self, reference: &OwnerReference, namespace: &str) -> bool {
        *self.kind_name == KindName::of(reference)
            && self.key.name == reference.name
            && !self.is_elsewhere(namespace)
    }

    fn is_elsewhere(&self, namespace: &str) -> bool {
        !self.key.namespace.is_empty() && self.key.namespace != namespace
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// The propagation policy of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The object is deleted at once, its dependents after it.
    Background,
    /// The object is deleted after the dependents that block its deletion.
    Foreground,
    /// The dependents are kept and lose the owner reference.
    Orphan,
}

/// What [`Graph::decide`] decided on for one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask the server whether these owners exist, then decide again with the answer.
    Verify(Vec<OwnerReference>),
    /// Delete the object with this propagation policy.
    Delete(Policy),
    /// Warn that these owners do not exist in the object's Namespace.
    WarnOfOwners(Vec<OwnerReference>),
    /// Set `blockOwnerDeletion` to false in the object's owner references: it and a dependent of it each wait for the
    /// deletion of the other.
    Unblock,
    /// Remove these owners from the object's owner references.
    DropOwners(BTreeSet<Uid>),
    /// Remove the object from the owner references of this dependent.
    Orphan(Uid),
    /// Remove this finalizer from the object.
    DropFinalizer(&'static str),
    /// Queue this dependent, which may have to be deleted before the object.
    Enqueue(Uid),
}

/// The observed objects of all kinds and their owner references in both directions.
#[derive(Default)]
pub struct Graph {
    objects: HashMap<Uid, Object>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    gone: HashSet<Uid>,
    gone_order: VecDeque<Uid>,
}

impl Graph {
    /// The object with this uid, if a watch has shown it.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The uids of all known objects of a kind.
    pub fn of_kind(&self, kind: KindIndex) -> Vec<Uid> {
        self.objects.iter().filter(|(_, o)| o.kind == kind).map(|(uid, _)| uid.clone()).collect()
    }

    /// Records that an object was added or modified. Returns the uids of the objects to decide on again.
    pub fn applied(&mut self, kind: KindIndex, kind_name: &Arc<KindName>, meta: &ObjectMeta) -> Vec<Uid> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let object = Object::of(kind, kind_name, meta);
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

    /// Records that an object was deleted. Returns the uids of the objects to decide on again: its dependents, and owners
    /// that waited for it.
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

    /// Remembers that no object has this uid any more.
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

    /// The owner's uid, if it is in foreground deletion.
    fn waiting(&self, owner: &str) -> Option<Uid> {
        self.objects.get(owner).filter(|o| o.waits_for_dependents()).map(|_| owner.to_owned())
    }

    /// Decides whether an object is deleted or changed because of its owners or, if it is being deleted itself, because of
    /// its dependents. `verified` holds the uids of owners whose existence the server has confirmed.
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
            let meant = self.objects.get(&owner.uid);
            match meant.filter(|o| o.is_meant_by(owner, &object.key.namespace)) {
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
        let mut actions = Vec::new();
        let elsewhere = self.owners_elsewhere(object);
        if !elsewhere.is_empty() {
            actions.push(Action::WarnOfOwners(elsewhere));
        }
        if !leaving.is_empty() && self.is_in_circle(uid, object) {
            actions.push(Action::Unblock);
        }
        actions.push(Action::Delete(self.policy(uid, object, !leaving.is_empty())));
        actions
    }

    /// Owner references to objects that exist, but in another namespace than `object`.
    fn owners_elsewhere(&self, object: &Object) -> Vec<OwnerReference> {
        let elsewhere = |owner: &&OwnerReference| {
            self.objects.get(&owner.uid).is_some_and(|o| o.is_elsewhere(&object.key.namespace))
        };
        object.owners.iter().filter(elsewhere).cloned().collect()
    }

    /// Whether a dependent of this object is in foreground deletion, as this object's owner is: in a cycle of owners each
    /// would wait for the other.
    fn is_in_circle(&self, uid: &str, object: &Object) -> bool {
        self.dependents_of(uid, object).any(|(_, dependent)| dependent.waits_for_dependents())
    }

    /// The objects with a valid owner reference to this one.
    fn dependents_of<'a>(
        &'a self,
        uid: &str,
        object: &'a Object,
    ) -> impl Iterator<Item = (&'a Uid, &'a Object)> {
        let uid = uid.to_owned();
        let known = self.dependents.get(&uid).into_iter().flatten();
        known.filter_map(|d| Some((d, self.objects.get(d)?))).filter(move |(_, dependent)| {
            let is_this =
                |r: &OwnerReference| r.uid == uid && object.is_meant_by(r, &dependent.key.namespace);
            dependent.owners.iter().any(is_this)
        })
    }

    fn policy(&self, uid: &str, object: &Object, owner_waits: bool) -> Policy {
        let owns = self.dependents_of(uid, object).next().is_some();
        if object.orphan {
            Policy::Orphan
        } else if object.foreground || (owner_waits && owns) {
            Policy::Foreground
        } else {
            Policy::Background
        }
    }

    fn serve_deletion(&self, uid: &str, object: &Object) -> Vec<Action> {
        let dependents: BTreeMap<&Uid, &Object> = self.dependents_of(uid, object).collect();
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
        let mut actions: Vec<_> = dependents
            .iter()
            .filter(|(_, o)| !o.deleting)
            .map(|(d, _)| Action::Enqueue((*d).clone()))
            .collect();
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

    fn x() -> Arc<KindName> {
        Arc::new(KindName { group: String::new(), kind: "X".into() })
    }

    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

    fn graph(rows: &[Row<'_>], gone: &[&str]) -> Graph {
        let mut graph = Graph::default();
        for (uid, owners, marks) in rows {
            graph.applied(0, &x(), &meta(uid, owners, marks));
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
        check(rows, &[], "a", &[Action::Enqueue("b".into())]);
        // It is over once nothing blocks.
        check(&[("a", &[], foreground)], &[], "a", &[Action::DropFinalizer(FINALIZER_FOREGROUND)]);
        let unblocking = [Action::Enqueue("b".into()), Action::DropFinalizer(FINALIZER_FOREGROUND)];
        check(&[("a", &[], foreground), ("b", &["a"], &[])], &[], "a", &unblocking);
        check(&[("a", &[], foreground), ("b", &["!a"], &["deleting"])], &[], "a", &[]);
        let orphaning = [Action::Orphan("b".into()), Action::DropFinalizer(FINALIZER_ORPHAN)];
        check(&[("a", &[], &["deleting", "orphan"]), ("b", &["a"], &[])], &[], "a", &orphaning);
    }

    #[test]
    fn an_owner_has_the_kind_the_name_and_the_namespace_of_its_reference() {
        // The owner: kind, Namespace and name; what becomes of an object of Namespace `n` that names X `a` by its uid
        // once the server was asked and has no such X.
        for (kind, namespace, name, expect) in [
            ("X", "n", "a", "stays"),
            ("X", "", "a", "stays"),
            ("Y", "n", "a", "goes"),
            ("X", "n", "other", "goes"),
            ("X", "elsewhere", "a", "goes with a warning"),
        ] {
            let mut graph = graph(&[("b", &["a"], &[])], &["a"]);
            let kind_name = Arc::new(KindName { group: String::new(), kind: kind.into() });
            let owner = ObjectMeta {
                uid: Some("a".into()),
                name: Some(name.into()),
                namespace: (!namespace.is_empty()).then(|| namespace.into()),
                ..ObjectMeta::default()
            };
            graph.applied(1, &kind_name, &owner);
            let found = match graph.decide("b", &HashSet::new()).as_slice() {
                [] => "stays",
                [Action::Delete(Policy::Background)] => "goes",
                [Action::WarnOfOwners(owners), Action::Delete(_)] if owners[0].uid == "a" => {
                    "goes with a warning"
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expect, "{kind} {namespace}/{name}");
        }
    }

    #[test]
    fn owners_that_own_each_other_do_not_wait_for_each_other() {
        let foreground: &[&str] = &["deleting", "foregroundDeletion"];
        let rows: &[Row<'_>] = &[("a", &["!b"], foreground), ("b", &["!a"], &[])];
        check(rows, &[], "b", &[Action::Unblock, Action::Delete(Policy::Foreground)]);
        let unblocked: &[Row<'_>] = &[("a", &["!b"], foreground), ("b", &["a"], foreground)];
        check(unblocked, &[], "a", &[Action::DropFinalizer(FINALIZER_FOREGROUND)]);
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
        assert_eq!(graph.applied(0, &x(), &meta("b", &["!a"], &[])), Vec::<Uid>::new(), "nothing new");
        assert_eq!(graph.applied(0, &x(), &meta("a", &[], &["deleting", "foregroundDeletion"])), ["a"]);
        assert_eq!(graph.deleted("b"), ["a"], "who waits for it");
        assert_eq!(graph.applied(0, &x(), &meta("c", &[], &[])), ["a"], "an owner that lost a dependent");
        graph.applied(0, &x(), &meta("d", &["a"], &[]));
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
