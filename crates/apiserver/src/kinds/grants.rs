//! The escalation check of roles and bindings: users grant only rights that they hold.

use serde_json::Value;

use crate::object::meta;
use crate::rbac::{Change, Refusal};
use crate::resource;
use crate::schema::RBAC_GROUP;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

/// Refuses a write of a role or binding that grants what its writer does not hold.
pub fn check(ctx: &WriteContext<'_>, new: &Value, old: Option<&Value>) -> Result<()> {
    let change = Change {
        resource: &ctx.resource.plural,
        namespace: meta(new, "namespace"),
        // A create does not address an object.
        name: old.map_or("", |old| meta(old, "name")),
        new,
        old,
    };
    ctx.server.authorizer.check_escalation(ctx.user, &change).map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => Failure::forbidden(ctx.resource, meta(new, "name"), &why),
        Refusal::RoleNotFound(role) => {
            let plural = if role.namespace.is_empty() { "clusterroles" } else { "roles" };
            match resource::find(RBAC_GROUP, "v1", plural) {
                Some(roles) => Failure::not_found(roles, &role.name),
                None => Failure::no_such_resource(),
            }
        }
    })
}
