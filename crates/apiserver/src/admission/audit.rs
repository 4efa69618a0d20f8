//! Annotations of requests, which Kubernetes keeps in its audit log. Here they are entries of the server's own log.

use super::Review;

/// Bytes of an annotation's value.
const MAX_VALUE: usize = 10 << 10;

/// Writes an annotation of a write to the log.
pub(super) fn annotate(review: &Review<'_>, key: &str, value: &str) {
    let mut end = value.len().min(MAX_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    tracing::info!(
        user = review.ctx.user.user, resource = %review.ctx.resource.qualified(), namespace = review.namespace,
        name = review.name, key, value = &value[..end], "audit annotation"
    );
}
