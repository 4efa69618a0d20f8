//! What Pods say beyond the API's fields: users by name, process limits, links; pure.

use std::collections::BTreeMap;
use std::ffi::OsString;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use yado_oci::image::ImageConfig;
use yado_oci::spec::{Limit, RLIMITS, UNLIMITED};
use yado_types::pod::Restart;
use yado_types::{labels, links};

use crate::environment::ConfigError;

/// The highest number of a user or group. Above it system calls read -1, which leaves the owner as it is.
const MAX_ID: u32 = i32::MAX as u32;

/// As written: one number for both, or each; -1 is no limit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Both(i64),
    Each { soft: i64, hard: i64 },
}

/// The user that a container runs as by name ([`labels::USERS`]).
pub(crate) fn user(pod: &Pod, container: &str) -> Result<Option<String>, ConfigError> {
    let mut users: BTreeMap<String, String> =
        read(pod, labels::USERS, "an object of containers and their users")?;
    Ok(users.remove(container).filter(|user| !user.is_empty()))
}

/// Owners of files of a volume, by their paths in it ([`labels::FILE_OWNERS`]): user and group.
pub(crate) fn file_owners(pod: &Pod, volume: &str) -> Result<BTreeMap<String, (u32, u32)>, ConfigError> {
    let mut volumes: BTreeMap<String, BTreeMap<String, String>> = read(
        pod,
        labels::FILE_OWNERS,
        "an object of volumes and, for each, its files and their owners as UID:GID",
    )?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id <= MAX_ID);
    let owner = |(path, written): (String, String)| {
        let owner = written.split_once(':').and_then(|(user, group)| Some((number(user)?, number(group)?)));
        let Some(owner) = owner else {
            let name = labels::FILE_OWNERS;
            return Err(ConfigError(format!(
                "annotation {name}: the owner \"{written}\" of {path} is not UID:GID, of numbers up to {MAX_ID}"
            )));
        };
        Ok((path, owner))
    };
    volumes.remove(volume).unwrap_or_default().into_iter().map(owner).collect()
}

/// How often a container is run again after it has ended ([`labels::RESTART`]). The Pod's own policy is not looked at.
/// What cannot be read is as if it were not there: the API server takes any annotation, and an app that runs must not
/// end by one.
pub(crate) fn restart(pod: &Pod, container: &str) -> Restart {
    let all: BTreeMap<String, String> = read(pod, labels::RESTART, "").unwrap_or_default();
    all.get(container).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Limits of every process of the Pod ([`labels::ULIMITS`]).
pub(crate) fn limits(pod: &Pod) -> Result<BTreeMap<String, Limit>, ConfigError> {
    let written: BTreeMap<String, Written> = read(
        pod,
        labels::ULIMITS,
        "an object of limits, such as {\"nofile\": {\"soft\": 1024, \"hard\": 2048}}",
    )?;
    let wrong = |what: String| ConfigError(format!("annotation {}: {what}", labels::ULIMITS));
    let limit = |(name, written): (String, Written)| {
        if !RLIMITS.contains(&name.as_str()) {
            return Err(wrong(format!("{name} is not a valid limit; there are {}", RLIMITS.join(", "))));
        }
        let (soft, hard) = match written {
            Written::Both(both) => (both, both),
            Written::Each { soft, hard } => (soft, hard),
        };
        let number = |n: i64| match n {
            -1 => Ok(UNLIMITED),
            n => u64::try_from(n)
                .map_err(|_| wrong(format!("{name}: {n} is not a valid amount; -1 means unlimited"))),
        };
        let limit = Limit { soft: number(soft)?, hard: number(hard)? };
        if limit.soft > limit.hard {
            return Err(wrong(format!("{name}: the soft limit {soft} is above the hard one, {hard}")));
        }
        Ok((name, limit))
    };
    written.into_iter().map(limit).collect()
}

/// Containers that a container links, and whose ports only their images know: names to images ([`labels::LINKS`]).
pub(crate) fn links(pod: &Pod, container: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut links: BTreeMap<String, BTreeMap<String, String>> = read(
        pod,
        labels::LINKS,
        "an object of containers and, for each, the names of its links and their images",
    )?;
    Ok(links.remove(container).unwrap_or_default())
}

/// The variables of a link as `alias` to a container of `image`, but for those that are set.
pub(crate) fn linked(env: &mut Vec<(String, OsString)>, alias: &str, image: &ImageConfig) {
    let ports = image.exposed_ports.iter().filter_map(|written| {
        let (port, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
        Some((port.parse().ok()?, protocol))
    });
    let own = image.env.iter().filter_map(|variable| variable.split_once('='));
    for (name, value) in links::variables("", alias, ports, own) {
        if env.iter().all(|(known, _)| *known != name) {
            env.push((name, value.into()));
        }
    }
}

fn read<T: DeserializeOwned + Default>(pod: &Pod, name: &str, what: &str) -> Result<T, ConfigError> {
    let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(name));
    let parsed = text.map(|text| serde_json::from_str(text));
    parsed
        .transpose()
        .map(Option::unwrap_or_default)
        .map_err(|error| ConfigError(format!("annotation {name} is not {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(name: &str, text: &str, expect: Expect) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"annotations": {name: text}}})).expect("a Pod");
        let said = match (limits(&pod), user(&pod, "web")) {
            (Ok(limits), Ok(user)) => {
                let limits = limits.iter().map(|(n, l)| format!("{n} {} {}", l.soft, l.hard));
                format!("{user:?} {:?}", limits.collect::<Vec<_>>())
            }
            (Err(error), _) | (_, Err(error)) => error.to_string(),
        };
        expect.assert_eq(&said);
    }

    /// P03: what a link says of a container whose ports nobody but its image knows.
    #[test]
    fn p03_links_are_told_what_the_image_says() {
        let text = r#"{"app": {"db": "me/dbs"}}"#;
        let pod: Pod = serde_json::from_value(json!({"metadata": {"annotations": {labels::LINKS: text}}}))
            .expect("a Pod");
        assert!(links(&pod, "web").expect("links").is_empty());
        let links = links(&pod, "app").expect("links");
        assert_eq!(links, BTreeMap::from([("db".to_owned(), "me/dbs".to_owned())]));
        let image = ImageConfig {
            exposed_ports: vec!["3306/tcp".into(), "odd".into()],
            env: vec!["PATH=/bin".into(), "MYSQL_VERSION=5.7".into(), "MYSQL_USER=image".into()],
            ..ImageConfig::default()
        };
        let known = [("DB_NAME", "/app/db"), ("DB_ENV_MYSQL_USER", "board")];
        let mut env: Vec<(String, OsString)> = known.map(|(n, v)| (n.to_owned(), v.into())).to_vec();
        linked(&mut env, "db", &image);
        let lines: Vec<String> = env.iter().map(|(n, v)| format!("{n}={}", v.display())).collect();
        expect![[r#"
            DB_NAME=/app/db
            DB_ENV_MYSQL_USER=board
            DB_PORT=tcp://db:3306
            DB_PORT_3306_TCP=tcp://db:3306
            DB_PORT_3306_TCP_ADDR=db
            DB_PORT_3306_TCP_PORT=3306
            DB_PORT_3306_TCP_PROTO=tcp
            DB_ENV_MYSQL_VERSION=5.7"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn annotations_are_read_or_refused_with_a_sentence() {
        check("other", "{", expect!["None []"]);
        check(
            labels::USERS,
            r#"{"web": "www-data:adm", "db": "x"}"#,
            expect![[r#"Some("www-data:adm") []"#]],
        );
        check(labels::USERS, r#"{"db": "x"}"#, expect!["None []"]);
        check(
            labels::USERS,
            "www-data",
            expect![
                "annotation yado.dev/users is not an object of containers and their users: expected value at line 1 column 1"
            ],
        );
        check(
            labels::ULIMITS,
            r#"{"nofile": {"soft": 1024, "hard": 2048}, "nproc": 65535, "memlock": -1, "core": {"soft": 0, "hard": -1}}"#,
            expect![[
                r#"None ["core 0 18446744073709551615", "memlock 18446744073709551615 18446744073709551615", "nofile 1024 2048", "nproc 65535 65535"]"#
            ]],
        );
        check(
            labels::ULIMITS,
            r#"{"files": 1}"#,
            expect![
                "annotation yado.dev/ulimits: files is not a valid limit; there are cpu, fsize, data, stack, core, rss, nproc, nofile, memlock, as, locks, sigpending, msgqueue, nice, rtprio, rttime"
            ],
        );
        check(
            labels::ULIMITS,
            r#"{"nofile": {"soft": 2, "hard": 1}}"#,
            expect!["annotation yado.dev/ulimits: nofile: the soft limit 2 is above the hard one, 1"],
        );
        check(
            labels::ULIMITS,
            r#"{"nofile": {"soft": -1, "hard": 1}}"#,
            expect!["annotation yado.dev/ulimits: nofile: the soft limit -1 is above the hard one, 1"],
        );
        check(
            labels::ULIMITS,
            r#"{"nofile": -2}"#,
            expect!["annotation yado.dev/ulimits: nofile: -2 is not a valid amount; -1 means unlimited"],
        );
        check(
            labels::ULIMITS,
            r#"{"nofile": "many"}"#,
            expect![[
                r#"annotation yado.dev/ulimits is not an object of limits, such as {"nofile": {"soft": 1024, "hard": 2048}}: data did not match any variant of untagged enum Written at line 1 column 18"#
            ]],
        );
    }
}
