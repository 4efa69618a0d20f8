//! Columns, and formats for programs.

use serde::Serialize;

use crate::args::Format;

/// Rows in columns, each as wide as its widest cell, two spaces apart.
pub fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|r| r[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `value` in a format for programs.
pub fn formatted(value: &impl Serialize, format: Format) -> anyhow::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&value)?),
        Format::Yaml => yado_compile::output::yaml(&value),
    })
}

/// A time span as `kubectl` shows it: `5s`, `3m`, `2h`, `4d`.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [vec!["a".into(), "bbbb".into()], vec!["ccc".into(), String::new()]];
        assert_eq!(columns(&["X", "Y"], &rows), "X    Y\na    bbbb\nccc\n");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, expect) in [(-1, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(seconds), expect);
        }
    }
}
