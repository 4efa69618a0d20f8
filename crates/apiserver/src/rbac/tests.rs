use serde_json::{Value, json};

use super::*;
use crate::identity::{Identity, MASTERS};

/// An index of roles and bindings in YAML, one document each.
fn index(texts: &[&str]) -> Index {
    let mut index = Index::default();
    texts.iter().for_each(|text| set(&mut index, text));
    index
}

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn set(index: &mut Index, text: &str) {
    let object = yaml(text);
    if object["roleRef"].is_null() {
        let meta = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        index.set_role(RoleKey::new(meta("namespace"), meta("name")), Rule::read_all(&object));
    } else {
        index.set_binding(Binding::read(&object));
    }
}

/// `VERB PLURAL[/SUBRESOURCE][.GROUP] [-n NAMESPACE] [NAME]`, or `VERB /PATH`.
fn allowed(index: &Index, who: &Identity, asked: &str) -> Option<String> {
    let mut words: Vec<&str> = asked.split(' ').collect();
    let namespace = match words.iter().position(|word| *word == "-n") {
        Some(at) => words.drain(at..at + 2).next_back().unwrap_or_default(),
        None => "",
    };
    let (verb, target) = (words[0], words[1]);
    let target = if target.starts_with('/') {
        Target::Path(target)
    } else {
        let (target, group) = target.split_once('.').unwrap_or((target, ""));
        let (resource, subresource) = target.split_once('/').unwrap_or((target, ""));
        let name = words.get(2).copied().unwrap_or_default();
        Target::Resource { namespace, group, resource, subresource, name }
    };
    index.allows(who, &Attributes { verb, target }).map(|reason| reason.to_string())
}

fn check(index: &Index, who: &Identity, rows: &[(&str, bool)]) {
    for (asked, expect) in rows {
        assert_eq!(allowed(index, who, asked).is_some(), *expect, "{} {asked}", who.user);
    }
}

const TO_JANE: &str =
    "{metadata: {name: b}, roleRef: {kind: ClusterRole, name: r}, subjects: [{kind: User, name: jane}]}";

#[test]
fn rules_match_as_kubernetes_matches_them() {
    let jane = Identity::new("jane", ["dev"]);
    let rows: &[(&str, &[(&str, bool)])] = &[
        (
            "{verbs: [get, list], apiGroups: [''], resources: [pods]}",
            &[
                ("get pods", true),
                ("get pods -n n a", true),
                ("list pods", true),
                ("watch pods", false),
                ("get pods/log", false),
                ("get pods.apps", false),
                ("get services", false),
                ("get /pods", false),
            ],
        ),
        (
            "{verbs: ['*'], apiGroups: [''], resources: [pods]}",
            &[("get pods", true), ("anything pods", true)],
        ),
        (
            "{verbs: [get, approve], apiGroups: ['*'], resources: [signers]}",
            &[("approve signers.x", true), ("sign signers.x", false), ("get signers", true)],
        ),
        (
            "{verbs: [get], apiGroups: [apps, batch], resources: ['*']}",
            &[
                ("get deployments.apps", true),
                ("get jobs/status.batch", true),
                ("get pods", false),
                ("update jobs.batch", false),
            ],
        ),
        (
            "{verbs: [get], apiGroups: [''], resources: [pods/log, '*/scale']}",
            &[
                ("get pods/log", true),
                ("get pods", false),
                ("get services/log", false),
                ("get replicationcontrollers/scale", true),
                ("get scale", false),
                ("get pods/rescale", false),
            ],
        ),
        // A star means something alone and before a subresource only.
        (
            "{verbs: [get], apiGroups: [''], resources: [pods/*, po*]}",
            &[("get pods/log", false), ("get pods", false)],
        ),
        (
            "{verbs: [get, create, deletecollection], apiGroups: [''], resources: [secrets], resourceNames: [a, b]}",
            &[
                ("get secrets -n n a", true),
                ("get secrets -n n c", false),
                // What does not name an object is not restricted to some.
                ("create secrets -n n", false),
                ("deletecollection secrets -n n", false),
            ],
        ),
        (
            "{verbs: [get], nonResourceURLs: [/metrics, '/api/*', '/logs*']}",
            &[
                ("get /metrics", true),
                ("head /metrics", false),
                ("get /metrics/slis", false),
                ("get /api", false),
                ("get /api/v1", true),
                ("get /logsomething", true),
                ("get metrics", false),
            ],
        ),
        (
            "{verbs: ['*'], nonResourceURLs: ['*']}",
            &[("get /", true), ("post /x", true), ("get pods", false)],
        ),
        (
            "{verbs: ['*'], apiGroups: ['*'], resources: ['*']}",
            &[("get /", false), ("use x/y.z -n n a", true)],
        ),
        ("{verbs: [], apiGroups: ['*'], resources: ['*']}", &[("get pods", false), (" pods", false)]),
    ];
    for (rule, asked) in rows {
        let role = format!("{{metadata: {{name: r}}, rules: [{rule}]}}");
        check(&index(&[&role, TO_JANE]), &jane, asked);
    }
}

#[test]
fn bindings_say_who_and_where() {
    let pods = "{verbs: [get], apiGroups: [''], resources: [pods]}";
    let index = index(&[
        &format!("{{metadata: {{name: all}}, rules: [{pods}]}}"),
        &format!("{{metadata: {{name: some, namespace: n}}, rules: [{pods}]}}"),
        "{metadata: {name: paths}, rules: [{verbs: [get], nonResourceURLs: [/x]}]}",
        "{metadata: {name: users}, roleRef: {kind: ClusterRole, name: all}, subjects: [{kind: User, name: admin}, {kind: Group, name: ops}]}",
        "{metadata: {name: here, namespace: n}, roleRef: {kind: Role, name: some}, subjects: [{kind: User, name: jane},
          {kind: ServiceAccount, name: own}, {kind: ServiceAccount, namespace: m, name: other}]}",
        "{metadata: {name: reuse, namespace: m}, roleRef: {kind: ClusterRole, name: all}, subjects: [{kind: User, name: jane}]}",
        // A Role of the same name exists in another namespace only.
        "{metadata: {name: lost, namespace: m}, roleRef: {kind: Role, name: some}, subjects: [{kind: User, name: eve}]}",
        "{metadata: {name: local-paths, namespace: n}, roleRef: {kind: ClusterRole, name: paths}, subjects: [{kind: User, name: jane}]}",
        "{metadata: {name: unknown}, roleRef: {kind: ClusterRole, name: all}, subjects: [{kind: Robot, name: eve}]}",
    ]);
    let user = |name: &str| Identity::new(name, ["dev"]);
    check(&index, &user("admin"), &[("get pods", true), ("get pods -n x", true)]);
    check(&index, &user("jane"), &[("get pods", false), ("get pods -n n", true), ("get pods -n m", true)]);
    check(&index, &user("jane"), &[("get pods -n x", false), ("get /x", false)]);
    check(&index, &user("system:serviceaccount:n:own"), &[("get pods -n n", true), ("get pods -n m", false)]);
    check(&index, &user("system:serviceaccount:m:own"), &[("get pods -n n", false)]);
    check(&index, &user("system:serviceaccount:m:other"), &[("get pods -n n", true)]);
    check(&index, &user("eve"), &[("get pods", false), ("get pods -n m", false)]);
    assert_eq!(index.unresolved(&user("eve"), "m"), [r#"role.rbac.authorization.k8s.io "some" not found"#]);
    for (who, asked, expect) in [
        (user("admin"), "get pods", r#"ClusterRoleBinding "users" of ClusterRole "all" to User "admin""#),
        (
            Identity::new("x", ["ops"]),
            "get pods -n n",
            r#"ClusterRoleBinding "users" of ClusterRole "all" to Group "ops""#,
        ),
        (user("jane"), "get pods -n n", r#"RoleBinding "here/n" of Role "some" to User "jane""#),
        (user("jane"), "get pods -n m", r#"RoleBinding "reuse/m" of ClusterRole "all" to User "jane""#),
        (
            user("system:serviceaccount:n:own"),
            "get pods -n n",
            r#"RoleBinding "here/n" of Role "some" to ServiceAccount "own/n""#,
        ),
    ] {
        assert_eq!(allowed(&index, &who, asked), Some(format!("RBAC: allowed by {expect}")));
    }
    let verbs = |who: &Identity, namespace: &str| {
        index.rules_for(who, namespace).map(Rule::to_string).collect::<Vec<_>>().join(" ")
    };
    let rule = r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#;
    assert_eq!(verbs(&user("admin"), ""), rule);
    assert_eq!(verbs(&user("jane"), ""), "");
    assert_eq!(verbs(&user("jane"), "n"), format!(r#"{rule} {{NonResourceURLs:["/x"], Verbs:["get"]}}"#));
}

#[test]
fn the_index_follows_every_change() {
    let jane = Identity::new("jane", ["dev"]);
    let role = "{metadata: {name: r}, rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]}";
    let wider = "{metadata: {name: r}, rules: [{verbs: [get, list], apiGroups: [''], resources: [pods]}]}";
    let to_eve = "{metadata: {name: b}, roleRef: {kind: ClusterRole, name: other}, subjects: [{kind: User, name: eve}]}";
    let mut index = Index::default();
    // A binding may come before its role.
    set(&mut index, TO_JANE);
    check(&index, &jane, &[("get pods", false)]);
    set(&mut index, role);
    check(&index, &jane, &[("get pods", true), ("list pods", false)]);
    set(&mut index, wider);
    check(&index, &jane, &[("get pods", true), ("list pods", true)]);
    index.remove_role(&RoleKey::new("", "r"));
    check(&index, &jane, &[("get pods", false)]);
    assert_eq!(index.unresolved(&jane, "").len(), 1);
    set(&mut index, role);
    set(&mut index, to_eve);
    check(&index, &jane, &[("get pods", false)]);
    set(&mut index, TO_JANE);
    check(&index, &jane, &[("get pods", true)]);
    index.remove_binding("", "b");
    check(&index, &jane, &[("get pods", false)]);
    // Removing what is not there changes nothing.
    index.remove_binding("", "b");
    index.remove_role(&RoleKey::new("n", "r"));
    set(&mut index, TO_JANE);
    check(&index, &jane, &[("get pods", true)]);
    index.clear_roles(false);
    check(&index, &jane, &[("get pods", true)]);
    index.clear_roles(true);
    check(&index, &jane, &[("get pods", false)]);
    set(&mut index, role);
    index.clear_bindings(true);
    check(&index, &jane, &[("get pods", false)]);
    index.clear_roles(true);
    // Nothing is left, and places are used again.
    for round in 0..3 {
        set(&mut index, role);
        set(&mut index, TO_JANE);
        check(&index, &jane, &[("get pods", true)]);
        index.remove_role(&RoleKey::new("", "r"));
        index.remove_binding("", "b");
        assert!(index.is_empty(), "round {round}");
    }
    assert_eq!(index.places(), 2, "`r`, and `other` of the binding to eve");
}

#[test]
fn refusals_are_worded_as_kubernetes_words_them() {
    let jane = Identity::new("jane", ["dev"]);
    let of = |namespace, group, resource, subresource, name| {
        let target = Target::Resource { namespace, group, resource, subresource, name };
        Attributes { verb: "list", target }.forbidden(&jane, "").message
    };
    assert_eq!(
        of("y", "", "pods", "", ""),
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "y""#
    );
    assert_eq!(
        of("", "apps", "deployments", "scale", "x"),
        r#"deployments.apps "x" is forbidden: User "jane" cannot list resource "deployments/scale" in API group "apps" at the cluster scope"#
    );
    let path = Attributes { verb: "get", target: Target::Path("/metrics") };
    let failure = path.forbidden(&jane, "RBAC: why");
    assert_eq!(failure.message, r#"forbidden: User "jane" cannot get path "/metrics": RBAC: why"#);
    assert_eq!((failure.code, failure.reason), (403, "Forbidden"));
}

/// Judges a write by somebody who may read Pods everywhere and do all with them in `n`.
fn escalation(resource: &str, namespace: &str, new: &str, old: Option<&str>) -> String {
    let index = index(&[
        "{metadata: {name: r}, rules: [{verbs: [get, list], apiGroups: [''], resources: [pods, '*/scale']}, {verbs: [get], nonResourceURLs: ['/api/*']}]}",
        "{metadata: {name: some, namespace: n}, rules: [{verbs: ['*'], apiGroups: [''], resources: [pods]}]}",
        "{metadata: {name: secrets}, rules: [{verbs: [get], apiGroups: [''], resources: [secrets]}]}",
        "{metadata: {name: binder, namespace: n}, rules: [{verbs: [bind], apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [secrets]}]}",
        "{metadata: {name: escalator, namespace: e}, rules: [{verbs: [escalate], apiGroups: [rbac.authorization.k8s.io], resources: [roles]}]}",
        TO_JANE,
        "{metadata: {name: b, namespace: n}, roleRef: {kind: Role, name: some}, subjects: [{kind: User, name: jane}]}",
        "{metadata: {name: c, namespace: n}, roleRef: {kind: Role, name: binder}, subjects: [{kind: User, name: jane}]}",
        "{metadata: {name: d, namespace: n}, roleRef: {kind: Role, name: gone}, subjects: [{kind: User, name: jane}]}",
        "{metadata: {name: e, namespace: e}, roleRef: {kind: Role, name: escalator}, subjects: [{kind: User, name: jane}]}",
    ]);
    let (new, old) = (yaml(new), old.map(yaml));
    let change = Change { resource, namespace, name: "", new: &new, old: old.as_ref() };
    assert_eq!(check_change(&index, &Identity::new("root", [MASTERS]), &change), "yes");
    check_change(&index, &Identity::new("jane", ["dev"]), &change)
}

fn check_change(index: &Index, who: &Identity, change: &Change<'_>) -> String {
    match super::check(index, who, change) {
        Ok(()) => "yes".into(),
        Err(Refusal::Forbidden(why)) => why,
        Err(Refusal::RoleNotFound(role)) => format!("404 {}", role.not_found()),
    }
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let role = |rules: &str| format!("{{metadata: {{name: x}}, rules: [{rules}]}}");
    let binding = |kind: &str, name: &str| {
        format!("{{metadata: {{name: x}}, roleRef: {{kind: {kind}, name: {name}}}}}")
    };
    let pods = role("{verbs: [get], apiGroups: [''], resources: [pods]}");
    let all_of_pods = role("{verbs: ['*'], apiGroups: [''], resources: [pods]}");
    let named = role("{verbs: [list], apiGroups: [''], resources: [pods], resourceNames: [a]}");
    let paths = role("{verbs: [get], nonResourceURLs: [/api/v1, '/api/x*']}");
    let scale = role("{verbs: [get], apiGroups: [''], resources: [replicationcontrollers/scale]}");
    let held = "user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
                currently held:\n";
    let all = |lines: &str| format!("{held}{lines}");
    let gone = "; resolution errors: [role.rbac.authorization.k8s.io \"gone\" not found]";
    for (resource, namespace, new, expect) in [
        ("clusterroles", "", &pods, "yes".to_owned()),
        ("clusterroles", "", &named, "yes".into()),
        ("clusterroles", "", &paths, "yes".into()),
        ("clusterroles", "", &scale, "yes".into()),
        ("roles", "n", &all_of_pods, "yes".into()),
        ("clusterroles", "", &all_of_pods, all(r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#)),
        (
            "clusterroles",
            "",
            &role("{verbs: [get, list, watch, delete], apiGroups: ['', apps], resources: [pods]}"),
            all("{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}\n\
                 {APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\" \"watch\" \"delete\"]}"),
        ),
        (
            "roles",
            "n",
            &role("{verbs: [get], apiGroups: [''], resources: [secrets], resourceNames: [a]}"),
            all(&format!(
                r#"{{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}}{gone}"#
            )),
        ),
        (
            "clusterroles",
            "",
            &role("{verbs: [get], nonResourceURLs: [/metrics]}"),
            all(r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#),
        ),
        // Whoever may escalate writes what they like, in their namespace.
        ("roles", "e", &all_of_pods, "yes".into()),
        ("roles", "x", &all_of_pods, all(r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#)),
        ("rolebindings", "n", &binding("ClusterRole", "r"), "yes".into()),
        ("rolebindings", "n", &binding("Role", "some"), "yes".into()),
        ("clusterrolebindings", "", &binding("ClusterRole", "r"), "yes".into()),
        ("rolebindings", "n", &binding("ClusterRole", "secrets"), "yes".into()),
        (
            "clusterrolebindings",
            "",
            &binding("ClusterRole", "secrets"),
            all(r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#),
        ),
        (
            "rolebindings",
            "n",
            &binding("Role", "none"),
            r#"404 role.rbac.authorization.k8s.io "none" not found"#.into(),
        ),
        (
            "clusterroles",
            "",
            &"{metadata: {name: x}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}}"
                .to_owned(),
            "must have cluster-admin privileges to use the aggregationRule".into(),
        ),
    ] {
        assert_eq!(escalation(resource, namespace, new, None), expect, "{resource} {namespace} {new}");
    }
}

#[test]
fn updates_that_grant_nothing_are_not_judged() {
    let secrets = "rules: [{verbs: [get], apiGroups: [''], resources: [secrets]}]";
    let old = format!("{{metadata: {{name: x, finalizers: [a], resourceVersion: '1'}}, {secrets}}}");
    for (meta, is_free) in [
        ("{name: x, resourceVersion: '1'}", true),
        ("{name: x, finalizers: [a], ownerReferences: [{name: y}]}", true),
        ("{name: x, labels: {a: b}}", false),
    ] {
        let new = format!("{{metadata: {meta}, {secrets}}}");
        assert_eq!(escalation("clusterroles", "", &new, Some(&old)) == "yes", is_free, "{meta}");
    }
}

fn reconciled(existing: Option<&str>, expected: &str) -> String {
    match reconcile(existing.map(yaml).as_ref(), &yaml(expected)) {
        Reconciled::Update(next) => next.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn defaults_come_back_and_additions_stay() {
    let expected = "{metadata: {name: r, labels: {a: '1'}}, rules: [{verbs: [get, list], apiGroups: [''], resources: [pods]}]}";
    assert_eq!(reconciled(None, expected), "Create");
    assert_eq!(reconciled(Some(expected), expected), "Keep");
    for (existing, next) in [
        // Held by another rule: nothing is missing.
        (
            "{metadata: {name: r, labels: {a: '2'}}, rules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*']}]}",
            "Keep".to_owned(),
        ),
        (
            "{metadata: {name: r}, rules: [{verbs: [get, delete], apiGroups: [''], resources: [pods]}]}",
            json!({
                "metadata": {"name": "r", "labels": {"a": "1"}},
                "rules": [
                    {"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]},
                    {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]},
                ],
            })
            .to_string(),
        ),
        (
            "{metadata: {name: r, annotations: {rbac.authorization.kubernetes.io/autoupdate: 'false'}}, rules: []}",
            "Keep".into(),
        ),
    ] {
        assert_eq!(reconciled(Some(existing), expected), next, "{existing}");
    }
    let gathers = |label: &str| {
        format!(
            "{{metadata: {{name: r}}, aggregationRule: {{clusterRoleSelectors: [{{matchLabels: {{{label}: 'true'}}}}]}}}}"
        )
    };
    assert_eq!(
        reconciled(Some(&gathers("a")), &gathers("b")),
        json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"a": "true"}}, {"matchLabels": {"b": "true"}},
        ]}})
        .to_string()
    );
    let binding = |role: &str, subjects: &str| {
        format!(
            "{{metadata: {{name: b}}, roleRef: {{kind: ClusterRole, name: {role}}}, subjects: [{subjects}]}}"
        )
    };
    let (jane, eve) = ("{kind: User, name: jane}", "{kind: User, name: eve}");
    assert_eq!(reconciled(Some(&binding("x", jane)), &binding("r", jane)), "Recreate");
    assert_eq!(
        reconciled(Some(&binding("r", eve)), &binding("r", jane)),
        json!({
            "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "name": "eve"}, {"kind": "User", "name": "jane"}],
        })
        .to_string()
    );
}

/// The index of a cluster that has nothing but its defaults.
fn of_defaults() -> Index {
    let mut index = Index::default();
    for role in defaults::ROLES {
        index.set_role(RoleKey::new("", role.name), Rule::read_all(&role.to_value()));
        role.binding().iter().for_each(|binding| index.set_binding(Binding::read(binding)));
    }
    index
}

#[test]
fn default_roles_are_valid_and_have_one_name_each() {
    use crate::schema::{FieldValidation, decode, default_object, find, validate_object};
    let mut names = std::collections::HashSet::new();
    for object in defaults::objects() {
        let (kind, name) = (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].to_string());
        assert!(names.insert((kind.to_owned(), name.clone())), "{kind} {name}");
        let kind = find(crate::schema::RBAC_GROUP, "v1", kind).expect("a kind");
        let (mut decoded, warnings) =
            decode(kind, object.clone().into(), FieldValidation::Strict).expect("valid");
        assert!(warnings.is_empty(), "{warnings:?}");
        default_object(kind, &mut decoded);
        assert_eq!(validate_object(kind, &decoded, None), [], "{name}");
        // Else every start would write them anew.
        assert_eq!(reconcile(Some(&decoded), &object), Reconciled::Keep, "{name}");
    }
}

#[test]
fn defaults_open_what_kubernetes_opens() {
    let index = of_defaults();
    let (jane, nobody) = (Identity::new("jane", ["dev"]), Identity::anonymous());
    check(
        &index,
        &jane,
        &[
            ("get /apis", true),
            ("get /api/v1", true),
            ("get /openapi/v3/apis/apps/v1", true),
            ("get /healthz", true),
            ("get /", false),
            ("get /metrics", false),
            ("create selfsubjectaccessreviews.authorization.k8s.io", true),
            ("create selfsubjectrulesreviews.authorization.k8s.io", true),
            ("create selfsubjectreviews.authentication.k8s.io", true),
            ("create subjectaccessreviews.authorization.k8s.io", false),
            ("get pods -n default", false),
        ],
    );
    check(
        &index,
        &nobody,
        &[
            ("get /version", true),
            ("get /readyz", true),
            ("get /apis", false),
            ("create selfsubjectreviews.authentication.k8s.io", false),
        ],
    );
    check(&index, &Identity::new("p", ["system:monitoring"]), &[("get /metrics", true)]);
    check(&index, &Identity::new("root", [MASTERS]), &[("delete nodes x", true), ("get /metrics", true)]);
}

/// Requests of Yado's components, one line each: the component, then the request as [`allowed`] reads it. Recorded
/// from the end-to-end tests, and completed from the source where they do not reach.
const ASKED: &str = include_str!("asked.txt");

#[test]
fn every_component_has_what_it_asks_for_and_no_more() {
    let index = of_defaults();
    let component = |name: &str| match name {
        "node" => Identity::new("system:node:n", [crate::identity::NODES]),
        name => Identity::component(name),
    };
    let rows: Vec<(&str, &str)> =
        ASKED.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_once(' ').expect("a row")).collect();
    for (name, asked) in &rows {
        assert!(allowed(&index, &component(name), asked).is_some(), "{name} may not {asked}");
    }
    // Every part of a component's role is asked for; but wildcards say that all kinds are.
    let general: Vec<Rule> = ["system:basic-user", "system:discovery", "system:public-info-viewer"]
        .iter()
        .flat_map(|role| index.role(&RoleKey::new("", role)).expect("a default").to_vec())
        .collect();
    for name in rows.iter().map(|(name, _)| *name).collect::<std::collections::BTreeSet<_>>() {
        let who = component(name);
        let own = index.rules_for(&who, "").filter(|rule| !general.contains(rule));
        for part in own.flat_map(Rule::parts).filter(|part| *part.resources[0] != *"*") {
            let asked_for = |verb: &str| {
                let [group, resource] = [&part.api_groups[0], &part.resources[0]];
                let dot = if group.is_empty() { "" } else { "." };
                let start = format!("{verb} {resource}{dot}{group}");
                let mut of_name = rows.iter().filter(|(n, _)| n == &name).map(|(_, asked)| *asked);
                of_name.any(|asked| asked == start || asked.starts_with(&format!("{start} ")))
            };
            // An informer lists where it cannot watch.
            let is_used = asked_for(&part.verbs[0]) || *part.verbs[0] == *"list" && asked_for("watch");
            assert!(is_used, "{name} never asks for {part}");
        }
    }
    let rest: Vec<_> = defaults::ROLES
        .iter()
        .filter(|role| role.binding().is_some_and(|b| b["subjects"].to_string().contains("system:yado:")))
        .map(|role| role.name)
        .filter(|role| !rows.iter().any(|(name, _)| role.ends_with(name)))
        .collect();
    assert!(rest.is_empty(), "roles of components that ask for nothing: {rest:?}");
}
