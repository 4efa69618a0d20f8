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
const SIDECARS: &str = r#"
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicy
metadata: {name: sidecar}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments], scope: '*'}
  matchConditions:
  - {name: no-sidecar, expression: "!object.spec.template.spec.?initContainers.orValue([]).exists(c, c.name == 'mesh')"}
  variables:
  - {name: image, expression: params.data.image}
  failurePolicy: Fail
  reinvocationPolicy: IfNeeded
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >
        Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
          initContainers: [Object.spec.template.spec.initContainers{
            name: "mesh", image: variables.image, restartPolicy: "Always"}]}}}}
  - patchType: JSONPatch
    jsonPatch:
      expression: >
        [JSONPatch{op: "add", path: "/metadata/annotations", value: {}},
         JSONPatch{op: "add", path: "/metadata/annotations/" + jsonpatch.escapeKey("example.com/mesh"), value: "yes"}]
---
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicyBinding
metadata: {name: sidecar}
spec:
  policyName: sidecar
  paramRef: {name: mesh, namespace: default, parameterNotFoundAction: Deny}
"#;
const NO_SHELLS: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-shells}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CONNECT], resources: [pods/exec, pods/attach, pods/portforward]}
  validations:
  - {expression: "request.subResource != 'exec' || object.command[0] != 'sh'", message: no shells here}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-shells}
spec: {policyName: no-shells, validationActions: [Deny]}
"#;
const OLD: &str = r#"
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: old}
spec:
  template:
    metadata: {labels: {app: old}}
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
    Row("apply -f -", SIDECARS, true, &["mutatingadmissionpolicy.admissionregistration.k8s.io/sidecar created", "mutatingadmissionpolicybinding.admissionregistration.k8s.io/sidecar created"]),
    Row("apply -f -", SIDECARS, true, &["sidecar unchanged", "sidecar unchanged"]),
    Row("get mutatingadmissionpolicies", "", true, &["NAME", "MUTATIONS", "PARAMKIND", "AGE", "sidecar", "2", "v1/ConfigMap"]),
    Row("get mutatingadmissionpolicybindings.v1beta1.admissionregistration.k8s.io", "", true, &["NAME", "POLICYNAME", "PARAMREF", "AGE", "sidecar", "sidecar", "default/mesh"]),
    Row("create deployment web --image=nginx", "", false, &["denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"]),
    Row("create configmap mesh --from-literal=image=mesh:1", "", true, &["created"]),
    Row("create deployment web --image=nginx", "", true, &["created"]),
    Row("get deployment web -o jsonpath={.metadata.annotations.example\\.com/mesh}-{.spec.template.spec.initContainers[*].image}", "", true, &["yes-mesh:1"]),
    Row("apply -f -", OLD, true, &["created"]),
    Row("get deployment old -o jsonpath={.spec.template.spec.initContainers[*].image}", "", true, &["mesh:1"]),
    Row("set image deployment/web nginx=nginx:2", "", true, &["image updated"]),
    Row("get deployment web -o jsonpath={.spec.template.spec.initContainers[*].name}", "", true, &["mesh"]),
    Row("patch mutatingadmissionpolicy sidecar --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/mutations/0/applyConfiguration/expression\",\"value\":\"{}\"}]'", "", false,
        &["spec.mutations[0].applyConfiguration.expression: Invalid value: \"{}\": must evaluate to Object but got map(dyn, dyn)"]),
    Row("explain mutatingadmissionpolicy.spec.mutations.applyConfiguration", "", true, &["VERSION:", "v1", "FIELD: applyConfiguration <ApplyConfiguration>", "expression"]),
    Row("explain --api-version=admissionregistration.k8s.io/v1beta1 mutatingadmissionpolicy.spec.reinvocationPolicy", "", true, &["v1beta1", "FIELD: reinvocationPolicy <string>"]),
    Row("delete mutatingadmissionpolicybinding,mutatingadmissionpolicy --all", "", true, &["deleted", "deleted"]),
    Row("apply -f -", NO_SHELLS, true, &["created", "created"]),
    Row("run box --image=busybox", "", true, &["created"]),
    Row("exec box -- sh", "", false, &["denied request: no shells here"]),
    Row("exec box -- ls", "", false, &["pod box does not have a host assigned"]),
    Row("port-forward pod/box 0:80", "", false, &[]),
    Row("delete validatingadmissionpolicybinding no-shells", "", true, &["deleted"]),
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
