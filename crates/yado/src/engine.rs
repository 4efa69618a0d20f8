//! The engine: everything put together in one process.
//!
//! ```text
//! DataDir -> store -> ApiServer <-- kube::Client -- controllers, scheduler
//!                        |    ^---- kube::Client -- Net (routing index, tables)
//!                        |    ^---- kube::Client -- Node (Pods) --> oci (images, shims)
//!                        \-- Dialer -------------------^  logs, exec, port-forward
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;
use yado_apiserver::audit::Audit;
use yado_apiserver::auth::{MASTERS, NODES};
use yado_apiserver::pki::{FrontProxy, Pki, ServerNames, write_private};
use yado_apiserver::tokens::oidc::Provider;
use yado_apiserver::tokens::{Issuer, Keys};
use yado_apiserver::{ApiServer, Identity};
use yado_cli::local::{DevApp, Running};
use yado_controllers::Part;
use yado_net::router::Options as RouterOptions;
use yado_net::router::forwarded::TrustedProxies;
use yado_net::slot::Slot;
use yado_net::{Listeners, Net};
use yado_node::Node;
use yado_oci::image::ImageStore;
use yado_oci::spec::HostRoot;
use yado_reconcile::{Clock, Informers, ObjectKey, SystemClock, Tasks};
use yado_store::{Embedded, Sealing, Store};
use yado_types::labels::CONTROL_PLANE;
use yado_types::sysctls::AllowedSysctls;

use crate::audit::AuditSettings;
use crate::authority::LocalAuthority;
use crate::collect::Keeper;
use crate::control;
use crate::data_dir::{DataDir, SECRETS_KEY};
use crate::kubeconfig;
use crate::leader;
use crate::memory;
use crate::node_name;
use crate::oidc::Login;
use crate::renewal;
use crate::reset;
use crate::storage::{RUN_DIR, instance, open_runtime};
use crate::volumes::LocalVolumes;
use crate::wiring::{Dialer, NodeNetwork};

const CLUSTER_DOMAIN: &str = "cluster.local";
/// How long tasks may take to end. All of them look at their stop signal at every step.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// A node that is not ready by then never will be.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port of the API on loopback; 0 takes any free one.
    pub api_port: u16,
    /// Port of the ingress router; 0 takes any free one.
    pub http_port: u16,
    /// The node's name; `None` is the one that the data directory has kept, or the host name at the first start.
    pub node_name: Option<String>,
    /// Proxies in front of the router whose forwarding headers are kept.
    pub trusted_proxies: TrustedProxies,
    /// Pods may run on this machine's own root.
    pub allow_host_image: bool,
    /// Kernel parameters that Pods may set beyond the safe ones.
    pub allowed_sysctls: AllowedSysctls,
    /// The file of the keys that encrypt Secrets; `None` is one in the data directory.
    pub secrets_key: Option<PathBuf>,
    /// The audit log of the API, if there is one.
    pub audit: Option<AuditSettings>,
    /// A further kubeconfig to add this cluster to.
    pub kubeconfig: Option<PathBuf>,
    /// The provider by whose tokens people log in.
    pub login: Option<Login>,
}

/// The ports of an engine, taken before anything is touched: that they are in use is what is most often wrong.
pub struct Ports {
    listeners: Listeners,
    api: TcpListener,
}

impl Ports {
    /// Takes them.
    pub async fn bind(settings: &Settings) -> Result<Self> {
        let listeners = Listeners::bind(&http_addresses(settings.http_port)).await?;
        Ok(Self { listeners, api: bind_api((Ipv4Addr::LOCALHOST, settings.api_port).into()).await? })
    }
}

/// A running engine.
pub struct Engine {
    data: DataDir,
    kubeconfigs: Vec<PathBuf>,
    store: Arc<Embedded>,
    api: ApiServer,
    node: Node,
    net: Arc<Net>,
    http: SocketAddr,
    api_address: SocketAddr,
    informers: Informers,
    node_name: String,
    /// Controllers and scheduler: what makes Pods.
    controllers: Tasks,
    /// All else that runs.
    tasks: Tasks,
}

fn node_config(
    data: &DataDir,
    settings: &Settings,
    name: &str,
    gateway: IpAddr,
) -> Result<yado_node::Config> {
    let mut config = yado_node::Config::new(name, data.dir("pods")?, gateway);
    config.allowed_sysctls = settings.allowed_sysctls.clone();
    config.host_image = settings.allow_host_image.then(|| hidden(data, settings));
    Ok(config)
}

fn controllers_config(
    data: &DataDir,
    node_name: &str,
    pki: Pki,
    clock: &Arc<dyn Clock>,
) -> yado_controllers::Config {
    yado_controllers::Config {
        root_ca: Some(pki.authority().to_owned()),
        directories: Some(Arc::new(LocalVolumes::new(node_name, data.file("volumes")))),
        authority: Some(Arc::new(LocalAuthority::new(pki, clock.clone()))),
        ..Default::default()
    }
}

/// How the network is set up. Published ports keep off the engine's own two.
fn net_config(settings: &Settings, node_name: &str, http_port: u16, api_port: u16) -> yado_net::Config {
    yado_net::Config {
        ingress_address: Ipv4Addr::LOCALHOST.into(),
        node_address: yado_node::machine_address(),
        node_name: node_name.to_owned(),
        own_ports: vec![
            (http_port, "its HTTP router (--http-port)".into()),
            (api_port, "its API (--api-port)".into()),
        ],
        cluster_domain: CLUSTER_DOMAIN.into(),
        resolv_conf: fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        router: RouterOptions { trusted_proxies: settings.trusted_proxies.clone(), ..Default::default() },
    }
}

impl Engine {
    /// Starts everything; [`Engine::ready`] tells when Pods can run.
    pub async fn start(
        data: DataDir,
        images: ImageStore,
        settings: &Settings,
        Ports { listeners, api: api_listener }: Ports,
    ) -> Result<Self> {
        memory::give_back_in_background();
        let clock = SystemClock::shared();
        let (tasks, controllers) = (Tasks::new(), Tasks::new());
        let http = listeners.addresses().first().copied().context("the router listens nowhere")?;
        let api_address = api_listener.local_addr().context("the API's port is unknown")?;

        // A core dump would put every Secret on a disk.
        nix::sys::prctl::set_dumpable(false).context("core dumps cannot be forbidden")?;
        let store = open_store(&data, settings).await?;
        let routed = yado_net::pods::routed().await?;
        let slot = Slot::claim(data.path(), Path::new(RUN_DIR), &routed)?;
        let dialer = Dialer::new(tasks.clone());
        // Pods reach the API where they reach the node's other services.
        let for_pods = SocketAddr::from((slot.gateway(), api_address.port()));
        let login = settings.login.as_ref().map(|login| login.start(clock.clone(), &tasks));
        let audit = settings.audit.as_ref().map(|audit| audit.open(&clock)).transpose()?;
        let api = api_server(&data, &slot, for_pods, (login, audit), &store, &clock, &dialer).await?;
        let admin = api.client(Identity::new("kubernetes-admin", [MASTERS]));
        let node_name = node_name::settle(&data, settings.node_name.as_deref(), &admin).await?;
        let pki = open_pki(&data, &slot, &node_name, &clock)?;
        let tls = pki.server_config()?;
        serve_api(&api, api_listener, &tls, &tasks);
        let files = Kubeconfigs::new(&data, settings, api_address);
        let kubeconfigs = files.write(&pki)?;
        renewal::start(pki.clone(), move |pki| files.write(pki).map(drop), clock.clone(), &tasks);

        let as_component = |name| api.client(Identity::component(name));
        let informers = Informers::new(as_component("informers"), tasks.clone());
        let gateway = IpAddr::V4(slot.gateway());
        let net_config = net_config(settings, &node_name, http.port(), api_address.port());
        let net_informers = informers.acting_as(as_component("net"));
        let net = Arc::new(Net::start(slot, listeners, &net_config, &net_informers, &clock, &tasks).await?);
        serve_api(&api, bind_api(for_pods).await?, &tls, &tasks);
        let node_informers =
            informers.acting_as(api.client(Identity::new(format!("system:node:{node_name}"), [NODES])));
        let node_config = node_config(&data, settings, &node_name, gateway)?;
        let node =
            start_node(&data, node_config, images.clone(), &net, node_informers, &clock, &tasks).await?;
        dialer.lead_to(node.clone());
        let keeper = Keeper::new(images, node.clone(), &informers);
        keeper.start(clock.clone(), &tasks);
        control::serve(data.path(), keeper, &tasks)?;
        let config = controllers_config(&data, &node_name, pki, &clock);
        // One process can claim the data directory, so that its Leases can be taken over at once.
        let identity = format!("{node_name}_{}", instance(data.path()));
        for part in Part::ALL {
            leader::run(part, &identity, &api, &informers, &clock, &controllers, config.clone());
        }
        mark_control_plane(&admin, &node_name).await?;
        Ok(Self {
            data,
            kubeconfigs,
            store,
            api,
            node,
            net,
            http,
            api_address,
            informers,
            node_name,
            controllers,
            tasks,
        })
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Client {
        self.api.client(Identity::new("kubernetes-admin", [MASTERS]))
    }

    /// Leaves word in the data directory that it is ready, and what it runs.
    pub fn tell(&self, dev: Option<DevApp>) -> Result<()> {
        let running = Running {
            pid: std::process::id(),
            node: self.node_name.clone(),
            api: format!("https://{}", self.api_address),
            http_port: self.http.port(),
            dev,
        };
        let written = running.write(self.data.path());
        written.with_context(|| format!("{} cannot be written to", self.data.path().display()))
    }

    /// Where the router listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Ready once the node is, and every table of the network knows every Service.
    pub async fn ready(&self) -> Result<()> {
        let nodes = self.informers.all::<NodeObject>();
        let is_ready = |node: Option<&NodeObject>| {
            let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        };
        let key = ObjectKey::new("", &self.node_name);
        if !nodes.until(&key, READY_TIMEOUT, is_ready).await {
            anyhow::bail!(
                "node {} is not ready after {} s; YADO_LOG=debug tells more",
                self.node_name,
                READY_TIMEOUT.as_secs()
            );
        }
        self.node.ready().await;
        self.net.synced().await;
        Ok(())
    }

    /// Stops; containers go on, and the next start adopts them.
    pub async fn stop(self) -> Result<()> {
        self.controllers.shutdown(STOP_GRACE).await;
        self.tasks.shutdown(STOP_GRACE).await;
        self.api.shutdown().await;
        self.store.close().await;
        Ok(())
    }

    /// Stops and removes everything but the images: containers, networks, objects. Each step is tried whatever
    /// became of the others; the first error is told.
    pub async fn remove(self) -> Result<()> {
        self.controllers.shutdown(STOP_GRACE).await;
        let pods = self.node.remove_everything().await.context("Pods are left");
        self.tasks.shutdown(STOP_GRACE).await;
        let network = self.net.tear_down().await.context("parts of the network are left");
        self.api.shutdown().await;
        self.store.close().await;
        let removed = reset::files(&self.data, &self.kubeconfigs);
        pods.and(network).and(removed)
    }
}

/// Every IPv4 address, so that others reach the apps, and IPv6 loopback: browsers resolve `NAME.localhost` to either.
fn http_addresses(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

async fn bind_api(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{address} cannot be listened on for the API; stop what uses it or choose another --api-port")
    })
}

/// Labels the node of this process as one that runs the control plane, which no node may do itself.
async fn mark_control_plane(admin: &Client, name: &str) -> Result<()> {
    let nodes: Api<NodeObject> = Api::all(admin.clone());
    let params = PatchParams::apply("yado").force();
    let labels = json!({CONTROL_PLANE: ""});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    let marked = nodes.patch(name, &params, &Patch::Apply(node)).await;
    marked.map(drop).with_context(|| format!("the node {name} cannot be registered"))
}

/// Serves the API on a listener until the engine stops.
fn serve_api(api: &ApiServer, listener: TcpListener, tls: &Arc<rustls::ServerConfig>, tasks: &Tasks) {
    let (api, tls, stop) = (api.clone(), tls.clone(), tasks.stop());
    tasks.spawn_until_stopped("api", async move { api.serve(listener, tls, stop.cancelled_owned()).await });
}

/// The store, with Secrets encrypted on the disk. A file of keys that is named must be there: one made in the wrong
/// place, or where it does not last, would be lost, and every Secret with it.
async fn open_store(data: &DataDir, settings: &Settings) -> Result<Arc<Embedded>> {
    let sealing = Sealing {
        prefixes: yado_apiserver::secret_prefixes(),
        keys: settings.secrets_key.clone().unwrap_or_else(|| data.file(SECRETS_KEY)),
        create: settings.secrets_key.is_none(),
    };
    let config = yado_store::Config { sealing: Some(sealing), ..yado_store::Config::new(data.dir("store")?) };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(config)).await;
    let opened = opened.context("the store could not be opened")?;
    let of_keys = |error: &yado_store::Error| {
        matches!(error, yado_store::Error::KeyMissing { .. } | yado_store::Error::KeyFile { .. })
    };
    match opened {
        Err(error) if of_keys(&error) => Err(error)
            .context("Secrets cannot be decrypted with the keys of --secrets-key or of the data directory"),
        opened => Ok(Arc::new(opened?)),
    }
}

/// Certificates for the names and addresses under which clients reach the API.
fn open_pki(data: &DataDir, slot: &Slot, node_name: &str, clock: &Arc<dyn Clock>) -> Result<Pki> {
    let [a, b, ..] = slot.service_cidr().network().octets();
    let names = ServerNames {
        names: vec![node_name.to_owned()],
        addresses: vec![IpAddr::V4(Ipv4Addr::new(a, b, 0, 1)), IpAddr::V4(slot.gateway())],
    };
    Ok(Pki::load_or_create(&data.dir("pki")?, &names, clock.now())?)
}

async fn api_server(
    data: &DataDir,
    slot: &Slot,
    advertise: SocketAddr,
    (oidc, audit): (Option<Arc<Provider>>, Option<Audit>),
    store: &Arc<Embedded>,
    clock: &Arc<dyn Clock>,
    dialer: &Dialer,
) -> Result<ApiServer> {
    let front_proxy = FrontProxy::load_or_create(&data.dir("pki")?, clock.now())?;
    let config = yado_apiserver::Config {
        service_cidr: slot.service_cidr(),
        advertise: Some(advertise),
        issuer: Some(Issuer::new(Keys::load_or_create(&data.dir("pki")?)?)),
        front_proxy: Some(front_proxy),
        oidc,
        audit,
        ..Default::default()
    };
    let store: Arc<dyn Store> = store.clone();
    let server = ApiServer::new(config, store, clock.clone(), Arc::new(dialer.clone())).await;
    server.map_err(|failure| anyhow::anyhow!("the API cannot be served: {failure}"))
}

/// What a container on the machine's own root must not see: keys and certificates above all.
fn hidden(data: &DataDir, settings: &Settings) -> HostRoot {
    let kubeconfig = settings.kubeconfig.iter().filter_map(|path| path.canonicalize().ok());
    let keys = settings.secrets_key.iter().filter_map(|path| path.canonicalize().ok());
    HostRoot { hidden: [data.path().to_owned()].into_iter().chain(kubeconfig).chain(keys).collect() }
}

async fn start_node(
    data: &DataDir,
    config: yado_node::Config,
    images: ImageStore,
    net: &Arc<Net>,
    informers: Informers,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> Result<Node> {
    let runtime = open_runtime(data)?;
    let network = Arc::new(NodeNetwork(net.clone()));
    let (clock, tasks) = (clock.clone(), tasks.clone());
    let node = Node::new(config, informers, images, runtime, network.clone(), network, clock, tasks)?;
    node.start();
    Ok(node)
}

/// The administrator's kubeconfigs. Only their owner may read them, as they hold a key.
struct Kubeconfigs {
    /// The one in the data directory.
    own: PathBuf,
    /// A user's, which this cluster is added to.
    users: Option<PathBuf>,
    /// What this cluster is called in it.
    instance: String,
    /// The URL of the API.
    server: String,
}

impl Kubeconfigs {
    fn new(data: &DataDir, settings: &Settings, api: SocketAddr) -> Self {
        Self {
            own: data.file("kubeconfig"),
            users: settings.kubeconfig.clone(),
            instance: instance(data.path()),
            server: format!("https://{api}"),
        }
    }

    /// Writes all of them with the present certificates. Returns their paths.
    fn write(&self, pki: &Pki) -> Result<Vec<PathBuf>> {
        let text = pki.kubeconfig(&self.server);
        write_private(&self.own, &text)
            .with_context(|| format!("the kubeconfig {} cannot be written", self.own.display()))?;
        if let Some(users) = &self.users {
            kubeconfig::add(users, &text, &self.instance)?;
        }
        Ok([self.own.clone()].into_iter().chain(self.users.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
    use yado_apiserver::NoNodes;

    use super::*;

    /// Another way to know what the role of the shared informers must have than the list that it is compared with.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_shared_informer_may_read_its_kind() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
        let clock = SystemClock::shared();
        let config = yado_apiserver::Config::default();
        let api =
            ApiServer::new(config, store.clone(), clock.clone(), Arc::new(NoNodes)).await.expect("a server");
        let as_component = |name| api.client(Identity::component(name));
        let tasks = Tasks::new();
        let informers = Informers::new(as_component("informers"), tasks.clone());
        for part in Part::ALL {
            yado_controllers::start(
                part,
                &informers,
                as_component,
                clock.clone(),
                &tasks,
                Default::default(),
            );
        }
        // Those of the network, which needs a machine of its own.
        let _ = (informers.all::<Ingress>(), informers.all::<NetworkPolicy>());
        for _ in 0..6000 {
            if informers.unsynced().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(informers.unsynced(), Vec::<String>::new());
        tasks.shutdown(STOP_GRACE).await;
        api.shutdown().await;
        store.close().await;
    }
}
