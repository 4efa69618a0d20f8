//! Conversion of arbitrary names to valid object names.

use yado_types::names;

/// As many characters as a DNS label has.
const MAX_LABEL: usize = 63;

/// Converts `written` to a DNS label that starts with a letter: lower case, every run of other characters one hyphen. A
/// result longer than `room` (at most 63) characters is cut and ends in a hash of the whole name, so that different names
/// stay different. Empty if `written` has no letter or digit.
pub fn sanitised(written: &str, room: usize) -> String {
    let mut label = String::new();
    for c in written.chars() {
        let c = c.to_ascii_lowercase();
        let keep = c.is_ascii_lowercase() || c.is_ascii_digit();
        if keep || !label.ends_with('-') {
            label.push(if keep { c } else { '-' });
        }
    }
    let label = label.trim_matches('-');
    let label =
        if label.starts_with(|c: char| c.is_ascii_digit()) { format!("app-{label}") } else { label.into() };
    let room = room.min(MAX_LABEL);
    if label.len() <= room {
        return label;
    }
    let sum = format!("{:08x}", fnv(written));
    format!("{}-{sum}", label[..room - sum.len() - 1].trim_end_matches('-'))
}

/// Whether `name` is a valid Service name.
pub fn is_service_name(name: &str) -> bool {
    names::dns_1035_label(name).is_ok()
}

/// FNV-1a of 32 bits: the same on every machine and in every version of the standard library.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, b| (sum ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_dns_labels() {
        let long = "very-long-".repeat(10);
        for (written, room, expect) in [
            ("guestbook", 63, "guestbook"),
            ("My App_2", 63, "my-app-2"),
            ("2048", 63, "app-2048"),
            ("--x--", 63, "x"),
            ("é", 63, ""),
            (&long, 63, "very-long-very-long-very-long-very-long-very-long-very-ebff87b5"),
            (&long, 20, "very-long-v-ebff87b5"),
        ] {
            let label = sanitised(written, room);
            assert_eq!(label, expect, "{written}");
            assert!(label.is_empty() || is_service_name(&label), "{label}");
        }
    }
}
