use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
        }
        (into, from) => *into = from,
    }
}

/// A claim for 1Gi of the class `local`.
fn claim(more: Value) -> PersistentVolumeClaim {
    let mut value = json!({
        "metadata": {"name": "data", "namespace": "n", "uid": "c", "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    merge(&mut value, more);
    serde_json::from_value(value).expect("a claim")
}

/// A free volume of the class `local`.
fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
    let mut value = json!({
        "metadata": {"name": name, "uid": name, "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"], "storageClassName": "local",
            "capacity": {"storage": size}, "hostPath": {"path": "/v"}, "persistentVolumeReclaimPolicy": "Delete"},
        "status": {"phase": "Available"},
    });
    merge(&mut value, more);
    Arc::new(serde_json::from_value(value).expect("a volume"))
}

fn class(provisioner: &str, mode: &str) -> Option<Arc<StorageClass>> {
    let value = json!({"metadata": {"name": "local"}, "provisioner": provisioner, "volumeBindingMode": mode});
    Some(Arc::new(serde_json::from_value(value).expect("a class")))
}

fn node(name: &str) -> Arc<Node> {
    let labels = json!({"kubernetes.io/hostname": name});
    let value = json!({"metadata": {"name": name, "labels": labels}});
    Arc::new(serde_json::from_value(value).expect("a node"))
}

fn on(host: &str) -> Value {
    json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}}})
}

fn observed(claim: &PersistentVolumeClaim) -> Observed<'_> {
    Observed {
        claim,
        volumes: Vec::new(),
        class: class("yado.dev/local", "Immediate"),
        node: None,
        users: Vec::new(),
        provider: Some("a".into()),
    }
}

fn check(observed: &Observed<'_>, expect: Expect) {
    let name = |v: &PersistentVolume| v.metadata.name.clone().unwrap_or_default();
    let lines = bind::reconcile(observed).into_iter().map(|action| match action {
        Action::Reserve(v) => format!("reserve {}\n", name(&v)),
        Action::Bind(v) => format!("bind {}\n", name(&v)),
        Action::Grow(v, size) => format!("grow {} to {size}\n", name(&v)),
        Action::Event(warning, reason, text) => {
            format!("{}{reason}: {text}\n", if warning { "! " } else { "" })
        }
        other => format!("{other:?}\n"),
    });
    expect.assert_eq(&lines.collect::<String>());
}

#[test]
fn the_smallest_volume_that_suits_is_chosen() {
    let asks = claim(json!({"spec": {"accessModes": ["ReadWriteMany"]}}));
    let volumes = vec![
        volume("large", "5Gi", json!({})),
        volume(
            "taken",
            "1Gi",
            json!({"spec": {"claimRef": {"namespace": "n", "name": "other", "uid": "o"}}}),
        ),
        volume("small", "500Mi", json!({})),
        volume("once", "1Gi", json!({"spec": {"accessModes": ["ReadWriteOnce"]}})),
        volume("slow", "1Gi", json!({"spec": {"storageClassName": "slow"}})),
        volume("block", "1Gi", json!({"spec": {"volumeMode": "Block"}})),
        volume("going", "1Gi", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        volume("right", "2Gi", json!({})),
    ];
    check(
        &Observed { volumes: volumes.clone(), ..observed(&asks) },
        expect![[r#"
            reserve right
            bind right
        "#]],
    );
    let picky = claim(json!({"spec": {"selector": {"matchLabels": {"tier": "gold"}}}}));
    let mut gold = volumes.clone();
    gold.push(volume("gold", "9Gi", json!({"metadata": {"labels": {"tier": "gold"}}})));
    check(
        &Observed { volumes: gold, ..observed(&picky) },
        expect![[r#"
            reserve gold
            bind gold
        "#]],
    );
    // Reserved by its maker for this claim: nothing is compared.
    let mut reserved = volumes;
    reserved.push(volume("mine", "9Gi", json!({"spec": {"claimRef": {"namespace": "n", "name": "data"}}})));
    check(
        &Observed { volumes: reserved, ..observed(&asks) },
        expect![[r#"
            reserve mine
            bind mine
        "#]],
    );
}

#[test]
fn volumes_are_made_where_none_suits() {
    let asks = claim(json!({}));
    check(
        &observed(&asks),
        expect![[r#"
        Provision { node: "a" }
    "#]],
    );
    let waits = class("yado.dev/local", "WaitForFirstConsumer");
    let stay = volume("there", "1Gi", json!({}));
    check(
        &Observed { class: waits.clone(), volumes: vec![stay.clone()], ..observed(&asks) },
        expect![[r#"
            WaitForFirstConsumer: waiting for first consumer to be created before binding
        "#]],
    );
    let named = |node: &str| {
        claim(json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}}))
    };
    let (here, there) = (named("a"), named("b"));
    let far = volume("far", "1Gi", on("b"));
    check(
        &Observed {
            class: waits.clone(),
            node: Some(node("a")),
            volumes: vec![far.clone()],
            ..observed(&here)
        },
        expect![[r#"
            Provision { node: "a" }
        "#]],
    );
    check(
        &Observed { class: waits.clone(), node: Some(node("b")), volumes: vec![far], ..observed(&there) },
        expect![[r#"
            reserve far
            bind far
        "#]],
    );
    check(
        &Observed { class: waits, node: Some(node("b")), ..observed(&there) },
        expect![[r#"
            ! ProvisioningFailed: volumes are provisioned on node a only, not on b
            ForgetNode
        "#]],
    );
}

#[test]
fn what_is_missing_is_told() {
    let fresh = claim(json!({"status": {"phase": null}}));
    check(
        &Observed { class: None, ..observed(&fresh) },
        expect![[r#"
            Phase("Pending")
            ! ProvisioningFailed: storageclass.storage.k8s.io "local" not found
        "#]],
    );
    let classless = claim(json!({"spec": {"storageClassName": ""}}));
    check(
        &Observed { class: None, ..observed(&classless) },
        expect![[r#"
            FailedBinding: no persistent volumes available for this claim and no storage class is set
        "#]],
    );
    let asks = claim(json!({}));
    check(
        &Observed { class: class("kubernetes.io/no-provisioner", "Immediate"), ..observed(&asks) },
        expect![[r#"
            FailedBinding: no persistent volume matches this claim, and its class provisions none
        "#]],
    );
    let block = claim(json!({"spec": {"volumeMode": "Block"}}));
    check(
        &observed(&block),
        expect![[r#"
        ! ProvisioningFailed: directories are not block devices; request volumeMode Filesystem
    "#]],
    );
    check(
        &Observed { provider: None, ..observed(&asks) },
        expect![[r#"
            ! ProvisioningFailed: this cluster provisions no volumes
        "#]],
    );
}

#[test]
fn bound_claims_are_held_grow_and_are_lost() {
    let bound = |more: Value| {
        let mut value = json!({
            "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": "v"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        });
        merge(&mut value, more);
        claim(value)
    };
    let mine = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "yado.dev/local"}},
        "spec": {"claimRef": {"namespace": "n", "name": "data", "uid": "c"}},
    });
    let held = bound(json!({}));
    check(&Observed { volumes: vec![volume("v", "1Gi", mine.clone())], ..observed(&held) }, expect![""]);
    check(
        &observed(&held),
        expect![[r#"
            Phase("Lost")
            ! ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!
        "#]],
    );
    let wants_more = bound(json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}}));
    check(
        &Observed { volumes: vec![volume("v", "1Gi", mine.clone())], ..observed(&wants_more) },
        expect![[r#"
            grow v to 3Gi
        "#]],
    );
    check(
        &Observed { volumes: vec![volume("v", "3Gi", mine)], ..observed(&wants_more) },
        expect![[r#"
            bind v
        "#]],
    );
    let chosen = claim(json!({"spec": {"volumeName": "v"}}));
    check(
        &Observed { volumes: vec![volume("v", "1Gi", json!({}))], ..observed(&chosen) },
        expect![[r#"
            reserve v
            bind v
        "#]],
    );
    let other = json!({"spec": {"claimRef": {"namespace": "n", "name": "other", "uid": "o"}}});
    check(
        &Observed { volumes: vec![volume("v", "1Gi", other)], ..observed(&chosen) },
        expect![[r#"
            ! FailedBinding: volume "v" already bound to a different claim.
        "#]],
    );
}

#[test]
fn claims_in_use_stay() {
    let going = claim(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(&Observed { users: vec!["db-0".into()], ..observed(&going) }, expect![""]);
    check(
        &observed(&going),
        expect![[r#"
        RemoveFinalizer
    "#]],
    );
}

#[test]
fn volumes_tell_what_they_are_and_go_with_their_claims() {
    let of = json!({"spec": {"claimRef": {"namespace": "n", "name": "data", "uid": "c"}}});
    let ours = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "yado.dev/local"}}});
    let with = |parts: &[&Value]| {
        let mut all = json!({});
        parts.iter().for_each(|part| merge(&mut all, (*part).clone()));
        volume("v", "1Gi", all)
    };
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let bound = json!({"status": {"phase": "Bound"}});
    let retain = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
    let fresh = json!({"status": {"phase": "Pending"}});
    let (same, another) = (claim(json!({})), claim(json!({"metadata": {"uid": "new"}})));
    for (volume, claim, expect) in [
        (with(&[&fresh]), None, r#"[Phase("Available")]"#),
        (with(&[&of]), Some(&same), r#"[Phase("Bound")]"#),
        (with(&[&of, &bound]), Some(&same), "[]"),
        (with(&[&of, &bound, &ours]), None, r#"[Phase("Released"), Reclaim]"#),
        (with(&[&of, &bound, &ours]), Some(&another), r#"[Phase("Released"), Reclaim]"#),
        (with(&[&of, &bound, &ours, &retain]), None, r#"[Phase("Released")]"#),
        (
            with(&[&of, &bound]),
            None,
            r#"[Phase("Released"), Warn("VolumeFailedDelete", "no plugin can delete this volume")]"#,
        ),
        (with(&[&of, &bound, &going]), Some(&same), "[]"),
        (with(&[&going]), None, "[RemoveFinalizer]"),
    ] {
        assert_eq!(format!("{:?}", release::reconcile(&volume, claim)), expect, "{volume:?}");
    }
}

#[test]
fn a_made_volume_is_the_claims_and_its_nodes() {
    let asks = claim(json!({"spec": {"accessModes": ["ReadWriteMany"]}}));
    let class = class("yado.dev/local", "WaitForFirstConsumer").expect("a class");
    let name = provision::directory_name(&asks);
    assert_eq!(name, "n_data_c");
    let made = Arc::new(provision::volume(&asks, &class, "a", format!("/data/volumes/{name}")));
    assert!(
        provision::is_ours(&made) && matching::is_reserved_for(&made, &asks) && matching::suits(&made, &asks)
    );
    assert_eq!(provision::directory(&made), Some("/data/volumes/n_data_c"));
    for (name, expect) in [("a", true), ("b", false)] {
        let node = node(name);
        assert_eq!(fits_node(&made, name, node.metadata.labels.as_ref().expect("labels")), expect);
    }
}
