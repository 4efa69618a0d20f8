//! ServiceAccounts.

use async_trait::async_trait;
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::content::Body;
use crate::kinds::strategy::{Posted, Strategy};
use crate::kinds::token_request;
use crate::resource::Subresource;
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::{age, count};
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct ServiceAccount;

#[async_trait]
impl Strategy for ServiceAccount {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        match ctx.subresource {
            Some(Subresource::Token) => token_request::issue(ctx, posted).await,
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::integer("Secrets"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        vec![name, json!(count(&object["secrets"])), json!(age(object, now))]
    }
}
