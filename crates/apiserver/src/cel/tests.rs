//! The language and its libraries, by tables of expressions.

use serde_json::{Value as Json, json};

use super::cost::CALL_LIMIT;
use super::types::DYN;
use super::*;

fn object() -> Json {
    json!({
        "name": "web", "replicas": 3, "ratio": 1.5, "big": 18_446_744_073_709_551_615_u64, "none": null,
        "list": [1, 2, 3], "names": ["a", "b"], "map": {"a": 1, "b": 2}, "nested": {"list": [{"n": 1}, {"n": 2}]},
        "long": "x".repeat(2000),
    })
}

/// The value as text; errors as they are shown.
fn evaluate(expression: &str, object: &Json) -> String {
    let variables = [("object".to_owned(), DYN.clone())];
    let program = match Program::compile(expression, &variables) {
        Ok(program) => program,
        Err(error) => return error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    let bindings = [Value::read_dyn(object).unwrap_or(Value::Null)];
    match program.evaluate(&bindings, &mut Budget::default()) {
        Ok(value) => show(&value),
        Err(error) => format!("error: {error}"),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(value)) => format!("optional({})", show(value)),
        Value::String(text) => format!("{:?}", &**text),
        Value::Double(n) => format!("{n:?}"),
        Value::Uint(n) => format!("{n}u"),
        Value::Type(name) => (*name).to_owned(),
        Value::List(list) => {
            let items: Vec<String> =
                list.iter().map(|item| item.map_or("?".to_owned(), |item| show(&item))).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entry = |key: Value| {
                let value = value::Key::of(&key).and_then(|key| map.get(&key)).and_then(Result::ok);
                format!("{}: {}", show(&key), value.map_or("?".to_owned(), |value| show(&value)))
            };
            format!("{{{}}}", map.keys().into_iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::Opaque(_) => value.type_name().to_owned(),
        value => library::convert::to_string(value)
            .map_or("?".to_owned(), |v| v.as_str().unwrap_or("?").to_owned()),
    }
}

fn check(rows: &[(&str, &str)]) {
    let object = object();
    let wrong: Vec<String> = rows
        .iter()
        .map(|(expression, expect)| (expression, expect, evaluate(expression, &object)))
        .filter(|(_, expect, is)| **expect != is.as_str())
        .map(|(expression, expect, is)| format!("{expression}\n  is       {is}\n  expected {expect}"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn operators() {
    check(&[
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("1u + 2u", "3u"),
        ("1.5 * 2.0", "3.0"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-(-9223372036854775807 - 1)", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0 > 1e300", "true"),
        ("'a' + 'b'", "\"ab\""),
        ("b'a' + b'b'", "b\"ab\""),
        ("[1] + [2, 3]", "[1, 2, 3]"),
        ("1 < 2 && 1 <= 1 && 2 > 1.5 && 1u >= 1", "true"),
        ("'a' < 'b' && false < true && b'a' < b'b'", "true"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("dyn(1) == dyn(1.0) && dyn(1u) == dyn(1) && dyn(1) != dyn('1')", "true"),
        ("[1, 2] == [1, 2] && [1] != [1, 2] && {'a': 1} == {'a': 1}", "true"),
        ("dyn([1, 2]) == dyn([1.0, 2.0])", "true"),
        ("null == null && dyn(null) != dyn(0)", "true"),
        ("1 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1} && !('b' in {'a': 1})", "true"),
        ("true ? 1 : 2", "1"),
        ("[1, 2][1]", "2"),
        ("[1, 2][2]", "error: index out of bounds: 2"),
        ("[1, 2][-1]", "error: index out of bounds: -1"),
        ("{'a': 1}['a'] + {'a': 1}.a", "2"),
        ("{1: 'a', 2u: 'b', true: 'c'}", "ERROR: <input>:1:10: expected type 'int' but found 'uint'"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("{'a': 1, 'a': 2}", "error: insert failed: key a already exists"),
        ("object.name + string(object.replicas)", "\"web3\""),
        ("object.missing", "error: no such key: missing"),
        ("object.name.missing", "error: no such overload"),
        ("object.name + 1", "error: no such overload"),
        ("object.big", "18446744073709551615u"),
        ("object.nested.list[1].n", "2"),
        ("object.list == [1, 2, 3] && object.map == {'b': 2, 'a': 1}", "true"),
        ("size('é') + size([1]) + size({1: 2}) + size(b'ab') + 'ab'.size()", "7"),
    ]);
}

#[test]
fn errors_are_absorbed_by_what_decides() {
    check(&[
        ("1 / 0 == 1 || true", "true"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", "error: division by zero"),
        ("1 / 0 == 1 || object.missing", "error: division by zero"),
        ("object.name || true", "true"),
        ("object.name && true", "error: no such overload"),
        ("[0, 1].all(x, 1 / x == 2)", "false"),
        ("[0, 1].all(x, 1 / x == 1)", "error: division by zero"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "error: division by zero"),
        ("[0].map(x, 1 / x)", "error: division by zero"),
    ]);
}

#[test]
fn macros() {
    check(&[
        ("has(object.name) && !has(object.missing) && has({'a': 1}.a)", "true"),
        ("has(object.missing.deeper)", "error: no such key: missing"),
        ("has(object)", "ERROR: <input>:1:5: invalid argument to has() macro"),
        ("[1, 2].all(x, x > 0) && ![1, 2].all(x, x > 1) && [].all(x, false)", "true"),
        ("[1, 2].exists(x, x > 1) && ![].exists(x, true)", "true"),
        ("[1, 2].exists_one(x, x > 1) && ![1, 2].existsOne(x, x > 0)", "true"),
        ("[1, 2].map(x, x * 2)", "[2, 4]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x % 2 == 1)", "[1, 3]"),
        ("{'a': 1, 'b': 2}.all(k, k < 'c')", "true"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[\"a\", \"b\"]"),
        ("object.map.exists(k, object.map[k] == 2)", "true"),
        ("[[1, 2], [3]].map(l, l.map(x, x + l[0]))", "[[2, 3], [6]]"),
        ("[1].map(x, [2].map(x, x))", "[[2]]"),
        ("['a'].all(i, v, i == 0 && v == 'a')", "true"),
        ("object.map.all(k, v, object.map[k] == v)", "true"),
        ("['a', 'b'].exists(i, v, i == 1 && v == 'b') && ['a'].existsOne(i, v, i == 0)", "true"),
        ("['a', 'b'].transformList(i, v, string(i) + v)", "[\"0a\", \"1b\"]"),
        ("['a', 'b'].transformList(i, v, i > 0, v)", "[\"b\"]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\": 2}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, k != 'a', v)", "{\"b\": 2}"),
        ("['a', 'b'].transformMapEntry(i, v, {v: i})", "{\"a\": 0, \"b\": 1}"),
        ("['a', 'a'].transformMapEntry(i, v, {v: i})", "error: insert failed: key a already exists"),
        ("[1].all(x + 1, true)", "ERROR: <input>:1:11: argument must be a simple name"),
        ("[1].all(x, x, true)", "ERROR: <input>:1:12: duplicate variable name: x"),
        (
            "'a'.all(x, true)",
            "ERROR: <input>:1:1: expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("'tacocat'.charAt(3) + 'tacocat'.charAt(7)", "\"o\""),
        ("'tacocat'.charAt(8)", "error: index out of range: 8"),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('jello')", "-1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.indexOf('ello', 20)", "error: index out of range: 20"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'éa'.indexOf('a')", "1"),
        ("['x', 'y'].join() + ['x', 'y'].join('-')", "\"xyx-y\""),
        ("'TacoCÆt'.lowerAscii() + 'TacoCÆt'.upperAscii()", "\"tacocÆtTACOCÆT\""),
        ("'hello hello'.replace('he', 'we')", "\"wello wello\""),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        ("'hello hello'.replace('he', 'we', 0)", "\"hello hello\""),
        ("'ab'.replace('', '-')", "\"-a-b-\""),
        ("'a b c'.split(' ')", "[\"a\", \"b\", \"c\"]"),
        ("'a b c'.split(' ', 2)", "[\"a\", \"b c\"]"),
        ("'a b c'.split(' ', 0)", "[]"),
        ("'abc'.split('')", "[\"a\", \"b\", \"c\"]"),
        ("'tacocat'.substring(4) + 'tacocat'.substring(0, 4)", "\"cattaco\""),
        ("'tacocat'.substring(4, 3)", "error: invalid substring range. start: 4, end: 3"),
        ("' \\ttrim\\n '.trim()", "\"trim\""),
        ("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", "true"),
        ("strings.quote('a\"b\\n')", "\"\\\"a\\\\\\\"b\\\\n\\\"\""),
        (
            "'%s is %d, %.2f, %e, %b, %x, %X, %o%%'.format(['a', 5, 1.0, 1234.5, 5, 255, 255, 8])",
            "\"a is 5, 1.00, 1.234500e+03, 101, ff, FF, 10%\"",
        ),
        ("'%s %s %s'.format([[1, 'a'], {'k': 1.5}, true])", "\"[1, \\\"a\\\"] {\\\"k\\\":1.500000} true\""),
        ("'%s %s'.format([duration('90s'), null])", "\"90s null\""),
        (
            "'%d'.format(['a'])",
            "error: error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%s'.format([])", "error: error during formatting: index 0 out of range"),
        (
            "'%q'.format(['a'])",
            "error: error during formatting: could not parse formatting clause: unrecognized formatting clause \"q\"",
        ),
        ("'abc'.matches('^a.c$') && !'abc'.matches('^b') && matches('abc', 'b')", "true"),
        ("'abc'.matches('(')", "ERROR: <input>:1:15: invalid matches argument"),
        ("'abc'.matches(object.name + '(')", "error: error parsing regexp: unclosed group: `web(`"),
        ("'123 abc 456'.find('[0-9]+') + 'x'.find('y')", "\"123\""),
        ("'123 abc 456'.findAll('[0-9]+')", "[\"123\", \"456\"]"),
        ("'123 abc 456'.findAll('[0-9]+', 1)", "[\"123\"]"),
    ]);
}

#[test]
fn lists_and_sets() {
    check(&[
        ("[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [].isSorted()", "true"),
        ("[1, 3].sum() + [].sum()", "4"),
        ("[1.0, 0.5].sum()", "1.5"),
        ("[1, 3].min() + [1, 3].max()", "4"),
        ("[].min()", "error: min called on empty list"),
        ("[1, 2, 2, 3].indexOf(2) + [1, 2, 2, 3].lastIndexOf(2)", "3"),
        ("['a'].indexOf('b')", "-1"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2, 3]"),
        ("[1].slice(0, 2)", "error: cannot slice(0, 2), list is length 1"),
        ("[1, 2].reverse()", "[2, 1]"),
        ("[2, 1, 2].distinct()", "[2, 1]"),
        ("[[1], [1], [2]].distinct()", "[[1], [2]]"),
        ("dyn([1, [2, [3]]]).flatten()", "ERROR: <input>:1:9: expected type 'int' but found 'list(int)'"),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("[{'n': 2}, {'n': 1}].sortBy(e, e.n).map(e, e.n)", "[1, 2]"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        ("[].first()", "none"),
        ("sets.contains([1, 2], [2]) && !sets.contains([1], [2]) && sets.contains([1], [])", "true"),
        ("sets.equivalent([1, 2, 2], [2, 1]) && !sets.equivalent([1], [1, 2])", "true"),
        ("sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], [2])", "true"),
    ]);
}

#[test]
fn optionals() {
    check(&[
        ("object.?name", "optional(\"web\")"),
        ("object.?missing.deeper", "none"),
        ("object.?nested.list", "optional([{\"n\": 1}, {\"n\": 2}])"),
        ("object.?missing.orValue('x') + object.?name.orValue('x')", "\"xweb\""),
        ("object.?name.orValue(string(1 / 0))", "\"web\""),
        ("object[?'name'].value() + [1][?3].or(optional.of(4)).optMap(x, string(x)).value()", "\"web4\""),
        ("optional.none().hasValue() || optional.of(1).hasValue()", "true"),
        ("optional.ofNonZeroValue('')", "none"),
        ("optional.ofNonZeroValue(1)", "optional(1)"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("[1, ?object.?missing, ?optional.of(2)]", "[1, 2]"),
        ("{'a': 1, ?'b': optional.none(), ?'c': optional.of(3)}", "{\"a\": 1, \"c\": 3}"),
        ("optional.of(1).optFlatMap(x, optional.of(x + 1))", "optional(2)"),
        ("optional.of(1) == optional.of(1) && optional.none() != optional.of(1)", "true"),
        ("has(object.?nested.list)", "true"),
        ("optional.unwrap([optional.of(1), optional.none()])", "[1]"),
    ]);
}

#[test]
fn conversions_and_time() {
    check(&[
        ("int('5') + int(5.9) + int(5u) + int(duration('5ns'))", "20"),
        ("int('x')", "error: type conversion error from 'string' to 'int'"),
        ("int(1e300)", "error: integer overflow"),
        ("uint(5) + uint('5')", "10u"),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("double('1.5') + double(1)", "2.5"),
        (
            "string(1.5) + string(1e100) + string(true) + string(b'x') + string(1e-7)",
            "\"1.51e+100truex1e-07\"",
        ),
        ("bool('true') && !bool('0')", "true"),
        ("bytes('a')", "b\"a\""),
        ("type(1) == int && type('a') == string && type([]) == list && type(null) == null_type", "true"),
        ("type(duration('1s')) == google.protobuf.Duration && type(int) == type", "true"),
        ("duration('1h30m') + duration('-1.5s')", "5398.5s"),
        (
            "duration('1h').getMinutes() + duration('1h').getHours() + duration('1500ms').getMilliseconds()",
            "561",
        ),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument"),
        ("duration(object.name)", "error: time: invalid duration \"web\""),
        ("timestamp('2026-01-02T03:04:05Z') + duration('1h')", "2026-01-02T04:04:05Z"),
        ("timestamp('2026-01-02T03:04:05Z') - timestamp('2026-01-02T03:04:00Z')", "5s"),
        ("timestamp('2026-01-02T03:04:05Z').getFullYear()", "2026"),
        ("timestamp('2026-01-02T03:04:05Z').getMonth() + timestamp('2026-01-02T03:04:05Z').getDate()", "2"),
        ("timestamp('2026-01-02T03:04:05Z').getDayOfWeek()", "5"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('-08:00')", "19"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('02:00')", "5"),
        ("timestamp('2026')", "ERROR: <input>:1:11: invalid timestamp argument"),
        ("int(timestamp(5)) + 0", "5"),
        ("timestamp('2026-01-02T03:04:05Z') < timestamp('2026-01-02T03:04:06Z')", "true"),
    ]);
}

#[test]
fn kubernetes_libraries() {
    check(&[
        (
            "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('50k').isLessThan(quantity('50M'))",
            "true",
        ),
        ("quantity('200M').compareTo(quantity('0.2G')) + quantity('1').compareTo(quantity('2'))", "-1"),
        (
            "quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').sub(20000) == quantity('30k')",
            "true",
        ),
        ("quantity('50000000G').isInteger() && !quantity('1.5').isInteger()", "true"),
        ("quantity('50k').asInteger()", "50000"),
        ("quantity('1.5').asInteger()", "error: cannot convert value to integer"),
        ("quantity('50.703k').asApproximateFloat()", "50703.0"),
        ("sign(quantity('-1')) + quantity('2').sign()", "0"),
        ("isQuantity('1.3G') && !isQuantity('1.3 G') && !isQuantity('x')", "true"),
        ("url('https://example.com:80/path?k1=a&k2=b').getHost()", "\"example.com:80\""),
        ("url('https://[::1]:80/').getHostname() + url('https://[::1]:80/').getPort()", "\"::180\""),
        (
            "url('https://example.com/path?k1=a&k1=c&k2=b%20b').getQuery()",
            "{\"k1\": [\"a\", \"c\"], \"k2\": [\"b b\"]}",
        ),
        ("url('/p q').getEscapedPath() + url('https://e.com').getScheme()", "\"/p%20qhttps\""),
        ("isURL('https://a/b') && isURL('/a') && !isURL('../a')", "true"),
        (
            "isIP('10.0.0.1') && isIP('::1') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0') && !isIP('x')",
            "true",
        ),
        ("ip('::1').family() + ip('10.0.0.1').family()", "10"),
        ("ip.isCanonical('::1') && !ip.isCanonical('0:0:0:0:0:0:0:1')", "true"),
        (
            "ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified() && ip('224.0.0.1').isLinkLocalMulticast()",
            "true",
        ),
        ("ip('169.254.1.1').isLinkLocalUnicast() && ip('192.168.0.1').isGlobalUnicast()", "true"),
        ("string(ip('::1')) + string(cidr('10.0.0.0/8'))", "\"::110.0.0.0/8\""),
        (
            "cidr('192.168.0.0/24').containsIP('192.168.0.1') && cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))",
            "true",
        ),
        (
            "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && !cidr('10.0.0.0/24').containsCIDR(cidr('10.0.0.0/8'))",
            "true",
        ),
        (
            "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24') && cidr('192.168.0.1/24').prefixLength() == 24",
            "true",
        ),
        (
            "cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && isCIDR('::/0') && !isCIDR('10.0.0.0/08')",
            "true",
        ),
        ("format.dns1123Label().validate('my-name').hasValue()", "false"),
        ("!format.dns1123Label().validate('My').value().isSorted()", "false"),
        ("format.named('uuid').value().validate('6ba7b810-9dad-11d1-80b4-00c04fd430c8')", "none"),
        ("format.named('x')", "none"),
        ("format.datetime().validate('2026-01-02').hasValue()", "true"),
        ("format.dns1123LabelPrefix().validate('a-')", "none"),
    ]);
}

#[test]
fn wrong_expressions_are_refused() {
    check(&[
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        (
            "'a'.size(1)",
            "ERROR: <input>:1:9: found no matching overload for 'size' applied to 'string.(int)'",
        ),
        ("1 == 1.0", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'"),
        ("1 == null", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, null)'"),
        ("x", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')"),
        ("f(1)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')"),
        ("'a'.f()", "ERROR: <input>:1:6: undeclared reference to 'f' (in container '')"),
        ("Foo{a: 1}", "ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("1 && true", "ERROR: <input>:1:1: expected type 'bool' but found 'int'"),
        (
            "true ? 1 : 'a'",
            "ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'",
        ),
        ("'a'.b", "ERROR: <input>:1:4: type 'string' does not support field selection"),
        (
            "[1]['a']",
            "ERROR: <input>:1:4: found no matching overload for '_[_]' applied to '(list(int), string)'",
        ),
        ("[1].filter(x, x)", "ERROR: <input>:1:15: expected type 'bool' but found 'int'"),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
        ("99999999999999999999", "ERROR: <input>:1:1: invalid int literal"),
        (
            "",
            "ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
    ]);
    let report = Program::compile("'é' == 1 ||\n\tx.y", &[]).err().map(|e| e.0).unwrap_or_default();
    assert!(report.starts_with("ERROR: <input>:1:5: found no matching overload"), "{report}");
    assert!(
        report.contains("ERROR: <input>:2:2: undeclared reference to 'x' (in container '')\n |  x.y\n | .^"),
        "{report}"
    );
}

#[test]
fn deep_and_long_expressions_are_refused() {
    let nested = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    let rows = [
        nested("(", "1", ")", 5000),
        nested("[", "1", "]", 5000),
        nested("[", "1", "]", 20),
        nested("[1].all(x, ", "true", ")", 150),
        format!("1{}", " + 1".repeat(3000)),
        format!("object{}", ".a".repeat(8000)),
        format!("object{}", "[0]".repeat(5000)),
        format!("[1]{}", ".map(x, x)".repeat(200)),
        format!("{}1", "true ? 1 : ".repeat(1000)),
        "x".repeat(20_000),
    ];
    for row in rows {
        let is = evaluate(&row, &Json::Null);
        assert!(is.contains("limit") || is.contains("levels deep"), "{:.40}: {is}", row);
    }
    // Terms of one operator need no depth.
    assert_eq!(evaluate(&format!("true{}", " && true".repeat(1000)), &Json::Null), "true");
    assert_eq!(evaluate(&format!("1{}", " + 1".repeat(90)), &Json::Null), "91");
    assert_eq!(evaluate(&nested("[", "1", "].map(x, x)", 10), &Json::Null), "[[[[[[[[[[1]]]]]]]]]]");
}

#[test]
fn no_expression_costs_more_than_it_may() {
    const LIMIT: &str = "error: operation cancelled: actual cost limit exceeded";
    let items: Vec<i64> = (0..2000).collect();
    let object = json!({"items": items, "long": "a".repeat(1 << 20), "texts": vec!["a".repeat(1000); 1000]});
    let doubling = format!("['a']{}[0].size()", ".map(x, x + x)".repeat(60));
    let rows = [
        "object.items.all(a, object.items.all(b, object.items.all(c, a + b + c >= 0)))".to_owned(),
        "object.items.map(a, object.items.map(b, a * b)).size()".to_owned(),
        "object.items.filter(a, object.items.exists(b, b < 0)).size()".to_owned(),
        "object.items.all(a, object.long.size() > 0)".to_owned(),
        "object.items.all(a, object.long == object.long + '')".to_owned(),
        "object.items.all(a, !object.long.matches('^(a|b)*c$'))".to_owned(),
        "object.items.all(a, object.long.split('').size() > 0)".to_owned(),
        "object.items.all(a, object.long.replace('a', 'bb') != '')".to_owned(),
        "object.items.all(a, object.texts.join(',') != '')".to_owned(),
        "object.items.all(a, '%s'.format([object.texts]) != '')".to_owned(),
        "object.items.all(a, object.items + object.items + object.items + object.items != [])".to_owned(),
        "object.items.all(a, object.items == object.items)".to_owned(),
        "object.items.all(a, -1 in object.items || true)".to_owned(),
        "sets.equivalent(object.items, object.items)".to_owned(),
        "object.items.all(a, object.items.all(b, ''.matches(string(a) + '[a-z]{1,200}') || true))".to_owned(),
        "object.items.all(a, !object.long.matches('a[ab]{900}c'))".to_owned(),
        "object.items.all(a, ''.matches(string(a) + '\\\\pL{1,60}') || true)".to_owned(),
        "object.items.all(a, object.items.sort().size() > 0)".to_owned(),
        "object.items.map(a, [a]).map(a, [a, a]).distinct().size()".to_owned(),
        "lists.range(100000000).size()".to_owned(),
        "'%.1000f'.format([1.0]).replace('0', 'a').replace('a', object.long).size()".to_owned(),
        // Text that doubles.
        doubling,
        // Lists that share their items: small, until they are walked through.
        format!("['a']{} == ['b']", ".map(x, [x, x])".repeat(8))
            .replace("['a']", "[dyn('a')]")
            .replace("['b']", "[dyn('b')]"),
        format!("'%s'.format([[dyn('a')]{}]).size()", ".map(x, dyn([x, x]))".repeat(60)),
        format!("[dyn('a')]{0} == [dyn('a')]{0}", ".map(x, dyn([x, x]))".repeat(60)),
    ];
    for row in rows {
        let start = std::time::Instant::now();
        let is = evaluate(&row, &object);
        let took = start.elapsed();
        assert!(is == LIMIT || is == "false", "{row}: {is}");
        // Far more than it takes in a debug build; what is not charged takes minutes.
        assert!(took.as_secs() < 20, "{row}: {took:?}");
    }
}

#[test]
fn the_budget_is_of_all_evaluations() {
    let program = Program::compile("[1, 2, 3].all(x, x > 0)", &[]).unwrap_or_else(|e| panic!("{e}"));
    let mut budget = Budget::new(100);
    let mut evaluations = 0;
    while program.evaluate(&[], &mut budget).is_ok() {
        evaluations += 1;
    }
    assert!((2..10).contains(&evaluations), "{evaluations}");
    assert_eq!(program.evaluate(&[], &mut budget).err(), Some(EvalError::BudgetExhausted));
    let endless = Program::compile("lists.range(10000000).size() > 0", &[]).unwrap_or_else(|e| panic!("{e}"));
    let mut budget = Budget::default();
    assert_eq!(endless.evaluate(&[], &mut budget).err(), Some(EvalError::CostLimit));
    assert!(budget.remaining() < cost::REQUEST_LIMIT - CALL_LIMIT);
}
