use expect_test::{Expect, expect};

use super::{Node, Value, read};
use crate::source::Source;

/// A tree on few lines: each value with the place where it begins.
fn shown(node: &Node, out: &mut String, indent: usize) {
    let at = format!("{}:{}", node.at.line, node.at.column);
    let tag = node.tag.as_ref().map(|t| format!(" {t:?}")).unwrap_or_default();
    match &node.value {
        Value::Scalar(s) => {
            out.push_str(&format!("{:?} = {:?} @{at}{tag}\n", s.text, node.meaning().unwrap()))
        }
        Value::Sequence(items) => {
            out.push_str(&format!("list @{at}{tag}\n"));
            for item in items {
                out.push_str(&format!("{:indent$}- ", "", indent = indent + 2));
                shown(item, out, indent + 2);
            }
        }
        Value::Mapping(entries) => {
            out.push_str(&format!("mapping @{at}{tag}\n"));
            for (key, entry) in entries {
                let place = format!("{}:{}", entry.at.line, entry.at.column);
                out.push_str(&format!("{:indent$}{key:?} @{place}: ", "", indent = indent + 2));
                shown(&entry.value, out, indent + 2);
            }
        }
    }
}

fn source(text: &str) -> Source {
    Source { path: std::path::Path::new("f").into(), text: text.into() }
}

fn check(text: &str, expect: Expect) {
    let mut out = String::new();
    match read(&source(text)) {
        Ok(documents) => documents.iter().for_each(|d| shown(d, &mut out, 0)),
        Err(mistakes) => out.push_str(&mistakes.to_string()),
    }
    expect.assert_eq(&out);
}

#[test]
fn places() {
    check(
        "a:\n  b: [1, 'x']\n  \"c\": |\n    t\n\nd: # note\n  - e: f\n  - g\n",
        expect![[r#"
            mapping @1:1
              "a" @1:1: mapping @2:3
                "b" @2:3: list @2:6
                  - "1" = Int(1) @2:7
                  - "x" = Text @2:10
                "c" @3:3: "t\n" = Text @4:5
              "d" @6:1: list @7:3
                - mapping @7:5
                  "e" @7:5: "f" = Text @7:8
                - "g" = Text @8:5
        "#]],
    );
    check(
        "a: 1\n---\nb: 2\n...\n---\n# nothing\n",
        expect![[r#"
            mapping @1:1
              "a" @1:1: "1" = Int(1) @1:4
            mapping @3:1
              "b" @3:1: "2" = Int(2) @3:4
            "" = Null @5:4
        "#]],
    );
    check("", expect![[""]]);
    check(
        "\u{feff}a: é\r\nbé: c\r\n",
        expect![[r#"
        mapping @1:1
          "a" @1:1: "é" = Text @1:4
          "bé" @2:1: "c" = Text @2:5
    "#]],
    );
}

#[test]
fn anchors_and_merges() {
    check(
        "x: &x {a: 1, b: 2}\ny: &y\n  b: 3\n  c: 4\nz:\n  <<: [*x, *y]\n  a: 0\nw: {<<: *y}\n",
        expect![[r#"
            mapping @1:1
              "x" @1:1: mapping @1:7
                "a" @1:8: "1" = Int(1) @1:11
                "b" @1:14: "2" = Int(2) @1:17
              "y" @2:1: mapping @3:3
                "b" @3:3: "3" = Int(3) @3:6
                "c" @4:3: "4" = Int(4) @4:6
              "z" @5:1: mapping @6:3
                "a" @7:3: "0" = Int(0) @7:6
                "b" @1:14: "2" = Int(2) @1:17
                "c" @4:3: "4" = Int(4) @4:6
              "w" @8:1: mapping @8:4
                "b" @3:3: "3" = Int(3) @3:6
                "c" @4:3: "4" = Int(4) @4:6
        "#]],
    );
    check("a: *b\n", expect!["f:1:4: is not YAML: while parsing node, found unknown anchor"]);
    check("a: &a [*a]\n", expect!["f:1:8: is an alias within its own anchor, which never ends"]);
    check(
        "a:\n  <<: 1\n  b: 2\n  b: 3\n",
        expect![[r#"
        f:2:7: << takes a mapping or a list of mappings, such as <<: *name
        f:4:3: "b" is a duplicate key: it is already in line 3"#]],
    );
    check("? [a]\n: b\n", expect!["f:1:3: a list or mapping cannot be a key here: write text"]);
}

#[test]
fn meanings() {
    check(
        "- yes\n- True\n- ~\n-\n- 010\n- 0o10\n- 0x1F\n- 1_000\n- 08\n- 1e3\n- .5\n- 1.2.3\n- 0.0.0.0\n- 22:22\n- '1'\n- !!str 1\n- !reset null\n- !override [a]\n- !x y\n- -.inf\n- 2020-01-02\n- 99999999999999999999\n- +1\n- -\n- 0b2\n- 1__\n",
        expect![[r#"
            list @1:1
              - "yes" = Text @1:3
              - "True" = Bool(true) @2:3
              - "~" = Null @3:3
              - "" = Null @4:2
              - "010" = Int(8) @5:3
              - "0o10" = Int(8) @6:3
              - "0x1F" = Int(31) @7:3
              - "1_000" = Int(1000) @8:3
              - "08" = Float(8.0) @9:3
              - "1e3" = Float(1000.0) @10:3
              - ".5" = Float(0.5) @11:3
              - "1.2.3" = Text @12:3
              - "0.0.0.0" = Text @13:3
              - "22:22" = Text @14:3
              - "1" = Text @15:3
              - "1" = Text @16:9 Text
              - "null" = Null @17:10 Reset
              - list @18:13 Override
                - "a" = Text @18:14
              - "y" = Text @19:6 Other("!x")
              - "-.inf" = Float(-inf) @20:3
              - "2020-01-02" = Text @21:3
              - "99999999999999999999" = Float(1e20) @22:3
              - "+1" = Int(1) @23:3
              - list @24:3
                - "" = Null @24:4
              - "0b2" = Text @25:3
              - "1__" = Int(1) @26:3
        "#]],
    );
}

#[test]
fn mistakes() {
    check("a: b: c\n", expect!["f:1:5: is not YAML: mapping values are not allowed in this context"]);
    check(
        "a:\n\t- b\n",
        expect!["f:2:2: is not YAML: tabs disallowed within this context (block indentation)"],
    );
    check("a: [1, 2\nb: 3\n", expect!["f:2:2: is not YAML: illegal placement of ':' indicator"]);
    check("a: \"b\n", expect!["f:2:1: is not YAML: a quote that is opened above is never closed"]);
    check("a: b\n c: d\n", expect!["f:2:3: is not YAML: mapping values are not allowed in this context"]);
    check(
        "- a\nb: c\n",
        expect!["f:2:1: is not YAML: while parsing a block collection, did not find expected '-' indicator"],
    );
    check("a: %b\nc: @d\n", expect!["f:1:4: is not YAML: unexpected character: `%'"]);
    check("a: \u{0}\n", expect![[r#"f:1:4: is not YAML: unexpected character: `\u{0}'"#]]);
}

/// What Go prints for a number.
#[test]
fn printed() {
    for (text, expected) in [
        ("1.0", "1"),
        ("1.10", "1.1"),
        ("1e21", "1e+21"),
        ("1.5e-7", "1.5e-07"),
        ("123456789012345678901.0", "123456789012345680000"),
        ("0644", "420"),
        ("TRUE", "true"),
        ("'TRUE'", "TRUE"),
        ("on", "on"),
        ("-0x10", "-16"),
    ] {
        let node = read(&source(text)).unwrap().remove(0);
        assert_eq!(node.printed().as_deref(), Some(expected), "{text}");
    }
}

/// What `sigs.k8s.io/yaml` makes of a document.
#[test]
fn kubernetes_json() {
    let text = "a: yes\nb: 'yes'\nc: 0644\nd: ~\n1: on\ny: off\n? 2.5\n: 1.0\ne: 1e3\nf: !!binary aGk=\ng: 18446744073709551615\nh: 012:34\n";
    let node = read(&source(text)).unwrap().remove(0);
    expect![[r#"{"a":true,"b":"yes","c":420,"d":null,"1":true,"true":false,"2.5":1,"e":1000,"f":"hi","g":18446744073709551615,"h":"012:34"}"#]].assert_eq(&node.to_kubernetes_json().unwrap().to_string());
    let infinite = read(&source("a: [.inf]\n")).unwrap().remove(0);
    expect!["f:1:5: is a number that JSON does not have: quote it if it is text"]
        .assert_eq(&infinite.to_kubernetes_json().unwrap_err().to_string());
}

#[test]
fn paths() {
    let node = read(&source("a:\n  - b: 1\n  - c\n")).unwrap().remove(0);
    let place = |path: &[&str]| {
        let at = node.place(path.iter().copied());
        (at.line, at.column)
    };
    assert_eq!(place(&["a"]), (1, 1));
    assert_eq!(place(&["a", "0", "b"]), (2, 5));
    assert_eq!(place(&["a", "1"]), (3, 5));
    assert_eq!(place(&["a", "0", "z", "y"]), (2, 5));
    assert!(node.find(["a", "0", "z"]).is_none());
    assert_eq!(node.find(["a", "1"]).unwrap().printed().as_deref(), Some("c"));
}

#[test]
fn bounds() {
    let laughs: String = (0..40)
        .map(|i| if i == 0 { "a0: &a0 [x]\n".into() } else { format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1) })
        .collect();
    let inputs = [
        (laughs, "repeats more"),
        ("[".repeat(100_000), "nested more"),
        ("{a: ".repeat(100_000), "nested more"),
        ("- ".repeat(100_000), "nested more"),
        ((0..5000).map(|i| format!("{:i$}a:\n", "")).collect(), "nested more"),
        (format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(10_000)), "repeats more"),
    ];
    for (text, expected) in inputs {
        let mistakes = read(&source(&text)).unwrap_err().to_string();
        assert!(mistakes.contains(expected), "{expected}: {mistakes}");
    }
    // Large but plain files are read.
    let long: String = (0..100_000).map(|i| format!("k{i}: [a, b]\n")).collect();
    assert_eq!(read(&source(&long)).unwrap()[0].as_mapping().unwrap().len(), 100_000);
}

/// Between quotes, lines may begin anywhere, as for Go's libraries.
#[test]
fn quoted_lines() {
    check(
        "a:\n  - b: \"c\nd\n\n - e\n---f\"\n    g: 'h\n# i\n  j: k' # l\nm: [\"n\no\", 'p\n\tq']\n",
        expect![[r#"
            mapping @1:1
              "a" @1:1: list @2:3
                - mapping @2:5
                  "b" @2:5: "c d\n- e ---f" = Text @2:8
                  "g" @7:5: "h # i j: k" = Text @7:8
              "m" @10:1: list @10:4
                - "n o" = Text @10:5
                - "p q" = Text @11:5
        "#]],
    );
    check(
        "a: \"b\nc\" d: [\n",
        expect!["f:2:4: is not YAML: invalid trailing content after double-quoted scalar"],
    );
    check("a: 'b\nc'\na: 1\n", expect![[r#"f:3:1: "a" is a duplicate key: it is already in line 1"#]]);
    check("a: \"b\n---\nc\"\n", expect!["f:2:1: is not YAML: a quote that is opened above is never closed"]);
    let open = format!("a: \"{}", "b\n".repeat(20_000));
    assert!(read(&source(&open)).is_err());
    let deep = format!("{}a: 1\nb: \"{}", " ".repeat(900), "b\n".repeat(20_000));
    assert!(read(&source(&deep)).is_err());
}
