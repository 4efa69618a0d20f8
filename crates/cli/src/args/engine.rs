//! Commands on the engine of this machine: `up`, `infra`, `reset`, `image`.

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use ipnet::IpNet;
use yado_types::sysctls::AllowedSysctls;

use super::{DEFAULT_DATA_DIR, Format, OidcArgs};

/// `yado up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where state, images and the kubeconfig are kept
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Port of the Kubernetes API on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub api_port: u16,
    /// Port on which apps answer, as in `http://NAME.localhost:PORT`; 0 takes any free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub http_port: u16,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NODE")]
    pub name: Option<String>,
    /// Networks of proxies in front of the router, such as 10.0.0.0/8, whose X-Forwarded-*, X-Real-IP and Forwarded headers
    /// are kept and appended to; of all others they are replaced. Repeat it, or separate with commas
    #[arg(long, env = "YADO_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// Let Pods run programs of this machine: the image `host` is its own root, read-only under a layer of theirs
    #[arg(long)]
    pub allow_host_image: bool,
    /// Kernel parameters that Pods may set beyond the safe ones, as names or as beginnings and `*`, with commas between:
    /// `net.core.somaxconn,kernel.msg*`. A Pod that sets another fails with SysctlForbidden
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub allowed_unsafe_sysctls: AllowedSysctls,
    /// The keys that encrypt Secrets on the disk: lines of 32 bytes in base64. The first encrypts, all decrypt; what is
    /// under another than the first is encrypted anew at each start [default: DIR/secrets.key, made at the first start]
    #[arg(long, value_name = "FILE")]
    pub secrets_key: Option<PathBuf>,
    /// Who may log in by another identity provider.
    #[command(flatten, next_help_heading = "Login by OpenID Connect")]
    pub oidc: Box<OidcArgs>,
    /// The log of requests to the API.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// The log of requests to the API.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Which requests to the API are logged, and how much of them: a policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where requests to the API are logged, one JSON a line; `-` is standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Size of the log in MB after which it is rotated; 0 is never
    #[arg(long, value_name = "MB", default_value_t = AuditArgs::MAX_SIZE, hide_short_help = true)]
    pub audit_log_maxsize: u32,
    /// Rotated logs that are kept; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = AuditArgs::MAX_BACKUP, hide_short_help = true)]
    pub audit_log_maxbackup: u32,
    /// Age in days at which rotated logs are removed; 0 is never
    #[arg(long, value_name = "DAYS", default_value_t = AuditArgs::MAX_AGE, hide_short_help = true)]
    pub audit_log_maxage: u32,
}

impl AuditArgs {
    /// Defaults of kube-apiserver.
    const MAX_SIZE: u32 = 100;
    const MAX_BACKUP: u32 = 100;
    const MAX_AGE: u32 = 366;

    fn words(&self) -> Vec<OsString> {
        let absolute = |path: &PathBuf| match path.to_str() {
            Some("-") => path.clone(),
            _ => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
        };
        let files =
            [("--audit-policy-file", &self.audit_policy_file), ("--audit-log-path", &self.audit_log_path)];
        let files =
            files.into_iter().filter_map(|(flag, path)| Some((flag, absolute(path.as_ref()?).into())));
        let numbers = [
            ("--audit-log-maxsize", self.audit_log_maxsize, Self::MAX_SIZE),
            ("--audit-log-maxbackup", self.audit_log_maxbackup, Self::MAX_BACKUP),
            ("--audit-log-maxage", self.audit_log_maxage, Self::MAX_AGE),
        ];
        let numbers = numbers.into_iter().filter(|(_, given, default)| given != default);
        let numbers = numbers.map(|(flag, given, _)| (flag, OsString::from(given.to_string())));
        files.chain(numbers).flat_map(|(flag, value)| [flag.into(), value]).collect()
    }
}

impl UpArgs {
    /// The command line that means the same.
    pub fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["up".into(), "--data-dir".into(), self.data_dir.clone().into()];
        words.extend(["--api-port".into(), self.api_port.to_string().into()]);
        words.extend(["--http-port".into(), self.http_port.to_string().into()]);
        if let Some(name) = &self.name {
            words.extend(["--name".into(), name.into()]);
        }
        for network in &self.trusted_proxies {
            words.extend(["--trusted-proxies".into(), network.to_string().into()]);
        }
        if self.allow_host_image {
            words.push("--allow-host-image".into());
        }
        let sysctls = self.allowed_unsafe_sysctls.to_string();
        if !sysctls.is_empty() {
            words.extend(["--allowed-unsafe-sysctls".into(), sysctls.into()]);
        }
        if let Some(file) = &self.secrets_key {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            words.extend(["--secrets-key".into(), file.into()]);
        }
        words.extend(self.oidc.words());
        words.extend(self.audit.words());
        words
    }
}

/// A network, or an address alone.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network
        .map(|network| network.trunc())
        .map_err(|_| "write a network like 10.0.0.0/8 or an address".to_owned())
}

/// `yado infra`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct InfraArgs {
    /// Something other than bringing it up.
    #[command(subcommand)]
    pub command: Option<InfraCommand>,
    /// How the engine is started.
    #[command(flatten)]
    pub up: InfraUp,
}

/// `yado infra up`.
#[derive(Debug, Clone, Args)]
pub struct InfraUp {
    /// The engine's own options.
    #[command(flatten)]
    pub engine: UpArgs,
    /// Make it a systemd service, which starts with the machine
    #[arg(long)]
    pub install: bool,
}

/// What to do with the engine.
#[derive(Debug, Clone, Subcommand)]
pub enum InfraCommand {
    /// Start it in the background, unless it runs; the default
    Up(InfraUp),
    /// Say whether it runs, and where its services are
    Status {
        /// Which engine.
        #[command(flatten)]
        of: InfraOf,
        /// Format
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
    /// Stop it; containers go on, and the next start adopts them
    Halt(InfraOf),
    /// Stop it and remove everything but the images
    Destroy {
        /// Which engine.
        #[command(flatten)]
        of: InfraOf,
        /// Although apps are deployed on it
        #[arg(long)]
        force: bool,
    },
}

/// The engine of a data directory.
#[derive(Debug, Clone, Args)]
pub struct InfraOf {
    /// Where it keeps its data
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `yado reset`.
#[derive(Debug, Clone, Args)]
pub struct ResetArgs {
    /// Where it kept its data
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `yado image`.
#[derive(Debug, Clone, Subcommand)]
pub enum ImageCommand {
    /// Import images from archives (OCI layout or `docker save`; plain, gzip or zstd)
    Import {
        /// The archives; - is standard input
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
        /// Where images are kept
        #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Remove images without a name that nothing runs, and what only later builds could use
    Prune {
        /// Also images with a name that no Pod asks for
        #[arg(long, short)]
        all: bool,
        /// Where images are kept
        #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// List images
    #[command(alias = "list")]
    Ls {
        /// Where images are kept
        #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
        data_dir: PathBuf,
        /// Format
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
}
