//! Whether the addresses of an app answer, each through the door that it names: the router for host names, the machine's
//! own port otherwise.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use yado_cli::progress::Progress;

/// The processes are ready by now: a door that is closed for longer stays closed.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often an address is tried again: rules and routes follow a Pod within milliseconds.
const AGAIN: Duration = Duration::from_millis(50);
/// An answer that takes longer is an answer that did not come: no user would wait for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// As much of an answer as is read: its status, headers and the router's own sentence.
const LONGEST_HEAD: u64 = 16 * 1024;

/// Waits until every address answers. Those of UDP ports, which need not answer anything, are not asked.
///
/// # Errors
/// One does not answer in time, and why.
pub async fn wait(
    addresses: &[String],
    http_port: Option<u16>,
    timeout: Duration,
    progress: &Progress,
) -> Result<()> {
    for address in addresses {
        let Some(door) = Door::of(address, http_port) else { continue };
        let step = progress.step("answer", address.clone());
        let mut said = String::new();
        let answered = tokio::time::timeout(timeout.min(TIMEOUT), async {
            while let Err(why) = door.knock().await {
                said = why;
                tokio::time::sleep(AGAIN).await;
            }
        });
        if answered.await.is_err() {
            step.fail();
            bail!("everything is ready, but {address} does not answer: {said}");
        }
        step.done(address.clone());
    }
    Ok(())
}

/// Where an address leads on this machine.
#[derive(Debug, PartialEq, Eq)]
enum Door {
    /// The router, asked for a host.
    Router { host: String, port: u16 },
    /// A port.
    Port(u16),
}

impl Door {
    fn of(address: &str, http_port: Option<u16>) -> Option<Self> {
        let (scheme, rest) = address.split_once("://")?;
        let authority = rest.split('/').next()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, http_port?),
        };
        match (scheme, host) {
            ("http" | "tcp", "localhost") => Some(Door::Port(port)),
            ("http", _) if Some(port) == http_port => Some(Door::Router { host: authority.to_owned(), port }),
            _ => None,
        }
    }

    /// Tries once; why nothing answered.
    async fn knock(&self) -> std::result::Result<(), String> {
        let port = match self {
            Door::Port(port) | Door::Router { port, .. } => *port,
        };
        let refused = |error: std::io::Error| format!("port {port}: {error}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(refused)?;
        let Door::Router { host, .. } = self else { return Ok(()) };
        let request =
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: yado\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(refused)?;
        let mut answer = Vec::new();
        let read =
            tokio::time::timeout(ANSWER_TIMEOUT, stream.take(LONGEST_HEAD).read_to_end(&mut answer)).await;
        // What has come so far is an answer, even if it never ends.
        if answer.is_empty() {
            return Err(match read {
                Ok(_) => "the connection was closed without an answer".into(),
                Err(_) => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            });
        }
        match routers_refusal(&String::from_utf8_lossy(&answer)) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }
}

/// What the router itself answers where no app does: its status and sentence. An app may answer with any status.
fn routers_refusal(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.split(' ').nth(1)?;
    let sentence = body.lines().next().unwrap_or_default();
    let own =
        ["the app ", "no endpoint of the app", "default backend"].iter().any(|s| sentence.starts_with(s));
    (own && ["404", "502", "503", "504"].contains(&status)).then(|| format!("{status}, {sentence}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_names_a_door() {
        let router = |host: &str, port| Some(Door::Router { host: host.into(), port });
        for (address, expect) in [
            ("http://shop.localhost:8080", router("shop.localhost:8080", 8080)),
            ("http://shop.localhost", router("shop.localhost", 8080)),
            ("http://localhost:8000", Some(Door::Port(8000))),
            ("tcp://localhost:5432", Some(Door::Port(5432))),
            ("udp://localhost:53", None),
            ("http://elsewhere.example:81", None),
        ] {
            assert_eq!(Door::of(address, Some(8080)), expect, "{address}");
        }
        assert_eq!(Door::of("http://shop.example", None), None);
    }

    #[test]
    fn only_the_routers_own_refusals_are_no_answers() {
        let answer =
            |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
        for (answer, expect) in [
            (answer("200 OK", "the app is fine"), None),
            (answer("404 Not Found", "no such page"), None),
            (answer("503 Service Unavailable", "maintenance"), None),
            (answer("404 Not Found", "default backend - 404\n"), Some("404, default backend - 404")),
            (
                answer("503 Service Unavailable", "the app has no endpoint that is ready\n"),
                Some("503, the app has no endpoint that is ready"),
            ),
        ] {
            assert_eq!(routers_refusal(&answer).as_deref(), expect, "{answer}");
        }
    }
}
