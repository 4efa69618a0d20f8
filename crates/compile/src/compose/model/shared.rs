//! What a project has beside its services: networks, volumes, configs and secrets, models.

use std::path::PathBuf;

use indexmap::IndexMap;

use crate::diagnostic::Position;

/// A network of the project.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Network {
    /// Where it is.
    pub at: Position,
    /// `name`; `PROJECT_KEY` where nothing is written
    pub name: String,
    /// `driver`
    pub driver: Option<String>,
    /// `driver_opts`
    pub driver_opts: IndexMap<String, String>,
    /// `ipam.driver`
    pub ipam_driver: Option<String>,
    /// `ipam.config`
    pub ipam_config: Vec<IpamPool>,
    /// `ipam.options`
    pub ipam_options: IndexMap<String, String>,
    /// `external`: others make it
    pub external: bool,
    /// `internal`: no way out
    pub internal: bool,
    /// `attachable`
    pub attachable: bool,
    /// `enable_ipv4`
    pub enable_ipv4: Option<bool>,
    /// `enable_ipv6`
    pub enable_ipv6: Option<bool>,
    /// `labels`
    pub labels: IndexMap<String, String>,
}

/// `ipam.config`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IpamPool {
    /// `subnet`
    pub subnet: Option<String>,
    /// `gateway`
    pub gateway: Option<String>,
    /// `ip_range`
    pub ip_range: Option<String>,
    /// `aux_addresses`
    pub aux_addresses: IndexMap<String, String>,
}

/// A named volume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    /// Where it is.
    pub at: Position,
    /// `name`; `PROJECT_KEY` where nothing is written
    pub name: String,
    /// `driver`
    pub driver: Option<String>,
    /// `driver_opts`; a relative `device` of a bind is absolute
    pub driver_opts: IndexMap<String, String>,
    /// `external`: others make it
    pub external: bool,
    /// `labels`
    pub labels: IndexMap<String, String>,
}

/// A config or a secret of the project. The content is read where the model is used, so that secrets do not lie about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileObject {
    /// Where it is.
    pub at: Position,
    /// `name`; `PROJECT_KEY` where nothing is written
    pub name: String,
    /// Where its content is.
    pub content: Content,
    /// `labels`
    pub labels: IndexMap<String, String>,
    /// `driver`
    pub driver: Option<String>,
    /// `driver_opts`
    pub driver_opts: IndexMap<String, String>,
    /// `template_driver`
    pub template_driver: Option<String>,
}

/// Where the content of a config or secret is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// `external: true`: others make it.
    #[default]
    External,
    /// `file`, absolute
    File(PathBuf),
    /// `content`
    Inline(String),
    /// `environment`: the variable's name and its value, if it has one
    Environment(String, Option<String>),
}

impl std::fmt::Debug for Content {
    /// Says where the content is but not what it is, for it may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::External => f.write_str("External"),
            Content::File(path) => write!(f, "File({})", path.display()),
            Content::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
            Content::Environment(name, value) => {
                write!(f, "Environment({name}, {})", if value.is_some() { "set" } else { "not set" })
            }
        }
    }
}

/// An AI model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// Where it is.
    pub at: Position,
    /// `name`
    pub name: Option<String>,
    /// `model`
    pub model: String,
    /// `context_size`
    pub context_size: Option<i64>,
    /// `runtime_flags`
    pub runtime_flags: Vec<String>,
}
