//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use yado_store::{Range, key_after, prefix_end};

use crate::cache::{Collection, REVISION_WAIT, Snapshot, place};
use crate::content::{self, Body, ListBody};
use crate::convert;
use crate::kinds::scale;
use crate::object::{Object, Selection, encode, meta, metadata_only};
use crate::request::{ApiRequest, Form, ListOptions, VersionMatch};
use crate::resource::{Resource, Subresource};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::table;

impl Inner {
    /// Ready once everything that was written before now is visible.
    pub(crate) async fn fresh(&self) -> Result<()> {
        Ok(self.cache.wait(self.store.latest().await?).await?)
    }

    /// Ready once `revision` is visible; a failure where it is not reached soon.
    pub(crate) async fn reach(&self, revision: u64) -> Result<()> {
        self.fresh().await?;
        if self.cache.applied() >= revision {
            return Ok(());
        }
        tokio::select! {
            visible = self.cache.wait(revision) => Ok(visible?),
            () = self.clock.sleep(REVISION_WAIT) => Err(Failure::too_new(revision, self.cache.applied())),
        }
    }

    /// The collection of a resource that is stored.
    pub(crate) fn collection(&self, resource: &Resource) -> Result<Arc<Collection>> {
        self.cache.collection(resource).ok_or_else(Failure::method_not_allowed)
    }

    /// An object, or a failure that says it is not there.
    pub(crate) fn find(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Arc<Object>> {
        self.collection(resource)?
            .get(&place(resource, namespace, name))
            .ok_or_else(|| Failure::not_found(resource, name))
    }

    pub(crate) async fn get(&self, r: &ApiRequest, revision: Option<u64>) -> Result<Response<Body>> {
        self.reach(revision.unwrap_or(0)).await?;
        let object = self.find(&r.resource, &r.namespace, &r.name)?;
        if r.subresource == Some(Subresource::Scale) {
            let resource = r.resource.deciding();
            let object = self.present_one(resource, object).await?;
            return Ok(content::value(200, &scale::of(resource, &object.value())?));
        }
        Ok(self.answer(r, 200, self.present_one(&r.resource, object).await?))
    }

    /// One object in the form that was asked for, given in the version of the request or that of the decision.
    pub(crate) fn answer(&self, r: &ApiRequest, code: u16, object: Arc<Object>) -> Response<Body> {
        let object = convert::in_form(&r.resource, object);
        content::json(code, Body::Full(Some(self.render(&r.resource, r.form, &object, true))))
    }

    /// The bytes of one object, which is in the version of the resource, in a form.
    pub(crate) fn render(
        &self,
        resource: &Resource,
        form: Form,
        object: &Object,
        with_columns: bool,
    ) -> Bytes {
        match form {
            Form::Object => object.json(),
            Form::Metadata => encode(&metadata_only(&object.value())),
            Form::Table(include) => {
                let value = object.value();
                let metadata = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                let now = self.clock.now();
                encode(&table::table(&resource.schema, [&*value], metadata, include, now, with_columns))
            }
        }
    }

    pub(crate) async fn list(&self, r: &ApiRequest, options: &ListOptions) -> Result<Response<Body>> {
        let found = self.select(r, options).await?;
        Ok(self.answer_list(r, found))
    }

    /// The objects that a list means, in the version of the request, in parts where it has a limit.
    pub(crate) async fn select(&self, r: &ApiRequest, options: &ListOptions) -> Result<Found> {
        let selection = narrowed(r, options)?;
        if let Some(token) = &options.continue_from {
            return self.continue_from(r, &selection, options, Token::read(token)?).await;
        }
        let revision = options.resource_version.unwrap_or(0);
        if options.version_match.is_some() && options.resource_version.is_none() {
            return Err(Failure::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if options.version_match == Some(VersionMatch::Exact) {
            if revision == 0 {
                return Err(Failure::bad_request(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
            return self.select_at(r, &selection, options, revision, None).await;
        }
        self.reach(revision).await?;
        let applied = self.cache.applied();
        let collection = self.collection(&r.resource)?;
        let mut snapshot = match selection.name() {
            // The most frequent selection of all: one object by its name.
            Some(name) if !r.namespace.is_empty() || !r.resource.namespaced => {
                let object = collection.get(&place(&r.resource, &r.namespace, name));
                let objects = object.into_iter().collect();
                let snapshot = Snapshot { objects, revision: applied, more: false, remaining: 0 };
                self.selected(&r.resource, snapshot, &selection, 0).await?
            }
            _ => self.select_from(&r.resource, &collection, &r.namespace, options.limit, &selection).await?,
        };
        snapshot.revision = snapshot.revision.max(applied);
        Ok(Found::new(&r.resource, snapshot, selection.is_everything()))
    }

    /// The objects of a collection that a selection means, in the version of the resource, at most `limit` of them (0: all).
    pub(crate) async fn select_from(
        &self,
        resource: &Resource,
        collection: &Collection,
        namespace: &str,
        limit: usize,
        selection: &Selection,
    ) -> Result<Snapshot> {
        if resource.has_one_form() {
            return Ok(collection.select(namespace, limit, selection));
        }
        // A selection holds for objects in the version of the request, so it waits until they are converted.
        let first = if selection.is_everything() { limit } else { 0 };
        let snapshot = collection.list_places(namespace, first, |place| selection.may_mean(place));
        self.selected(resource, snapshot, selection, limit).await
    }

    /// The objects of a snapshot in the version of the resource, without those that a selection does not mean, at most
    /// `limit` of them (0: all).
    async fn selected(
        &self,
        resource: &Resource,
        snapshot: Snapshot,
        selection: &Selection,
        limit: usize,
    ) -> Result<Snapshot> {
        let mut objects = self.present(resource, snapshot.objects).await?;
        objects.retain(|object| selection.matches(object));
        let beyond = if limit == 0 { 0 } else { objects.len().saturating_sub(limit) };
        objects.truncate(objects.len() - beyond);
        let remaining = snapshot.remaining + beyond;
        Ok(Snapshot { objects, revision: snapshot.revision, more: remaining > 0, remaining })
    }

    /// The next part of a list.
    async fn continue_from(
        &self,
        r: &ApiRequest,
        selection: &Selection,
        options: &ListOptions,
        token: Token,
    ) -> Result<Found> {
        let Some(revision) = token.revision else {
            // What is left of a list whose revision is gone, as it is now.
            self.fresh().await?;
            return self.select_at(r, selection, options, self.cache.applied(), Some(token.after)).await;
        };
        match self.select_at(r, selection, options, revision, Some(token.after.clone())).await {
            Err(failure) if failure.code == 410 => {
                Err(Failure::continue_expired(&Token { revision: None, after: token.after }.write()))
            }
            result => result,
        }
    }

    /// The same at an older revision, from the store's history.
    async fn select_at(
        &self,
        r: &ApiRequest,
        selection: &Selection,
        options: &ListOptions,
        revision: u64,
        after: Option<String>,
    ) -> Result<Found> {
        let resource = &r.resource;
        let collection = self.collection(resource)?;
        let prefix = &resource.prefix;
        let within =
            if r.namespace.is_empty() { prefix.clone() } else { format!("{prefix}{}/", r.namespace) };
        let mut start = after.map_or_else(|| within.clone(), |after| key_after(&format!("{prefix}{after}")));
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let (mut objects, mut beyond) = (Vec::new(), 0);
        // One more than asked for tells whether there are more; a selection may take several parts to fill up.
        while objects.len() <= limit {
            let part = limit.saturating_add(1).min(1000);
            let range = Range { start, end: prefix_end(&within), limit: part, revision: Some(revision) };
            let found = self.store.range(range).await?;
            beyond = usize::try_from(found.remaining).unwrap_or(usize::MAX);
            let last = found.items.last().map(|kv| kv.key.clone());
            let mut decoded = Vec::with_capacity(found.items.len());
            for kv in found.items {
                let place = &kv.key[prefix.len()..];
                let object = match collection.get(place).filter(|o| o.revision == kv.mod_revision) {
                    Some(object) => object,
                    None => match Object::decode(kv.value, kv.mod_revision) {
                        Ok(object) => Arc::new(object),
                        Err(error) => {
                            // It must not keep the others from being listed; the cache leaves it out, too.
                            tracing::error!(key = %kv.key, %error, "an object in the store is not JSON and is left out");
                            continue;
                        }
                    },
                };
                decoded.push(object);
            }
            let decoded = self.present(resource, decoded).await?;
            objects.extend(decoded.into_iter().filter(|object| selection.matches(object)));
            match last {
                Some(last) if found.more => start = key_after(&last),
                _ => break,
            }
        }
        let more = objects.len() > limit;
        let remaining = objects.len().saturating_sub(limit).saturating_add(beyond);
        objects.truncate(limit);
        let snapshot = Snapshot { objects, revision, more, remaining };
        Ok(Found::new(resource, snapshot, selection.is_everything()))
    }

    /// A list in the form that was asked for, its objects given in the version of the request or that of the decision.
    pub(crate) fn answer_list(&self, r: &ApiRequest, found: Found) -> Response<Body> {
        let kind = r.resource.list_kind();
        let objects = found.objects.into_iter().map(|object| convert::in_form(&r.resource, object));
        let objects: Vec<_> = objects.collect();
        match r.form {
            Form::Object => {
                let head = format!(
                    "{{\"kind\":\"{kind}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
                    r.resource.api_version(),
                    found.metadata
                );
                content::json(200, Body::List(ListBody::new(head.into(), objects)))
            }
            Form::Metadata => {
                let items: Vec<_> = objects.iter().map(|o| metadata_only(&o.value())).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": found.metadata, "items": items,
                });
                content::value(200, &list)
            }
            Form::Table(include) => {
                let values: Vec<_> = objects.iter().map(|o| o.value()).collect();
                let rows = values.iter().map(|v| &**v);
                let now = self.clock.now();
                content::value(
                    200,
                    &table::table(&r.resource.schema, rows, found.metadata, include, now, true),
                )
            }
        }
    }
}

/// The selection of a request on a collection, or on the one object that it names.
pub(crate) fn narrowed(r: &ApiRequest, options: &ListOptions) -> Result<Selection> {
    if r.name.is_empty() {
        return Selection::new(&r.resource, options);
    }
    let mut options = options.clone();
    let name = r.name.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    options.fields = yado_types::selector::FieldSelector::parse(&format!("metadata.name={name}"))
        .map_err(|e| Failure::bad_request(e.to_string()))?;
    Selection::new(&r.resource, &options)
}

/// The result of a list.
pub(crate) struct Found {
    /// The objects.
    pub(crate) objects: Vec<Arc<Object>>,
    /// The list's metadata: revision, and where to continue.
    pub(crate) metadata: Value,
}

impl Found {
    fn new(resource: &Resource, snapshot: Snapshot, countable: bool) -> Self {
        let mut metadata = json!({"resourceVersion": snapshot.revision.to_string()});
        if let Some(last) = snapshot.objects.last().filter(|_| snapshot.more) {
            let last = last.value();
            let after = place(resource, meta(&last, "namespace"), meta(&last, "name"));
            metadata["continue"] = Token { revision: Some(snapshot.revision), after }.write().into();
            if countable && snapshot.remaining > 0 {
                metadata["remainingItemCount"] = snapshot.remaining.into();
            }
        }
        Self { objects: snapshot.objects, metadata }
    }
}

/// Where a list goes on.
struct Token {
    /// The revision of the list; `None` where it is gone and the rest is listed as it is now.
    revision: Option<u64>,
    /// The place of the last object of the part before.
    after: String,
}

impl Token {
    fn write(&self) -> String {
        let revision = self.revision.map_or_else(|| "now".to_owned(), |revision| revision.to_string());
        URL_SAFE_NO_PAD.encode(format!("{revision} {}", self.after))
    }

    fn read(text: &str) -> Result<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let text = bytes.and_then(|b| String::from_utf8(b).ok());
        text.as_deref()
            .and_then(|t| t.split_once(' '))
            .and_then(|(revision, after)| {
                let revision = if revision == "now" { None } else { Some(revision.parse().ok()?) };
                Some(Self { revision, after: after.to_owned() })
            })
            .ok_or_else(|| Failure::bad_request("continue key is not valid: it was not made by this server"))
    }
}
