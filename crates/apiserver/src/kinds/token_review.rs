//! TokenReviews: whose a bearer token is, answered at once and never stored.

use async_trait::async_trait;
use http::Response;
use serde_json::json;

use crate::content::{self, Body};
use crate::edit::{list, text};
use crate::kinds::strategy::{Posted, Strategy};
use crate::status::{Failure, Result};
use crate::tokens::review_error;
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct TokenReview;

#[async_trait]
impl Strategy for TokenReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        let (mut review, warnings) = posted.decode(&ctx.resource.schema)?;
        let spec = &review["spec"];
        let token = text(&spec["token"]);
        if token.is_empty() {
            return Err(Failure::bad_request("token is required for TokenReview in authentication"));
        }
        let asked: Vec<String> = list(&spec["audiences"]).iter().map(|a| text(a).to_owned()).collect();
        let audiences = if asked.is_empty() { &ctx.server.issuer.audiences } else { &asked };
        let status = match ctx.server.holder(token, audiences) {
            Ok(holder) => json!({
                "authenticated": true, "user": holder.identity.user_info(), "audiences": holder.audiences,
            }),
            Err(refusal) => json!({"user": {}, "error": review_error(&refusal)}),
        };
        if let Some(review) = review.as_object_mut() {
            review.insert("status".into(), status);
        }
        let mut response = content::value(201, &review);
        content::warn(&mut response, &warnings);
        Ok(response)
    }
}
