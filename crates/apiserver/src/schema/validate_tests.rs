use expect_test::{Expect, expect};

use super::super::{KINDS, default_object, find};
use super::*;

fn object(text: &str) -> (&'static Kind, Value) {
    let mut object: Value = serde_norway::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let kind = KINDS.iter().find(|k| object["kind"] == *k.kind).expect("a kind");
    default_object(kind, &mut object);
    (kind, object)
}

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(|e| format!("{e}\n")).collect()
}

fn check(text: &str, expect: Expect) {
    let (kind, object) = object(text);
    expect.assert_eq(&lines(&validate_object(kind, &object, None)));
}

fn check_update(old: &str, new: &str, expect: Expect) {
    let ((kind, old), (_, new)) = (object(old), object(new));
    expect.assert_eq(&lines(&validate_object(kind, &new, Some(&old))));
}

/// A Pod spec in a Pod.
fn pod(spec: &str) -> String {
    format!("{{kind: Pod, metadata: {{name: p, namespace: n}}, spec: {spec}}}")
}

#[test]
fn what_is_right_has_no_errors() {
    for good in [
        &pod("{containers: [{name: c, image: i, ports: [{containerPort: 80}], volumeMounts: [{name: v, mountPath: /v}],
            env: [{name: E, valueFrom: {secretKeyRef: {name: s, key: k}}}], livenessProbe: {exec: {command: [x]}},
            resources: {requests: {cpu: 100m}, limits: {cpu: '1', nvidia.com/gpu: '1'}}}], volumes: [{name: v, secret: {secretName: s}}]}"),
        "{kind: Deployment, metadata: {name: d, namespace: n}, spec: {selector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Exists}]},
            template: {metadata: {labels: {a: b, c: d}}, spec: {containers: [{name: c, image: i}]}}}}",
        "{kind: Service, metadata: {name: s, namespace: n}, spec: {ports: [{port: 80, targetPort: web}]}}",
        "{kind: Service, metadata: {name: s, namespace: n}, spec: {clusterIP: None}}",
        "{kind: Service, metadata: {name: s, namespace: n}, spec: {type: ExternalName, externalName: example.org}}",
        "{kind: Ingress, metadata: {name: i, namespace: n}, spec: {rules: [{host: '*.a.b', http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}}",
        "{kind: Namespace, metadata: {name: n}}",
        "{kind: EndpointSlice, addressType: IPv4, metadata: {generateName: web-, namespace: n}, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80}]}",
        "{kind: Event, metadata: {name: e, namespace: default}, involvedObject: {kind: Node, name: x}}",
        "{kind: Secret, metadata: {name: s, namespace: n}, type: kubernetes.io/tls, data: {tls.crt: '', tls.key: ''}}",
        "{kind: Role, metadata: {name: 'a:b', namespace: n}}",
        "{kind: ClusterRole, metadata: {name: 'system:Odd name'}, rules: [{verbs: ['*'], apiGroups: ['', apps], resources: [pods/log, '*/scale'], resourceNames: [a]},
            {verbs: [get], nonResourceURLs: [/healthz, '/api/*']}]}",
        "{kind: ClusterRole, metadata: {name: c}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}, {matchExpressions: [{key: c, operator: Exists}]}]}}",
        "{kind: RoleBinding, metadata: {name: b, namespace: n}, roleRef: {kind: ClusterRole, name: 'system:node'},
            subjects: [{kind: User, name: 'a b/c'}, {kind: Group, apiGroup: '', name: g}, {kind: ServiceAccount, name: s}]}",
        "{kind: ClusterRoleBinding, metadata: {name: b}, roleRef: {kind: ClusterRole, name: x, apiGroup: ''}}",
    ] {
        let (kind, object) = object(good);
        assert_eq!(validate_object(kind, &object, None), [], "{good}");
    }
}

#[test]
fn names_and_metadata() {
    check(
        "{kind: ConfigMap, metadata: {namespace: n}}",
        expect![[r#"
        metadata.name: Required value: name or generateName is required
    "#]],
    );
    check(
        "{kind: ConfigMap, metadata: {name: A_b, namespace: n, labels: {'a b': '-'}, annotations: {'/x': y}, finalizers: ['!'],
          ownerReferences: [{kind: K, name: a, uid: u, apiVersion: v1, controller: true}, {kind: K, name: b, uid: '', apiVersion: v1, controller: true}]}}",
        expect![[r#"
            metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.annotations: Invalid value: "/x": prefix part must be non-empty
            metadata.finalizers[0]: Invalid value: "!": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.ownerReferences[1].uid: Invalid value: "": uid must not be empty
            metadata.ownerReferences[1]: Invalid value: {"kind":"K","name":"b","uid":"","apiVersion":"v1","controller":true}: Only one reference can have Controller set to true. Found "true" in references for K/a and K/b
        "#]],
    );
    check(
        "{kind: Service, metadata: {name: 1a, namespace: n}, spec: {clusterIP: None}}",
        expect![[r#"
        metadata.name: Invalid value: "1a": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
    "#]],
    );
    check(
        "{kind: Namespace, metadata: {name: a.b, namespace: x}}",
        expect![[r#"
        metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        metadata.namespace: Forbidden: not allowed on this type
    "#]],
    );
    check_update(
        "{kind: ConfigMap, metadata: {name: a, namespace: n, uid: x}}",
        "{kind: ConfigMap, metadata: {name: a, namespace: n, uid: y}}",
        expect![[r#"
            metadata.uid: Invalid value: "y": field is immutable
        "#]],
    );
}

#[test]
fn pods() {
    check(
        &pod("{}"),
        expect![[r#"
        spec.containers: Required value
    "#]],
    );
    check(
        &pod("{restartPolicy: Sometimes, terminationGracePeriodSeconds: -1, tolerations: [{operator: Exists, value: x}, {key: a, effect: Never}],
            volumes: [{name: v, secret: {}}, {name: v, emptyDir: {}, hostPath: {path: /}}],
            initContainers: [{name: c, image: i, livenessProbe: {tcpSocket: {port: 1}}}],
            containers: [{name: c, imagePullPolicy: Maybe, ports: [{containerPort: 70000, protocol: tcp, name: WEB}, {}],
              env: [{name: ''}, {name: A, value: x, valueFrom: {secretKeyRef: {name: s}, fieldRef: {}}}],
              envFrom: [{}, {configMapRef: {}}],
              volumeMounts: [{name: w, mountPath: /a}, {name: v}],
              resources: {requests: {cpu: '2', memory: '-1'}, limits: {cpu: '1', gpu: '1'}},
              livenessProbe: {successThreshold: 2}, readinessProbe: {exec: {}, httpGet: {port: 0}}}]}"),
        expect![[r#"
            spec.volumes[0].secret.secretName: Required value
            spec.volumes[1].name: Duplicate value: "v"
            spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type
            spec.containers[0].image: Required value
            spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"
            spec.containers[0].ports[0].name: Invalid value: "WEB": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"
            spec.containers[0].ports[1].containerPort: Required value
            spec.containers[0].env[0].name: Required value
            spec.containers[0].env[1].valueFrom: Invalid value: "": may not have more than one field specified at a time
            spec.containers[0].env[1].valueFrom: Invalid value: "": may not be specified when `value` is not empty
            spec.containers[0].env[1].valueFrom.secretKeyRef.key: Required value
            spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Required value
            spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
            spec.containers[0].envFrom[1].configMapRef.name: Required value
            spec.containers[0].volumeMounts[0].name: Not found: "w"
            spec.containers[0].volumeMounts[1].mountPath: Required value
            spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers
            spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0
            spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers
            spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            spec.containers[0].livenessProbe: Required value: must specify a handler type
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
            spec.containers[0].readinessProbe.exec.command: Required value
            spec.containers[0].readinessProbe.httpGet: Forbidden: may not specify more than 1 handler type
            spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
            spec.initContainers[0].name: Duplicate value: "c"
            spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
            spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.tolerations[0].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'
            spec.tolerations[1].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
        "#]],
    );
}

#[test]
fn pods_hardly_change() {
    let with =
        |image: &str, rest: &str| pod(&format!("{{containers: [{{name: c, image: '{image}'}}], {rest}}}"));
    check_update(
        &with("a:1", ""),
        &with("a:2", "tolerations: [{key: x, operator: Exists}], activeDeadlineSeconds: 5"),
        expect![[""]],
    );
    check_update(
        &with("a:1", "activeDeadlineSeconds: 5"),
        &with("a:1", "activeDeadlineSeconds: 6, nodeName: x"),
        expect![[r#"
        spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value 5
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
    "#]],
    );
    check_update(
        &with("a:1", ""),
        &pod("{containers: [{name: c, image: i}, {name: d, image: i}]}"),
        expect![[r#"
        spec.containers: Forbidden: pod updates may not add or remove containers
    "#]],
    );
    check_update(
        &with("a:1", "tolerations: [{key: x, operator: Exists}]"),
        &with("a:1", ""),
        expect![[r#"
        spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
    "#]],
    );
}

#[test]
fn deployments() {
    let with =
        |spec: &str| format!("{{kind: Deployment, metadata: {{name: d, namespace: n}}, spec: {spec}}}");
    let template = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";
    check(
        &with("{}"),
        expect![[r#"
        spec.selector: Required value
        spec.template.spec.containers: Required value
    "#]],
    );
    check(
        &with(&format!("{{selector: {{matchLabels: {{a: c}}}}, replicas: -1, {template}}}")),
        expect![[r#"
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
        spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`
    "#]],
    );
    check(
        &with(&format!("{{selector: {{}}, {template}}}")),
        expect![[r#"
        spec.selector: Invalid value: {}: empty selector is invalid for deployment
    "#]],
    );
    check(
        &with(&format!(
            "{{selector: {{matchLabels: {{a: b}}}}, {template}, strategy: {{rollingUpdate: {{maxSurge: 0, maxUnavailable: '0%'}}}}, progressDeadlineSeconds: 5, minReadySeconds: 5}}"
        )),
        expect![[r#"
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0
            spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds
        "#]],
    );
    check(
        &with(&format!(
            "{{selector: {{matchLabels: {{a: b}}}}, {template}, strategy: {{type: Recreate, rollingUpdate: {{maxSurge: 1}}}}}}"
        )),
        expect![[r#"
            spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
        "#]],
    );
    check(
        &with(&format!(
            "{{selector: {{matchLabels: {{a: b}}}}, {template}, strategy: {{rollingUpdate: {{maxSurge: x%, maxUnavailable: 200%}}}}}}"
        )),
        expect![[r#"
            spec.strategy.rollingUpdate.maxSurge: Invalid value: "x%": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "200%": must not be greater than 100%
        "#]],
    );
    check(
        &with(
            "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c}]}}}",
        ),
        expect![[r#"
            spec.template.spec.containers[0].image: Required value
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
        "#]],
    );
    check_update(
        &with(&format!("{{selector: {{matchLabels: {{a: b}}}}, {template}}}")),
        &with(
            "{selector: {matchLabels: {c: b}}, template: {metadata: {labels: {c: b}}, spec: {containers: [{name: c, image: i}]}}}",
        ),
        expect![[r#"
            spec.selector: Invalid value: {"matchLabels":{"c":"b"}}: field is immutable
        "#]],
    );
}

#[test]
fn services_and_ingresses() {
    let service =
        |spec: &str| format!("{{kind: Service, metadata: {{name: s, namespace: n}}, spec: {spec}}}");
    check(
        &service("{}"),
        expect![[r#"
        spec.ports: Required value
    "#]],
    );
    check(
        &service(
            "{type: Odd, sessionAffinity: Always, ports: [{port: 0, name: A}, {port: 80, targetPort: 99999}, {port: 80}]}",
        ),
        expect![[r#"
        spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
        spec.sessionAffinity: Unsupported value: "Always": supported values: "ClientIP", "None"
        spec.ports[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
        spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
        spec.ports[1].name: Required value
        spec.ports[1].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive
        spec.ports[2].name: Required value
        spec.ports[2]: Duplicate value: {"protocol":"TCP","port":80}
    "#]],
    );
    check(
        &service("{clusterIP: x, ports: [{port: 80, nodePort: 30000}]}"),
        expect![[r#"
        spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
    "#]],
    );
    check(
        &service("{type: NodePort, clusterIP: None, ports: [{port: 80}]}"),
        expect![[r#"
        spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services
    "#]],
    );
    check(
        &service("{type: ExternalName}"),
        expect![[r#"
        spec.externalName: Required value
    "#]],
    );
    check_update(
        &service("{clusterIP: 10.96.0.1, ports: [{port: 80}]}"),
        &service("{clusterIP: 10.96.0.2, ports: [{port: 80}]}"),
        expect![[r#"
            spec.clusterIPs[0]: Invalid value: ["10.96.0.2"]: may not change once set
        "#]],
    );
    check(
        &service(
            "{externalIPs: [192.0.2.1, 127.0.0.1, 0.0.0.0, '::ffff:169.254.1.1', ff02::1], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, loadBalancerSourceRanges: [10.0.0.0/8, 10.0.0.1], ports: [{port: 80}]}",
        ),
        expect![[r#"
            spec.externalIPs[1]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            spec.externalIPs[2]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0/8, ::)
            spec.externalIPs[3]: Invalid value: "::ffff:169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)
            spec.externalIPs[4]: Invalid value: "ff02::1": may not be in the multicast range (224.0.0.0/4, ff00::/8)
            spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and at most 86400
            spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'
            spec.loadBalancerSourceRanges[1]: Invalid value: "10.0.0.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
        "#]],
    );
    check(
        "{kind: Service, metadata: {name: s, namespace: n, annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: '10.0.0.0/8, x'}}, spec: {type: LoadBalancer, ports: [{port: 80}]}}",
        expect![[r#"
            metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges][1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
        "#]],
    );
    // What a status says of a balancer; loopback is our own balancer's only.
    let with_status = |class: &str, ip: &str| {
        format!(
            "{{kind: Service, metadata: {{name: s, namespace: n}}, spec: {{type: LoadBalancer, {class} ports: [{{port: 80}}]}}, status: {{loadBalancer: {{ingress: [{{ip: '{ip}'}}, {{hostname: a.test}}]}}}}}}"
        )
    };
    for (class, ip) in [("", "127.0.0.1"), ("", "192.0.2.1"), ("loadBalancerClass: a/b,", "192.0.2.1")] {
        check(&with_status(class, ip), expect![""]);
    }
    for (class, ip) in [("", "169.254.0.1"), ("", "::"), ("loadBalancerClass: a/b,", "127.0.0.1")] {
        let (kind, object) = object(&with_status(class, ip));
        let told = lines(&validate_object(kind, &object, None));
        assert!(told.starts_with("status.loadBalancer.ingress[0].ip: Invalid value"), "{told}");
        assert_eq!(validate_object(kind, &object, Some(&object)), [], "what is stored may stay");
    }
    let ingress =
        |spec: &str| format!("{{kind: Ingress, metadata: {{name: i, namespace: n}}, spec: {spec}}}");
    check(
        &ingress("{}"),
        expect![[r#"
        spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified
    "#]],
    );
    check(
        &ingress(
            "{defaultBackend: {}, rules: [{host: 1.2.3.4, http: {paths: [{path: a, pathType: Prefix, backend: {service: {name: '', port: {}}}}, {path: /, backend: {service: {name: s, port: {name: web, number: 1}}}}]}}, {http: {}}]}",
        ),
        expect![[r#"
            spec.defaultBackend: Required value: must specify one of `service` or `resource`
            spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address
            spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path
            spec.rules[0].http.paths[0].backend.service.name: Required value
            spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required
            spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified
            spec.rules[0].http.paths[1].backend.service.port: Invalid value: {"name":"web","number":1}: cannot set both port name & port number
            spec.rules[1].http.paths: Required value
        "#]],
    );
    check(
        "{kind: EndpointSlice, metadata: {name: e, namespace: n}, endpoints: [{}], ports: [{port: 0}, {port: 1}]}",
        expect![[r#"
        addressType: Required value
        endpoints[0].addresses: Required value: must contain at least 1 address
        ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
        ports[1].name: Duplicate value: ""
    "#]],
    );
    check(
        "{kind: EndpointSlice, metadata: {name: e, namespace: n}, addressType: IPv4, endpoints: [{addresses: ['::1', a.b]}]}",
        expect![[r#"
        endpoints[0].addresses[0]: Invalid value: "::1": must be a valid IPv4 address
        endpoints[0].addresses[1]: Invalid value: "a.b": must be a valid IPv4 address
    "#]],
    );
    for (kind, address) in [
        ("IPv4", "127.0.0.1"),
        ("IPv4", "169.254.169.254"),
        ("IPv4", "0.0.0.0"),
        ("IPv4", "224.0.0.1"),
        ("IPv6", "::1"),
        ("IPv6", "::ffff:127.0.0.1"),
        ("IPv6", "fe80::1"),
    ] {
        let slice = format!(
            "{{kind: EndpointSlice, metadata: {{name: e, namespace: n}}, addressType: {kind}, endpoints: [{{addresses: ['{address}']}}]}}"
        );
        let endpoints = format!(
            "{{kind: Endpoints, metadata: {{name: e, namespace: n}}, subsets: [{{notReadyAddresses: [{{ip: '{address}'}}]}}]}}"
        );
        for (text, field) in
            [(slice, "endpoints[0].addresses[0]"), (endpoints, "subsets[0].notReadyAddresses[0].ip")]
        {
            let (kind, object) = object(&text);
            let told = lines(&validate_object(kind, &object, None));
            assert!(
                told.starts_with(&format!("{field}: Invalid value: \"{address}\": may not be ")),
                "{told}"
            );
        }
    }
    check(
        "{kind: Endpoints, metadata: {name: e, namespace: n}, subsets: [{}, {addresses: [{ip: x}], ports: [{port: 1}, {port: 2, name: b}]}]}",
        expect![[r#"
        subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
        subsets[1].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        subsets[1].ports[0].name: Required value
    "#]],
    );
}

#[test]
fn configuration_and_small_kinds() {
    check(
        "{kind: ConfigMap, metadata: {name: c, namespace: n}, data: {'a b': x, '..': y, both: z}, binaryData: {both: ''}}",
        expect![[r#"
        data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
        data[..]: Invalid value: "..": must not be '..'
        data[both]: Invalid value: "both": duplicate of key present in binaryData
    "#]],
    );
    check_update(
        "{kind: ConfigMap, metadata: {name: c, namespace: n}, immutable: true, data: {a: b}}",
        "{kind: ConfigMap, metadata: {name: c, namespace: n}, data: {a: c}}",
        expect![[r#"
            immutable: Forbidden: field is immutable when `immutable` is set
            data: Forbidden: field is immutable when `immutable` is set
        "#]],
    );
    check(
        "{kind: Secret, metadata: {name: c, namespace: n}, type: kubernetes.io/tls, data: {tls.crt: ''}}",
        expect![[r#"
        data[tls.key]: Required value
    "#]],
    );
    check_update(
        "{kind: Secret, metadata: {name: c, namespace: n}, type: a}",
        "{kind: Secret, metadata: {name: c, namespace: n}, type: b}",
        expect![[r#"
            type: Invalid value: "b": field is immutable
        "#]],
    );
    check(
        "{kind: Node, metadata: {name: n}, spec: {taints: [{key: '', effect: Odd}, {key: a}]}}",
        expect![[r#"
        spec.taints[0].key: Invalid value: "": name part must be non-empty
        spec.taints[0].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
        spec.taints[1].effect: Required value
    "#]],
    );
    check(
        "{kind: Event, metadata: {name: e, namespace: n}, involvedObject: {namespace: m}}",
        expect![[r#"
        involvedObject.namespace: Invalid value: "m": does not match event.namespace
    "#]],
    );
    check(
        "{kind: Lease, metadata: {name: l, namespace: n}, spec: {leaseDurationSeconds: 0}}",
        expect![[r#"
        spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
    "#]],
    );
    check(
        "{kind: Binding, target: {kind: Pod}}",
        expect![[r#"
        target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"
        target.name: Required value
    "#]],
    );
    check(
        "{kind: Scale, spec: {replicas: -1}}",
        expect![[r#"
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
    "#]],
    );
}

#[test]
fn a_status_tells_all_causes() {
    let kind = find("apps", "v1", "Deployment").expect("a kind");
    let (_, object) = object(
        "{kind: Deployment, metadata: {name: web, namespace: n}, spec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c}]}}}}",
    );
    let status = invalid_status(kind, "web", &validate_object(kind, &object, None));
    assert_eq!(
        status["message"],
        "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, \
         spec.template.spec.containers[0].image: Required value]"
    );
    assert_eq!(status["details"]["group"], "apps");
    assert_eq!(
        status["details"]["causes"][1],
        json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.template.spec.containers[0].image"})
    );
}

#[test]
fn daemon_sets() {
    let set = |strategy: &str| {
        format!(
            "{{kind: DaemonSet, metadata: {{name: d, namespace: n}}, spec: {{selector: {{matchLabels: {{a: b}}}}, updateStrategy: {strategy},
              template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}"
        )
    };
    check(&set("{type: OnDelete}"), expect![""]);
    check(
        &set("{rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}"),
        expect![[r#"
        spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero
    "#]],
    );
    check(
        &set("{type: Sometimes}"),
        expect![[r#"
        spec.updateStrategy.type: Unsupported value: "Sometimes": supported values: "RollingUpdate", "OnDelete"
    "#]],
    );
    check(
        "{kind: ReplicationController, metadata: {name: r, namespace: n}, spec: {replicas: -1, selector: {a: b}, template: {metadata: {labels: {a: c}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}",
        expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
        "#]],
    );
    check(
        "{kind: ReplicationController, metadata: {name: r, namespace: n}, spec: {}}",
        expect![[r#"
        spec.selector: Required value
        spec.template: Required value
    "#]],
    );
}

/// A Job that the API server has named, with fields of its spec.
fn job(spec: &str) -> String {
    let labels = "{batch.kubernetes.io/controller-uid: u, controller-uid: u, batch.kubernetes.io/job-name: j, job-name: j}";
    format!(
        "{{kind: Job, metadata: {{name: j, namespace: n, uid: u}}, spec: {{selector: {{matchLabels: {{batch.kubernetes.io/controller-uid: u}}}}, {spec},
          template: {{metadata: {{labels: {labels}}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}"
    )
}

#[test]
fn jobs() {
    check(&job("completions: 2"), expect![[""]]);
    check(
        &job("completions: -1, backoffLimit: -1, completionMode: Often"),
        expect![[r#"
        spec.completions: Invalid value: -1: must be greater than or equal to 0
        spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0
        spec.completionMode: Unsupported value: "Often": supported values: "NonIndexed", "Indexed"
    "#]],
    );
    check(
        &job("parallelism: 100001, completionMode: Indexed"),
        expect![[r#"
        spec.completions: Required value: when completion mode is Indexed
        spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed
    "#]],
    );
    check(
        &job("maxFailedIndexes: 1, successPolicy: {rules: []}"),
        expect![[r#"
        spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified
        spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode
        spec.successPolicy: Invalid value: {"rules":[]}: requires indexed completion mode
    "#]],
    );
    check(
        &job("completionMode: Indexed, completions: 100001, parallelism: 10001, backoffLimitPerIndex: 1"),
        expect![[r#"
            spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index
            spec.maxFailedIndexes: Required value: must be specified when completions is above 100000
        "#]],
    );
    check(
        &job("completionMode: Indexed, completions: 5, maxFailedIndexes: 100001, backoffLimitPerIndex: 1"),
        expect![[r#"
            spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to completions
            spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to 100000
        "#]],
    );
    for (manager, expect) in [
        ("x", "\"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"),
        ("a.b/ü", "\"ü\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"),
    ] {
        let (kind, object) = object(&job(&format!("managedBy: {manager}")));
        let expect = format!("spec.managedBy: Invalid value: {expect}\n");
        assert_eq!(lines(&validate_object(kind, &object, None)), expect);
    }
    check(
        &job(&format!("managedBy: a/{}", "b".repeat(62))),
        expect![[r#"
        spec.managedBy: Too long: may not be more than 63 bytes
    "#]],
    );
    check(
        "{kind: Job, metadata: {name: j, namespace: n, uid: u}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {restartPolicy: Sometimes}}}}",
        expect![[r#"
            spec.template.metadata.labels[controller-uid]: Required value: must be 'u'
            spec.template.metadata.labels[job-name]: Required value: must be 'j'
            spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Required value: must be 'u'
            spec.template.metadata.labels[batch.kubernetes.io/job-name]: Required value: must be 'j'
            spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` not auto-generated
            spec.template.spec.containers: Required value
            spec.template.spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
            spec.template.spec.restartPolicy: Unsupported value: "Sometimes": supported values: "OnFailure", "Never"
            spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`
        "#]],
    );
    check(
        &job("completionMode: Indexed, completions: 2")
            .replace("name: j,", &format!("name: {},", "j".repeat(62))),
        expect![[r#"
            spec.template.metadata.labels[job-name]: Invalid value: {"batch.kubernetes.io/controller-uid":"u","controller-uid":"u","batch.kubernetes.io/job-name":"jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj","job-name":"j"}: must be 'jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj'
            metadata.name: Invalid value: "jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj": will not able to create pod with invalid DNS label: jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj-1
        "#]],
    );
}

#[test]
fn policies_of_jobs() {
    check(
        &job(
            "podReplacementPolicy: TerminatingOrFailed, podFailurePolicy: {rules: [{action: Ignore}, {action: Run, onExitCodes: {operator: In, values: []}}, {onPodConditions: [{type: '-', status: Maybe}],
              onExitCodes: {containerName: d, operator: In, values: [3, 0, 3]}}, {action: FailIndex, onExitCodes: {values: [1]}}]}",
        ),
        expect![[r#"
            spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required
            spec.podFailurePolicy.rules[1].action: Unsupported value: "Run": supported values: "Count", "FailIndex", "FailJob", "Ignore"
            spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: []: at least one value is required
            spec.podFailurePolicy.rules[2].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]
            spec.podFailurePolicy.rules[2].onExitCodes.containerName: Invalid value: "d": must be one of the container or initContainer names in the pod template
            spec.podFailurePolicy.rules[2].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator
            spec.podFailurePolicy.rules[2].onExitCodes.values[2]: Duplicate value: 3
            spec.podFailurePolicy.rules[2].onExitCodes.values: Invalid value: [3,0,3]: must be ordered
            spec.podFailurePolicy.rules[2].onPodConditions[0].type: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.podFailurePolicy.rules[2].onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"
            spec.podFailurePolicy.rules[2]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported
            spec.podFailurePolicy.rules[3].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set
            spec.podFailurePolicy.rules[3].onExitCodes.operator: Required value: valid values: ["In" "NotIn"]
            spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"
        "#]],
    );
    let policy = "podFailurePolicy: {rules: [{action: Count, onExitCodes: {containerName: c, operator: NotIn, values: [0, 1]}}]}";
    check(&job(policy), expect![[""]]);
    check(
        &job(policy).replace("restartPolicy: Never", "restartPolicy: OnFailure"),
        expect![[r#"
        spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified
    "#]],
    );
    let rules = vec!["{action: Ignore, onPodConditions: [{type: X, status: 'True'}]}"; 21].join(", ");
    check(
        &job(&format!("podFailurePolicy: {{rules: [{rules}]}}")),
        expect![[r#"
        spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items
    "#]],
    );
    let success = |rules: &str| {
        job(&format!("completionMode: Indexed, completions: 5, successPolicy: {{rules: [{rules}]}}"))
    };
    check(&success("{succeededIndexes: '0,2-4', succeededCount: 4}"), expect![[""]]);
    check(
        &success(""),
        expect![[r#"
        spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified
    "#]],
    );
    check(
        &success(
            "{}, {succeededIndexes: 4-5}, {succeededIndexes: 0-1, succeededCount: 3}, {succeededCount: 6}, {succeededCount: -1}",
        ),
        expect![[r#"
            spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified
            spec.successPolicy.rules[1].succeededIndexes: Invalid value: "4-5": error parsing succeededIndexes: too large index: "5"
            spec.successPolicy.rules[2].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)
            spec.successPolicy.rules[3].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)
            spec.successPolicy.rules[4].succeededCount: Invalid value: -1: must be greater than or equal to 0
        "#]],
    );
}

#[test]
fn what_changes_in_jobs() {
    check_update(
        &job("completions: 2, suspend: true"),
        &job("completions: 3, suspend: false"),
        expect![[r#"
        spec.completions: Invalid value: 3: field is immutable
    "#]],
    );
    let indexed = job("completions: 2, parallelism: 2, completionMode: Indexed");
    check_update(&indexed, &job("completions: 3, parallelism: 3, completionMode: Indexed"), expect![[""]]);
    check_update(
        &indexed,
        &job("completions: 3, parallelism: 2, completionMode: Indexed"),
        expect![[r#"
        spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism
    "#]],
    );
    check_update(
        &indexed,
        &job(
            "completions: 2, managedBy: a/b, backoffLimitPerIndex: 1, completionMode: Indexed, successPolicy: {rules: [{succeededCount: 1}]}",
        ),
        expect![[r#"
            spec.backoffLimitPerIndex: Invalid value: 1: field is immutable
            spec.managedBy: Invalid value: "a/b": field is immutable
            spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: field is immutable
        "#]],
    );
    // Where Pods go, and what they get, while there are none.
    let moved = |spec: &str| {
        let pod = "{nodeSelector: {disk: ssd}, tolerations: [{operator: Exists}], schedulingGates: [{name: g}],
          affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: k, operator: Exists}]}}]}},
          restartPolicy: Never, containers: [{name: c, image: i, resources: {requests: {cpu: 1}}}]}";
        job(spec).replace("{restartPolicy: Never, containers: [{name: c, image: i}]}", pod)
    };
    check_update(&job("suspend: true"), &moved("suspend: true"), expect![[""]]);
    check_update(&moved("suspend: true"), &job("suspend: false"), expect![[""]]);
    let image = job("suspend: true").replace("image: i", "image: j");
    check_update(
        &job("suspend: true"),
        &image,
        expect![[r#"
        spec.template: Invalid value: {"metadata":{"labels":{"batch.kubernetes.io/controller-uid":"u","controller-uid":"u","batch.kubernetes.io/job-name":"j","job-name":"j"}},"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"j","imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","resources":{}}],"terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}}: field is immutable
    "#]],
    );
    let active = job("suspend: true").replace("{kind: Job,", "{kind: Job, status: {active: 1},");
    let relabelled = job("suspend: true").replace("job-name: j}", "job-name: j, more: m}");
    check_update(
        &active,
        &relabelled,
        expect![[r#"
        spec.template: Invalid value: {"metadata":{"labels":{"batch.kubernetes.io/controller-uid":"u","controller-uid":"u","batch.kubernetes.io/job-name":"j","job-name":"j","more":"m"}},"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i","imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","resources":{}}],"terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}}: field is immutable
    "#]],
    );
    check_update(&job("suspend: true"), &relabelled, expect![[""]]);
}

#[test]
fn cron_jobs() {
    let cron = |spec: &str, job: &str| {
        format!(
            "{{kind: CronJob, metadata: {{name: c, namespace: n}}, spec: {{concurrencyPolicy: Allow, {spec}, jobTemplate: {{spec: {{{job}
              template: {{spec: {{restartPolicy: OnFailure, containers: [{{name: c, image: i}}]}}}}}}}}}}}}"
        )
    };
    check(&cron("schedule: '*/5 0-12 * jan mon', timeZone: Europe/Berlin", ""), expect![[""]]);
    check(
        &cron("schedule: ''", ""),
        expect![[r#"
        spec.schedule: Required value
    "#]],
    );
    check(
        &cron("schedule: 60 * * * *", "completions: -1, manualSelector: true, selector: {},"),
        expect![[r#"
        spec.schedule: Invalid value: "60 * * * *": end of range (60) above maximum (59): 60
        spec.jobTemplate.spec.completions: Invalid value: -1: must be greater than or equal to 0
        spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated
        spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"
    "#]],
    );
    check(
        &cron("schedule: TZ=UTC 0 0 * * *", ""),
        expect![[r#"
        spec.schedule: Invalid value: "TZ=UTC 0 0 * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
    "#]],
    );
    check(
        &cron("schedule: CRON_TZ=UTC", ""),
        expect![[r#"
        spec.schedule: Invalid value: "CRON_TZ=UTC": empty spec string
        spec.schedule: Invalid value: "CRON_TZ=UTC": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
    "#]],
    );
    for (zone, expect) in [
        ("''", "timeZone must be nil or non-empty string"),
        ("Local", "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"),
        ("Mars/Olympus", "unknown time zone Mars/Olympus"),
        ("../zone", "unknown time zone ../zone"),
        ("europe/berlin", "unknown time zone europe/berlin"),
    ] {
        let (kind, object) = object(&cron(&format!("schedule: '@hourly', timeZone: {zone}"), ""));
        let given = zone.trim_matches('\'');
        let expect = format!("spec.timeZone: Invalid value: {given:?}: {expect}\n");
        assert_eq!(lines(&validate_object(kind, &object, None)), expect);
    }
    let limits = "startingDeadlineSeconds: -1, successfulJobsHistoryLimit: -1, failedJobsHistoryLimit: -1";
    check(
        &cron(&format!("schedule: '@every 1m', {limits}, concurrencyPolicy: Never"), ""),
        expect![[r#"
        spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0
        spec.concurrencyPolicy: Unsupported value: "Never": supported values: "Allow", "Forbid", "Replace"
        spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0
        spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0
    "#]],
    );
    let long = cron("schedule: '@hourly'", "").replace("name: c,", &format!("name: {},", "c".repeat(53)));
    check(
        &long,
        expect![[r#"
        metadata.name: Invalid value: "ccccccccccccccccccccccccccccccccccccccccccccccccccccc": must be no more than 52 characters
    "#]],
    );
    check_update(&long, &long, expect![[""]]);
}

/// A StatefulSet with this addition to its specification.
fn stateful(spec: &str) -> String {
    format!(
        "{{kind: StatefulSet, metadata: {{name: s, namespace: n}}, spec: {{selector: {{matchLabels: {{a: b}}}},
          template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}, {spec}}}}}"
    )
}

#[test]
fn stateful_sets() {
    let claims = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, volumeMounts: [{name: data, mountPath: /d}]}]}},
        volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]";
    for (spec, expect) in [
        ("serviceName: s, updateStrategy: {type: OnDelete}, podManagementPolicy: Parallel", expect![[""]]),
        (
            "updateStrategy: {rollingUpdate: {partition: 2, maxUnavailable: 30%}}, ordinals: {start: 5}",
            expect![[""]],
        ),
        (claims, expect![[""]]),
        (
            "podManagementPolicy: Sometimes",
            expect![[r#"
            spec.podManagementPolicy: Invalid value: "Sometimes": must be 'OrderedReady' or 'Parallel'
        "#]],
        ),
        (
            "updateStrategy: {type: Recreate}",
            expect![[r#"
            spec.updateStrategy: Invalid value: {"type":"Recreate"}: must be 'RollingUpdate' or 'OnDelete'
        "#]],
        ),
        (
            "updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}",
            expect![[r#"
            spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy 'RollingUpdate'
        "#]],
        ),
        (
            "updateStrategy: {rollingUpdate: {partition: -1, maxUnavailable: 0}}",
            expect![[r#"
            spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0
            spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0
        "#]],
        ),
        (
            "updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}",
            expect![[r#"
            spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%
        "#]],
        ),
        (
            "persistentVolumeClaimRetentionPolicy: {whenDeleted: Keep, whenScaled: Delete}",
            expect![[r#"
            spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Keep": supported values: "Retain", "Delete"
        "#]],
        ),
        (
            "volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]",
            expect![[r#"
            spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required
            spec.volumeClaimTemplates[0].spec.resources.requests[storage]: Required value
        "#]],
        ),
        (
            "replicas: -1, minReadySeconds: -1, ordinals: {start: -1}, serviceName: A.b",
            expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
            spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0
            spec.serviceName: Invalid value: "A.b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        "#]],
        ),
        (
            "selector: {}, template: {spec: {restartPolicy: Never, activeDeadlineSeconds: 5}}",
            expect![[r#"
            spec.selector: Invalid value: {}: empty selector is invalid for statefulset
            spec.template.spec.containers: Required value
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported
        "#]],
        ),
    ] {
        check(&stateful(spec), expect);
    }
    check(
        "{kind: StatefulSet, metadata: {name: a.b, namespace: n}, spec: {}}",
        expect![[r#"
            metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.selector: Required value
            spec.template.spec.containers: Required value
        "#]],
    );
    let old = format!("serviceName: s, {claims}");
    let changed = [
        "replicas: 4, minReadySeconds: 1, ordinals: {start: 1}, revisionHistoryLimit: 3, updateStrategy: {type: OnDelete},
            persistentVolumeClaimRetentionPolicy: {whenScaled: Delete}, serviceName: s",
        "serviceName: t",
        "serviceName: s, podManagementPolicy: Parallel",
    ];
    for (new, expect) in changed.iter().zip([expect![[""]], expect![[r#"
        spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
    "#]], expect![[r#"
        spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
    "#]]]) {
        check_update(&stateful(&old), &stateful(&format!("{new}, {claims}")), expect);
    }
    let smaller = claims.replace("1Gi", "2Gi");
    check_update(
        &stateful(&old),
        &stateful(&format!("serviceName: s, {smaller}")),
        expect![[r#"
        spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
    "#]],
    );
    let with_status = |status: &str| {
        let set = stateful("replicas: 1");
        format!("{}, status: {status}}}", &set[..set.len() - 1])
    };
    check_update(
        &with_status("{replicas: 1, collisionCount: 2}"),
        &with_status(
            "{replicas: 1, readyReplicas: 1, availableReplicas: 2, currentReplicas: -1, collisionCount: 1}",
        ),
        expect![[r#"
            status.currentReplicas: Invalid value: -1: must be greater than or equal to 0
            status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas
            status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas
            status.collisionCount: Invalid value: 1: cannot be decremented
        "#]],
    );
}

#[test]
fn volumes_claims_and_classes() {
    let volume = |spec: &str| {
        format!(
            "{{kind: PersistentVolume, metadata: {{name: v}}, spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], {spec}}}}}"
        )
    };
    check(&volume("hostPath: {path: /x}"), expect![""]);
    check(
        "{kind: PersistentVolume, metadata: {name: v}, spec: {}}",
        expect![[r#"
        spec.accessModes: Required value: at least 1 access mode is required
        spec.capacity: Required value
        spec: Required value: must specify a volume type
    "#]],
    );
    check(
        &volume("local: {path: /x/../y}, nfs: {server: s, path: /}"),
        expect![[r#"
        spec.nfs: Forbidden: may not specify more than 1 volume type
        spec.local.path: Invalid value: "/x/../y": must not contain '..'
        spec.nodeAffinity: Required value: Local volume requires node affinity
    "#]],
    );
    check_update(
        &volume("hostPath: {path: /x}"),
        &volume("hostPath: {path: /y}, volumeMode: Block"),
        expect![[r#"
            spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation
            spec.volumeMode: Invalid value: "Block": field is immutable
        "#]],
    );
    let claim = |spec: &str, status: &str| {
        format!(
            "{{kind: PersistentVolumeClaim, metadata: {{name: c, namespace: n}}, spec: {{accessModes: [ReadWriteOnce], {spec}}}, status: {status}}}"
        )
    };
    let size = |size: &str| format!("resources: {{requests: {{storage: {size}}}}}");
    let bound = "{phase: Bound, capacity: {storage: 2Gi}}";
    check(&claim(&size("1Gi"), "{}"), expect![""]);
    check(
        &claim(&size("'0'"), "{}"),
        expect![[r#"
        spec.resources.requests[storage]: Invalid value: "0": must be greater than zero
    "#]],
    );
    check_update(
        &claim(&size("1Gi"), "{}"),
        &claim(&size("2Gi"), "{}"),
        expect![[r#"
        spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
    "#]],
    );
    check_update(&claim(&size("2Gi"), bound), &claim(&size("3Gi"), bound), expect![""]);
    check_update(
        &claim(&size("2Gi"), bound),
        &claim(&size("1Gi"), bound),
        expect![[r#"
        spec.resources.requests.storage: Forbidden: field can not be less than status.capacity
    "#]],
    );
    check_update(
        &claim(&size("1Gi"), "{}"),
        &claim(&format!("volumeName: v, {}", size("1Gi")), "{}"),
        expect![""],
    );
    check(
        "{kind: PersistentVolumeClaim, metadata: {name: c, namespace: n}, spec: {accessModes: [ReadWriteOncePod, Often], resources: {requests: {storage: 1Gi}}}}",
        expect![[r#"
            spec.accessModes: Unsupported value: "Often": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
            spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
        "#]],
    );
    let class = |more: &str| format!("{{kind: StorageClass, metadata: {{name: s}}, provisioner: p{more}}}");
    check_update(
        &class(""),
        &class(", reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer"),
        expect![[r#"
            reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.
            volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable
        "#]],
    );
}

#[test]
fn network_policies() {
    let policy = |spec: &str| {
        format!(
            "{{kind: NetworkPolicy, metadata: {{name: p, namespace: n}}, spec: {{podSelector: {{}}, {spec}}}}}"
        )
    };
    check(
        &policy(
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}]}]",
        ),
        expect![""],
    );
    check(
        &policy(
            "policyTypes: [Sideways], ingress: [{from: [{}, {ipBlock: {cidr: 10.0.0.0/40}, podSelector: {}}], ports: [{port: web, endPort: 90}, {endPort: 3}, {port: 9, endPort: 8}]}]",
        ),
        expect![[r#"
            spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric
            spec.ingress[0].ports[1].port: Required value: must be specified when `endPort` is specified
            spec.ingress[0].ports[2].endPort: Invalid value: 8: must be greater than or equal to `port`
            spec.ingress[0].from[0]: Required value: must specify a peer
            spec.ingress[0].from[1].ipBlock: Forbidden: may not specify both ipBlock and another peer
            spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Egress", "Ingress"
        "#]],
    );
}

#[test]
fn user_and_group_ids_have_a_range() {
    let fields = ["runAsUser", "runAsGroup", "fsGroup"];
    let container = |list: &str, security: &str| {
        let others = if list == "containers" { "" } else { "containers: [{name: a, image: i}], " };
        pod(&format!("{{{others}{list}: [{{name: c, image: i, securityContext: {security}}}]}}"))
    };
    let of_pod = |security: &str| {
        pod(&format!("{{containers: [{{name: a, image: i}}], securityContext: {security}}}"))
    };
    for id in ["0", "1000", "2147483647"] {
        let all =
            format!("{{runAsUser: {id}, runAsGroup: {id}, fsGroup: {id}, supplementalGroups: [0, {id}]}}");
        check(&of_pod(&all), expect![""]);
    }
    for id in ["-1", "2147483648", "4294967295", "4294967296", "9223372036854775807"] {
        let refused =
            |at: &str| format!("{at}: Invalid value: {id}: must be between 0 and 2147483647, inclusive\n");
        let errors = |text: &str| {
            let (kind, object) = object(text);
            lines(&validate_object(kind, &object, None))
        };
        for field in fields {
            let found = errors(&of_pod(&format!("{{{field}: {id}}}")));
            assert_eq!(found, refused(&format!("spec.securityContext.{field}")));
        }
        let found = errors(&of_pod(&format!("{{supplementalGroups: [1, {id}]}}")));
        assert_eq!(found, refused("spec.securityContext.supplementalGroups[1]"));
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for field in &fields[..2] {
                let found = errors(&container(list, &format!("{{{field}: {id}}}")));
                assert_eq!(found, refused(&format!("spec.{list}[0].securityContext.{field}")));
            }
        }
        let deployment = format!(
            "{{kind: Deployment, metadata: {{name: d, namespace: n}}, spec: {{selector: {{matchLabels: {{a: b}}}},
               template: {{metadata: {{labels: {{a: b}}}}, spec: {{securityContext: {{runAsUser: {id}}}, containers: [{{name: c, image: i}}]}}}}}}}}"
        );
        assert_eq!(errors(&deployment), refused("spec.template.spec.securityContext.runAsUser"));
    }
}

/// A prefix is a DNS subdomain of up to 253 characters, a name behind it has up to 63; containers are DNS labels.
#[test]
fn names_have_lengths() {
    let names = |prefix: usize, name: usize| format!("{}/{}", "p".repeat(prefix), "n".repeat(name));
    let meta = |name: &str| {
        format!(
            "{{kind: ConfigMap, metadata: {{name: a, namespace: n, labels: {{{name}: v}}, annotations: {{{name}: v}}, finalizers: [{name}]}}}}"
        )
    };
    let resource = |name: &str| {
        pod(&format!("{{containers: [{{name: c, image: i, resources: {{limits: {{{name}: '1'}}}}}}]}}"))
    };
    let container = |name: &str| pod(&format!("{{containers: [{{name: {name}, image: i}}]}}"));
    let template = |name: &str| {
        format!(
            "{{kind: Deployment, metadata: {{name: d, namespace: n}}, spec: {{selector: {{matchLabels: {{a: b}}}},
              template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: {name}, image: i}}]}}}}}}}}"
        )
    };
    let named =
        |kind: &str, name: &str| format!("{{kind: {kind}, metadata: {{name: {name}, namespace: n}}}}");
    let long = |length: usize| "a".repeat(length);
    for (text, wrong) in [
        (meta(&names(253, 63)), 0),
        (meta(&names(254, 63)), 3),
        (meta(&names(253, 64)), 3),
        (resource(&names(253, 63)), 0),
        // Requests follow limits.
        (resource(&names(253, 64)), 2),
        (container(&long(63)), 0),
        (container(&long(64)), 1),
        (container("a.b"), 1),
        (template(&long(63)), 0),
        (template(&long(64)), 1),
        (named("ConfigMap", &long(253)), 0),
        (named("Secret", &long(253)), 0),
        (named("Lease", &long(253)), 0),
        (named("ServiceAccount", &long(254)), 1),
    ] {
        let (kind, object) = object(&text);
        let errors = validate_object(kind, &object, None);
        assert_eq!(errors.len(), wrong, "{text}: {}", lines(&errors));
    }
}

#[test]
fn kernel_parameters_have_names() {
    let of_pod = |sysctls: &str| {
        pod(&format!("{{containers: [{{name: a, image: i}}], securityContext: {{sysctls: {sysctls}}}}}"))
    };
    check(
        &of_pod("[{name: net.core.somaxconn, value: '1'}, {name: net/ipv4/ip_forward, value: '1'}]"),
        expect![""],
    );
    check(
        &of_pod(
            "[{value: '1'}, {name: net..x, value: '1'}, {name: kernel.sem, value: '1'}, {name: kernel/sem, value: '2'}]",
        ),
        expect![[r#"
            spec.securityContext.sysctls[0].name: Required value
            spec.securityContext.sysctls[1].name: Invalid value: "net..x": must have at most 253 characters and consist of parts of lower case letters, digits, '-' and '_', which begin and end with a letter or a digit and are separated by '.' or '/'
            spec.securityContext.sysctls[3].name: Duplicate value: "kernel/sem"
        "#]],
    );
}

#[test]
fn roles_and_their_bindings() {
    check(
        "{kind: Role, metadata: {name: a/b, namespace: n}, rules: [{}, {verbs: [get], nonResourceURLs: [/x]}, {verbs: [get], apiGroups: ['']}]}",
        expect![[r#"
            metadata.name: Invalid value: "a/b": may not contain '/'
            rules[0].verbs: Required value: verbs must contain at least one value
            rules[0].apiGroups: Required value: resource rules must supply at least one api group
            rules[0].resources: Required value: resource rules must supply at least one resource
            rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
            rules[2].resources: Required value: resource rules must supply at least one resource
        "#]],
    );
    check(
        "{kind: ClusterRole, metadata: {generateName: 'x%'}, rules: [{verbs: [get], nonResourceURLs: [/x], resources: [pods]}],
          aggregationRule: {}}",
        expect![[r#"
            metadata.generateName: Invalid value: "x%": may not contain '%'
            rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs
            aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil
        "#]],
    );
    check(
        "{kind: ClusterRole, metadata: {name: c}, aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: In}]}]}}",
        expect![[r#"
            aggregationRule.clusterRoleSelectors[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
        "#]],
    );
    let role = "{kind: ClusterRole, name: x}";
    check(
        "{kind: RoleBinding, metadata: {name: b, namespace: n}, roleRef: {apiGroup: a, kind: Other, name: ..}, subjects: [{},
          {kind: User, apiGroup: a}, {kind: ServiceAccount, apiGroup: a, name: A}]}",
        expect![[r#"
            roleRef.apiGroup: Unsupported value: "a": supported values: "rbac.authorization.k8s.io"
            roleRef.kind: Unsupported value: "Other": supported values: "Role", "ClusterRole"
            roleRef.name: Invalid value: "..": may not be '..'
            subjects[0].name: Required value
            subjects[0].kind: Unsupported value: "": supported values: "ServiceAccount", "User", "Group"
            subjects[1].name: Required value
            subjects[1].apiGroup: Unsupported value: "a": supported values: "rbac.authorization.k8s.io"
            subjects[2].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            subjects[2].apiGroup: Unsupported value: "a": supported values: ""
        "#]],
    );
    check(
        "{kind: ClusterRoleBinding, metadata: {name: b}, roleRef: {kind: Role}, subjects: [{kind: ServiceAccount, name: s}]}",
        expect![[r#"
            roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
            roleRef.name: Required value
            subjects[0].namespace: Required value
        "#]],
    );
    check_update(
        &format!("{{kind: ClusterRoleBinding, metadata: {{name: b}}, roleRef: {role}}}"),
        "{kind: ClusterRoleBinding, metadata: {name: b}, roleRef: {kind: ClusterRole, name: y}}",
        expect![[r#"
            roleRef: Invalid value: {"kind":"ClusterRole","name":"y","apiGroup":"rbac.authorization.k8s.io"}: cannot change roleRef
        "#]],
    );
    // An absent and an empty group mean the same role.
    check_update(
        &format!("{{kind: RoleBinding, metadata: {{name: b, namespace: n}}, roleRef: {role}}}"),
        "{kind: RoleBinding, metadata: {name: b, namespace: n}, roleRef: {apiGroup: '', kind: ClusterRole, name: x}}",
        expect![""],
    );
}

#[test]
fn flow_schemas() {
    let check_rule = |rule: &str, expect: Expect| {
        let text = format!(
            "{{kind: FlowSchema, metadata: {{name: f}}, spec: {{priorityLevelConfiguration: {{name: p}}, rules: [{rule}]}}}}"
        );
        check(&text, expect);
    };
    check_rule(
        "{subjects: [{kind: Group, group: {name: g}}, {kind: ServiceAccount, serviceAccount: {name: '*', namespace: n}}],
          resourceRules: [{verbs: ['*'], apiGroups: [''], resources: [pods, pods/log], namespaces: ['*']},
            {verbs: [get, proxy], apiGroups: ['*'], resources: ['*'], clusterScope: true}],
          nonResourceRules: [{verbs: [get], nonResourceURLs: [/, /healthz, '/api/*']}, {verbs: ['*'], nonResourceURLs: ['*']}]}",
        expect![""],
    );
    check_rule(
        "{}",
        expect![[r#"
        spec.rules[0].subjects: Required value: subjects must contain at least one value
        spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty
    "#]],
    );
    check_rule(
        "{subjects: [{kind: User, group: {name: g}}, {kind: Robot}, {kind: ServiceAccount, serviceAccount: {name: a b}}, {kind: Group, group: {name: ''}}],
          resourceRules: [{verbs: ['*', get], apiGroups: [], resources: ['*', pods], namespaces: [A]}, {verbs: [eat], apiGroups: ['*', a], resources: [], clusterScope: false}],
          nonResourceRules: [{verbs: [], nonResourceURLs: [a, '/a b', //a, '/*/a', '']}]}",
        expect![[r#"
            spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'
            spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'
            spec.rules[0].subjects[1].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"
            spec.rules[0].subjects[2].serviceAccount.name: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.rules[0].subjects[2].serviceAccount.namespace: Required value: must specify namespace for service account
            spec.rules[0].subjects[3].group.name: Required value
            spec.rules[0].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs
            spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group
            spec.rules[0].resourceRules[0].resources: Invalid value: ["*","pods"]: if '*' is present, must not specify other resources
            spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: "A": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.rules[0].resourceRules[1].verbs[0]: Unsupported value: "eat": supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
            spec.rules[0].resourceRules[1].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other api groups
            spec.rules[0].resourceRules[1].resources: Required value: resource rules must supply at least one resource
            spec.rules[0].resourceRules[1].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
            spec.rules[0].nonResourceRules[0].verbs: Required value: verbs must contain at least one value
            spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash
            spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a b": must not contain white-space
            spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "//a": must not contain double slash
            spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid value: "/*/a": wildcard can only do suffix matching
            spec.rules[0].nonResourceRules[0].nonResourceURLs[4]: Invalid value: "": must not be empty
        "#]],
    );
    check(
        "{kind: FlowSchema, metadata: {name: f}, spec: {matchingPrecedence: 1, distinguisherMethod: {type: ByColour}, priorityLevelConfiguration: {name: A}}}",
        expect![[r#"
            spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
            spec.distinguisherMethod.type: Unsupported value: "ByColour": supported values: "ByNamespace", "ByUser"
            spec.priorityLevelConfiguration.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
    check(
        "{kind: FlowSchema, metadata: {name: f}, spec: {matchingPrecedence: 10001, priorityLevelConfiguration: {}}}",
        expect![[r#"
            spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000
            spec.priorityLevelConfiguration.name: Required value: must reference a priority level
        "#]],
    );
    check(
        "{kind: FlowSchema, metadata: {name: exempt}, spec: {matchingPrecedence: 1, priorityLevelConfiguration: {name: p}}}",
        expect![[r#"
            spec: Invalid value: {"matchingPrecedence":1,"priorityLevelConfiguration":{"name":"p"}}: spec of 'exempt' must equal the fixed value
        "#]],
    );
}

#[test]
fn priority_levels() {
    let check_limited = |limited: &str, expect: Expect| {
        check(
            &format!(
                "{{kind: PriorityLevelConfiguration, metadata: {{name: p}}, spec: {{type: Limited, limited: {limited}}}}}"
            ),
            expect,
        );
    };
    check_limited("{limitResponse: {type: Reject}}", expect![""]);
    check_limited(
        "{limitResponse: {type: Queue, queuing: {}}, nominalConcurrencyShares: 0, borrowingLimitPercent: 500}",
        expect![""],
    );
    check_limited(
        "{}",
        expect![[r#"
        spec.limited.limitResponse.type: Unsupported value: "": supported values: "Queue", "Reject"
    "#]],
    );
    check_limited(
        "{limitResponse: {type: Reject, queuing: {}}, nominalConcurrencyShares: -1, lendablePercent: 101, borrowingLimitPercent: -1}",
        expect![[r#"
            spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer
            spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive
            spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer
            spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited
        "#]],
    );
    check_limited(
        "{limitResponse: {type: Queue}}",
        expect![[r#"
        spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited
    "#]],
    );
    check_limited(
        "{limitResponse: {type: Queue, queuing: {queues: -1, handSize: -1, queueLengthLimit: -1}}}",
        expect![[r#"
            spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive
            spec.limited.limitResponse.queuing.queues: Invalid value: -1: must be positive
            spec.limited.limitResponse.queuing.handSize: Invalid value: -1: must be positive
        "#]],
    );
    check_limited(
        "{limitResponse: {type: Queue, queuing: {queues: 4, handSize: 5}}}",
        expect![[r#"
        spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)
    "#]],
    );
    check_limited(
        "{limitResponse: {type: Queue, queuing: {queues: 1000, handSize: 8}}}",
        expect![[r#"
        spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 1000 and handSize 8 should not be greater than 60
    "#]],
    );
    for (spec, expect) in [
        (
            "{type: Exempt}",
            expect![[r#"
            spec.type: Invalid value: "Exempt": type must be 'Exempt' if and only if name is 'exempt'
        "#]],
        ),
        (
            "{type: Limited, exempt: {}}",
            expect![[r#"
            spec.exempt: Forbidden: must be nil if the type is Limited
            spec.limited: Required value: must not be empty when type is Limited
        "#]],
        ),
        (
            "{type: Odd}",
            expect![[r#"
            spec.type: Unsupported value: "Odd": supported values: "Exempt", "Limited"
        "#]],
        ),
    ] {
        check(&format!("{{kind: PriorityLevelConfiguration, metadata: {{name: p}}, spec: {spec}}}"), expect);
    }
    check(
        "{kind: PriorityLevelConfiguration, metadata: {name: exempt}, spec: {type: Exempt, exempt: {nominalConcurrencyShares: 7}}}",
        expect![""],
    );
    check(
        "{kind: PriorityLevelConfiguration, metadata: {name: catch-all}, spec: {type: Limited, limited: {limitResponse: {type: Reject}, nominalConcurrencyShares: 6}}}",
        expect![[r#"
            spec: Invalid value: {"type":"Limited","limited":{"limitResponse":{"type":"Reject"},"nominalConcurrencyShares":6,"lendablePercent":0}}: spec of 'catch-all' must equal the fixed value
        "#]],
    );
}
