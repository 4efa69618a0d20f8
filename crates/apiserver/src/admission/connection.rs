//! Connections to Pods and Services: their parameters pass admission as an object of options, such as `PodExecOptions`.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use serde_json::{Map, Value, json};

use crate::audit::Record;
use crate::auth::Identity;
use crate::edit::{list, text};
use crate::request::{ApiRequest, Query};
use crate::resource::Subresource;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::context::{Operation, Warnings, WriteContext};

/// Parameters of connections that are true or false.
const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

impl Inner {
    /// The parameters of a connection as policies and webhooks leave them, and the warnings for its response.
    ///
    /// # Errors
    /// A refusal; or options that they changed into something else.
    pub(crate) async fn admit_connection<'q>(
        &self,
        r: &ApiRequest,
        who: &Identity,
        parts: &Parts,
        query: &'q Query,
    ) -> Result<(Cow<'q, Query>, Vec<String>)> {
        let part = r.subresource.ok_or_else(Failure::method_not_allowed)?;
        let Some((_, version, kind)) = part.kind(&r.resource.plural) else {
            // The log is read, not connected to.
            return Ok((Cow::Borrowed(query), Vec::new()));
        };
        let warnings = Warnings::default();
        let ctx = &WriteContext {
            server: self,
            resource: &r.resource,
            requested: &r.resource,
            user: who,
            operation: Operation::Connect,
            subresource: r.subresource,
            dry_run: false,
            conversions: None,
            warnings: Some(&warnings),
            audit: parts.extensions.get::<Arc<Record>>().map(AsRef::as_ref),
        };
        let mut options = json!({"kind": kind, "apiVersion": version});
        if let Some(map) = options.as_object_mut() {
            read(part, query, map)?;
        }
        let admitted = self.admit_body(ctx, (&r.namespace, &r.name), options.clone()).await?;
        let query = if admitted == options { Cow::Borrowed(query) } else { Cow::Owned(write(&admitted)) };
        Ok((query, warnings.take()))
    }
}

/// Reads the options of a connection.
fn read(part: Subresource, query: &Query, options: &mut Map<String, Value>) -> Result<()> {
    let mut set = |name: &str, value: Value| _ = options.insert(name.to_owned(), value);
    match part {
        Subresource::Proxy => {
            if let Some(path) = query.get("path") {
                set("path", path.into());
            }
        }
        Subresource::PortForward => {
            let ports: Vec<&str> = query.all("ports").flat_map(|ports| ports.split(',')).collect();
            let number = |port: &&str| {
                let wrong = || Failure::bad_request(format!("ports: {port:?} is not a whole number"));
                port.trim().parse::<i32>().map(Value::from).map_err(|_| wrong())
            };
            let ports = ports.iter().map(number).collect::<Result<Vec<_>>>()?;
            if !ports.is_empty() {
                set("ports", ports.into());
            }
        }
        _ => {
            for flag in FLAGS.into_iter().filter(|flag| query.is_true(flag)) {
                set(flag, true.into());
            }
            if let Some(container) = query.get("container") {
                set("container", container.into());
            }
            let command: Vec<&str> = query.all("command").collect();
            if part == Subresource::Exec && !command.is_empty() {
                set("command", command.into());
            }
        }
    }
    Ok(())
}

/// The parameters that say the same as these options.
fn write(options: &Value) -> Query {
    let mut query = Query::default();
    for flag in FLAGS.into_iter().filter(|flag| options[*flag] == true) {
        query.push(flag, "true");
    }
    for name in ["container", "path"] {
        if !text(&options[name]).is_empty() {
            query.push(name, text(&options[name]));
        }
    }
    for word in list(&options["command"]) {
        query.push("command", text(word));
    }
    for port in list(&options["ports"]) {
        query.push("ports", &port.to_string());
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_options_say_the_same() {
        for (part, query, expect, again) in [
            (
                Subresource::Exec,
                "command=sh&command=-c&stdin=true&tty=0&container=c&x=y",
                json!({"stdin": true, "container": "c", "command": ["sh", "-c"]}),
                json!({"stdin": true, "container": "c", "command": ["sh", "-c"]}),
            ),
            (Subresource::Attach, "stdout&command=sh", json!({"stdout": true}), json!({"stdout": true})),
            (
                Subresource::PortForward,
                "ports=80,81&ports=82",
                json!({"ports": [80, 81, 82]}),
                json!({"ports": [80, 81, 82]}),
            ),
            (
                Subresource::PortForward,
                "ports=http",
                json!("ports: \"http\" is not a whole number"),
                json!(null),
            ),
            (Subresource::Proxy, "path=a%2Fb", json!({"path": "a/b"}), json!({"path": "a/b"})),
        ] {
            let options = |query: &Query| {
                let mut options = Map::new();
                match read(part, query, &mut options) {
                    Ok(()) => Value::Object(options),
                    Err(failure) => failure.message.into(),
                }
            };
            let found = options(&Query::parse(query));
            assert_eq!(found, expect, "{query}");
            if found.is_object() {
                assert_eq!(options(&write(&found)), again, "{query}");
            }
        }
    }
}
