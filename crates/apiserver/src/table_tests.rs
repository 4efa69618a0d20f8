use super::*;
use crate::schema::KINDS;

/// Cells joined by ` | `, for an object in YAML, at noon of 2020-01-02.
fn check(object: &str, expect: &str) {
    let object: Value = serde_norway::from_str(object).expect("YAML");
    let kind = KINDS.iter().find(|k| object["kind"] == *k.kind).expect("a kind");
    let now = "2020-01-02T12:00:00Z".parse().expect("a time");
    let row = row(kind, &object, IncludeObject::None, now);
    let cells = row["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), kind.strategy().columns().len(), "{}", kind.kind);
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    assert_eq!(cells.iter().map(text).collect::<Vec<_>>().join(" | "), expect);
}

fn pod(status: &str, expect: &str) {
    let meta = "metadata: {name: p, creationTimestamp: '2020-01-02T11:00:00Z'}";
    let spec = "spec: {containers: [{name: a}, {name: b}], initContainers: [{name: i}, {name: s, restartPolicy: Always}]}";
    check(&format!("{{kind: Pod, {meta}, {spec}, status: {status}}}"), &format!("p | {expect}"));
}

#[test]
fn pods() {
    let tail = "60m | <none> | <none> | <none> | <none>";
    pod("{phase: Pending}", &format!("0/3 | Pending | 0 | {tail}"));
    pod("{phase: Failed, reason: Evicted}", &format!("0/3 | Evicted | 0 | {tail}"));
    pod(
        "{phase: Pending, initContainerStatuses: [{name: i, state: {waiting: {reason: PodInitializing}}}]}",
        &format!("0/3 | Init:0/2 | 0 | {tail}"),
    );
    pod(
        "{phase: Pending, initContainerStatuses: [{name: i, restartCount: 2, state: {terminated: {exitCode: 1}},
          lastState: {terminated: {finishedAt: '2020-01-02T11:59:00Z'}}}]}",
        &format!("0/3 | Init:ExitCode:1 | 2 (60s ago) | {tail}"),
    );
    pod(
        "{phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}], initContainerStatuses: [
          {name: i, restartCount: 5, state: {terminated: {exitCode: 0}}}, {name: s, started: true, ready: true, state: {running: {}}}],
          containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, restartCount: 1, ready: true, state: {running: {}}}]}",
        "3/3 | Running | 1 | 60m | 10.0.0.1 | <none> | <none> | <none>",
    );
    pod(
        "{phase: Running, containerStatuses: [{name: a, state: {waiting: {reason: CrashLoopBackOff}}}, {name: b, state: {terminated: {signal: 9}}}]}",
        &format!("0/3 | CrashLoopBackOff | 0 | {tail}"),
    );
    pod(
        "{phase: Running, containerStatuses: [{name: a, state: {terminated: {reason: Completed}}}, {name: b, ready: true, state: {running: {}}}]}",
        &format!("1/3 | NotReady | 0 | {tail}"),
    );
    check(
        "{kind: Pod, metadata: {name: p, deletionTimestamp: '2020-01-02T12:00:00Z'}, spec: {nodeName: n, readinessGates: [{conditionType: x}]},
          status: {phase: Running, conditions: [{type: x, status: 'True'}]}}",
        "p | 0/0 | Terminating | 0 | <unknown> | <none> | n | <none> | 1/1",
    );
}

#[test]
fn workloads_and_services() {
    check(
        "{kind: Deployment, metadata: {name: d, creationTimestamp: '2020-01-02T11:59:50Z'}, spec: {replicas: 3, selector: {matchLabels: {b: c, a: b},
          matchExpressions: [{key: e, operator: In, values: [z, y]}, {key: f, operator: DoesNotExist}]},
          template: {spec: {containers: [{name: x, image: i:1}, {name: y, image: j}]}}}, status: {readyReplicas: 2, updatedReplicas: 3, availableReplicas: 1}}",
        "d | 2/3 | 3 | 1 | 10s | x,y | i:1,j | a=b,b=c,e in (y,z),!f",
    );
    check(
        "{kind: ReplicaSet, metadata: {name: r}, spec: {replicas: 0}, status: {replicas: 2}}",
        "r | 0 | 2 | 0 | <unknown> |  |  | <none>",
    );
    check(
        "{kind: ReplicationController, metadata: {name: r}, spec: {replicas: 3, selector: {b: c, a: b}, template: {spec: {containers: [{name: x, image: i}]}}},
          status: {replicas: 2, readyReplicas: 1}}",
        "r | 3 | 2 | 1 | <unknown> | x | i | a=b,b=c",
    );
    check(
        "{kind: DaemonSet, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, template: {spec: {nodeSelector: {disk: ssd}, containers: [{name: x, image: i}]}}},
          status: {desiredNumberScheduled: 5, currentNumberScheduled: 4, numberReady: 3, updatedNumberScheduled: 2, numberAvailable: 1}}",
        "d | 5 | 4 | 3 | 2 | 1 | disk=ssd | <unknown> | x | i | a=b",
    );
    check(
        "{kind: StatefulSet, metadata: {name: s}, spec: {replicas: 3, selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: x, image: i}]}}},
          status: {replicas: 3, readyReplicas: 2, availableReplicas: 1}}",
        "s | 2/3 | <unknown> | x | i",
    );
    check(
        "{kind: ControllerRevision, metadata: {name: c, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: d, controller: true}]}, revision: 3}",
        "c | daemonset.apps/d | 3 | <unknown>",
    );
    check(
        "{kind: CronJob, metadata: {name: c, creationTimestamp: '2020-01-02T10:00:00Z'}, spec: {schedule: '@daily', timeZone: Asia/Tokyo, suspend: false,
          jobTemplate: {spec: {template: {spec: {containers: [{name: x, image: i}]}}}}}, status: {active: [{name: j}], lastScheduleTime: '2020-01-02T11:00:00Z'}}",
        "c | @daily | Asia/Tokyo | False | 1 | 60m | 120m | x | i | <none>",
    );
    check(
        "{kind: CronJob, metadata: {name: c}, spec: {schedule: '@daily'}}",
        "c | @daily | <none> | <unset> | 0 | <none> | <unknown> |  |  | <none>",
    );
    let job = |status: &str, shown: &str| {
        let spec = "selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: x, image: i}]}}";
        check(
            &format!(
                "{{kind: Job, metadata: {{name: j}}, spec: {{completions: 3, {spec}}}, status: {status}}}"
            ),
            &format!("j | {shown} | <unknown> | x | i | a=b"),
        );
    };
    job("{}", "Running | 0/3 | ");
    job("{startTime: '2020-01-02T11:59:00Z', succeeded: 1}", "Running | 1/3 | 60s");
    job(
        "{startTime: '2020-01-02T11:00:00Z', completionTime: '2020-01-02T11:00:05Z', succeeded: 3, conditions: [{type: SuccessCriteriaMet, status: 'True'}, {type: Complete, status: 'True'}]}",
        "Complete | 3/3 | 5s",
    );
    job("{conditions: [{type: FailureTarget, status: 'True'}]}", "FailureTarget | 0/3 | ");
    job("{conditions: [{type: Suspended, status: 'True'}]}", "Suspended | 0/3 | ");
    check(
        "{kind: Service, metadata: {name: s}, spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080, protocol: TCP}, {port: 53, protocol: UDP}], selector: {a: b}}}",
        "s | NodePort | 10.96.0.1 | <none> | 80:30080/TCP,53/UDP | <unknown> | a=b",
    );
    check(
        "{kind: Service, metadata: {name: s}, spec: {type: LoadBalancer, clusterIP: None}}",
        "s | LoadBalancer | None | <pending> | <none> | <unknown> | <none>",
    );
    check(
        "{kind: Service, metadata: {name: s}, spec: {type: ExternalName, externalName: example.org}}",
        "s | ExternalName | <none> | example.org | <none> | <unknown> | <none>",
    );
    check(
        "{kind: Ingress, metadata: {name: i}, spec: {rules: [{host: a}, {host: b}, {host: c}, {host: d}], tls: [{}]}, status: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}}",
        "i | <none> | a,b,c + 1 more... | 1.2.3.4 | 80, 443 | <unknown>",
    );
}

#[test]
fn other_kinds() {
    check(
        "{kind: Node, metadata: {name: n, labels: {node-role.kubernetes.io/control-plane: ''}}, spec: {unschedulable: true},
          status: {conditions: [{type: Ready, status: 'True'}], addresses: [{type: InternalIP, address: 10.0.0.2}], nodeInfo: {kubeletVersion: v1.36.0, osImage: Debian}}}",
        "n | Ready,SchedulingDisabled | control-plane | <unknown> | v1.36.0 | 10.0.0.2 | <none> | Debian | <unknown> | <unknown>",
    );
    check("{kind: Namespace, metadata: {name: n}, status: {phase: Active}}", "n | Active | <unknown>");
    check("{kind: ConfigMap, metadata: {name: c}, data: {a: b}, binaryData: {c: d}}", "c | 2 | <unknown>");
    check("{kind: Secret, metadata: {name: s}, type: Opaque}", "s | Opaque | 0 | <unknown>");
    check("{kind: ServiceAccount, metadata: {name: s}}", "s | 0 | <unknown>");
    check(
        "{kind: Endpoints, metadata: {name: e}, subsets: [{addresses: [{ip: 10.0.0.1}, {ip: '::1'}], ports: [{port: 80}, {port: 81}]}]}",
        "e | 10.0.0.1:80,[::1]:80,10.0.0.1:81 + 1 more... | <unknown>",
    );
    check(
        "{kind: EndpointSlice, metadata: {name: e}, addressType: IPv4, ports: [{port: 80}, {}], endpoints: [{addresses: [10.0.0.1]}]}",
        "e | IPv4 | 80,* | 10.0.0.1 | <unknown>",
    );
    check(
        "{kind: PersistentVolume, metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteMany, ReadWriteOnce], persistentVolumeReclaimPolicy: Retain,
          storageClassName: local, claimRef: {namespace: n, name: c}, volumeMode: Filesystem}, status: {phase: Bound}}",
        "v | 1Gi | RWO,RWX | Retain | Bound | n/c | local | <unset> |  | <unknown> | Filesystem",
    );
    check(
        "{kind: PersistentVolumeClaim, metadata: {name: c, deletionTimestamp: '2020-01-02T12:00:00Z'}, spec: {volumeName: v, storageClassName: local},
          status: {phase: Bound, capacity: {storage: 1Gi}, accessModes: [ReadOnlyMany]}}",
        "c | Terminating | v | 1Gi | ROX | local | <unset> | <unknown> | <unset>",
    );
    check(
        "{kind: PersistentVolumeClaim, metadata: {name: c}, spec: {accessModes: [ReadWriteOnce]}, status: {phase: Pending}}",
        "c | Pending |  |  |  |  | <unset> | <unknown> | <unset>",
    );
    check(
        "{kind: StorageClass, metadata: {name: s, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: p}",
        "s (default) | p | Delete | Immediate | false | <unknown>",
    );
    check("{kind: NetworkPolicy, metadata: {name: n}, spec: {podSelector: {}}}", "n | <none> | <unknown>");
    check(
        "{kind: ClusterRole, metadata: {name: 'system:node', creationTimestamp: '2020-01-02T11:00:00Z'}}",
        "system:node | 2020-01-02T11:00:00Z",
    );
    check(
        "{kind: RoleBinding, metadata: {name: b}, roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, {kind: User, name: v},
          {kind: Group, name: g}, {kind: ServiceAccount, namespace: n, name: s}]}",
        "b | Role/r | <unknown> | u, v | g | n/s",
    );
    let schema = "{kind: FlowSchema, metadata: {name: f}, spec: {matchingPrecedence: 9, priorityLevelConfiguration: {name: p}";
    check(&format!("{schema}}}}}"), "f | p | 9 | <none> | <unknown> | ?");
    check(
        &format!(
            "{schema}, distinguisherMethod: {{type: ByUser}}}}, status: {{conditions: [{{type: Dangling, status: 'True'}}]}}}}"
        ),
        "f | p | 9 | ByUser | <unknown> | True",
    );
    check(
        "{kind: PriorityLevelConfiguration, metadata: {name: p}, spec: {type: Limited, limited: {nominalConcurrencyShares: 0,
          limitResponse: {type: Queue, queuing: {queues: 8, handSize: 2, queueLengthLimit: 5}}}}}",
        "p | Limited | 0 | 8 | 2 | 5 | <unknown>",
    );
    check(
        "{kind: PriorityLevelConfiguration, metadata: {name: exempt}, spec: {type: Exempt}}",
        "exempt | Exempt | <none> | <none> | <none> | <none> | <unknown>",
    );
    check("{kind: Lease, metadata: {name: l}, spec: {holderIdentity: me}}", "l | me | <unknown>");
    check(
        "{kind: IngressClass, metadata: {name: c}, spec: {controller: x.io/c, parameters: {apiGroup: x.io, kind: P, name: p}}}",
        "c | x.io/c | P.x.io/p | <unknown>",
    );
    check(
        "{kind: Event, metadata: {name: e}, type: Normal, reason: Pulled, message: ' done ', count: 3, involvedObject: {kind: Pod, name: p, fieldPath: f},
          source: {component: kubelet, host: n}, firstTimestamp: '2020-01-02T11:00:00Z', lastTimestamp: '2020-01-02T11:59:58Z'}",
        "2s | Normal | Pulled | pod/p | f | kubelet, n | done | 60m | 3 | e",
    );
}

#[test]
fn a_table_carries_what_was_asked_for() {
    let kind = KINDS.iter().find(|k| k.kind == "Lease").expect("a kind");
    let object = json!({"kind": "Lease", "metadata": {"name": "l"}, "spec": {}});
    let metadata = json!({"resourceVersion": "7"});
    let whole =
        |include, columns| table(kind, [&object], metadata.clone(), include, Timestamp::UNIX_EPOCH, columns);
    let full = whole(IncludeObject::Metadata, true);
    assert_eq!(full["columnDefinitions"][0]["format"], "name");
    assert_eq!(full["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(full["metadata"], metadata);
    let watch = whole(IncludeObject::Object, false);
    assert_eq!((&watch["columnDefinitions"], &watch["rows"][0]["object"]), (&json!([]), &object));
    assert_eq!(whole(IncludeObject::None, true)["rows"][0].get("object"), None);
}
