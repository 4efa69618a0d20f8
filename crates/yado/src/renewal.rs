//! Certificates of a running engine are renewed before they end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use yado_apiserver::pki::Pki;
use yado_reconcile::{Clock, Tasks};

/// The certificates are looked at this often: much more often than the 90 days for which the ones in use are still valid.
const PERIOD: Duration = Duration::from_secs(12 * 3600);

/// Renews certificates until the tasks are stopped. `written` is called with new ones, to write the kubeconfigs.
pub fn start<F>(pki: Pki, written: F, clock: Arc<dyn Clock>, tasks: &Tasks)
where
    F: Fn(&Pki) -> Result<()> + Send + Sync + 'static,
{
    let written = Arc::new(written);
    tasks.spawn("certificate renewal", async move {
        let mut pki = pki;
        loop {
            clock.sleep(PERIOD).await;
            let (current, clock, written) = (pki.clone(), clock.clone(), written.clone());
            let renewed = tokio::task::spawn_blocking(move || renew(&current, &*clock, &*written)).await;
            match renewed.context("the renewal ended early").and_then(|renewed| renewed) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    tracing::info!("renewed the certificates of the API server and its administrator");
                    pki = new;
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "certificates cannot be renewed"),
            }
        }
    });
}

/// Renews what is due. Where the kubeconfigs cannot be written, the next look finds the same certificates due again.
fn renew(pki: &Pki, clock: &dyn Clock, written: &dyn Fn(&Pki) -> Result<()>) -> Result<Option<Pki>> {
    let renewed = pki.renew(clock.now())?;
    renewed.iter().try_for_each(written)?;
    Ok(renewed)
}
