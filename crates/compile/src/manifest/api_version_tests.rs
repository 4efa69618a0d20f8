//! Old objects in, today's out.

use expect_test::{Expect, expect};

use serde_json::Value;
use yado_types::api_versions::{FieldDiagnostics, modernise};

fn check(old: Value, expect: Expect) {
    let mut remarks = FieldDiagnostics::default();
    let new = modernise(old, &mut remarks);
    let mut text = new.map_or_else(|| "left out\n".into(), |new| crate::output::yaml(&new));
    for (what, remarks) in [("error", remarks.errors), ("warning", remarks.warnings)] {
        for remark in remarks {
            text += &format!("{what} at {}: {}\n", remark.path.join("."), remark.sentence);
        }
    }
    expect.assert_eq(&text);
}

/// YAML, for the tests to be read; `json!` would do as well.
fn object(yaml: &str) -> Value {
    serde_norway::from_str(yaml).unwrap()
}

#[test]
fn k29_a_deployment_without_a_selector_gets_its_labels() {
    check(
        object(
            "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 3\n  rollbackTo: {revision: 1}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: a, image: a}]}\n",
        ),
        expect![[r#"
            apiVersion: apps/v1
            kind: Deployment
            metadata:
              name: web
            spec:
              replicas: 3
              selector:
                matchLabels:
                  app: web
              template:
                metadata:
                  labels:
                    app: web
                spec:
                  containers:
                  - name: a
                    image: a
        "#]],
    );
    check(
        object(
            "{apiVersion: apps/v1beta1, kind: Deployment, metadata: {name: web}, spec: {template: {metadata: {labels: null, app: web}}}}",
        ),
        expect![[r#"
            apiVersion: apps/v1
            kind: Deployment
            metadata:
              name: web
            spec:
              template:
                metadata:
                  labels: null
                  app: web
            error at spec.template.metadata: this Deployment has no selector and its template no labels to take one from: write spec.template.metadata.labels
        "#]],
    );
}

#[test]
fn k42_controllers_of_all_kinds() {
    check(
        object(
            "{apiVersion: extensions/v1beta1, kind: DaemonSet, metadata: {name: d}, spec: {templateGeneration: 1, template: {metadata: {labels: {a: b}}, spec: {nodeSelector: {beta.kubernetes.io/os: linux}}}}}",
        ),
        expect![[r#"
            apiVersion: apps/v1
            kind: DaemonSet
            metadata:
              name: d
            spec:
              selector:
                matchLabels:
                  a: b
              template:
                metadata:
                  labels:
                    a: b
                spec:
                  nodeSelector:
                    kubernetes.io/os: linux
        "#]],
    );
    check(
        object(
            "{apiVersion: apps/v1beta2, kind: StatefulSet, metadata: {name: s}, spec: {selector: {matchLabels: {a: b}}}}",
        ),
        expect![[r#"
            apiVersion: apps/v1
            kind: StatefulSet
            metadata:
              name: s
            spec:
              selector:
                matchLabels:
                  a: b
              serviceName: s
        "#]],
    );
    check(
        object("{apiVersion: v1, kind: ReplicationController, metadata: {name: r}, spec: {replicas: 2}}"),
        expect![[r#"
        apiVersion: v1
        kind: ReplicationController
        metadata:
          name: r
        spec:
          replicas: 2
    "#]],
    );
    check(
        object(
            "{apiVersion: batch/v2alpha1, kind: ScheduledJob, metadata: {name: s}, spec: {schedule: '* * * * *'}}",
        ),
        expect![[r#"
            apiVersion: batch/v1
            kind: CronJob
            metadata:
              name: s
            spec:
              schedule: '* * * * *'
        "#]],
    );
}

#[test]
fn k13_ingresses_name_services_and_ports() {
    check(
        object(
            "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: i, annotations: {kubernetes.io/ingress.class: nginx}}\nspec:\n  tls: [{secretName: t}]\n  backend: {serviceName: d, servicePort: 80}\n  rules:\n  - host: foo.bar.com\n    http:\n      paths:\n      - path:\n        backend: {serviceName: s1, servicePort: http}\n      - path: /bar\n        backend: {serviceName: s2, servicePort: '8080'}\n",
        ),
        expect![[r#"
            apiVersion: networking.k8s.io/v1
            kind: Ingress
            metadata:
              name: i
              annotations:
                kubernetes.io/ingress.class: nginx
            spec:
              defaultBackend:
                service:
                  name: d
                  port:
                    number: 80
              tls:
              - secretName: t
              rules:
              - host: foo.bar.com
                http:
                  paths:
                  - pathType: ImplementationSpecific
                    backend:
                      service:
                        name: s1
                        port:
                          name: http
                  - path: /bar
                    pathType: ImplementationSpecific
                    backend:
                      service:
                        name: s2
                        port:
                          number: 8080
        "#]],
    );
    check(
        object(
            "{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: i}, spec: {rules: [{http: {paths: [{backend: {serviceName: s}}]}}]}}",
        ),
        expect![[r#"
            apiVersion: networking.k8s.io/v1
            kind: Ingress
            metadata:
              name: i
            spec:
              rules:
              - http:
                  paths:
                  - pathType: ImplementationSpecific
                    backend:
                      service:
                        name: s
                        port: null
            error at spec.rules.0.http.paths.0.backend: this backend has no servicePort
        "#]],
    );
    let today = "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i}, spec: {rules: [{http: {paths: [{path: /, pathType: Exact, backend: {service: {name: s, port: {name: http}}}}]}}]}}";
    let mut remarks = FieldDiagnostics::default();
    assert_eq!(modernise(object(today), &mut remarks), Some(object(today)), "today's version stays as it is");
}

#[test]
fn pods_have_fields_for_what_annotations_said() {
    check(
        object(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations:\n    scheduler.alpha.kubernetes.io/affinity: '{\"nodeAffinity\": {}}'\n    scheduler.alpha.kubernetes.io/critical-pod: ''\n    pod.beta.kubernetes.io/init-containers: '[{\"name\": \"i\", \"image\": \"i\"}]'\n    pod.beta.kubernetes.io/hostname: h\n    security.alpha.kubernetes.io/sysctls: net.core.somaxconn=32768, kernel.msgmax=1\n    seccomp.security.alpha.kubernetes.io/pod: docker/default\n    mine: stays\nspec: {containers: [{name: a, image: a}]}\n",
        ),
        expect![[r#"
            apiVersion: v1
            kind: Pod
            metadata:
              name: p
              annotations:
                mine: stays
            spec:
              containers:
              - name: a
                image: a
              initContainers:
              - name: i
                image: i
              affinity:
                nodeAffinity: {}
              hostname: h
              priorityClassName: system-cluster-critical
              securityContext:
                seccompProfile:
                  type: RuntimeDefault
                sysctls:
                - name: net.core.somaxconn
                  value: '32768'
                - name: kernel.msgmax
                  value: '1'
        "#]],
    );
    check(
        object(
            "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {scheduler.alpha.kubernetes.io/affinity: 'no JSON'}}, spec: {}}",
        ),
        expect![[r#"
            apiVersion: v1
            kind: Pod
            metadata:
              name: p
            spec: {}
            error at metadata.annotations.scheduler.alpha.kubernetes.io/affinity: scheduler.alpha.kubernetes.io/affinity is not JSON, so no affinity can be taken from it
        "#]],
    );
}

#[test]
fn services_claims_and_others() {
    check(
        object(
            "{apiVersion: v1beta3, kind: Service, metadata: {name: s, annotations: {service.beta.kubernetes.io/aws-load-balancer-backend-protocol: http}}, spec: {portalIP: 10.0.0.1, createExternalLoadBalancer: true, publicIPs: [1.2.3.4], ports: [{port: 80}]}}",
        ),
        expect![[r#"
            apiVersion: v1
            kind: Service
            metadata:
              name: s
              annotations:
                service.beta.kubernetes.io/aws-load-balancer-backend-protocol: http
            spec:
              ports:
              - port: 80
              clusterIP: '10.0.0.1'
              externalIPs:
              - '1.2.3.4'
              type: LoadBalancer
        "#]],
    );
    check(
        object(
            "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c, annotations: {volume.beta.kubernetes.io/storage-class: fast}}, spec: {accessModes: [ReadWriteOnce]}}",
        ),
        expect![[r#"
            apiVersion: v1
            kind: PersistentVolumeClaim
            metadata:
              name: c
            spec:
              accessModes:
              - ReadWriteOnce
              storageClassName: fast
        "#]],
    );
    check(
        object(
            "{apiVersion: extensions/v1beta1, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {scaleRef: {kind: Deployment, name: d, apiVersion: extensions/v1beta1}, maxReplicas: 3, cpuUtilization: {targetPercentage: 80}}}",
        ),
        expect![[r#"
            apiVersion: autoscaling/v2
            kind: HorizontalPodAutoscaler
            metadata:
              name: h
            spec:
              maxReplicas: 3
              scaleTargetRef:
                kind: Deployment
                name: d
                apiVersion: apps/v1
              metrics:
              - type: Resource
                resource:
                  name: cpu
                  target:
                    type: Utilization
                    averageUtilization: 80
        "#]],
    );
    check(
        object(
            "{apiVersion: autoscaling/v2beta1, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {maxReplicas: 3, metrics: [{type: Pods, pods: {metricName: q, targetAverageValue: 1k}}, {type: Object, object: {metricName: r, target: {kind: Service, name: s}, targetValue: 5}}, {type: Resource, resource: {name: cpu, targetAverageUtilization: 50}}]}}",
        ),
        expect![[r#"
            apiVersion: autoscaling/v2
            kind: HorizontalPodAutoscaler
            metadata:
              name: h
            spec:
              maxReplicas: 3
              metrics:
              - type: Pods
                pods:
                  metric:
                    name: q
                  target:
                    type: AverageValue
                    averageValue: 1k
              - type: Object
                object:
                  metric:
                    name: r
                  describedObject:
                    kind: Service
                    name: s
                  target:
                    type: Value
                    value: 5
              - type: Resource
                resource:
                  name: cpu
                  target:
                    type: Utilization
                    averageUtilization: 50
        "#]],
    );
    check(
        object(
            "{apiVersion: apiextensions.k8s.io/v1beta1, kind: CustomResourceDefinition, metadata: {name: a.b.c}, spec: {group: b.c, version: v1, names: {plural: a, kind: A}, validation: {openAPIV3Schema: {properties: {spec: {type: object}}}}, additionalPrinterColumns: [{name: x, type: string, JSONPath: .spec.x}]}}",
        ),
        expect![[r#"
            apiVersion: apiextensions.k8s.io/v1
            kind: CustomResourceDefinition
            metadata:
              name: a.b.c
            spec:
              group: b.c
              names:
                plural: a
                kind: A
              versions:
              - name: v1
                served: true
                storage: true
                schema:
                  openAPIV3Schema:
                    properties:
                      spec:
                        type: object
                    type: object
                    x-kubernetes-preserve-unknown-fields: true
                additionalPrinterColumns:
                - name: x
                  type: string
                  jsonPath: .spec.x
              scope: Namespaced
        "#]],
    );
    check(
        object("{apiVersion: policy/v1beta1, kind: PodSecurityPolicy, metadata: {name: p}}"),
        expect![[r#"
        left out
        warning at kind: PodSecurityPolicy is left out, as Kubernetes has not had this kind for years: label the namespace with pod-security.kubernetes.io/enforce to say what its Pods may do
    "#]],
    );
    check(
        object("{apiVersion: v1beta1, kind: Pod, id: p}"),
        expect![[r#"
        left out
        error at apiVersion: apiVersion v1beta1 is from before the first release and differs in every field: write this Pod anew for v1
    "#]],
    );
}
