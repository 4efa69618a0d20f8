//! Environment variables of Docker's legacy container links: a container that links `db:database` gets
//! `DATABASE_PORT_3306_TCP_ADDR` and others. Their addresses are host names here, which stay valid when Pods are replaced.
//!
//! | variable | value |
//! |---|---|
//! | `ALIAS_NAME` | `/OWN/ALIAS` |
//! | `ALIAS_PORT` | the first port, `tcp://ALIAS:3306` |
//! | `ALIAS_PORT_3306_TCP` | `tcp://ALIAS:3306` |
//! | `ALIAS_PORT_3306_TCP_ADDR`, `_PORT`, `_PROTO` | `ALIAS`, `3306`, `tcp` |
//! | `ALIAS_PORT_8000_TCP_START`, `_END`, `_PORT_START`, `_PORT_END` | first and last of consecutive ports |
//! | `ALIAS_ENV_NAME` | the target's own variable `NAME` |

/// Variables of the target that Docker does not pass on.
const NOT_PASSED: [&str; 4] = ["PATH", "HOME", "HOSTNAME", "TERM"];

/// The variables that the container `own` gets for a link named `alias` to a container with these `ports` (number and
/// protocol) and the environment `env`, from which the caller has removed secrets.
pub fn variables<'a>(
    own: &str,
    alias: &str,
    ports: impl IntoIterator<Item = (u16, &'a str)>,
    env: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<(String, String)> {
    let prefix: String =
        alias.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let mut ports: Vec<(u16, String)> =
        ports.into_iter().map(|(port, protocol)| (port, protocol.to_lowercase())).collect();
    // Docker's order: TCP before UDP, then by number.
    ports.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    ports.dedup();
    let mut all = vec![(format!("{prefix}_NAME"), format!("/{own}/{alias}"))];
    if let Some((port, protocol)) = ports.first() {
        all.push((format!("{prefix}_PORT"), format!("{protocol}://{alias}:{port}")));
    }
    for (port, protocol) in &ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        all.push((name.clone(), format!("{protocol}://{alias}:{port}")));
        all.push((format!("{name}_ADDR"), alias.into()));
        all.push((format!("{name}_PORT"), port.to_string()));
        all.push((format!("{name}_PROTO"), protocol.clone()));
    }
    all.extend(ranges(&prefix, alias, &ports));
    for (name, value) in env {
        if !NOT_PASSED.contains(&name) {
            all.push((format!("{prefix}_ENV_{name}"), value.into()));
        }
    }
    all
}

/// Variables for ranges of consecutive ports of one protocol.
fn ranges(prefix: &str, alias: &str, ports: &[(u16, String)]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut place = 0;
    while place < ports.len() {
        let (first, protocol) = &ports[place];
        let mut last = *first;
        while let Some((next, _)) =
            ports.get(place + 1).filter(|(n, p)| p == protocol && n.checked_sub(1) == Some(last))
        {
            last = *next;
            place += 1;
        }
        place += 1;
        if last == *first {
            continue;
        }
        let name = format!("{prefix}_PORT_{first}_{}", protocol.to_uppercase());
        all.push((format!("{name}_START"), format!("{protocol}://{alias}:{first}")));
        all.push((format!("{name}_PORT_START"), first.to_string()));
        all.push((format!("{name}_END"), format!("{protocol}://{alias}:{last}")));
        all.push((format!("{name}_PORT_END"), last.to_string()));
    }
    all
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(alias: &str, ports: &[(u16, &str)], env: &[(&str, &str)], expect: Expect) {
        let lines: Vec<String> = variables("web", alias, ports.iter().copied(), env.iter().copied())
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        expect.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn p03_a_link_gives_the_old_variables() {
        check(
            "db",
            &[(3306, "TCP")],
            &[("MYSQL_ROOT_PASSWORD", "secret"), ("PATH", "/bin")],
            expect![[r#"
                DB_NAME=/web/db
                DB_PORT=tcp://db:3306
                DB_PORT_3306_TCP=tcp://db:3306
                DB_PORT_3306_TCP_ADDR=db
                DB_PORT_3306_TCP_PORT=3306
                DB_PORT_3306_TCP_PROTO=tcp
                DB_ENV_MYSQL_ROOT_PASSWORD=secret"#]],
        );
        check(
            "my-db.1",
            &[(53, "UDP"), (8001, "TCP"), (8000, "TCP")],
            &[],
            expect![[r#"
                MY_DB_1_NAME=/web/my-db.1
                MY_DB_1_PORT=tcp://my-db.1:8000
                MY_DB_1_PORT_8000_TCP=tcp://my-db.1:8000
                MY_DB_1_PORT_8000_TCP_ADDR=my-db.1
                MY_DB_1_PORT_8000_TCP_PORT=8000
                MY_DB_1_PORT_8000_TCP_PROTO=tcp
                MY_DB_1_PORT_8001_TCP=tcp://my-db.1:8001
                MY_DB_1_PORT_8001_TCP_ADDR=my-db.1
                MY_DB_1_PORT_8001_TCP_PORT=8001
                MY_DB_1_PORT_8001_TCP_PROTO=tcp
                MY_DB_1_PORT_53_UDP=udp://my-db.1:53
                MY_DB_1_PORT_53_UDP_ADDR=my-db.1
                MY_DB_1_PORT_53_UDP_PORT=53
                MY_DB_1_PORT_53_UDP_PROTO=udp
                MY_DB_1_PORT_8000_TCP_START=tcp://my-db.1:8000
                MY_DB_1_PORT_8000_TCP_PORT_START=8000
                MY_DB_1_PORT_8000_TCP_END=tcp://my-db.1:8001
                MY_DB_1_PORT_8000_TCP_PORT_END=8001"#]],
        );
        check("x", &[], &[], expect!["X_NAME=/web/x"]);
    }
}
