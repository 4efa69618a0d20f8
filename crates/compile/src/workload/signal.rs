//! Signal names.

/// Signals by number, as on x86 and ARM.
const SIGNALS: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The name of a signal in Kubernetes: `SIGTERM` for `15`, `TERM` and `SIGTERM`; `SIGRTMIN+3` for `RTMIN+3`.
pub(super) fn signal_name(signal: &str) -> Option<String> {
    let upper = signal.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<usize>() {
        return match number {
            34 => Some("SIGRTMIN".into()),
            35..=49 => Some(format!("SIGRTMIN+{}", number - 34)),
            50..=63 => Some(format!("SIGRTMAX-{}", 64 - number)),
            64 => Some("SIGRTMAX".into()),
            _ => SIGNALS.get(number).filter(|s| !s.is_empty()).map(|s| format!("SIG{s}")),
        };
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, most: u8| {
        let offset = bare.strip_prefix(prefix)?;
        let number: u8 = if offset.is_empty() { 0 } else { offset.get(1..)?.parse().ok()? };
        (number <= most).then_some(())
    };
    let alias = matches!(bare, "IOT" | "CLD" | "POLL");
    let known = !bare.is_empty() && SIGNALS.contains(&bare);
    (known || alias || real_time("RTMIN", 15).is_some() || real_time("RTMAX", 14).is_some())
        .then(|| format!("SIG{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_one_name() {
        for (written, name) in [
            ("15", Some("SIGTERM")),
            ("term", Some("SIGTERM")),
            ("SIGQUIT", Some("SIGQUIT")),
            ("RTMIN+3", Some("SIGRTMIN+3")),
            ("37", Some("SIGRTMIN+3")),
            ("SIGNOPE", None),
            ("0", None),
            ("RTMIN+99", None),
        ] {
            assert_eq!(signal_name(written).as_deref(), name, "{written}");
        }
    }
}
