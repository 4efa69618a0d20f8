//! Custom kinds with the real `kubectl`.

use super::Row;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.image}]
    additionalPrinterColumns:
    - {name: Spec, type: string, description: The schedule, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - {rule: "!has(self.image) || self.image != 'bad'", message: an image must not be bad}
            - {rule: "self.cronSpec == oldSelf.cronSpec", message: the schedule stays}
            properties:
              cronSpec: {type: string, pattern: '^(\S+\s){4}\S+$', description: When it runs}
              image: {type: string}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              steps: {type: array, x-kubernetes-preserve-unknown-fields: true, items: {type: object}}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, port: {type: integer}}}
          status:
            type: object
            properties: {replicas: {type: integer}, selector: {type: string}}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;

const OBJECT: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"cronSpec": "* * * * */5", "image": "x"}}"#;

const WITH_LABEL: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a",
  "labels": {"l": "m"}}, "spec": {"cronSpec": "* * * * */5", "image": "x"}}"#;

const UNSTRUCTURED: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
  "metadata": {"name": "x.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
  "names": {"plural": "x", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true,
  "schema": {"openAPIV3Schema": {"type": "object", "properties": {"image": {}}}}}]}}"#;
const BAD: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"cronSpec": "* * * * */5", "image": "bad"}}"#;
const BROKEN_RULE: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
  "metadata": {"name": "x.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
  "names": {"plural": "x", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true,
  "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
  "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.nothing > 1"}]}}}}}]}}"#;
const UNKNOWN: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"cronSpec": "* * * * */5", "imge": "x"}}"#;
const WRONG: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"cronSpec": "x", "image": 5}}"#;
const CONFLICTING: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"cronSpec": "* * * * */5", "image": "q"}}"#;
const FIRST_PORT: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"ports": [{"name": "one", "port": 1}]}}"#;
const SECOND_PORT: &str = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
  "spec": {"ports": [{"name": "two", "port": 2}]}}"#;

/// Beside the definition and its objects: what is refused, and with which words.
pub const ROWS: &[Row<'static>] = &[
    Row(
        "create -f -",
        UNSTRUCTURED,
        false,
        &["properties[image].type: Required value: must not be empty for specified object fields"],
    ),
    Row(
        "create -f -",
        DEFINITION,
        true,
        &["customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created"],
    ),
    Row(
        "wait --for=condition=Established crd/crontabs.stable.example.com --timeout=10s",
        "",
        true,
        &["condition met"],
    ),
    Row(
        "api-resources --api-group=stable.example.com",
        "",
        true,
        &["crontabs", "ct", "stable.example.com/v1", "true", "CronTab"],
    ),
    Row("explain crontab.spec", "", true, &["cronSpec", "When it runs"]),
    Row("explain crontab.spec --output=plaintext-openapiv2", "", true, &["cronSpec", "When it runs"]),
    Row("create -f -", UNKNOWN, false, &["unknown field \"spec.imge\""]),
    Row(
        "create -f -",
        WRONG,
        false,
        &["spec.cronSpec in body should match", "spec.image in body must be of type string"],
    ),
    Row("create -f -", BAD, false, &["an image must not be bad"]),
    Row(
        "create -f -",
        BROKEN_RULE,
        false,
        &["x-kubernetes-validations[0].rule: Invalid value:", "undefined field 'nothing'"],
    ),
    Row("apply -f -", OBJECT, true, &["crontab.stable.example.com/a created"]),
    Row("apply -f -", WITH_LABEL, true, &["crontab.stable.example.com/a configured"]),
    Row("apply -f -", OBJECT, true, &["crontab.stable.example.com/a configured"]),
    Row("get ct", "", true, &["NAME", "SPEC", "REPLICAS", "AGE", "a", "* * * * */5", "1"]),
    Row("get all", "", true, &["crontab.stable.example.com/a"]),
    Row(
        "get crontabs.v1beta1.stable.example.com a -o jsonpath={.apiVersion}",
        "",
        true,
        &["stable.example.com/v1beta1", "stable.example.com/v1beta1 CronTab is deprecated"],
    ),
    Row("get ct --field-selector spec.image=x -o name", "", true, &["crontab.stable.example.com/a"]),
    Row("get ct --field-selector spec.image=y -o name", "", true, &[]),
    Row("get ct --field-selector spec.other=y", "", false, &["field label not supported"]),
    Row(
        "patch ct a --type=merge -p '{\"spec\":{\"cronSpec\":\"1 1 1 1 1\"}}'",
        "",
        false,
        &["the schedule stays"],
    ),
    Row("scale ct a --replicas=3", "", true, &["scaled"]),
    Row("scale ct a --replicas=30", "", false, &["should be less than or equal to 10"]),
    Row("patch ct a --type=merge -p {\"spec\":{\"image\":\"y\"}}", "", true, &["patched"]),
    Row(
        "patch ct a -p {\"spec\":{\"image\":\"z\"}}",
        "",
        false,
        &["the body of the request was in an unknown format"],
    ),
    Row(
        "patch ct a --subresource=status --type=merge -p {\"status\":{\"replicas\":2},\"spec\":{\"image\":\"no\"}}",
        "",
        true,
        &["patched"],
    ),
    Row(
        "get ct a -o jsonpath={.spec.image}/{.spec.replicas}/{.status.replicas}/{.metadata.generation}",
        "",
        true,
        &["y/3/2/3"],
    ),
    Row("patch ct a --type=merge -p {\"spec\":{\"steps\":[{\"run\":{\"it\":1}}]}}", "", true, &["patched"]),
    Row("get ct a -o jsonpath={.spec.steps}", "", true, &["[{\"run\":{\"it\":1}}]"]),
    Row("apply --server-side -f -", FIRST_PORT, true, &["serverside-applied"]),
    Row("apply --server-side --field-manager=other -f -", SECOND_PORT, true, &["serverside-applied"]),
    Row("get ct a -o jsonpath={.spec.ports[*].name}", "", true, &["one two"]),
    Row("apply --server-side -f -", CONFLICTING, false, &["conflict", ".spec.image"]),
    Row(
        "get apiservices",
        "",
        true,
        &[
            "NAME",
            "SERVICE",
            "AVAILABLE",
            "AGE",
            "v1.",
            "Local",
            "True",
            "v1.stable.example.com",
            "Local",
            "True",
        ],
    ),
    Row("delete crd crontabs.stable.example.com", "", true, &["deleted"]),
    Row("get ct", "", false, &["the server could not find the requested resource"]),
];
