//! Rules of schemas, by tables. Many rows are the examples of Kubernetes' documentation.

use serde_json::{Value as Json, json};

use super::*;

const PATH: &str = "spec.versions[0].schema.openAPIV3Schema";

/// A schema of `spec` within that of a whole object.
fn whole(spec: Json) -> Json {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn object(properties: Json, rules: Json) -> Json {
    json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules})
}

fn compile(schema: &Json) -> (Rules, Vec<String>) {
    let (rules, errors) = Rules::compile(&Structural::read(schema), PATH);
    (rules, errors.iter().map(FieldError::to_string).collect())
}

/// The errors of an object, and of its change.
fn check(schema: &Json, object: &Json, old: Option<&Json>) -> Vec<String> {
    let (rules, wrong) = compile(schema);
    assert_eq!(wrong, Vec::<String>::new(), "{schema}");
    let errors = rules.check(object, old, &mut Budget::default());
    errors.iter().map(FieldError::to_string).collect()
}

/// Properties that the documentation's examples speak of.
fn documented() -> Json {
    let texts = json!({"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 20});
    let named = json!({
        "type": "array", "maxItems": 20, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 20}, "value": {"type": "string", "maxLength": 20},
            "foo": {"type": "integer"},
        }},
    });
    let set = json!({"type": "array", "maxItems": 20, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 20}});
    json!({
        "minReplicas": {"type": "integer"}, "replicas": {"type": "integer"}, "maxReplicas": {"type": "integer"},
        "stateCounts": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 20},
        "list1": texts, "list2": texts, "envars": named, "widgets": named, "clusters": named,
        "map1": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 20}, "maxProperties": 20},
        "expired": {"type": "string", "format": "date-time"}, "created": {"type": "string", "format": "date-time"},
        "ttl": {"type": "string", "format": "duration"}, "health": {"type": "string", "maxLength": 20},
        "limit": {"x-kubernetes-int-or-string": true}, "set1": set, "set2": set, "names": texts,
        "details": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 20},
        "primary": {"type": "string", "maxLength": 20}, "data": {"type": "string", "format": "byte", "maxLength": 100},
        "ratio": {"type": "number"}, "x-prop": {"type": "integer"}, "namespace": {"type": "string", "maxLength": 20},
        "redact__d": {"type": "integer"}, "maybe": {"type": "string", "nullable": true, "maxLength": 20},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "integer"}}},
    })
}

#[test]
fn the_documentation_s_examples_hold_and_fail() {
    // A rule, a `spec` for which it holds, and one for which it does not.
    let rows = [
        (
            "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas",
            json!({"minReplicas": 1, "replicas": 2, "maxReplicas": 3}),
            json!({"minReplicas": 1, "replicas": 4, "maxReplicas": 3}),
        ),
        (
            "'Available' in self.stateCounts",
            json!({"stateCounts": {"Available": 1}}),
            json!({"stateCounts": {}}),
        ),
        (
            "(size(self.list1) == 0) != (size(self.list2) == 0)",
            json!({"list1": [], "list2": ["a"]}),
            json!({"list1": [], "list2": []}),
        ),
        (
            "!('MY_KEY' in self.map1) || self.map1['MY_KEY'].matches('^[a-zA-Z]*$')",
            json!({"map1": {"MY_KEY": "abc"}}),
            json!({"map1": {"MY_KEY": "a1"}}),
        ),
        (
            "self.envars.filter(e, e.name == 'MY_ENV').all(e, e.value.matches('^[a-zA-Z]*$'))",
            json!({"envars": [{"name": "MY_ENV", "value": "a"}, {"name": "x", "value": "1"}]}),
            json!({"envars": [{"name": "MY_ENV", "value": "1"}]}),
        ),
        (
            "has(self.expired) && self.created + self.ttl < self.expired",
            json!({"created": "2026-01-01T00:00:00Z", "ttl": "1h", "expired": "2026-01-01T02:00:00Z"}),
            json!({"created": "2026-01-01T00:00:00Z", "ttl": "3h", "expired": "2026-01-01T02:00:00Z"}),
        ),
        ("self.health.startsWith('ok')", json!({"health": "ok: all"}), json!({"health": "bad"})),
        (
            "self.widgets.exists(w, w.name == 'x' && w.foo < 10)",
            json!({"widgets": [{"name": "x", "foo": 5}]}),
            json!({"widgets": [{"name": "x", "foo": 50}]}),
        ),
        (
            "type(self.limit) == string ? self.limit == '100%' : self.limit == 1000",
            json!({"limit": "100%"}),
            json!({"limit": 10}),
        ),
        (
            "self.set1.all(e, !(e in self.set2))",
            json!({"set1": ["a"], "set2": ["b"]}),
            json!({"set1": ["a"], "set2": ["a"]}),
        ),
        (
            "size(self.names) == size(self.details) && self.names.all(n, n in self.details)",
            json!({"names": ["a"], "details": {"a": 1}}),
            json!({"names": ["a"], "details": {"b": 1}}),
        ),
        (
            "size(self.clusters.filter(c, c.name == self.primary)) == 1",
            json!({"primary": "a", "clusters": [{"name": "a"}, {"name": "b"}]}),
            json!({"primary": "c", "clusters": [{"name": "a"}]}),
        ),
        // Lists that are sets and maps have no order; their sums have no item twice.
        (
            "self.set1 == self.set2",
            json!({"set1": ["a", "b"], "set2": ["b", "a"]}),
            json!({"set1": ["a", "b"], "set2": ["a", "c"]}),
        ),
        (
            "self.list1 == self.list2",
            json!({"list1": ["a", "b"], "list2": ["a", "b"]}),
            json!({"list1": ["a", "b"], "list2": ["b", "a"]}),
        ),
        (
            "size(self.set1 + self.set2) == 3",
            json!({"set1": ["a", "b"], "set2": ["b", "c"]}),
            json!({"set1": ["a"], "set2": ["a"]}),
        ),
        (
            "(self.envars + self.envars.map(e, e))[0].value == 'b' && size(self.envars + self.envars) == size(self.envars)",
            json!({"envars": [{"name": "a", "value": "b"}]}),
            json!({"envars": [{"name": "a", "value": "c"}]}),
        ),
        // Types of formats.
        (
            "self.data == b'hi' && self.ratio == 2.0",
            json!({"data": "aGk=", "ratio": 2}),
            json!({"data": "aGk=", "ratio": 3}),
        ),
        (
            "self.created.getFullYear() == 2026",
            json!({"created": "2026-01-01T00:00:00Z"}),
            json!({"created": "2025-01-01T00:00:00Z"}),
        ),
        // Names that expressions cannot say as they are.
        (
            "self.x__dash__prop > 0 && self.__namespace__ != '' && self.redact__underscores__d > 0",
            json!({"x-prop": 1, "namespace": "a", "redact__d": 1}),
            json!({"x-prop": 0, "namespace": "a", "redact__d": 1}),
        ),
        // Null is as good as absent; unknown fields are not seen but compared.
        ("has(self.maybe)", json!({"maybe": "a"}), json!({"maybe": null})),
        (
            "!has(self.free) || self.free.a == 1",
            json!({"free": {"a": 1, "b": [1]}}),
            json!({"free": {"a": 2}}),
        ),
        ("self.?map1[?'k'].orValue('x') == 'x'", json!({}), json!({"map1": {"k": "y"}})),
        // What int-or-string holds is known only when it is there.
        ("string(self.limit).endsWith('%') || int(self.limit) > 5", json!({"limit": 6}), json!({"limit": 5})),
        (
            "quantity(self.health).isLessThan(quantity('1Gi'))",
            json!({"health": "512Mi"}),
            json!({"health": "2Gi"}),
        ),
    ];
    for (rule, good, bad) in rows {
        let schema = whole(object(documented(), json!([{"rule": rule}])));
        assert_eq!(check(&schema, &json!({"spec": good}), None), Vec::<String>::new(), "{rule}");
        let failed = format!("spec: Invalid value: failed rule: {rule}");
        assert_eq!(check(&schema, &json!({"spec": bad}), None), [failed], "{rule}");
    }
}

#[test]
fn transitions_are_checked_where_there_is_an_old_value() {
    let texts = json!({"type": "string", "maxLength": 10});
    let immutable = json!([{"rule": "self == oldSelf", "message": "is immutable"}]);
    let schema = whole(json!({"type": "object", "properties": {
        "fixed": {"type": "string", "maxLength": 10, "x-kubernetes-validations": immutable},
        "grows": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": true,
             "messageExpression": "'%d is less than %d'.format([self, oldSelf.orValue(0)])"}]},
        "ports": {
            "type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {
                "name": texts, "port": {"type": "integer", "x-kubernetes-validations": immutable}}},
        },
        "labels": {"type": "object", "maxProperties": 5, "additionalProperties":
            {"type": "string", "maxLength": 10, "x-kubernetes-validations": immutable}},
    }}));
    let rows = [
        (json!({"fixed": "a"}), None, vec![]),
        (json!({"fixed": "a"}), Some(json!({})), vec![]),
        (json!({"fixed": "a"}), Some(json!({"fixed": "a"})), vec![]),
        (
            json!({"fixed": "b"}),
            Some(json!({"fixed": "a"})),
            vec!["spec.fixed: Invalid value: \"b\": is immutable"],
        ),
        (json!({"grows": 1}), None, vec![]),
        (
            json!({"grows": 1}),
            Some(json!({"grows": 2})),
            vec!["spec.grows: Invalid value: 1: 1 is less than 2"],
        ),
        (
            json!({"ports": [{"name": "b", "port": 2}, {"name": "a", "port": 3}, {"name": "c", "port": 4}]}),
            Some(json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]})),
            vec!["spec.ports[1].port: Invalid value: 3: is immutable"],
        ),
        (
            json!({"labels": {"a": "2", "b": "1"}}),
            Some(json!({"labels": {"a": "1"}})),
            vec!["spec.labels[a]: Invalid value: \"2\": is immutable"],
        ),
    ];
    for (new, old, expect) in rows {
        let old = old.map(|spec| json!({"spec": spec}));
        assert_eq!(check(&schema, &json!({"spec": new}), old.as_ref()), expect, "{new} {old:?}");
    }
}

#[test]
fn what_was_stored_before_its_rule_may_stay() {
    let schema = whole(json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]},
        "b": {"type": "integer"},
        "list": {"type": "array", "maxItems": 5,
            "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]}},
    }}));
    let old = json!({"spec": {"a": 1, "b": 1, "list": [1]}});
    let rows = [
        (json!({"a": 1, "b": 2, "list": [1]}), vec![]),
        (json!({"a": 2, "b": 1, "list": [1]}), vec!["spec.a: Invalid value: 2: failed rule: self > 5"]),
        // Items of a list without keys are those of the old list only where all are.
        (json!({"a": 1, "list": [1, 6]}), vec!["spec.list[0]: Invalid value: 1: failed rule: self > 5"]),
    ];
    for (new, expect) in rows {
        assert_eq!(check(&schema, &json!({"spec": new}), Some(&old)), expect, "{new}");
    }
}

#[test]
fn errors_say_what_and_where() {
    let properties = json!({"a": {"type": "integer"}, "m": {"type": "object", "additionalProperties": {"type": "string"}}});
    let rows = [
        (json!({"rule": "self.a > 1", "message": " too small "}), "spec: Invalid value: too small"),
        (json!({"rule": "self.a > 1", "fieldPath": ".a"}), "spec.a: Invalid value: failed rule: self.a > 1"),
        (
            json!({"rule": "self.a > 1", "fieldPath": "['a']", "reason": "FieldValueRequired", "message": "m"}),
            "spec.a: Required value: m",
        ),
        (
            json!({"rule": "self.a > 1", "fieldPath": ".m.k", "reason": "FieldValueForbidden", "message": "m"}),
            "spec.m[k]: Forbidden: m",
        ),
        (json!({"rule": "self.a > 1", "reason": "FieldValueDuplicate"}), "spec: Duplicate value"),
        (
            json!({"rule": "self.a > 1", "messageExpression": "'a is ' + string(self.a)"}),
            "spec: Invalid value: a is 1",
        ),
        (
            json!({"rule": "self.a > 1", "messageExpression": "'a is ' + string(1 / (self.a - 1))", "message": "m"}),
            "spec: Invalid value: m",
        ),
        (
            json!({"rule": "self.a > 1", "messageExpression": "' '"}),
            "spec: Invalid value: failed rule: self.a > 1",
        ),
        (
            json!({"rule": "self.m['k'] == ''"}),
            "spec: Invalid value: \"object\": no such key: k evaluating rule: self.m['k'] == ''",
        ),
        (
            json!({"rule": "1 / (self.a - 1) == 1", "message": "m"}),
            "spec: Invalid value: \"object\": division by zero evaluating rule: m",
        ),
        (
            json!({"rule": "dyn(self.a).b == 1"}),
            "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: dyn(self.a).b == 1",
        ),
    ];
    for (rule, expect) in rows {
        let schema = whole(object(properties.clone(), json!([rule])));
        assert_eq!(check(&schema, &json!({"spec": {"a": 1, "m": {}}}), None), [expect], "{rule}");
    }
}

#[test]
fn resources_have_names() {
    let rule = json!([{"rule": "self.metadata.name.startsWith(self.kind) && self.apiVersion != ''"}]);
    let mut schema = object(json!({"spec": {"type": "object"}}), rule.clone());
    let web = json!({"apiVersion": "v1", "kind": "web", "metadata": {"name": "web-1", "labels": {}}});
    assert_eq!(check(&schema, &web, None), Vec::<String>::new());
    let other = json!({"apiVersion": "v1", "kind": "web", "metadata": {"name": "db"}});
    let expect =
        format!("<nil>: Invalid value: failed rule: {}", rule[0]["rule"].as_str().unwrap_or_default());
    assert_eq!(check(&schema, &other, None), std::slice::from_ref(&expect));
    // Nothing else of the metadata is there.
    schema["x-kubernetes-validations"][0]["rule"] = json!("has(self.metadata.labels)");
    assert!(compile(&schema).1[0].contains("undefined field 'labels'"));
    let mut embedded = object(json!({}), rule);
    embedded["x-kubernetes-embedded-resource"] = json!(true);
    let schema = whole(embedded);
    assert_eq!(check(&schema, &json!({"spec": other}), None), [expect.replace("<nil>", "spec")]);
}

#[test]
fn wrong_rules_are_refused() {
    let list = json!({"type": "array", "maxItems": 5, "items": {
        "type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let any = json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}}});
    let at = format!("{PATH}.properties[spec]");
    let rule = |rule: Json| whole(object(json!({"a": {"type": "integer"}, "any": any}), json!([rule])));
    let shown = |rule: &str| {
        format!(
            "apiextensions.ValidationRule{{Rule:{rule:?}, Message:\"\", MessageExpression:\"\", \
             Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:\"\", OptionalOldSelf:(*bool)(nil)}}"
        )
    };
    let budget = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let rows = [
        (
            rule(json!({"rule": "self.b > 1"})),
            format!(
                "rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b > 1\n | ....^",
                shown("self.b > 1")
            ),
        ),
        (rule(json!({"rule": "self.a"})), format!("rule: Invalid value: {}: cel expression must evaluate to a bool", shown("self.a"))),
        (rule(json!({"rule": " "})), "rule: Required value: rule is not specified".to_owned()),
        (rule(json!({"rule": "true", "message": "a\nb"})), "message: Invalid value: \"a\\nb\": must not contain line breaks".to_owned()),
        (rule(json!({"rule": "true\n|| false"})), "message: Required value: message must be specified if rule contains line breaks".to_owned()),
        (rule(json!({"rule": "true", "fieldPath": ".b"})), "fieldPath: Invalid value: \".b\": must be a valid path".to_owned()),
        (
            rule(json!({"rule": "true", "reason": "Other"})),
            "reason: Unsupported value: \"Other\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"".to_owned(),
        ),
        (
            rule(json!({"rule": "self.a > 0", "optionalOldSelf": true})),
            "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule".to_owned(),
        ),
        (
            rule(json!({"rule": "self.any.all(l, l.all(t, t.contains('a')))"})),
            format!("rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {budget}"),
        ),
    ];
    for (schema, expect) in rows {
        // Where a rule is too expensive all rules together are, too.
        let first = compile(&schema).1.into_iter().next();
        assert_eq!(first, Some(format!("{at}.x-kubernetes-validations[0].{expect}")), "{schema}");
    }
    let expect = format!(
        "{at}.items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the \
         uncorrelatable portion of the schema within {at}"
    );
    assert_eq!(compile(&whole(list)).1, [expect]);
}

#[test]
fn estimates_depend_on_what_schemas_bound() {
    let texts = |items: u64, length: u64| json!({"type": "array", "maxItems": items, "items": {"type": "string", "maxLength": length}});
    let rows = [
        ("self.list.all(x, self.list.all(y, x == y))", texts(500, 10), true),
        ("self.list.all(x, self.list.all(y, x == y))", texts(5000, 10), false),
        ("self.list.all(x, x.matches('^[a-z]+$'))", texts(100, 100), true),
        ("self.list.all(x, x.contains(x))", texts(1000, 1000), false),
        (
            "self.list.exists(x, x == 'a')",
            json!({"type": "array", "items": {"type": "string", "maxLength": 10}}),
            true,
        ),
        (
            "self.list.all(x, x.all(y, y > 0))",
            json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
            false,
        ),
        ("size(self.list) < 5", json!({"type": "array", "items": {"type": "string"}}), true),
        ("(has(self.list) ? self.list : []).exists(x, x.contains('/'))", texts(256, 64), true),
        ("(has(self.list) ? self.list : ['/']).exists(x, x.contains(x))", texts(10_000, 1000), false),
    ];
    for (rule, list, is_accepted) in rows {
        let schema = whole(object(json!({"list": list}), json!([{"rule": rule}])));
        let errors = compile(&schema).1;
        assert_eq!(errors.is_empty(), is_accepted, "{rule}: {errors:?}");
    }
    // Within a list without a bound a cheap rule becomes an expensive one.
    let schema = whole(json!({"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self.matches('^a$')"}]}}));
    assert!(compile(&schema).1[0].contains("estimated rule cost exceeds budget by factor of more than 100x"));
    let many: Vec<Json> =
        (0..20).map(|_| json!({"rule": "self.list.all(x, self.list.all(y, x == y))"})).collect();
    let errors = compile(&whole(object(json!({"list": texts(900, 10)}), json!(many)))).1;
    assert!(
        errors.last().is_some_and(
            |last| last.contains("x-kubernetes-validations estimated rule cost total for entire")
        ),
        "{errors:?}"
    );
}

#[test]
fn the_budget_ends_all_rules() {
    let list = json!({"type": "array", "maxItems": 100_000, "items": {"type": "integer"}});
    let rules = json!([
        {"rule": "self.list.all(x, x >= 0)", "message": "cheap"},
        {"rule": "self.list.all(x, x >= 0 || self.list.exists(y, y == x))", "message": "dear"},
        {"rule": "self.list == []", "message": "last"},
    ]);
    let (compiled, _) = compile(&whole(object(json!({"list": list}), rules)));
    let object = json!({"spec": {"list": vec![-1; 50_000]}});
    let mut budget = Budget::default();
    let errors: Vec<String> =
        compiled.check(&object, None, &mut budget).iter().map(FieldError::to_string).collect();
    assert_eq!(errors[0], "spec: Invalid value: cheap");
    assert_eq!(errors[1], "spec: Invalid value: last");
    let object = json!({"spec": {"list": (0..100_000).map(|n| n - 200_000).collect::<Vec<i64>>()}});
    let errors: Vec<String> =
        compiled.check(&object, None, &mut budget).iter().map(FieldError::to_string).collect();
    let expect = "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: dear";
    assert_eq!(errors.last().map(String::as_str), Some(expect), "{errors:?}");
    assert_eq!(budget.remaining(), 0);
    let errors = compiled.check(&object, None, &mut budget);
    assert!(errors[0].message.contains("running out of cost budget"), "{errors:?}");
}
