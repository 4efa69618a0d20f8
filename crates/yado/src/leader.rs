//! Runs the controllers and the scheduler while this process is their leader.

use std::sync::Arc;
use std::time::Duration;

use yado_apiserver::{ApiServer, Identity};
use yado_controllers::Part;
use yado_reconcile::leader::Election;
use yado_reconcile::{Clock, Informers, Tasks};

/// The namespace of the Leases.
const NAMESPACE: &str = "kube-system";
/// How long the tasks of a part may take to end: less than the time between the end of a leadership and that of its Lease,
/// so that they never run beside those of the next leader. All of them look at their stop signal at every step.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// Runs a part whenever `identity` holds its Lease, until `tasks` are stopped; then the Lease is given up. Where it is lost,
/// the part is stopped before another process may start it.
pub fn run(
    part: Part,
    identity: &str,
    api: &ApiServer,
    informers: &Informers,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
    config: yado_controllers::Config,
) {
    let (api, informers, clock) = (api.clone(), informers.clone(), clock.clone());
    let client = api.client(Identity::component(part.name()));
    let mut election = Election::new(client, NAMESPACE, part.name(), identity.to_owned(), clock.clone());
    let stop = tasks.stop();
    tasks.spawn_until_stopped("leader", async move {
        while stop.run_until_cancelled(election.acquire()).await.is_some() {
            let own = Tasks::new();
            let as_component = |name| api.client(Identity::component(name));
            yado_controllers::start(part, &informers, as_component, clock.clone(), &own, config.clone());
            let is_lost = stop.run_until_cancelled(election.hold()).await.is_some();
            own.shutdown(STOP_GRACE).await;
            if !is_lost {
                return election.release().await;
            }
        }
    });
}
