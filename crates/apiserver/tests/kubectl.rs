//! The real `kubectl` against a served API: one row for each command.

#[path = "kubectl/custom.rs"]
mod custom;
#[path = "kubectl/kinds.rs"]
mod kinds;
#[path = "kubectl/policies.rs"]
mod policies;
#[path = "kubectl/published.rs"]
mod published;
#[path = "kubectl/removed.rs"]
mod removed;
#[path = "kubectl/roles.rs"]
mod roles;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use yado_apiserver::pki::{Pki, ServerNames};
use yado_apiserver::{ApiServer, Config, NoNodes};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

/// One command: arguments, what it reads, whether it succeeds, what it prints (each text in its output or errors, in
/// this order).
struct Row<'a>(&'a str, &'a str, bool, &'a [&'a str]);

struct Kubectl {
    directory: PathBuf,
}

impl Kubectl {
    fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg(format!("--cache-dir={}", self.directory.join("cache").display()))
            .env("KUBECONFIG", self.directory.join("config"))
            .env("HOME", &self.directory)
            .env("KUBE_EDITOR", "sed -i s/color:.*/color:\\ edited/")
            .current_dir(&self.directory);
        command
    }

    fn run(&self, row: &Row<'_>) -> Result<(), String> {
        let Row(arguments, input, success, texts) = row;
        let mut child = self
            .command()
            .args(shell_words(arguments))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut stdin = child.stdin.take().ok_or("no stdin")?;
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let problem = |what: String| Err(format!("kubectl {arguments}\n  {what}; it printed:\n{printed}"));
        if output.status.success() != *success {
            return problem(format!("ended with {}", output.status));
        }
        let mut rest = &*printed;
        for text in *texts {
            match rest.find(text) {
                Some(at) => rest = &rest[at + text.len()..],
                None => return problem(format!("{text:?} is missing")),
            }
        }
        Ok(())
    }
}

/// Splits at spaces outside single quotes.
fn shell_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            other => {
                word.push(other);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

async fn serve(
    directory: &Path,
) -> (ApiServer, Arc<Embedded>, CancellationToken, tokio::task::JoinHandle<()>) {
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.join("store"))).expect("a store"));
    let clock = SystemClock::shared();
    let pki = Pki::load_or_create(&directory.join("pki"), &ServerNames::default(), clock.now())
        .expect("certificates");
    let server =
        ApiServer::new(Config::default(), store.clone(), clock, Arc::new(NoNodes)).await.expect("a server");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    std::fs::write(directory.join("config"), pki.kubeconfig(&url)).expect("a kubeconfig");
    let stop = CancellationToken::new();
    let serving = {
        let (server, stop, tls) = (server.clone(), stop.clone(), pki.server_config().expect("TLS"));
        tokio::spawn(async move { server.serve(listener, tls, stop.cancelled_owned()).await })
    };
    (server, store, stop, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands() {
    check(ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k42_controllers_of_every_age_and_volumes() {
    check(kinds::ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources() {
    check(custom::ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k13_k29_k36_k42_manifests_of_removed_versions() {
    check(removed::ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_pod_security() {
    check(policies::ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_what_they_allow() {
    check(roles::ROWS).await;
}

async fn check(rows: &'static [Row<'static>]) {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        yado_testkit::skip!("there is no kubectl on this machine");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (server, store, stop, serving) = serve(directory.path()).await;
    let kubectl = Kubectl { directory: directory.path().to_owned() };
    let failures = tokio::task::spawn_blocking(move || {
        rows.iter().filter_map(|row| kubectl.run(row).err()).collect::<Vec<_>>()
    });
    let failures = failures.await.expect("the commands");
    stop.cancel();
    serving.await.expect("serving");
    server.shutdown().await;
    store.close().await;
    assert!(
        failures.is_empty(),
        "{} of {} rows failed:\n\n{}",
        failures.len(),
        rows.len(),
        failures.join("\n\n")
    );
}

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: colors\ndata:\n  color: red\n";
const CONFIG_MAP_2: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: colors\ndata:\n  color: blue\n";
const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: "nginx:1", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}
"#;
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec: {containers: [{name: c, image: busybox}]}
"#;
const TYPO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: typo}
spec: {containers: [{name: c, imagee: busybox, image: busybox}]}
"#;
const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/hostname: n1}}
status: {nodeInfo: {kubeletVersion: v1.36.0, architecture: "", bootID: "", containerRuntimeVersion: "", kernelVersion: "", kubeProxyVersion: "", machineID: "", operatingSystem: "", osImage: "", systemUUID: ""}}
"#;
const LIST: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: l1, labels: {set: l}}, data: {a: "1"}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: l2, labels: {set: l}}, data: {a: "1"}}
"#;
const BAD_LIST: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: bad}, date: {a: "1"}}
"#;
const LIST_SHORT: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: l1, labels: {set: l}}\ndata: {a: \"1\"}\n";
const INVALID: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: c}]}\n";

#[rustfmt::skip]
const ROWS: &[Row<'_>] = &[
    Row("version", "", true, &["Client Version", "Server Version: v1."]),
    Row("cluster-info", "", true, &["control plane", "is running at"]),
    Row("config use-context yado", "", true, &["Switched to context \"yado\""]),
    Row("config current-context", "", true, &["yado"]),
    Row("auth whoami", "", true, &["kubernetes-admin"]),
    Row("auth can-i create pods", "", true, &["yes"]),
    Row("api-versions", "", true, &["apps/v1", "v1"]),
    Row("api-resources", "", true, &["configmaps", "cm", "v1", "true", "ConfigMap", "deployments", "deploy", "apps/v1"]),
    Row("api-resources --namespaced=false -o name", "", true, &["namespaces", "nodes"]),
    Row("get namespaces", "", true, &["NAME", "STATUS", "AGE", "default", "Active", "kube-system"]),
    Row("get svc kubernetes -o jsonpath={.spec.clusterIP}", "", true, &["10.96.0.1"]),
    Row("get serviceaccounts", "", true, &["default"]),
    Row("get --raw /readyz", "", true, &["ok"]),
    Row("create configmap a --from-literal=x=1", "", true, &["configmap/a created"]),
    Row("create configmap a --from-literal=x=1", "", false, &["configmaps \"a\" already exists"]),
    Row("get configmap nope", "", false, &["Error from server (NotFound): configmaps \"nope\" not found"]),
    Row("get cm a -o yaml", "", true, &["apiVersion: v1", "x: \"1\"", "kind: ConfigMap", "resourceVersion: \"", "uid: "]),
    Row("get cm a -o json", "", true, &["\"x\": \"1\""]),
    Row("get cm", "", true, &["NAME", "DATA", "AGE", "a", "1"]),
    Row("get cm -o name", "", true, &["configmap/a"]),
    Row("get cm -A --field-selector metadata.name=a", "", true, &["NAMESPACE", "default", "a"]),
    Row("get cm --chunk-size=1", "", true, &["a"]),
    Row("create -f -", CONFIG_MAP, true, &["configmap/colors created"]),
    Row("apply -f -", CONFIG_MAP, true, &["missing the kubectl.kubernetes.io/last-applied-configuration"]),
    Row("apply -f -", CONFIG_MAP_2, true, &["configmap/colors configured"]),
    Row("apply -f -", CONFIG_MAP_2, true, &["configmap/colors unchanged"]),
    Row("diff -f -", CONFIG_MAP, false, &["-  color: blue", "+  color: red"]),
    Row("apply --server-side -f -", CONFIG_MAP, false, &["Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\"", ".data.color"]),
    Row("apply --server-side --force-conflicts -f -", CONFIG_MAP, true, &["configmap/colors serverside-applied"]),
    Row("edit cm colors", "", true, &["configmap/colors edited"]),
    Row("get cm colors -o jsonpath={.data.color}", "", true, &["edited"]),
    Row("replace -f -", CONFIG_MAP, true, &["configmap/colors replaced"]),
    Row("patch cm colors -p '{\"data\":{\"size\":\"xl\"}}'", "", true, &["configmap/colors patched"]),
    Row("patch cm colors --type=merge -p '{\"data\":{\"size\":null}}'", "", true, &["configmap/colors patched"]),
    Row("patch cm colors --type=json -p '[{\"op\":\"add\",\"path\":\"/data/k\",\"value\":\"v\"}]'", "", true, &["configmap/colors patched"]),
    Row("get cm colors -o jsonpath={.data}", "", true, &["{\"color\":\"red\",\"k\":\"v\"}"]),
    Row("label cm colors tier=front", "", true, &["configmap/colors labeled"]),
    Row("get cm -l tier=front -o name", "", true, &["configmap/colors"]),
    Row("annotate cm colors note=hello", "", true, &["configmap/colors annotated"]),
    Row("describe cm colors", "", true, &["Name:         colors", "tier=front", "note: hello"]),
    Row("create cm dry --from-literal=x=1 --dry-run=server", "", true, &["configmap/dry created (server dry run)"]),
    Row("get cm dry", "", false, &["NotFound"]),
    Row("create secret generic s --from-literal=password=pw", "", true, &["secret/s created"]),
    Row("create secret generic f --from-file=config", "", true, &["secret/f created"]),
    Row("get secrets", "", true, &["NAME", "TYPE", "DATA", "AGE", "f", "Opaque", "s", "Opaque"]),
    Row("get secret s -o jsonpath={.data.password}", "", true, &["cHc="]),
    Row("create namespace team", "", true, &["namespace/team created"]),
    Row("-n team get sa default -o name", "", true, &["serviceaccount/default"]),
    Row("-n team create cm x", "", true, &["configmap/x created"]),
    Row("-n nowhere create cm x", "", false, &["namespaces \"nowhere\" not found"]),
    Row("apply -f -", DEPLOYMENT, true, &["deployment.apps/web created", "service/web created"]),
    Row("get deploy", "", true, &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "web", "0/2"]),
    Row("get deploy web -o wide", "", true, &["CONTAINERS", "IMAGES", "SELECTOR", "nginx:1", "app=web"]),
    Row("get svc web", "", true, &["NodePort", "80:30080/TCP"]),
    Row("get all", "", true, &["service/web", "deployment.apps/web"]),
    Row("set image deploy/web c=nginx:2", "", true, &["deployment.apps/web image updated"]),
    Row("get deploy web -o jsonpath={.metadata.generation}", "", true, &["2"]),
    Row("scale deploy web --replicas=5", "", true, &["deployment.apps/web scaled"]),
    Row("get deploy web -o jsonpath={.spec.replicas}", "", true, &["5"]),
    Row("set env deploy/web A=b", "", true, &["env updated"]),
    Row("rollout restart deploy/web", "", true, &["restarted"]),
    Row("rollout history deploy/web", "", true, &["deployment.apps/web"]),
    Row("rollout pause deploy/web", "", true, &["paused"]),
    Row("describe deploy web", "", true, &["Name:                   web", "Replicas:               5 desired", "Image:      nginx:2"]),
    Row("get svc web -o yaml", "", true, &["clusterIP: 10.96.", "nodePort: 30080"]),
    Row("create service nodeport other --tcp=80 --node-port=30080", "", false, &["spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"]),
    Row("delete svc web", "", true, &["service \"web\" deleted"]),
    Row("create service nodeport other --tcp=80 --node-port=30080", "", true, &["service/other created"]),
    Row("expose deploy web --port=80 --name=web2", "", true, &["service/web2 exposed"]),
    Row("create -f -", TYPO, false, &["strict decoding error: unknown field \"spec.containers[0].imagee\""]),
    Row("create --validate=warn -f -", TYPO, true, &["pod/typo created", "Warning: unknown field \"spec.containers[0].imagee\""]),
    Row("create -f -", INVALID, false, &["The Pod \"bad\" is invalid: spec.containers[0].image: Required value"]),
    Row("create -f -", POD, true, &["pod/p created"]),
    Row("get pods", "", true, &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "p", "0/1", "Pending"]),
    Row("get pods -o wide", "", true, &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]),
    Row("describe pod p", "", true, &["Name:             p", "Status:           Pending", "Image:", "busybox", "QoS Class:", "BestEffort"]),
    Row("logs p", "", false, &["is waiting to start"]),
    Row("exec p -- true", "", false, &["pod p does not have a host assigned"]),
    Row("wait --for=jsonpath={.status.phase}=Pending pod/p --timeout=5s", "", true, &["pod/p condition met"]),
    Row("wait --for=condition=Ready pod/p --timeout=1s", "", false, &["timed out waiting"]),
    Row("delete pod p", "", true, &["pod \"p\" deleted"]),
    Row("run q --image=busybox --restart=Never", "", true, &["pod/q created"]),
    Row("delete pods --all --now", "", true, &["pod \"q\"", "deleted"]),
    Row("explain deployment.spec.replicas", "", true, &["GROUP:", "apps", "FIELD: replicas <integer>"]),
    Row("explain pod.spec.containers", "", true, &["FIELD: containers <[]Container>", "image"]),
    Row("explain pod.spec.containers --output=plaintext-openapiv2", "", true, &["RESOURCE: containers <[]Object>", "List of containers", "imagePullPolicy\t<string>"]),
    Row("explain svc.spec.ports.targetPort --output=plaintext-openapiv2", "", true, &["FIELD:    targetPort <string>"]),
    Row("create -f -", BAD_LIST, false, &["error validating data", "unknown field \"date\" in io.k8s.api.core.v1.ConfigMap"]),
    Row("create ingress i --rule=foo.com/*=svc:80", "", true, &["ingress.networking.k8s.io/i created"]),
    Row("get ingress", "", true, &["CLASS", "HOSTS", "ADDRESS", "PORTS", "foo.com"]),
    Row("get events", "", true, &["No resources found"]),
    Row("get nodes", "", true, &["No resources found"]),
    Row("delete deploy,svc,cm,ingress --all", "", true, &["deployment.apps \"web\" deleted"]),
    Row("delete cm a", "", false, &["NotFound"]),
    Row("delete cm a --ignore-not-found", "", true, &[]),
    Row("delete ns default", "", false, &["Forbidden", "this namespace may not be deleted"]),
    Row("delete ns team --wait=false", "", true, &["namespace \"team\" deleted"]),
    Row("-n team create cm y", "", false, &["because it is being terminated"]),
    Row("get ns team", "", true, &["Terminating"]),
    Row("create -f -", NODE, true, &["node/n1 created"]),
    Row("get nodes -o wide", "", true, &["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "n1", "v1.36"]),
    Row("cordon n1", "", true, &["node/n1 cordoned"]),
    Row("get nodes", "", true, &["SchedulingDisabled"]),
    Row("uncordon n1", "", true, &["node/n1 uncordoned"]),
    Row("taint node n1 a=b:NoSchedule", "", true, &["node/n1 tainted"]),
    Row("describe node n1", "", true, &["Name:               n1", "a=b:NoSchedule"]),
    Row("drain n1 --force --ignore-daemonsets", "", true, &["node/n1 drained"]),
    Row("delete node n1", "", true, &["node \"n1\" deleted"]),
    Row("create cm w --from-literal=x=1", "", true, &["configmap/w created"]),
    Row("get cm w -w --request-timeout=1s", "", true, &["NAME", "DATA", "w", "1"]),
    Row("get cm -w -o name --request-timeout=1s", "", true, &["configmap/w"]),
    Row("wait --for=delete cm/w --timeout=1s", "", false, &["timed out waiting"]),
    Row("delete cm w", "", true, &["deleted"]),
    Row("wait --for=delete cm/w --timeout=1s", "", true, &[]),
    Row("apply -f -", LIST, true, &["configmap/l1 created", "configmap/l2 created"]),
    Row("get cm -l set=l --sort-by=.metadata.name -o custom-columns=N:.metadata.name", "", true, &["l1", "l2"]),
    Row("apply --prune -l set=l -f -", LIST_SHORT, true, &["configmap/l1 unchanged", "configmap/l2 pruned"]),
    Row("delete -f -", LIST_SHORT, true, &["configmap \"l1\" deleted"]),
    Row("create serviceaccount robot", "", true, &["serviceaccount/robot created"]),
    Row("create secret docker-registry r --docker-server=x --docker-username=u --docker-password=p", "", true, &["secret/r created"]),
    Row("create secret tls t --cert=/nowhere --key=/nowhere", "", false, &[]),
    Row("create deployment d --image=nginx --replicas=3", "", true, &["deployment.apps/d created"]),
    Row("autoscale deploy d --max=3", "", false, &[]),
    Row("delete deploy d --cascade=orphan --wait=false", "", true, &["deployment.apps \"d\" deleted"]),
    Row("get deploy d -o jsonpath={.metadata.finalizers}", "", true, &["orphan"]),
    Row("get cm --as=jane", "", false, &["Forbidden", "User \"jane\" cannot list resource \"configmaps\""]),
    Row("auth can-i get pods --as=jane", "", false, &["no"]),
    Row("events", "", true, &["No events found"]),
    Row("get nonsense", "", false, &["the server doesn't have a resource type \"nonsense\""]),
];
