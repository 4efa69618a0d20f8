//! `yado up`: the engine alone, in the foreground.

use std::io::Write;

use anyhow::{Context, Result};
use yado_cli::args::{Global, UpArgs};
use yado_cli::local::Running;
use yado_net::router::forwarded::TrustedProxies;
use yado_reconcile::SystemClock;

use crate::audit::AuditSettings;
use crate::data_dir::DataDir;
use crate::engine::{Engine, Ports, Settings};
use crate::oidc::Login;
use crate::signals::Stop;
use crate::storage::open_images;

/// Runs until it is told to stop. Containers go on without it.
pub async fn run(global: &Global, args: &UpArgs) -> Result<()> {
    let clock = SystemClock::shared();
    let mut stop = Stop::listen()?;
    let audit = AuditSettings::read(&args.audit)?;
    let data = DataDir::claim(&args.data_dir)?;
    let settings = Settings {
        api_port: args.api_port,
        http_port: args.http_port,
        node_name: args.name.clone(),
        trusted_proxies: TrustedProxies::new(args.trusted_proxies.iter().copied()),
        allow_host_image: args.allow_host_image,
        allowed_sysctls: args.allowed_unsafe_sysctls.clone(),
        secrets_key: args.secrets_key.clone(),
        audit,
        kubeconfig: global.kubeconfig.clone(),
        login: Login::new(&args.oidc)?,
    };
    let ports = Ports::bind(&settings).await?;
    let images = open_images(&data).await?;
    let engine = Engine::start(data, images, &settings, ports).await?;
    let ready = tokio::select! {
        ready = engine.ready() => ready,
        () = stop.wanted() => return engine.stop().await,
    };
    if let Err(error) = ready {
        let _ = engine.stop().await;
        return Err(error);
    }
    engine.tell(None)?;
    let mut out = std::io::stdout();
    let told = writeln!(out, "ready in {:.0} ms", clock.monotonic().as_secs_f64() * 1000.0);
    told.and_then(|()| out.flush()).context("standard output is closed")?;
    stop.wanted().await;
    Running::remove(&args.data_dir);
    engine.stop().await
}
