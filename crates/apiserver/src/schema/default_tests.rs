use expect_test::{Expect, expect};

use serde_json::json;

use super::super::KINDS;
use super::*;

/// Objects are written in YAML: what a user sends, and what `kubectl get -o yaml` shows then.
fn check(sent: &str, expect: Expect) {
    let mut object: Value = serde_norway::from_str(sent).expect("YAML");
    let kind = KINDS.iter().find(|k| object["kind"] == *k.kind).expect("a kind");
    default_object(kind, &mut object);
    expect.assert_eq(&serde_norway::to_string(&object).expect("YAML"));
    let once = object.clone();
    default_object(kind, &mut object);
    assert_eq!(object, once, "filling in twice changes nothing more");
}

#[test]
fn a_pod() {
    check(
        "
kind: Pod
spec:
  hostNetwork: true
  volumes: [{name: a}, {name: b, secret: {secretName: s}}, {name: c, hostPath: {path: /x}}]
  containers:
  - name: c
    image: registry:5000/app
    ports: [{containerPort: 80}]
    env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {limits: {cpu: 100m, memory: 1Mi}}
    livenessProbe: {httpGet: {port: 80}}
",
        expect![[r#"
            kind: Pod
            spec:
              hostNetwork: true
              volumes:
              - name: a
                emptyDir: {}
              - name: b
                secret:
                  secretName: s
                  defaultMode: 420
              - name: c
                hostPath:
                  path: /x
                  type: ''
              containers:
              - name: c
                image: registry:5000/app
                ports:
                - containerPort: 80
                  protocol: TCP
                  hostPort: 80
                env:
                - name: N
                  valueFrom:
                    fieldRef:
                      fieldPath: metadata.name
                      apiVersion: v1
                resources:
                  limits:
                    cpu: 100m
                    memory: 1Mi
                  requests:
                    cpu: 100m
                    memory: 1Mi
                livenessProbe:
                  httpGet:
                    port: 80
                    path: /
                    scheme: HTTP
                  timeoutSeconds: 1
                  periodSeconds: 10
                  successThreshold: 1
                  failureThreshold: 3
                imagePullPolicy: Always
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
              restartPolicy: Always
              terminationGracePeriodSeconds: 30
              dnsPolicy: ClusterFirst
              securityContext: {}
              schedulerName: default-scheduler
              enableServiceLinks: true
              priority: 0
              preemptionPolicy: PreemptLowerPriority
              tolerations:
              - effect: NoExecute
                key: node.kubernetes.io/not-ready
                operator: Exists
                tolerationSeconds: 300
              - effect: NoExecute
                key: node.kubernetes.io/unreachable
                operator: Exists
                tolerationSeconds: 300
            status:
              phase: Pending
              qosClass: Guaranteed
        "#]],
    );
}

#[test]
fn a_deployment() {
    check(
        "
kind: Deployment
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: 'nginx:1'}]}
",
        expect![[r#"
            kind: Deployment
            spec:
              selector:
                matchLabels:
                  a: b
              template:
                metadata:
                  labels:
                    a: b
                spec:
                  containers:
                  - name: c
                    image: nginx:1
                    imagePullPolicy: IfNotPresent
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                    resources: {}
                  restartPolicy: Always
                  terminationGracePeriodSeconds: 30
                  dnsPolicy: ClusterFirst
                  securityContext: {}
                  schedulerName: default-scheduler
              replicas: 1
              revisionHistoryLimit: 10
              progressDeadlineSeconds: 600
              strategy:
                type: RollingUpdate
                rollingUpdate:
                  maxUnavailable: 25%
                  maxSurge: 25%
            status: {}
        "#]],
    );
}

/// Clients in Go write a zero where no `targetPort` is set.
#[test]
fn a_port_of_a_service_leads_to_the_same_port_where_none_is_set() {
    for (given, expect) in [("", "80"), ("0", "80"), ("''", "80"), ("8080", "8080"), ("web", "web")] {
        let text = format!("{{kind: Service, spec: {{ports: [{{port: 80, targetPort: {given}}}]}}}}");
        let mut object: Value = serde_norway::from_str(&text).expect("YAML");
        let kind = KINDS.iter().find(|k| k.kind == "Service").expect("a kind");
        default_object(kind, &mut object);
        let target = &object["spec"]["ports"][0]["targetPort"];
        let shown = target.as_str().map_or_else(|| target.to_string(), str::to_owned);
        assert_eq!(shown, expect, "{text}");
    }
}

#[test]
fn services() {
    check(
        "{kind: Service, spec: {clusterIP: None, ports: [{port: 80}]}}",
        expect![[r#"
        kind: Service
        spec:
          clusterIP: None
          ports:
          - port: 80
            protocol: TCP
            targetPort: 80
          type: ClusterIP
          sessionAffinity: None
          internalTrafficPolicy: Cluster
          ipFamilies:
          - IPv4
          ipFamilyPolicy: SingleStack
          clusterIPs:
          - None
        status:
          loadBalancer: {}
    "#]],
    );
    check(
        "{kind: Service, spec: {type: NodePort, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: web}]}}",
        expect![[r#"
        kind: Service
        spec:
          type: NodePort
          sessionAffinity: ClientIP
          ports:
          - port: 80
            targetPort: web
            protocol: TCP
          sessionAffinityConfig:
            clientIP:
              timeoutSeconds: 10800
          externalTrafficPolicy: Cluster
          internalTrafficPolicy: Cluster
          ipFamilies:
          - IPv4
          ipFamilyPolicy: SingleStack
        status:
          loadBalancer: {}
    "#]],
    );
    check(
        "{kind: Service, spec: {type: ExternalName, externalName: example.org}}",
        expect![[r#"
        kind: Service
        spec:
          type: ExternalName
          externalName: example.org
          sessionAffinity: None
        status:
          loadBalancer: {}
    "#]],
    );
}

#[test]
fn flow_control() {
    check(
        "{kind: FlowSchema, spec: {priorityLevelConfiguration: {name: p}}}",
        expect![[r#"
            kind: FlowSchema
            spec:
              priorityLevelConfiguration:
                name: p
              matchingPrecedence: 1000
            status: {}
        "#]],
    );
    check(
        "{kind: PriorityLevelConfiguration, spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 0, handSize: 3}}}}}",
        expect![[r#"
            kind: PriorityLevelConfiguration
            spec:
              type: Limited
              limited:
                limitResponse:
                  type: Queue
                  queuing:
                    queues: 64
                    handSize: 3
                    queueLengthLimit: 50
                nominalConcurrencyShares: 30
                lendablePercent: 0
            status: {}
        "#]],
    );
    check(
        "{kind: PriorityLevelConfiguration, spec: {type: Exempt, exempt: {}}}",
        expect![[r#"
            kind: PriorityLevelConfiguration
            spec:
              type: Exempt
              exempt:
                nominalConcurrencyShares: 0
                lendablePercent: 0
            status: {}
        "#]],
    );
}

#[test]
fn small_kinds() {
    // What finalization took away does not come back.
    check(
        "{kind: Namespace, metadata: {name: n, deletionTimestamp: x}, spec: {}, status: {phase: Terminating}}",
        expect![[r#"
            kind: Namespace
            metadata:
              name: n
              deletionTimestamp: x
              labels:
                kubernetes.io/metadata.name: n
            spec: {}
            status:
              phase: Terminating
        "#]],
    );
    check(
        "{kind: Namespace, metadata: {name: n}}",
        expect![[r#"
        kind: Namespace
        metadata:
          name: n
          labels:
            kubernetes.io/metadata.name: n
        spec:
          finalizers:
          - kubernetes
        status:
          phase: Active
    "#]],
    );
    check(
        "{kind: Secret, data: {a: Yg==}}",
        expect![[r#"
        kind: Secret
        data:
          a: Yg==
        type: Opaque
    "#]],
    );
    check(
        "{kind: EndpointSlice, ports: [{port: 80}]}",
        expect![[r#"
        kind: EndpointSlice
        ports:
        - port: 80
          name: ''
          protocol: TCP
    "#]],
    );
    check(
        "{kind: Node, status: {capacity: {cpu: '2'}}}",
        expect![[r#"
        kind: Node
        status:
          capacity:
            cpu: '2'
          allocatable:
            cpu: '2'
    "#]],
    );
}

#[test]
fn what_makes_pods_besides_deployments() {
    check(
        "{kind: ReplicationController, metadata: {name: r}, spec: {template: {metadata: {labels: {a: b}}}}}",
        expect![[r#"
            kind: ReplicationController
            metadata:
              name: r
              labels:
                a: b
            spec:
              template:
                metadata:
                  labels:
                    a: b
                spec:
                  restartPolicy: Always
                  terminationGracePeriodSeconds: 30
                  dnsPolicy: ClusterFirst
                  securityContext: {}
                  schedulerName: default-scheduler
              replicas: 1
              selector:
                a: b
            status:
              replicas: 0
        "#]],
    );
    check(
        "{kind: DaemonSet, spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 10%}}, template: {spec: {restartPolicy: Always}}}}",
        expect![[r#"
            kind: DaemonSet
            spec:
              updateStrategy:
                rollingUpdate:
                  maxUnavailable: 10%
                  maxSurge: 0
                type: RollingUpdate
              template:
                spec:
                  restartPolicy: Always
                  terminationGracePeriodSeconds: 30
                  dnsPolicy: ClusterFirst
                  securityContext: {}
                  schedulerName: default-scheduler
              revisionHistoryLimit: 10
            status:
              currentNumberScheduled: 0
              desiredNumberScheduled: 0
              numberMisscheduled: 0
              numberReady: 0
        "#]],
    );
    check(
        "{kind: StatefulSet, spec: {template: {spec: {restartPolicy: Always}},
          volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]}}",
        expect![[r#"
            kind: StatefulSet
            spec:
              template:
                spec:
                  restartPolicy: Always
                  terminationGracePeriodSeconds: 30
                  dnsPolicy: ClusterFirst
                  securityContext: {}
                  schedulerName: default-scheduler
              volumeClaimTemplates:
              - metadata:
                  name: data
                spec:
                  accessModes:
                  - ReadWriteOnce
                  volumeMode: Filesystem
                apiVersion: v1
                kind: PersistentVolumeClaim
                status:
                  phase: Pending
              replicas: 1
              revisionHistoryLimit: 10
              serviceName: ''
              podManagementPolicy: OrderedReady
              updateStrategy:
                type: RollingUpdate
                rollingUpdate:
                  partition: 0
                  maxUnavailable: 1
              persistentVolumeClaimRetentionPolicy:
                whenDeleted: Retain
                whenScaled: Retain
            status:
              replicas: 0
              availableReplicas: 0
        "#]],
    );
    check(
        "{kind: StatefulSet, spec: {serviceName: s, updateStrategy: {type: RollingUpdate}, persistentVolumeClaimRetentionPolicy: {whenScaled: Delete}}}",
        expect![[r#"
            kind: StatefulSet
            spec:
              serviceName: s
              updateStrategy:
                type: RollingUpdate
              persistentVolumeClaimRetentionPolicy:
                whenScaled: Delete
                whenDeleted: Retain
              replicas: 1
              revisionHistoryLimit: 10
              podManagementPolicy: OrderedReady
            status:
              replicas: 0
              availableReplicas: 0
        "#]],
    );
    check(
        "{kind: StatefulSet, spec: {updateStrategy: {type: OnDelete}}}",
        expect![[r#"
            kind: StatefulSet
            spec:
              updateStrategy:
                type: OnDelete
              replicas: 1
              revisionHistoryLimit: 10
              serviceName: ''
              podManagementPolicy: OrderedReady
              persistentVolumeClaimRetentionPolicy:
                whenDeleted: Retain
                whenScaled: Retain
            status:
              replicas: 0
              availableReplicas: 0
        "#]],
    );
    check(
        "{kind: StatefulSet, spec: {updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 3}}}}",
        expect![[r#"
            kind: StatefulSet
            spec:
              updateStrategy:
                type: RollingUpdate
                rollingUpdate:
                  partition: 3
                  maxUnavailable: 1
              replicas: 1
              revisionHistoryLimit: 10
              serviceName: ''
              podManagementPolicy: OrderedReady
              persistentVolumeClaimRetentionPolicy:
                whenDeleted: Retain
                whenScaled: Retain
            status:
              replicas: 0
              availableReplicas: 0
        "#]],
    );
    check(
        "{kind: Job, metadata: {name: j}, spec: {parallelism: 3, template: {metadata: {labels: {a: b}}}}}",
        expect![[r#"
            kind: Job
            metadata:
              name: j
              labels:
                a: b
            spec:
              parallelism: 3
              template:
                metadata:
                  labels:
                    a: b
                spec:
                  restartPolicy: Always
                  terminationGracePeriodSeconds: 30
                  dnsPolicy: ClusterFirst
                  securityContext: {}
                  schedulerName: default-scheduler
              backoffLimit: 6
              completionMode: NonIndexed
              suspend: false
              manualSelector: false
              podReplacementPolicy: TerminatingOrFailed
            status: {}
        "#]],
    );
    check(
        "{kind: Job, spec: {}}",
        expect![[r#"
            kind: Job
            spec:
              completions: 1
              parallelism: 1
              backoffLimit: 6
              completionMode: NonIndexed
              suspend: false
              manualSelector: false
              podReplacementPolicy: TerminatingOrFailed
            metadata: {}
            status: {}
        "#]],
    );
}

#[test]
fn cron_jobs() {
    check(
        "{kind: CronJob, metadata: {name: j}, spec: {schedule: '@daily', jobTemplate: {spec: {podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: X}]}]},
          template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}}",
        expect![[r#"
            kind: CronJob
            metadata:
              name: j
            spec:
              schedule: '@daily'
              jobTemplate:
                spec:
                  podFailurePolicy:
                    rules:
                    - action: Ignore
                      onPodConditions:
                      - type: X
                        status: 'True'
                  template:
                    spec:
                      restartPolicy: Never
                      containers:
                      - name: c
                        image: i
                        imagePullPolicy: Always
                        terminationMessagePath: /dev/termination-log
                        terminationMessagePolicy: File
                        resources: {}
                      terminationGracePeriodSeconds: 30
                      dnsPolicy: ClusterFirst
                      securityContext: {}
                      schedulerName: default-scheduler
              concurrencyPolicy: Allow
              suspend: false
              successfulJobsHistoryLimit: 3
              failedJobsHistoryLimit: 1
            status: {}
        "#]],
    );
}

#[test]
fn volumes_and_network_policies() {
    check(
        "{kind: PersistentVolume, spec: {hostPath: {path: /x}}}",
        expect![[r#"
        kind: PersistentVolume
        spec:
          hostPath:
            path: /x
            type: ''
          persistentVolumeReclaimPolicy: Retain
          volumeMode: Filesystem
        status:
          phase: Pending
    "#]],
    );
    check(
        "{kind: PersistentVolumeClaim, spec: {}}",
        expect![[r#"
        kind: PersistentVolumeClaim
        spec:
          volumeMode: Filesystem
        status:
          phase: Pending
    "#]],
    );
    check(
        "{kind: StorageClass, provisioner: p}",
        expect![[r#"
        kind: StorageClass
        provisioner: p
        reclaimPolicy: Delete
        volumeBindingMode: Immediate
    "#]],
    );
    check(
        "{kind: NetworkPolicy, spec: {egress: [{ports: [{port: 53}]}]}}",
        expect![[r#"
        kind: NetworkPolicy
        spec:
          egress:
          - ports:
            - port: 53
              protocol: TCP
          policyTypes:
          - Ingress
          - Egress
    "#]],
    );
}

#[test]
fn bindings_name_groups() {
    check(
        "{kind: RoleBinding, roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, {kind: Group, name: g, apiGroup: ''}, {kind: ServiceAccount, name: s},
          {kind: User, name: v, apiGroup: other}]}",
        expect![[r#"
            kind: RoleBinding
            roleRef:
              kind: Role
              name: r
              apiGroup: rbac.authorization.k8s.io
            subjects:
            - kind: User
              name: u
              apiGroup: rbac.authorization.k8s.io
            - kind: Group
              name: g
              apiGroup: rbac.authorization.k8s.io
            - kind: ServiceAccount
              name: s
            - kind: User
              name: v
              apiGroup: other
        "#]],
    );
}

#[test]
fn pull_policies_follow_the_tag() {
    for (image, expect) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5000/a", "Always"),
        ("a@sha256:00", "IfNotPresent"),
    ] {
        let mut object = json!({"spec": {"containers": [{"image": image}]}});
        default_object(KINDS.iter().find(|k| k.kind == "Pod").expect("Pod"), &mut object);
        assert_eq!(object["spec"]["containers"][0]["imagePullPolicy"], expect, "{image}");
    }
}
