//! The ServiceAccount tokens of a Pod's projected volumes: which it asks for, and when each is to be replaced; pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodSpec;

/// Tokens by the name of their volume and their path in it.
pub(crate) type Tokens = BTreeMap<(String, String), String>;

/// A token is replaced after this part of its life, in percent, as the kubelet does.
const REFRESH_PERCENT: i64 = 80;
/// A token is replaced after this time, however long it is valid, as the kubelet does.
const LONGEST_USE: SignedDuration = SignedDuration::from_hours(24);
/// Delay before a request for a token that failed, while the old one is used, is sent again.
const RETRY_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// A token that a projected volume asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The volume's name and the path in it.
    pub place: (String, String),
    /// The audience; `None` is the API server.
    pub audience: Option<String>,
    /// Seconds for which it is to be valid.
    pub seconds: Option<i64>,
}

/// The tokens that the projected volumes of a Pod ask for.
pub(crate) fn wanted(spec: &PodSpec) -> impl Iterator<Item = Wanted> {
    let volumes = spec.volumes.iter().flatten();
    let sources = volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.map(|source| (volume.name.clone(), source))
    });
    sources.filter_map(|(volume, source)| {
        let token = source.service_account_token.as_ref()?;
        Some(Wanted {
            place: (volume, token.path.clone()),
            audience: token.audience.clone().filter(|audience| !audience.is_empty()),
            seconds: token.expiration_seconds,
        })
    })
}

/// A token with the times at which it is to be replaced and expires.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    token: String,
    refresh: Timestamp,
    expires: Timestamp,
}

/// The tokens that a Pod has. They are in memory only: after a restart of the node, new ones are requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenCache {
    held: BTreeMap<(String, String), Held>,
    /// No request is sent before, because one is under way or failed.
    retry: Option<Timestamp>,
}

impl TokenCache {
    /// Keeps a token that was requested at `now` and is valid for this many seconds. Only durations of the server's answer
    /// are used, so that its clock may differ.
    pub(crate) fn insert(&mut self, place: (String, String), token: String, now: Timestamp, seconds: i64) {
        let life = SignedDuration::from_secs(seconds);
        let part = SignedDuration::from_secs(seconds.saturating_mul(REFRESH_PERCENT) / 100);
        let after = |duration| now.checked_add(duration).unwrap_or(Timestamp::MAX);
        let held = Held { token, refresh: after(part.min(LONGEST_USE)), expires: after(life) };
        self.held.insert(place, held);
    }

    /// The token of a place, unless it is to be replaced at `now`.
    pub(crate) fn fresh(&self, place: &(String, String), now: Timestamp) -> Option<&str> {
        self.held.get(place).filter(|held| now < held.refresh).map(|held| held.token.as_str())
    }

    /// The token of a place, as long as it has not expired: what is used while no other can be had.
    pub(crate) fn valid(&self, place: &(String, String), now: Timestamp) -> Option<&str> {
        self.held.get(place).filter(|held| now < held.expires).map(|held| held.token.as_str())
    }

    /// The time at which tokens are to be requested next, which may have passed; `None` where the Pod asks for none.
    pub(crate) fn next_request(&self, spec: &PodSpec) -> Option<Timestamp> {
        let due = |wanted: Wanted| self.held.get(&wanted.place).map_or(Timestamp::MIN, |held| held.refresh);
        wanted(spec).map(due).min().map(|due| self.retry.map_or(due, |retry| due.max(retry)))
    }

    /// Notes that requests are being sent at `now`: should they fail, they are sent again after a delay.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.retry = now.checked_add(RETRY_DELAY).ok();
    }

    /// Notes that every request was answered.
    pub(crate) fn succeed(&mut self) {
        self.retry = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(volumes: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({"containers": [], "volumes": volumes})).expect("a spec")
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn tokens_are_wanted_by_projected_volumes() {
        let spec = spec(json!([
            {"name": "e", "emptyDir": {}},
            {"name": "p", "projected": {"sources": [
                {"configMap": {"name": "m"}},
                {"serviceAccountToken": {"path": "a", "expirationSeconds": 3607}},
                {"serviceAccountToken": {"path": "b", "audience": "vault"}},
            ]}},
        ]));
        let shown: Vec<_> = wanted(&spec).map(|w| (w.place.1, w.audience, w.seconds)).collect();
        let expect = [("a".to_owned(), None, Some(3607)), ("b".to_owned(), Some("vault".to_owned()), None)];
        assert_eq!(shown, expect);
    }

    #[test]
    fn tokens_are_replaced_in_time() {
        let day = 24 * 3600;
        for (seconds, refresh, expires) in [(3600, 2880, 3600), (600, 480, 600), (365 * day, day, 365 * day)]
        {
            let place = ("p".to_owned(), "token".to_owned());
            let mut cache = TokenCache::default();
            cache.insert(place.clone(), "t".into(), at(1000), seconds);
            for (now, is_fresh, is_valid) in [
                (0, true, true),
                (refresh - 1, true, true),
                (refresh, false, true),
                (expires - 1, false, true),
                (expires, false, false),
            ] {
                let now = at(1000 + now);
                assert_eq!(cache.fresh(&place, now).is_some(), is_fresh, "{seconds} {now}");
                assert_eq!(cache.valid(&place, now).is_some(), is_valid, "{seconds} {now}");
            }
            let spec = spec(json!([
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ]));
            assert_eq!(cache.next_request(&spec), Some(at(1000 + refresh)));
        }
    }

    #[test]
    fn requests_wait_after_a_failure() {
        let one = spec(json!([
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ]));
        let mut cache = TokenCache::default();
        assert_eq!(cache.next_request(&spec(json!([]))), None);
        assert_eq!(cache.next_request(&one), Some(Timestamp::MIN));
        cache.begin(at(1000));
        assert_eq!(cache.next_request(&one), Some(at(1030)));
        cache.insert(("p".into(), "token".into()), "t".into(), at(1000), 3600);
        cache.succeed();
        assert_eq!(cache.next_request(&one), Some(at(1000 + 2880)));
    }
}
