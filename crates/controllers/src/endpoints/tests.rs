use expect_test::{Expect, expect};
use serde_json::{Value, json};

use yado_types::labels::ENDPOINTSLICE_MANAGED_BY;

use super::*;

fn service(spec: Value) -> Service {
    let mut all = json!({"selector": {"app": "web"}, "clusterIP": "10.96.0.1",
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]});
    for (name, field) in spec.as_object().into_iter().flatten() {
        all[name] = field.clone();
    }
    let value = json!({"metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"team": "a"}}, "spec": all});
    serde_json::from_value(value).expect("a Service")
}

/// A Pod by its name, address and marks: `ready`, `deleting`, `ended`, `port@N`, `host@NAME`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let (name, address) = (words.next().expect("a name"), words.next().expect("an address"));
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node", "containers": [{"name": "c",
            "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    });
    for word in words {
        let (mark, argument) = word.split_once('@').unwrap_or((word, ""));
        match mark {
            "ready" => value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            "deleting" => value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            "ended" => value["status"]["phase"] = json!("Succeeded"),
            "port" => {
                let port: i32 = argument.parse().expect("a port");
                value["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(port);
            }
            "host" => {
                value["spec"]["hostname"] = json!(argument);
                value["spec"]["subdomain"] = json!("web");
            }
            other => panic!("unknown mark {other}"),
        }
    }
    Arc::new(serde_json::from_value(value).expect("a Pod"))
}

/// The cluster after the actions have been done.
#[derive(Default)]
struct World {
    slices: Vec<Arc<EndpointSlice>>,
    endpoints: Option<Arc<Endpoints>>,
}

impl World {
    fn step(&mut self, service: &Service, pods: &[Arc<Pod>]) -> usize {
        let observed = Observed {
            service,
            pods: pods.to_vec(),
            slices: self.managed_by(super::slices::MANAGER),
            mirrored: self.managed_by(super::mirror::MANAGER),
            endpoints: self.endpoints.clone(),
        };
        let actions = reconcile(&observed);
        let count = actions.len();
        for action in actions {
            match action {
                Action::CreateSlice(slice) => {
                    let fresh = self.slices.iter().all(|s| s.metadata.name != slice.metadata.name);
                    assert!(fresh, "{:?} is created twice", slice.metadata.name);
                    self.slices.push(Arc::from(slice));
                }
                Action::ReplaceSlice(slice) => {
                    let old = self.slices.iter_mut().find(|s| s.metadata.name == slice.metadata.name);
                    *old.expect("a slice to replace") = Arc::from(slice);
                }
                Action::DeleteSlice(slice) => self.slices.retain(|s| s.metadata.name != slice.metadata.name),
                Action::CreateEndpoints(e) | Action::ReplaceEndpoints(e) => {
                    self.endpoints = Some(Arc::from(e))
                }
            }
        }
        count
    }

    fn managed_by(&self, manager: &str) -> Vec<Arc<EndpointSlice>> {
        let managed = |slice: &&Arc<EndpointSlice>| {
            let labels = slice.metadata.labels.as_ref();
            labels.and_then(|l| l.get(ENDPOINTSLICE_MANAGED_BY)).is_some_and(|m| m == manager)
        };
        self.slices.iter().filter(managed).cloned().collect()
    }

    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for slice in &self.slices {
            let ports =
                slice.ports.iter().flatten().map(|p| {
                    format!("{}:{}", p.name.as_deref().unwrap_or_default(), p.port.unwrap_or_default())
                });
            lines.push(format!("{} {}", slice.address_type, ports.collect::<Vec<_>>().join(" ")));
            for e in slice.endpoints.iter().flatten() {
                let c = e.conditions.clone().unwrap_or_default();
                let marks = [("ready", c.ready), ("serving", c.serving), ("terminating", c.terminating)];
                let marks: Vec<_> =
                    marks.iter().filter(|(_, on)| *on == Some(true)).map(|(m, _)| *m).collect();
                let host = e.hostname.clone().map(|h| format!(" as {h}")).unwrap_or_default();
                lines.push(format!("  {}{host} {}", e.addresses.join(" "), marks.join(" ")));
            }
        }
        for subset in self.endpoints.iter().flat_map(|e| e.subsets.iter().flatten()) {
            let ips = |a: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
                a.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(" ")
            };
            let ports: Vec<_> = subset.ports.iter().flatten().map(|p| p.port.to_string()).collect();
            let (ready, not) = (ips(&subset.addresses), ips(&subset.not_ready_addresses));
            lines.push(format!("Endpoints {}: ready [{ready}] not [{not}]", ports.join(" ")));
        }
        lines.join("\n")
    }
}

fn check(spec: Value, pods: &[&str], expect: Expect) {
    let (service, pods) = (service(spec), pods.iter().map(|p| pod(p)).collect::<Vec<_>>());
    let mut world = World::default();
    world.step(&service, &pods);
    expect.assert_eq(&world.describe());
    assert_eq!(world.step(&service, &pods), 0, "nothing is left to do");
}

#[test]
fn a_service_has_the_endpoints_of_its_pods() {
    check(json!({}), &[], expect!["IPv4 "]);
    let pods = ["a 10.0.0.1 ready", "b 10.0.0.2", "c 10.0.0.3 ready deleting", "d 10.0.0.4 ended"];
    check(
        json!({}),
        &pods,
        expect![[r#"
        IPv4 http:8080
          10.0.0.1 ready serving
          10.0.0.2 
          10.0.0.3 serving terminating
        Endpoints 8080: ready [10.0.0.1] not [10.0.0.2]"#]],
    );
    check(
        json!({"publishNotReadyAddresses": true}),
        &pods,
        expect![[r#"
        IPv4 http:8080
          10.0.0.1 ready serving
          10.0.0.2 ready
          10.0.0.3 ready serving terminating
        Endpoints 8080: ready [10.0.0.1 10.0.0.2 10.0.0.3] not []"#]],
    );
    check(
        json!({}),
        &["a 10.0.0.1 ready", "b 10.0.0.2 ready port@9090"],
        expect![[r#"
        IPv4 http:8080
          10.0.0.1 ready serving
        IPv4 http:9090
          10.0.0.2 ready serving
        Endpoints 8080: ready [10.0.0.1] not []
        Endpoints 9090: ready [10.0.0.2] not []"#]],
    );
    check(
        json!({"clusterIP": "None", "ports": null}),
        &["a 10.0.0.1 ready host@a"],
        expect![[r#"
        IPv4 
          10.0.0.1 as a ready serving
        Endpoints : ready [10.0.0.1] not []"#]],
    );
    check(
        json!({"ports": [{"port": 80, "targetPort": 8000}, {"name": "x", "port": 1, "targetPort": "none"}]}),
        &["a 10.0.0.1 ready"],
        expect![[r#"
            IPv4 :8000
              10.0.0.1 ready serving
            Endpoints 8000: ready [10.0.0.1] not []"#]],
    );
    check(
        json!({"ipFamilies": ["IPv6", "IPv4"]}),
        &["a fd00::1 ready"],
        expect![[r#"
        IPv4 
        IPv6 http:8080
          fd00::1 ready serving
        Endpoints 8080: ready [fd00::1] not []"#]],
    );
}

#[test]
fn a_service_without_selector_is_left_alone() {
    check(json!({"selector": null}), &["a 10.0.0.1 ready"], expect![[""]]);
    check(json!({"type": "ExternalName"}), &["a 10.0.0.1 ready"], expect![[""]]);
}

#[test]
fn many_endpoints_are_split_and_a_change_touches_one_slice() {
    let service = service(json!({}));
    let many = |range: std::ops::Range<usize>| -> Vec<_> {
        range.map(|i| pod(&format!("p{i:03} 10.0.{}.{} ready", i / 250, i % 250 + 1))).collect()
    };
    let mut world = World::default();
    world.step(&service, &many(0..250));
    let sizes = |world: &World| -> Vec<_> {
        world.slices.iter().map(|s| s.endpoints.as_deref().unwrap_or_default().len()).collect()
    };
    assert_eq!(sizes(&world), [100, 100, 50]);
    // One slice and the Endpoints.
    assert_eq!(world.step(&service, &many(0..251)), 2);
    assert_eq!(sizes(&world), [100, 100, 51]);
    assert_eq!(world.step(&service, &many(1..251)), 2);
    assert_eq!(sizes(&world), [99, 100, 51]);
    world.step(&service, &many(0..0));
    assert_eq!(sizes(&world), [0], "one empty slice says that there are none");
}

#[test]
fn slices_carry_what_readers_look_for() {
    let mut world = World::default();
    world.step(&service(json!({"clusterIP": "None"})), &[pod("a 10.0.0.1 ready")]);
    expect![[r#"
        {
          "apiVersion": "discovery.k8s.io/v1",
          "kind": "EndpointSlice",
          "addressType": "IPv4",
          "endpoints": [
            {
              "addresses": [
                "10.0.0.1"
              ],
              "conditions": {
                "ready": true,
                "serving": true,
                "terminating": false
              },
              "nodeName": "node",
              "targetRef": {
                "kind": "Pod",
                "name": "a",
                "namespace": "n",
                "uid": "a"
              }
            }
          ],
          "metadata": {
            "labels": {
              "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
              "kubernetes.io/service-name": "web",
              "service.kubernetes.io/headless": "",
              "team": "a"
            },
            "name": "web-7e868",
            "namespace": "n",
            "ownerReferences": [
              {
                "apiVersion": "v1",
                "blockOwnerDeletion": true,
                "controller": true,
                "kind": "Service",
                "name": "web",
                "uid": "s"
              }
            ]
          },
          "ports": [
            {
              "name": "http",
              "port": 8080,
              "protocol": "TCP"
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&*world.slices[0]).expect("a slice"));
}

#[test]
fn endpoints_of_a_service_without_a_selector_are_mirrored() {
    let service = service(json!({"selector": {}}));
    let subsets = json!([
        {"addresses": [{"ip": "10.9.0.2"}, {"ip": "10.9.0.1", "hostname": "h"}],
            "notReadyAddresses": [{"ip": "10.9.0.3"}], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]},
        {"addresses": [{"ip": "fd00::1"}], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]},
    ]);
    let changed = json!([{"addresses": [{"ip": "10.9.0.4"}], "ports": [{"port": 81}]}]);
    let mirrored = expect![[r#"
        IPv4 http:8080
          10.9.0.1 as h ready
          10.9.0.2 ready
          10.9.0.3 
        IPv6 http:8080
          fd00::1 ready"#]];
    let rows = [
        (json!({}), &subsets, mirrored),
        (
            json!({}),
            &changed,
            expect![[r#"
            IPv4 :81
              10.9.0.4 ready"#]],
        ),
        (json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}), &subsets, expect![""]),
        (json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}), &subsets, expect![""]),
    ];
    let mut world = World::default();
    for (mut metadata, subsets, expect) in rows {
        metadata["name"] = "web".into();
        metadata["namespace"] = "n".into();
        let endpoints = json!({"metadata": metadata, "subsets": subsets});
        world.endpoints = Some(Arc::new(serde_json::from_value(endpoints).expect("Endpoints")));
        world.step(&service, &[]);
        let endpoints = world.endpoints.take();
        expect.assert_eq(&world.describe());
        world.endpoints = endpoints;
        assert_eq!(world.step(&service, &[]), 0, "nothing is left to do");
    }
}

#[test]
fn mirrored_slices_go_with_the_endpoints_and_with_a_selector() {
    let endpoints = json!({"metadata": {"name": "web", "namespace": "n", "labels": {"l": "v"},
        "annotations": {"a": "b", "endpoints.kubernetes.io/last-change-trigger-time": "t"}},
        "subsets": [{"addresses": [{"ip": "10.9.0.1"}], "ports": [{"port": 80}]}]});
    let without = service(json!({"selector": {}}));
    for (then, is_present) in [(&without, false), (&service(json!({})), true)] {
        let given: Arc<Endpoints> = Arc::new(serde_json::from_value(endpoints.clone()).expect("Endpoints"));
        let mut world = World { endpoints: Some(given), ..World::default() };
        world.step(&without, &[]);
        let [slice] = world.slices.as_slice() else { panic!("one slice, not {:?}", world.slices) };
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        assert_eq!((labels["l"].as_str(), labels["kubernetes.io/service-name"].as_str()), ("v", "web"));
        assert_eq!(slice.metadata.annotations, Some([("a".to_owned(), "b".to_owned())].into()));
        assert_eq!(slice.metadata.owner_references.as_ref().map(|o| o[0].kind.as_str()), Some("Endpoints"));
        if !is_present {
            world.endpoints = None;
        }
        world.step(then, &[]);
        assert!(world.managed_by(super::mirror::MANAGER).is_empty());
    }
}
