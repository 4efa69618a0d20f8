//! Formats JSON values as readable YAML that every YAML parser reads the same way.
//!
//! Readers of YAML 1.1, among them `kubectl`, take `yes`, `off`, `1_000` and `12:30` for booleans and numbers, so
//! every string that any reader might take for something else is quoted.

use serde_json::Value;

/// One value as a YAML document, without the line `---`.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut text, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut text, value, 0),
        // A document that is a single string has no parent to be indented from.
        Value::String(s) => {
            string(&mut text, s);
            text.push('\n');
        }
        value => {
            scalar(&mut text, value, 0);
            text.push('\n');
        }
    }
    text
}

/// A mapping or sequence, neither empty, each entry on lines of its own. The caller has indented the first line.
fn block(text: &mut String, value: &Value, indent: usize) {
    let mut first = true;
    let mut start = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                start(text);
                string(text, key);
                text.push(':');
                entry(text, value, indent);
            }
        }
        Value::Array(items) => {
            for item in items {
                start(text);
                text.push('-');
                match item {
                    // The first entry stands beside its hyphen.
                    Value::Object(map) if !map.is_empty() => {
                        text.push(' ');
                        block(text, item, indent + 2);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        text.push(' ');
                        block(text, item, indent + 2);
                    }
                    _ => entry(text, item, indent + 2),
                }
            }
        }
        _ => {}
    }
}

/// What follows a key or a hyphen, to the end of its last line.
fn entry(text: &mut String, value: &Value, indent: usize) {
    // Sequences in a mapping stand below their key, not further in, as Kubernetes' own documents have them.
    let deeper = match value {
        Value::Object(map) if !map.is_empty() => Some(indent + 2),
        Value::Array(items) if !items.is_empty() => Some(indent),
        _ => None,
    };
    match deeper {
        Some(indent) => {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            block(text, value, indent);
        }
        None => {
            text.push(' ');
            scalar(text, value, indent + 2);
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
}

fn scalar(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(s) if fits_block(s) => literal(text, s, indent),
        Value::String(s) => string(text, s),
        // Numbers, booleans, null, [] and {} are the same in JSON.
        other => text.push_str(&other.to_string()),
    }
}

fn string(text: &mut String, s: &str) {
    if is_plain(s) {
        text.push_str(s);
    } else if s.contains('\'') || s.contains(is_odd) {
        text.push('"');
        for c in s.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if is_odd(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => text.push(c),
            }
        }
        text.push('"');
    } else {
        text.push('\'');
        text.push_str(s);
        text.push('\'');
    }
}

/// Characters that have to be escaped: control characters, among them line ends that parsers fold, and the byte order mark.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Whether a string can be written as a literal block (`|`).
fn fits_block(s: &str) -> bool {
    let printable = |c: char| c == '\n' || c == '\t' || !is_odd(c);
    s.trim_end_matches('\n').contains('\n') && !s.starts_with([' ', '\n', '\t']) && s.chars().all(printable)
}

fn literal(text: &mut String, s: &str, indent: usize) {
    // How the string ends: without a line feed, with one, or with several.
    text.push_str(match (s.ends_with('\n'), s.ends_with("\n\n")) {
        (false, _) => "|-\n",
        (true, false) => "|\n",
        (true, true) => "|+\n",
    });
    for line in s.split_inclusive('\n') {
        if line != "\n" {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        text.push_str(line);
    }
    if !s.ends_with('\n') {
        text.push('\n');
    }
}

/// Whether every parser reads the plain scalar `s` as a string.
fn is_plain(s: &str) -> bool {
    const WORDS: [&str; 13] =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity", "none"];
    if is_quantity(s) {
        return true;
    }
    let mut chars = s.chars();
    let (first, second) = (chars.next(), chars.next());
    let starts = match first {
        Some(c) if c.is_alphabetic() || c == '/' || c == '_' || c == '$' => true,
        // Options and paths are not numbers.
        Some('-' | '.') => second.is_some_and(|c| (c.is_alphabetic() || c == '-' || c == '/') && s != "---"),
        _ => false,
    };
    starts
        && !s.ends_with([' ', ':'])
        && !s.contains(": ")
        && !s.contains(" #")
        && !s.contains(is_odd)
        && !WORDS.contains(&s.to_lowercase().trim_start_matches(['-', '.']))
}

/// `100m`, `512Mi`: digits and one of Kubernetes' suffixes, which no reader takes for a number.
fn is_quantity(s: &str) -> bool {
    let suffix = s.trim_start_matches(|c: char| c.is_ascii_digit());
    suffix.len() < s.len() && ["m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&suffix)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_readable() {
        let value = json!({
            "plain": "a b", "path": "/x", "option": "-c", "empty": "", "map": {}, "list": [],
            "yes": "yes", "number": "10", "float": "1e3", "time": "12:30", "octal": "0o7", "dot": ".5", "neg": "-1",
            "colon": "a: b", "comment": "a #b", "quote": "it's", "end": "a:", "null": null, "true": true, "ten": 10,
            "lines": "a\n  b\n", "open": "a\nb", "many": "a\n\nb\n\n", "odd": " a\nb", "tab": "a\tb",
            "nested": [{"a": 1, "b": [1, [2, 3], {"c": "d\ne\n"}]}, [], ["x\ny"]],
        });
        expect![[r#"
            plain: a b
            path: /x
            option: -c
            empty: ''
            map: {}
            list: []
            'yes': 'yes'
            number: '10'
            float: '1e3'
            time: '12:30'
            octal: '0o7'
            dot: '.5'
            neg: '-1'
            colon: 'a: b'
            comment: 'a #b'
            quote: it's
            end: 'a:'
            'null': null
            'true': true
            ten: 10
            lines: |
              a
                b
            open: |-
              a
              b
            many: |+
              a

              b

            odd: " a\nb"
            tab: "a\tb"
            nested:
            - a: 1
              b:
              - 1
              - - 2
                - 3
              - c: |
                  d
                  e
            - []
            - - |-
                  x
                  y
        "#]]
        .assert_eq(&yaml(&value));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let hard = [
            "",
            " ",
            "-",
            "--",
            "---",
            "- a",
            "?",
            "? a",
            "a\n",
            "\n",
            "a\n\n",
            "a\n b\n\n",
            "\ta\nb",
            "!x",
            "&a",
            "*a",
            "%a",
            "@a",
            "`a",
            "[a",
            "{a",
            "|",
            ">",
            "#",
            "~",
            "NO",
            "On",
            "0x1F",
            "1_0",
            "-.inf",
            ".NaN",
            "é\u{85}",
            "a\u{2028}\nb",
            "\u{feff}a",
            "a\u{0}b",
            "a'b\"c\\d",
            "a\r\nb",
            "2001-01-01",
            "...",
            "a:b",
            "100m",
            "5k",
            "k: v",
            "-x: y",
            "$HOME",
            "<<",
            "=",
        ];
        for s in hard {
            for value in
                [json!(s), json!([s]), json!({"k": s}), json!({s: 1}), json!({"a": {"b": [[s], {"c": s}]}})]
            {
                let text = yaml(&value);
                let back: Value =
                    serde_norway::from_str(&text).unwrap_or_else(|e| panic!("{s:?}: {e}\n{text}"));
                assert_eq!(back, value, "{s:?}\n{text}");
            }
        }
    }
}
