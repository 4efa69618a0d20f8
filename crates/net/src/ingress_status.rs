//! Tells users where an Ingress is served: its `status.loadBalancer`.
//!
//! `[Ingress] -> [Ingress].status`

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use yado_reconcile::{Clock, Informers, Next, ObjectKey, Queue, Tasks, run};

/// Keeps the address of every Ingress.
pub fn start(informers: &Informers, address: IpAddr, clock: Arc<dyn Clock>, tasks: &Tasks) {
    let ingresses = informers.all::<Ingress>();
    let queue: Arc<Queue<ObjectKey>> = Queue::new(clock);
    ingresses.feed_queue(&queue, |change| change.new.as_ref().map(|_| change.key.clone()));
    let client = informers.client().clone();
    run(tasks, "ingress status", &queue, 1, move |key: ObjectKey| {
        let (ingresses, client) = (ingresses.clone(), client.clone());
        async move {
            let Some(ingress) = ingresses.get(&key).filter(|i| !shows(i, address)) else {
                return Ok::<_, kube::Error>(Next::Wait);
            };
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address.to_string()}]}}});
            let api =
                Api::<Ingress>::namespaced(client, ingress.metadata.namespace.as_deref().unwrap_or_default());
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(status)).await {
                Ok(_) => Ok(Next::Wait),
                // It went meanwhile.
                Err(kube::Error::Api(e)) if e.code == 404 => Ok(Next::Wait),
                Err(error) => Err(error),
            }
        }
    });
}

fn shows(ingress: &Ingress, address: IpAddr) -> bool {
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let shown = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
    matches!(shown, [one] if one.ip.as_deref() == Some(&address.to_string()))
}
