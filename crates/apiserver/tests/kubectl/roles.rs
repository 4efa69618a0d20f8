//! Rows for roles: what they allow, who may write them, and what kubectl asks about them.

use super::Row;

const RECONCILED: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: team, namespace: default}
rules: [{verbs: [get], apiGroups: [""], resources: [configmaps]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: team, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: team}
subjects: [{kind: ServiceAccount, name: worker, namespace: default}]
"#;
const WIDER: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: team, namespace: default}
rules: [{verbs: [get, list], apiGroups: [""], resources: [configmaps]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: team, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: team}
subjects: [{kind: User, name: bob, apiGroup: rbac.authorization.k8s.io}]
"#;
const REVIEW: &str = r#"
apiVersion: authorization.k8s.io/v1
kind: LocalSubjectAccessReview
metadata: {namespace: default}
spec: {user: jane, resourceAttributes: {verb: list, resource: pods, namespace: default}}
"#;
const WRONG: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: wrong}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
"#;

pub const ROWS: &[Row<'_>] = &[
    Row(
        "get clusterroles",
        "",
        true,
        &["NAME", "CREATED AT", "admin", "cluster-admin", "system:node", "view"],
    ),
    Row("get clusterrolebindings -o wide", "", true, &["ROLE", "USERS", "GROUPS", "SERVICEACCOUNTS"]),
    Row(
        "get clusterrolebinding cluster-admin -o wide",
        "",
        true,
        &["ClusterRole/cluster-admin", "system:masters"],
    ),
    Row(
        "get pods --as=jane",
        "",
        false,
        &[
            "Forbidden",
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \
         \"default\"",
        ],
    ),
    Row("create role reader --verb=get,list --resource=pods,pods/log", "", true, &["reader created"]),
    Row("create rolebinding jane-reads --role=reader --user=jane", "", true, &["jane-reads created"]),
    Row("get rolebinding jane-reads -o wide", "", true, &["Role/reader", "jane"]),
    Row("describe role reader", "", true, &["Resources", "Verbs", "pods/log", "[get list]"]),
    Row("get pods --as=jane", "", true, &["No resources found"]),
    Row(
        "get pods -A --as=jane",
        "",
        false,
        &["cannot list resource \"pods\" in API group \"\" at the cluster scope"],
    ),
    Row("auth can-i list pods --as=jane", "", true, &["yes"]),
    Row("auth can-i get pods --subresource=log --as=jane", "", true, &["yes"]),
    Row("auth can-i list pods --as=jane -n kube-system", "", false, &["no"]),
    Row("auth can-i delete pods --as=jane", "", false, &["no"]),
    Row("auth can-i delete pods", "", true, &["yes"]),
    Row("auth can-i '*' '*'", "", true, &["yes"]),
    Row("auth can-i '*' '*' --as=jane", "", false, &["no"]),
    Row("auth can-i get /healthz --as=jane", "", true, &["yes"]),
    Row(
        "auth can-i --list --as=jane",
        "",
        true,
        &["Resources", "pods/log", "[get list]", "[/api/*]", "[get]"],
    ),
    Row("auth can-i --list", "", true, &["*.*", "[*]"]),
    Row(
        "auth whoami --as=jane --as-group=dev --as-uid=7",
        "",
        true,
        &["Username", "jane", "UID", "7", "Groups", "[dev system:authenticated]"],
    ),
    Row("create -f - -o jsonpath={.status.allowed}", REVIEW, true, &["true"]),
    // Paths.
    Row("get --raw /version --as=system:anonymous", "", true, &["gitVersion"]),
    Row(
        "get --raw /apis --as=system:anonymous",
        "",
        false,
        &["forbidden: User \"system:anonymous\" cannot get path \"/apis\""],
    ),
    Row(
        "get --raw /metrics --as=jane",
        "",
        false,
        &["forbidden: User \"jane\" cannot get path \"/metrics\""],
    ),
    Row("create clusterrole metrics --verb=get --non-resource-url=/metrics", "", true, &["created"]),
    Row("create clusterrolebinding jane-measures --clusterrole=metrics --user=jane", "", true, &["created"]),
    Row("get --raw /metrics --as=jane", "", true, &["apiserver_request_total"]),
    Row("delete clusterrole metrics", "", true, &["deleted"]),
    Row(
        "get --raw /metrics --as=jane",
        "",
        false,
        &["clusterrole.rbac.authorization.k8s.io \"metrics\" not found"],
    ),
    // A namespace's own role covers the namespace.
    Row("create role whole --verb=get --resource=namespaces", "", true, &["created"]),
    Row("create rolebinding whole --role=whole --group=team", "", true, &["created"]),
    Row("get namespace default --as=x --as-group=team", "", true, &["default", "Active"]),
    Row("get namespace kube-system --as=x --as-group=team", "", false, &["in the namespace \"kube-system\""]),
    // Nobody grants more than they hold.
    Row(
        "create clusterrole granter --verb=create,get,update,patch --resource=roles,rolebindings",
        "",
        true,
        &["created"],
    ),
    Row("create rolebinding jane-grants --clusterrole=granter --user=jane", "", true, &["created"]),
    Row("create role same --verb=get --resource=pods --as=jane", "", true, &["created"]),
    Row(
        "create role more --verb=get,delete --resource=pods --as=jane",
        "",
        false,
        &[
            "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"delete\"]}",
        ],
    ),
    Row(
        "create rolebinding all --clusterrole=cluster-admin --user=jane --as=jane",
        "",
        false,
        &[
            "rolebindings.rbac.authorization.k8s.io \"all\" is forbidden",
            "attempting to grant",
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}",
        ],
    ),
    Row(
        "create rolebinding lost --role=none --user=jane --as=jane",
        "",
        false,
        &["roles.rbac.authorization.k8s.io \"none\" not found"],
    ),
    Row("create rolebinding own --role=reader --user=eve --as=jane", "", true, &["created"]),
    Row("get pods --as=eve", "", true, &["No resources found"]),
    Row(
        "patch role same --type=json -p '[{\"op\":\"replace\",\"path\":\"/rules/0/verbs\",\"value\":[\"*\"]}]' --as=jane",
        "",
        false,
        &["attempting to grant"],
    ),
    Row("apply --server-side -f - --as=jane", RECONCILED, false, &["attempting to grant"]),
    Row("create clusterrole escalator --verb=escalate --resource=roles", "", true, &["created"]),
    Row("create rolebinding jane-escalates --clusterrole=escalator --user=jane", "", true, &["created"]),
    Row("create role more --verb=get,delete --resource=pods --as=jane", "", true, &["created"]),
    // Rules of the kinds themselves.
    Row("create -f -", WRONG, false, &["roleRef.kind: Unsupported value: \"Role\""]),
    Row(
        "patch rolebinding own -p '{\"roleRef\":{\"name\":\"more\"}}'",
        "",
        false,
        &["cannot change roleRef"],
    ),
    // Reconciliation adds and never takes.
    Row(
        "auth reconcile -f -",
        RECONCILED,
        true,
        &[
            "role.rbac.authorization.k8s.io/team reconciled",
            "rolebinding.rbac.authorization.k8s.io/team reconciled",
        ],
    ),
    Row("auth can-i get configmaps --as=system:serviceaccount:default:worker", "", true, &["yes"]),
    Row("auth can-i list configmaps --as=bob", "", false, &["no"]),
    Row(
        "auth reconcile -f -",
        WIDER,
        true,
        &["team reconciled", "missing rules added", "missing subjects added"],
    ),
    Row("auth can-i list configmaps --as=bob", "", true, &["yes"]),
    Row("auth can-i get configmaps --as=system:serviceaccount:default:worker", "", true, &["yes"]),
    Row("delete rolebinding team", "", true, &["deleted"]),
    Row("auth can-i list configmaps --as=bob", "", false, &["no"]),
    Row("explain clusterrole.aggregationRule", "", true, &["clusterRoleSelectors"]),
];
