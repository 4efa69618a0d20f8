//! Patch and apply.

use bytes::Bytes;
use http::Response;
use serde_json::Value;

use super::{Decision, Outcome};
use crate::apply::{self, ApplyError};
use crate::content::{self, Body};
use crate::convert;
use crate::kinds::scale;
use crate::object::{Object, meta};
use crate::patch::{self, PatchError};
use crate::request::{ApiRequest, PatchKind, WriteOptions};
use crate::resource::{Resource, Subresource};
use crate::schema::{Kind, Parsed};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

impl Inner {
    pub(super) async fn patch(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        kind: PatchKind,
        options: &WriteOptions,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let parsed = match kind {
            PatchKind::Apply => content::parse_yaml(body)?,
            _ => content::parse_json(body)?,
        };
        if r.subresource == Some(Subresource::Scale) {
            return self.patch_scale(ctx, r, kind, options, &parsed).await;
        }
        if kind == PatchKind::Apply {
            return self.apply(ctx, r, options, parsed, body.len()).await;
        }
        let writer = Some(self.writer(ctx, options, r.subresource));
        let mut warnings = Vec::new();
        let outcome = self
            .modify(ctx, (&r.namespace, &r.name), body.len(), |current| {
                let mut new = convert::from_deciding(&r.resource, &current.value()).into_owned();
                patch_value(&r.resource.schema, kind, &mut new, &parsed.value, &r.name)?;
                let patched = Parsed { value: new, duplicates: parsed.duplicates.clone() };
                let (mut new, told) = self.decode(&r.resource, patched, options)?;
                warnings = told;
                if meta(&new, "name") != r.name {
                    return Err(renamed(&r.resource, &r.name, meta(&new, "name")));
                }
                convert::default_deciding(&r.resource, &mut new);
                self.replace(ctx, current, new, writer)
            })
            .await?;
        let mut response = self.answer(r, 200, outcome.object().clone());
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    async fn patch_scale(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        kind: PatchKind,
        options: &WriteOptions,
        change: &Parsed,
    ) -> Result<Response<Body>> {
        let shape = scale::kind()?;
        // An apply of a Scale has one field to say, and says it as a merge does.
        let kind = match kind {
            PatchKind::Apply => {
                require_manager(options)?;
                PatchKind::Merge
            }
            other => other,
        };
        let mut warnings = Vec::new();
        let outcome = self
            .rescale(ctx, r, options, |mut scale| {
                patch_value(shape, kind, &mut scale, &change.value, &r.name)?;
                let patched = Parsed { value: scale, duplicates: change.duplicates.clone() };
                let (scale, told) = content::decode(shape, patched, options.field_validation)?;
                warnings = told;
                Ok(scale)
            })
            .await?;
        let mut response = content::value(200, &scale::of(ctx.resource, &outcome.object().value())?);
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// `size` is that of the body in bytes.
    async fn apply(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        options: &WriteOptions,
        parsed: Parsed,
        size: usize,
    ) -> Result<Response<Body>> {
        require_manager(options)?;
        // Who owns which fields is recorded in the version that decides.
        let (config, warnings) = off_worker(size, || self.decode(&r.resource, parsed, options))?;
        if !meta(&config, "name").is_empty() && meta(&config, "name") != r.name {
            return Err(renamed(&r.resource, &r.name, meta(&config, "name")));
        }
        let (code, object) = loop {
            match self.apply_to_present(ctx, r, options, &config, size).await {
                Ok(outcome) => break (200, outcome.object().clone()),
                Err(failure) if failure.code == 404 && r.subresource.is_none() => {}
                Err(failure) => return Err(failure),
            }
            let writer = self.writer(ctx, options, None);
            let applied =
                off_worker(size, || apply::apply(&ctx.resource.schema, None, &config, writer, options.force));
            let mut new = applied.map_err(|e| refused(&e))?;
            convert::default_deciding(&r.resource, &mut new);
            match self.create_object(ctx, &r.namespace, (new, size), None).await {
                Ok(object) => break (201, object),
                // Somebody else was faster: there is something to apply to now.
                Err(failure) if failure.reason == "AlreadyExists" => {}
                Err(failure) => return Err(failure),
            }
        };
        let mut response = self.answer(r, code, object);
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    async fn apply_to_present(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        options: &WriteOptions,
        config: &Value,
        size: usize,
    ) -> Result<Outcome> {
        self.modify(ctx, (&r.namespace, &r.name), size, |current: &Object| -> Result<Decision> {
            let live = current.value();
            let writer = self.writer(ctx, options, r.subresource);
            let new = apply::apply(&ctx.resource.schema, Some(&live), config, writer, options.force)
                .map_err(|e| refused(&e))?;
            self.replace(ctx, current, new, None)
        })
        .await
    }
}

/// Apply without the name of its manager could not tell its own fields from others'.
fn require_manager(options: &WriteOptions) -> Result<()> {
    if options.manager_given {
        return Ok(());
    }
    let cause = ("fieldManager", "FieldValueRequired", "Required value: is required for apply patch");
    let cause = (cause.0.to_owned(), cause.1.to_owned(), cause.2.to_owned());
    Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", [cause]))
}

fn patch_value(shape: &Kind, kind: PatchKind, value: &mut Value, change: &Value, name: &str) -> Result<()> {
    let patched = match kind {
        PatchKind::Merge | PatchKind::Apply => {
            patch::json_merge(value, change);
            Ok(())
        }
        PatchKind::Json => patch::json_patch(value, change),
        PatchKind::Strategic => patch::strategic_merge(shape, value, change),
    };
    patched.map_err(|error| match error {
        PatchError::Malformed(text) => Failure::bad_request(text),
        PatchError::Operation { index, operation, path, reason, .. } => {
            let message = format!("{operation} {path:?}: {reason}");
            let cause = (format!("patch[{index}]"), "FieldValueInvalid".to_owned(), message);
            Failure::invalid(&shape.group, &shape.kind, name, [cause])
        }
    })
}

fn refused(error: &ApplyError) -> Failure {
    match error {
        ApplyError::Malformed(text) => Failure::bad_request(text.clone()),
        ApplyError::Conflicts(conflicts) => {
            let mut failure = Failure::new(409, "Conflict", error.to_string());
            let causes = apply::conflict_causes(conflicts);
            failure.details = Some(Box::new([("causes".to_owned(), causes)].into_iter().collect()));
            failure
        }
    }
}

fn renamed(resource: &Resource, old: &str, new: &str) -> Failure {
    let cause =
        ("metadata.name", "FieldValueInvalid", format!("Invalid value: \"{new}\": field is immutable"));
    Failure::invalid(&resource.group, &resource.kind, old, [(cause.0.into(), cause.1.into(), cause.2)])
}
