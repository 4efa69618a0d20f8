//! Rows for admission that users configure: policies in CEL and Pod Security.

use super::Row;

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: few-replicas}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments], scope: '*'}
  validations:
  - {expression: object.spec.replicas <= 5}
"#;
const BINDING: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: few-replicas}
spec:
  policyName: few-replicas
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {environment: test}}}
"#;
const MANY: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 6
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: c, image: nginx}]}
"#;
const PRIVILEGED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: root, namespace: strict}
spec: {containers: [{name: c, image: busybox, securityContext: {privileged: true}}]}
"#;
const CLASS: &str = "
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: box}
handler: yado
overhead: {podFixed: {cpu: 100m}}
";

#[rustfmt::skip]
pub const ROWS: &[Row<'static>] = &[
    Row("apply -f -", POLICY, true, &["validatingadmissionpolicy.admissionregistration.k8s.io/few-replicas created"]),
    Row("apply -f -", POLICY, true, &["unchanged"]),
    Row("apply -f -", BINDING, true, &["validatingadmissionpolicybinding.admissionregistration.k8s.io/few-replicas created"]),
    Row("get validatingadmissionpolicy", "", true, &["NAME", "VALIDATIONS", "PARAMKIND", "AGE", "few-replicas", "1", "<unset>"]),
    Row("get validatingadmissionpolicybindings", "", true, &["NAME", "POLICYNAME", "PARAMREF", "AGE", "few-replicas", "few-replicas", "<unset>"]),
    Row("wait --for=jsonpath={.status.observedGeneration}=1 validatingadmissionpolicy/few-replicas --timeout=20s", "", true, &["condition met"]),
    Row("create -f - --dry-run=server", MANY, true, &["created"]),
    Row("label ns default environment=test", "", true, &["labeled"]),
    Row("create -f -", MANY, false, &["The deployments \"many\" is invalid: : ValidatingAdmissionPolicy 'few-replicas' with binding 'few-replicas' denied request: failed expression: object.spec.replicas <= 5"]),
    Row("explain validatingadmissionpolicy.spec.validations.messageExpression", "", true, &["FIELD: messageExpression <string>"]),
    Row("delete validatingadmissionpolicybinding few-replicas", "", true, &["deleted"]),
    Row("create -f - --dry-run=server", MANY, true, &["created"]),
    Row("create ns strict", "", true, &["created"]),
    Row("label ns strict pod-security.kubernetes.io/enforce=none", "", false, &["metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be one of privileged, baseline, restricted"]),
    Row("label ns strict pod-security.kubernetes.io/enforce=baseline", "", true, &["labeled"]),
    Row("apply -f -", PRIVILEGED, false, &["pods \"root\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)"]),
    Row("label ns strict pod-security.kubernetes.io/warn=restricted", "", true, &["labeled"]),
    Row("-n strict create deployment web --image=nginx", "", true, &["created", "Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"]),
    Row("apply -f -", CLASS, true, &["runtimeclass.node.k8s.io/box created"]),
    Row("get runtimeclasses", "", true, &["NAME", "HANDLER", "AGE", "box", "yado"]),
    Row("patch runtimeclass box -p '{\"handler\":\"other\"}'", "", false, &["handler: Invalid value: \"other\": field is immutable"]),
    Row("explain runtimeclass.overhead.podFixed", "", true, &["FIELD: podFixed <map[string]Quantity>"]),
];
