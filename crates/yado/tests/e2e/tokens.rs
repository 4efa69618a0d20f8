//! ServiceAccounts: how Pods reach the API with their tokens, and what becomes of these tokens.

use super::cluster::Cluster;

const CLIENT: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: app}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  serviceAccountName: app
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1000, fsGroup: 2000}
  containers:
  - {name: c, image: "gcr.io/google-samples/gb-frontend:v4", imagePullPolicy: Never, command: [sleep, "100000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: without}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "100000"]}
"#;

const TOKEN_SECRET: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: app-token, annotations: {kubernetes.io/service-account.name: app}}
type: kubernetes.io/service-account-token
"#;

/// Sends a request as clients in Pods do, and prints the code and a text of the answer. Arguments: the URL; `-` for no
/// token; the body of a POST.
const ASK: &str = r#"
import json, os, ssl, sys, urllib.error, urllib.request
base = "/var/run/secrets/kubernetes.io/serviceaccount/"
request = urllib.request.Request(os.path.expandvars(sys.argv[1]))
if "-" not in sys.argv:
    request.add_header("Authorization", "Bearer " + open(base + "token").read())
body = [a for a in sys.argv[2:] if a != "-"]
if body:
    request.add_header("Content-Type", "application/json")
    request.data = body[0].encode()
try:
    answer = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=base + "ca.crt"))
except urllib.error.HTTPError as error:
    answer = error
content = json.load(answer)
if "userInfo" in content.get("status", {}):
    info = content["status"]["userInfo"]
    content["message"] = info["username"] + " " + info["extra"]["authentication.kubernetes.io/pod-name"][0]
print(answer.status, content.get("message", ""))
"#;

const PODS: &str = "https://kubernetes.default.svc/api/v1/namespaces/default/pods";
const REVIEW: &str = "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn ask(cluster: &Cluster, args: &[&str]) -> String {
    let all = [&["exec", "client", "--", "python3", "-c", ASK][..], args].concat();
    cluster.ok(&all).trim_end().to_owned()
}

/// The code of an answer to a request with this token, from outside of Pods.
fn code(cluster: &Cluster, token: &str) -> String {
    let server = cluster.ok(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let (header, url) =
        (format!("Authorization: Bearer {token}"), format!("{server}/api/v1/namespaces/default/pods"));
    cluster.curl(&["-k", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url])
}

#[test]
fn pods_reach_the_api_as_their_service_account() {
    let Some(mut cluster) = Cluster::start(&["busybox.tar", "gb-frontend.tar"]) else { return };
    cluster.apply(CLIENT);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/client", "pod/without", "--timeout=180s"]);
    let rows: &[(&[&str], &str)] = &[
        (
            &[PODS],
            "403 pods is forbidden: User \"system:serviceaccount:default:app\" cannot list resource \"pods\" in API group \
             \"\" in the namespace \"default\"",
        ),
        (&["https://kubernetes.default.svc/version"], "200"),
        (&["https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version", "-"], "200"),
        (&[REVIEW, r#"{"kind":"SelfSubjectReview"}"#], "201 system:serviceaccount:default:app client"),
    ];
    for (args, expect) in rows {
        assert_eq!(ask(&cluster, args), *expect, "{args:?}");
    }
    assert!(ask(&cluster, &[PODS, "-"]).starts_with("403 "), "without a token it is anonymous");
    let file = |name: &str| {
        let path = format!("/var/run/secrets/kubernetes.io/serviceaccount/{name}");
        cluster.ok(&["exec", "client", "--", "cat", &path])
    };
    assert_eq!(file("namespace"), "default");
    let modes = "stat -Lc '%a %u %g' /var/run/secrets/kubernetes.io/serviceaccount/token";
    assert_eq!(cluster.ok(&["exec", "client", "--", "sh", "-c", modes]), "640 1000 2000\n");
    assert!(!cluster.kubectl(&["exec", "without", "--", "ls", "/var/run/secrets"]).status.success());

    // A restart keeps the key: tokens of before are accepted, and Pods get new ones.
    let token = file("token");
    assert_eq!(code(&cluster, &token), "403");
    cluster.crash_and_restart();
    cluster.until("the Pod has a new token", || {
        let path = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let output = cluster.kubectl(&["exec", "client", "--", "cat", path]);
        (output.status.success() && output.stdout != token.as_bytes()).then_some(())
    });
    assert!(ask(&cluster, &[PODS]).starts_with("403 "));
    assert_eq!(code(&cluster, &token), "403");

    // With the Pod its tokens end.
    cluster.ok(&["delete", "pod", "client", "--timeout=180s"]);
    assert_eq!(code(&cluster, &token), "401");
    let other = cluster.ok(&["create", "token", "app", "--duration=10m"]);
    assert_eq!(code(&cluster, other.trim_end()), "403");
}

#[test]
fn controllers_keep_the_ca_and_the_secrets_of_tokens() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let ca = || cluster.kubectl(&["get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.data}"]).stdout;
    let first = cluster.until("the CA is there", || Some(ca()).filter(|ca| !ca.is_empty()));
    cluster.ok(&["delete", "configmap", "kube-root-ca.crt"]);
    cluster.until("the CA is there again", || (ca() == first).then_some(()));
    cluster.ok(&["patch", "configmap", "kube-root-ca.crt", "-p", r#"{"data":{"ca.crt":"x","y":"z"}}"#]);
    cluster.until("the CA is restored", || (ca() == first).then_some(()));

    cluster.ok(&["create", "serviceaccount", "app"]);
    cluster.apply(TOKEN_SECRET);
    let token = cluster.until("the Secret has a token", || {
        let text = cluster.ok(&[
            "get",
            "secret",
            "app-token",
            "-o",
            "go-template={{with .data}}{{.token|base64decode}}{{end}}",
        ]);
        Some(text).filter(|text| !text.is_empty())
    });
    let keys = cluster.ok(&[
        "get",
        "secret",
        "app-token",
        "-o",
        "go-template={{range $k, $v := .data}}{{$k}} {{end}}",
    ]);
    assert_eq!(keys, "ca.crt namespace token ");
    assert_eq!(code(&cluster, &token), "403");
    cluster.ok(&["delete", "serviceaccount", "app"]);
    assert_eq!(code(&cluster, &token), "401");
    cluster.until("the Secret is gone", || {
        (!cluster.kubectl(&["get", "secret", "app-token"]).status.success()).then_some(())
    });
}
