//! CertificateSigningRequests: who asks is written by the server, who approves and who signs needs the right to do so for the
//! signer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};
use yado_types::names;

use crate::auth::MASTERS;
use crate::content;
use crate::edit::{copy, list, map_at, objects, text, within};
use crate::kinds::strategy::{NameRule, Strategy, reset_all_but};
use crate::object::{meta, time};
use crate::pki::{CertificateRequest, Signer, USAGES};
use crate::rbac::{Attributes, Target};
use crate::resource::Subresource;
use crate::schema::validate::{Errors, Path};
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::{age, duration, text_or};
use crate::write::context::WriteContext;

/// The API group.
const GROUP: &str = "certificates.k8s.io";
/// A signer of earlier versions of the API.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// The shortest lifetime that can be asked for.
const SHORTEST_SECONDS: i64 = 600;
/// Conditions that say what was decided; they only come, and are always true.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

#[derive(Debug)]
pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn name_rule(&self) -> NameRule {
        names::path_segment
    }

    fn prepare_for_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<()> {
        refuse_masters(ctx, object)?;
        let user = ctx.user.user_info();
        if let Some(spec) = map_at(object, &["spec"]) {
            for field in ["username", "uid", "groups", "extra"] {
                copy(&user, spec, field);
            }
        }
        Ok(())
    }

    fn prepare_for_update(&self, ctx: &WriteContext<'_>, new: &mut Value, old: &Value) -> Result<()> {
        match ctx.subresource {
            None => _ = new.as_object_mut().map(|new| copy(old, new, "spec")),
            Some(part) => {
                fill_times(new, old, ctx.server.clock.now());
                content::refuse_invalid(
                    ctx.resource,
                    meta(old, "name"),
                    &change_errors(part, new, old).list,
                )?;
                check_right(ctx, part, new, old)?;
            }
        }
        Ok(())
    }

    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        reset_all_but(&["metadata", "status"], new, old);
        if subresource == Subresource::Approval
            && let Some(status) = map_at(new, &["status"])
        {
            copy(&old["status"], status, "certificate");
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        if old.is_none() {
            validate_spec(&object["spec"], &root.field("spec"), errors);
        }
        validate_conditions(
            &object["status"]["conditions"],
            &root.field("status").field("conditions"),
            errors,
        );
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["spec.signerName"]
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::AGE,
                Column::text("SignerName"),
                Column::text("Requestor"),
                Column::text("RequestedDuration"),
                Column::text("Condition"),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            object["metadata"]["name"].clone(),
            json!(age(object, now)),
            json!(text_or(&spec["signerName"], "<none>")),
            json!(text_or(&spec["username"], "")),
            json!(spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), duration)),
            json!(condition(&object["status"])),
        ]
    }
}

/// The request of a spec.
fn parse(spec: &Value) -> Result<CertificateRequest, String> {
    let pem = STANDARD.decode(text(&spec["request"]));
    CertificateRequest::parse(&pem.map_err(|error| error.to_string())?)
}

/// Refuses a certificate that would make its holder able to do everything, whoever approves it.
fn refuse_masters(ctx: &WriteContext<'_>, object: &Value) -> Result<()> {
    let spec = &object["spec"];
    let is_client = text(&spec["signerName"]) == Signer::Client.name();
    let asks_for_all =
        || parse(spec).is_ok_and(|request| request.organizations.iter().any(|group| group == MASTERS));
    if is_client && asks_for_all() {
        let why = format!("use of {} signer with {MASTERS} group is not allowed", Signer::Client.name());
        return Err(Failure::forbidden(ctx.resource, meta(object, "name"), &why));
    }
    Ok(())
}

/// Notes when conditions came and when they last changed.
fn fill_times(new: &mut Value, old: &Value, now: Timestamp) {
    let Some(status) = new.as_object_mut().and_then(|new| within(new, "status")) else { return };
    for condition in objects(status, "conditions") {
        let before = find(&old["status"], condition.get("type").map_or("", text));
        if condition.get("lastUpdateTime").is_none_or(Value::is_null) {
            condition.insert("lastUpdateTime".into(), time(now).into());
        }
        if condition.get("lastTransitionTime").is_none_or(Value::is_null) {
            let same = before.filter(|before| Some(&before["status"]) == condition.get("status"));
            let since = same.map(|before| before["lastTransitionTime"].clone()).filter(|t| !t.is_null());
            condition.insert("lastTransitionTime".into(), since.unwrap_or_else(|| time(now).into()));
        }
    }
}

fn find<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&status["conditions"]).iter().find(|condition| condition["type"] == kind)
}

/// What a subresource must not change.
fn change_errors(part: Subresource, new: &Value, old: &Value) -> Errors {
    let (mut errors, root) = (Errors::default(), Path::root());
    let at = root.field("status");
    let (conditions, certificate) = (at.field("conditions"), at.field("certificate"));
    for kind in DECISIONS {
        let (before, after) = (find(&old["status"], kind), find(&new["status"], kind));
        let is_approval = kind != "Failed";
        let why = match (before, after) {
            (Some(_), None) => "remove",
            (None, Some(_)) if is_approval && part != Subresource::Approval => "add",
            (Some(before), Some(after))
                if is_approval && part != Subresource::Approval && before != after =>
            {
                "modify"
            }
            _ => continue,
        };
        errors.forbidden(&conditions, &format!("updates may not {why} a condition of type {kind:?}"));
    }
    let (before, after) = (text(&old["status"]["certificate"]), text(&new["status"]["certificate"]));
    if before != after {
        if !before.is_empty() {
            errors.forbidden(&certificate, "updates may not modify existing certificate content");
        } else if !is_certificate(after) {
            errors.invalid_text(
                &certificate,
                "<certificate data>",
                "must contain at least one CERTIFICATE PEM block",
            );
        }
    }
    errors
}

/// Whether this is the base64 of certificates in PEM.
fn is_certificate(text: &str) -> bool {
    let Ok(pem) = STANDARD.decode(text) else { return false };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.is_ok_and(|all| !all.is_empty() && all.iter().all(|der| X509Certificate::from_der(der).is_ok()))
}

/// Refuses an approval or a signature by somebody who may not give it for the signer: roles name signers by `domain/name`
/// or `domain/*`.
fn check_right(ctx: &WriteContext<'_>, part: Subresource, new: &Value, old: &Value) -> Result<()> {
    let verb = match part {
        Subresource::Approval => "approve",
        _ if new["status"] != old["status"] => "sign",
        _ => return Ok(()),
    };
    let signer = text(&old["spec"]["signerName"]);
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let may = |name: &str| {
        let target =
            Target::Resource { namespace: "", group: GROUP, resource: "signers", subresource: "", name };
        ctx.server.authorizer.allows(ctx.user, &Attributes { verb, target })
    };
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Failure::forbidden(ctx.resource, meta(old, "name"), &why))
}

fn validate_spec(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    if let Err(why) = parse(spec) {
        errors.invalid(&at.field("request"), &spec["request"], &why);
    }
    let usages = at.field("usages");
    let given = list(&spec["usages"]);
    if given.is_empty() {
        errors.required(&usages, "");
    }
    for (index, usage) in given.iter().enumerate() {
        match given[..index].contains(usage) {
            true => errors.duplicate(&usages.index(index), usage),
            false => errors.supported(&usages.index(index), text(usage), &USAGES),
        }
    }
    validate_signer(text(&spec["signerName"]), &at.field("signerName"), errors);
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < SHORTEST_SECONDS) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&at.field("expirationSeconds"), &spec["expirationSeconds"], detail);
    }
}

fn validate_signer(name: &str, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    if name == LEGACY_SIGNER {
        return errors.invalid_text(at, name, "the legacy signerName is not allowed via this API version");
    }
    match name.split_once('/').filter(|(_, path)| !path.contains('/')) {
        Some((domain, path)) => {
            errors.check_text(at, domain, names::dns_subdomain(domain));
            if !domain.contains('.') {
                errors.invalid_text(
                    at,
                    domain,
                    "should be a domain with at least two segments separated by dots",
                );
            }
            errors.check_text(at, path, names::dns_subdomain(path));
        }
        None => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.invalid_text(at, name, detail);
        }
    }
}

fn validate_conditions(conditions: &Value, at: &Path<'_>, errors: &mut Errors) {
    let given = list(conditions);
    for (index, condition) in given.iter().enumerate() {
        let (at, kind) = (at.index(index), text(&condition["type"]));
        if kind.is_empty() {
            errors.required(&at.field("type"), "");
        }
        if given[..index].iter().any(|other| other["type"] == kind) {
            errors.duplicate(&at.field("type"), &condition["type"]);
        }
        let supported: &[&str] =
            if DECISIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        match text(&condition["status"]) {
            "" => errors.required(&at.field("status"), ""),
            status => errors.supported(&at.field("status"), status, supported),
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => continue,
        };
        if given[..index].iter().any(|condition| condition["type"] == other) {
            errors.invalid_text(
                &at.field("type"),
                kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
    }
}

/// What was decided, and whether there is a certificate.
fn condition(status: &Value) -> String {
    let has = |kind: &str| find(status, kind).is_some();
    let mut words: Vec<&str> = match (has("Denied"), has("Approved")) {
        (true, _) => vec!["Denied"],
        (_, true) => vec!["Approved"],
        _ => vec!["Pending"],
    };
    if has("Failed") {
        words.push("Failed");
    }
    if !text(&status["certificate"]).is_empty() {
        words.push("Issued");
    }
    words.join(",")
}
