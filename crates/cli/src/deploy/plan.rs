//! What a deployment does, decided without asking anybody.

use std::collections::BTreeSet;

use serde_json::Value;
use yado_compile::Compiled;
use yado_types::labels;

use super::record::{Key, Record};
use crate::{source::Source, workloads};

/// The annotation with an application's identity.
const OTTO_ID: &str = "yado.dev/otto-id";

/// Kinds that hold data, or all else there is: they are never removed just because a description no longer has them.
pub(super) const KEPT: [&str; 3] = ["PersistentVolumeClaim", "PersistentVolume", "Namespace"];

/// Why a description cannot be deployed beside what there is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// An application and its objects.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub record: Record,
    pub objects: Vec<Value>,
    /// Of earlier deployments, and no longer asked for.
    pub destroy: Vec<Key>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What to put in place, dependencies first and the app itself last.
    pub units: Vec<Unit>,
    /// Units that the app needed and no longer does, as they are without it.
    pub released: Vec<Record>,
    /// What stays although nobody asks for it.
    pub kept: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// The applications of a description.
pub(super) fn units(compiled: &Compiled, source: Option<Source>) -> Vec<Unit> {
    let is_of = |object: &Value, app: &str| object["metadata"]["labels"][labels::APP_NAME] == app;
    let mut units = Vec::new();
    for name in &compiled.dependencies {
        let of_it = compiled.objects.iter().filter(|o| is_of(&o.value, name)).map(|o| o.value.clone());
        let mut unit = unit(name, of_it.collect());
        unit.record.needed_by.insert(compiled.app.clone());
        units.push(unit);
    }
    let dependency = |object: &Value| compiled.dependencies.iter().any(|name| is_of(object, name));
    let own = compiled.objects.iter().filter(|o| !dependency(&o.value)).map(|o| o.value.clone());
    let mut unit = unit(&compiled.app, own.collect());
    unit.record.asked = true;
    unit.record.source = source;
    unit.record.app_type = compiled.app_type.clone();
    unit.record.dependencies = compiled.dependencies.clone();
    unit.record.host = compiled.host.clone();
    unit.record.published = compiled.published.iter().map(Into::into).collect();
    units.push(unit);
    units
}

fn unit(app: &str, mut objects: Vec<Value>) -> Unit {
    // A dependency is part of itself: whichever app brings it, its objects are the same.
    objects.iter_mut().for_each(|object| set_part_of(object, app));
    let id = objects.iter().find_map(|o| o["metadata"]["annotations"][OTTO_ID].as_str()).map(str::to_owned);
    let mut images = BTreeSet::new();
    for object in &objects {
        let spec =
            if object["kind"] == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
        let containers = spec["containers"].as_array().into_iter().flatten();
        images.extend(containers.filter_map(|c| c["image"].as_str()).map(str::to_owned));
    }
    let record = Record {
        app: app.into(),
        id,
        images: images.into_iter().collect(),
        objects: objects.iter().map(Key::of).collect(),
        ..Record::default()
    };
    Unit { record, objects, destroy: Vec::new() }
}

fn set_part_of(object: &mut Value, app: &str) {
    for path in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(label) = object.pointer_mut(path).and_then(|labels| labels.get_mut(labels::APP_PART_OF)) {
            *label = app.into();
        }
    }
}

/// The same objects in another namespace than the one that the description asks for.
pub fn in_namespace(compiled: &mut Compiled, namespace: &str) {
    let Some(own) = compiled.namespace.replace(namespace.to_owned()) else {
        compiled.namespace = None;
        return;
    };
    for object in &mut compiled.objects {
        let is_it = object.kind() == "Namespace" && object.name() == own;
        if is_it {
            object.value["metadata"]["name"] = namespace.into();
        } else if object.namespace() == Some(&own) {
            object.value["metadata"]["namespace"] = namespace.into();
        }
    }
}

/// What to do, given what there is. The last unit is the app itself. With `take_over`, an app that was deployed from
/// another place is replaced.
pub(super) fn plan(units: Vec<Unit>, records: &[Record], take_over: bool) -> Result<Plan, Refusal> {
    let app = units.last().map(|unit| unit.record.app.clone()).unwrap_or_default();
    let mut plan = Plan::default();
    let mut of_this: BTreeSet<String> = BTreeSet::new();
    for mut unit in units {
        of_this.insert(unit.record.app.clone());
        no_other_has(&unit, records)?;
        if let Some(known) = records.iter().find(|r| r.app == unit.record.app) {
            same_application(&unit, known, &app)?;
            if !take_over {
                same_place(&unit.record, known)?;
            }
            merge(&mut unit, known, &app, &mut plan);
        }
        plan.units.push(unit);
    }
    for known in records {
        if known.needed_by.contains(&app) && !of_this.contains(&known.app) {
            let mut released = known.clone();
            released.needed_by.remove(&app);
            plan.released.push(released);
        }
    }
    Ok(plan)
}

/// Every object belongs to one application.
fn no_other_has(unit: &Unit, records: &[Record]) -> Result<(), Refusal> {
    for other in records.iter().filter(|r| r.app != unit.record.app) {
        let mut theirs = other.objects.iter().filter(|key| key.kind != "Namespace");
        if let Some(key) = theirs.find(|key| unit.record.objects.iter().any(|own| own.is(key))) {
            return Err(Refusal(format!(
                "{key} of {} is deployed as a part of {}: rename one of them, or deploy to another namespace with -n",
                unit.record.app, other.app
            )));
        }
    }
    Ok(())
}

fn same_application(unit: &Unit, known: &Record, app: &str) -> Result<(), Refusal> {
    match (&unit.record.id, &known.id) {
        (Some(a), Some(b)) if a != b && known.is_wanted() => {
            let mut users: Vec<&str> =
                known.needed_by.iter().map(String::as_str).filter(|u| *u != app).collect();
            if known.asked || users.is_empty() {
                users.push("itself");
            }
            Err(Refusal(format!(
                "the {} of {app} is another application than the one deployed for {} (their .ottoid differ): rename \
                 one of them, or deploy to another namespace with -n",
                known.app,
                users.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

/// Names of different projects may come out as one. An app is the same again where its `.ottoid` or its place says so,
/// where it was moved, so that nothing is left at its former place, or where another machine deploys a part of the same.
fn same_place(new: &Record, known: &Record) -> Result<(), Refusal> {
    let (Some(here), Some(there)) = (&new.source, &known.source) else { return Ok(()) };
    let same_id = new.id.is_some() && new.id == known.id;
    if here == there || same_id || !known.is_wanted() || !there.may_exist() {
        return Ok(());
    }
    if here.machine != there.machine && have_common_workload(new, known) {
        return Ok(());
    }
    Err(Refusal(format!(
        "{} is deployed from {there}, and the name of {here} comes out as the same: give one of them another name (-p NAME \
         or the description's own), deploy to another namespace with -n, or replace the former with --take-over",
        new.app
    )))
}

fn have_common_workload(new: &Record, known: &Record) -> bool {
    let mut workloads = known.objects.iter().filter(|key| workloads::KINDS.contains(&key.kind.as_str()));
    workloads.any(|old| new.objects.iter().any(|key| key.is(old)))
}

/// Goes on from what was deployed before.
fn merge(unit: &mut Unit, known: &Record, app: &str, plan: &mut Plan) {
    let as_dependency = !unit.record.asked;
    unit.record.revision = known.revision;
    unit.record.served = known.served;
    unit.record.deployed_at.clone_from(&known.deployed_at);
    unit.record.needed_by.extend(known.needed_by.iter().cloned());
    let gone = known.objects.iter().filter(|old| !unit.record.objects.iter().any(|new| new.is(old)));
    let gone: Vec<Key> = gone.cloned().collect();
    if as_dependency && known.asked {
        // Its own deployment gave it more than an app that depends on it asks for, such as a host name.
        unit.record.asked = true;
        unit.record.source.clone_from(&known.source);
        unit.record.app_type.clone_from(&known.app_type);
        unit.record.host.clone_from(&known.host);
        unit.record.published.clone_from(&known.published);
        unit.record.dependencies.clone_from(&known.dependencies);
        unit.record.objects.extend(gone);
        return;
    }
    for key in gone {
        if KEPT.contains(&key.kind.as_str()) {
            plan.kept.push(key.to_string());
            unit.record.objects.push(key);
        } else {
            unit.destroy.push(key);
        }
    }
    let others: Vec<&str> = known.needed_by.iter().map(String::as_str).filter(|user| *user != app).collect();
    if as_dependency && !others.is_empty() {
        plan.notes.push(format!("{} is shared with {}", unit.record.app, others.join(", ")));
    }
}

impl Unit {
    /// Whether its first object is this namespace.
    pub(super) fn makes_namespace(&self, namespace: &str) -> bool {
        let first = self.objects.first();
        first.is_some_and(|o| o["kind"] == "Namespace" && o["metadata"]["name"] == namespace)
    }

    /// Whether anything is to be remembered before the first object is touched.
    pub(super) fn is_new_to(&self, known: Option<&Record>) -> bool {
        let remembered = |key: &Key| known.is_some_and(|k| k.objects.iter().any(|old| old.is(key)));
        !self.record.objects.iter().all(remembered)
    }

    /// The record while it is being deployed: with all that there may be.
    pub(super) fn beginning(&self, known: Option<&Record>) -> Record {
        let mut record = self.record.clone();
        record.objects.extend(self.destroy.iter().cloned());
        if let Some(known) = known {
            record.revision = known.revision;
            record.failure.clone_from(&known.failure);
        }
        record
    }

    /// The record once it is deployed.
    pub(super) fn finished(&self, known: Option<&Record>, changed: bool, now: String) -> Record {
        let mut record = self.record.clone();
        if changed || known.is_none_or(|k| k.revision == 0) {
            record.revision += 1;
            record.deployed_at = now;
        } else {
            record.failure = known.and_then(|k| k.failure.clone());
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use yado_compile::Object;

    use super::*;

    fn object(kind: &str, app: &str, name: &str) -> Object {
        let value = json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": {"name": name, "labels": {labels::APP_NAME: app, labels::APP_PART_OF: "shop"},
                "annotations": {OTTO_ID: format!("id of {app}")}},
        });
        Object { value, group: app.into(), source: "Appfile".into() }
    }

    fn app(name: &str, dependencies: &[&str], own: &[(&str, &str)]) -> Compiled {
        let mut objects: Vec<Object> = dependencies.iter().map(|d| object("Service", d, d)).collect();
        objects.extend(own.iter().map(|(kind, object_name)| object(kind, name, object_name)));
        let dependencies = dependencies.iter().map(ToString::to_string).collect();
        Compiled { app: name.into(), objects, dependencies, ..Compiled::default() }
    }

    /// Deploys one after another; what is remembered then, and what the last one destroyed, kept and released.
    fn check(apps: &[Compiled], expect: expect_test::Expect) {
        let mut records: Vec<Record> = Vec::new();
        let mut text = String::new();
        for compiled in apps {
            let plan = match plan(units(compiled, None), &records, false) {
                Ok(plan) => plan,
                Err(refusal) => {
                    text.push_str(&format!("refused: {refusal}\n"));
                    break;
                }
            };
            text = String::new();
            for unit in &plan.units {
                let known = records.iter().find(|r| r.app == unit.record.app).cloned();
                let changed = known.as_ref().is_none_or(|k| k.objects != unit.record.objects);
                let record = unit.finished(known.as_ref(), changed, "now".into());
                unit.destroy.iter().for_each(|key| text.push_str(&format!("destroy {key}\n")));
                records.retain(|r| r.app != record.app);
                records.push(record);
            }
            plan.kept.iter().for_each(|key| text.push_str(&format!("keep {key}\n")));
            plan.notes.iter().for_each(|note| text.push_str(&format!("note {note}\n")));
            for released in plan.released {
                let word = if released.is_wanted() { "release" } else { "remove" };
                text.push_str(&format!("{word} {}\n", released.app));
            }
        }
        for r in &records {
            let objects: Vec<String> = r.objects.iter().map(ToString::to_string).collect();
            let asked = if r.asked { ", asked for" } else { "" };
            text.push_str(&format!(
                "{} {}{asked}, for {:?}: {}\n",
                r.app,
                r.revision,
                r.needed_by,
                objects.join(", ")
            ));
        }
        expect.assert_eq(&text);
    }

    #[test]
    fn o32_a_dependency_is_deployed_once_for_all_who_need_it() {
        let shop = app("shop", &["redis"], &[("Deployment", "shop-web")]);
        let blog = app("blog", &["redis"], &[("Deployment", "blog-web")]);
        check(
            &[shop.clone(), blog.clone()],
            expect_test::expect![[r#"
                note redis is shared with shop
                shop 1, asked for, for {}: Deployment shop-web
                redis 1, for {"blog", "shop"}: Service redis
                blog 1, asked for, for {}: Deployment blog-web
            "#]],
        );
        // By itself it has a host name; an app that needs it takes nothing from it.
        let redis = app("redis", &[], &[("Service", "redis"), ("Ingress", "redis")]);
        check(
            &[redis.clone(), shop.clone()],
            expect_test::expect![[r#"
                redis 1, asked for, for {"shop"}: Service redis, Ingress redis
                shop 1, asked for, for {}: Deployment shop-web
            "#]],
        );
        let alone = app("shop", &[], &[("Deployment", "shop-web")]);
        check(
            &[shop.clone(), blog, alone.clone()],
            expect_test::expect![[r#"
                release redis
                redis 1, for {"blog", "shop"}: Service redis
                blog 1, asked for, for {}: Deployment blog-web
                shop 1, asked for, for {}: Deployment shop-web
            "#]],
        );
        check(
            &[shop, alone],
            expect_test::expect![[r#"
                remove redis
                redis 1, for {"shop"}: Service redis
                shop 1, asked for, for {}: Deployment shop-web
            "#]],
        );
    }

    #[test]
    fn what_is_no_longer_asked_for_goes_but_data_stays() {
        let more =
            [("Deployment", "shop-web"), ("Deployment", "shop-worker"), ("PersistentVolumeClaim", "data")];
        check(
            &[app("shop", &[], &more), app("shop", &[], &more[..1])],
            expect_test::expect![[r#"
                destroy Deployment shop-worker
                keep PersistentVolumeClaim data
                shop 2, asked for, for {}: Deployment shop-web, PersistentVolumeClaim data
            "#]],
        );
    }

    #[test]
    fn no_app_takes_what_is_anothers() {
        check(
            &[app("shop", &[], &[("Deployment", "web")]), app("blog", &[], &[("Deployment", "web")])],
            expect_test::expect![[r#"
                refused: Deployment web of blog is deployed as a part of shop: rename one of them, or deploy to another namespace with -n
                shop 1, asked for, for {}: Deployment web
            "#]],
        );
        let mut other = app("blog", &["redis"], &[]);
        other.objects[0].value["metadata"]["annotations"][OTTO_ID] = "another".into();
        check(
            &[app("shop", &["redis"], &[]), other],
            expect_test::expect![[r#"
                refused: the redis of blog is another application than the one deployed for shop (their .ottoid differ): rename one of them, or deploy to another namespace with -n
                redis 1, for {"shop"}: Service redis
                shop 1, asked for, for {}: 
            "#]],
        );
    }

    #[test]
    fn no_project_takes_the_place_of_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let here = |path: &std::path::Path| Some(Source::of(path).unwrap());
        let elsewhere = |path: &str| Some(Source { machine: "another".into(), path: path.into() });
        let removed = Some(Source { path: "/no/such/place".into(), ..here(one.path()).unwrap() });
        let deployed = |source: Option<Source>, id: Option<&str>, workload: &str| {
            let mut compiled = app("shop", &[], &[("Deployment", workload)]);
            if id.is_none() {
                compiled.objects[0].value["metadata"]["annotations"] = serde_json::json!({});
            }
            let mut unit = units(&compiled, source).pop().unwrap();
            unit.record.id = id.map(str::to_owned);
            unit
        };
        let rows = [
            ("the same place", here(one.path()), None, "web", here(one.path()), None, "other", true),
            ("another place", here(one.path()), None, "web", here(two.path()), None, "web", false),
            ("moved", removed, None, "web", here(two.path()), None, "web", true),
            ("one identity", here(one.path()), Some("a"), "web", here(two.path()), Some("a"), "web", true),
            ("from standard input", here(one.path()), None, "web", None, None, "web", true),
            ("another machine, the same", elsewhere("/a"), None, "web", here(two.path()), None, "web", true),
            (
                "another machine's project",
                elsewhere("/a"),
                None,
                "web",
                here(two.path()),
                None,
                "other",
                false,
            ),
        ];
        for (what, there, old_id, old, source, id, new, expect) in rows {
            let known = deployed(there.clone(), old_id, old).record;
            let planned = plan(vec![deployed(source.clone(), id, new)], std::slice::from_ref(&known), false);
            assert_eq!(planned.is_ok(), expect, "{what}");
            if let Err(refusal) = planned {
                let sentence = refusal.to_string();
                let places = [there, source.clone()].map(|place| place.unwrap().to_string());
                assert!(places.iter().all(|place| sentence.contains(place)), "{sentence}");
            }
            assert!(plan(vec![deployed(source, id, new)], &[known], true).is_ok(), "{what}, taken over");
        }
    }

    #[test]
    fn a_namespace_is_changed_as_a_whole() {
        let mut compiled = app("shop", &[], &[("Namespace", "shop"), ("Service", "web")]);
        compiled.namespace = Some("shop".into());
        compiled.objects[1].value["metadata"]["namespace"] = "shop".into();
        in_namespace(&mut compiled, "test");
        let shown = |o: &Object| (o.name().to_owned(), o.namespace().map(str::to_owned));
        assert_eq!(compiled.namespace.as_deref(), Some("test"));
        assert_eq!(shown(&compiled.objects[0]), ("test".into(), None));
        assert_eq!(shown(&compiled.objects[1]), ("web".into(), Some("test".into())));
    }
}
