//! The canonical form of a unit, which fleet stores and hashes: options grouped by section, without comments.

/// The text of all options in order, grouped by section. Lines that are not options are dropped; [`super::summary`]
/// reports them.
pub fn canonical(text: &str) -> String {
    let mut sections: Vec<(&str, Vec<String>)> = Vec::new();
    let mut current: Option<usize> = None;
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            // A comment that ends in a backslash continues on the next line.
            let mut last = line;
            while last.strip_suffix(' ').unwrap_or(last).ends_with('\\') {
                let Some(next) = lines.next() else { break };
                last = next;
            }
        } else if let Some(header) = trimmed.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or(header);
            let known = sections.iter().position(|(n, _)| *n == name);
            current = Some(known.unwrap_or(sections.len()));
            if known.is_none() {
                sections.push((name, Vec::new()));
            }
        } else if let (Some(current), Some((key, value))) = (current, line.split_once('=')) {
            sections[current].1.push(format!("{}={}", key.trim(), option(value, &mut lines)));
        }
    }
    sections.retain(|(_, options)| !options.is_empty());
    let mut out = String::new();
    for (i, (name, options)) in sections.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        out.push_str(&format!("[{name}]\n"));
        for option in options {
            out.push_str(option);
            out.push('\n');
        }
    }
    out
}

/// A value with its continuation lines, unchanged.
fn option<'a>(first: &'a str, lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut value = String::new();
    let mut line = first;
    loop {
        if line.trim().is_empty() {
            break;
        }
        value.push_str(line);
        if !line.ends_with('\\') {
            break;
        }
        let Some(next) = lines.next() else { break };
        value.push('\n');
        line = next;
    }
    let newline = if value.ends_with('\n') { "\n" } else { "" };
    format!("{}{newline}", value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c08_comments_go_and_sections_come_together() {
        let text = "# c \\\nstill a comment\n[Unit]\n\nDescription = Hello World\n[Service]\nExecStart=/bin/sh \\\n  -c true\r\n\
                    ; x\n[Unit]\nAfter=a.service\nRequires=\n[Empty]\n";
        let expect = "[Unit]\nDescription=Hello World\nAfter=a.service\nRequires=\n\n[Service]\nExecStart=/bin/sh \\\n  -c true\n";
        assert_eq!(canonical(text), expect);
        assert_eq!(canonical(expect), expect);
        assert_eq!(canonical("[a\nb\n=\\"), "[a]\n=\\\n");
    }
}
