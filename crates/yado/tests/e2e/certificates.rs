//! CertificateSigningRequests: from a key to a client that is known by its certificate.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::cluster::Cluster;

/// What lets bootstrapping machines have client certificates as nodes.
const BOOTSTRAPPERS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bootstrap}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bootstrap-clients}
roleRef:
  {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
"#;

/// A request for a certificate of this user and group, as a manifest, with its key in PEM.
fn request(name: &str, signer: &str, user: &str, group: &str) -> (String, String) {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, user);
    parameters.distinguished_name.push(DnType::OrganizationName, group);
    let key = KeyPair::generate().expect("a key");
    let pem = parameters.serialize_request(&key).expect("a request").pem().expect("PEM");
    let encoded = STANDARD.encode(pem);
    let manifest = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  \
         signerName: {signer}\n  usages: [client auth, digital signature]\n  expirationSeconds: 86400\n  request: {encoded}\n"
    );
    (manifest, key.serialize_pem())
}

/// The certificate of a request, once it is there.
fn issued(cluster: &Cluster, name: &str) -> String {
    let template = "go-template={{with .status.certificate}}{{.|base64decode}}{{end}}";
    cluster.until("the certificate is issued", || {
        Some(cluster.ok(&["get", "csr", name, "-o", template])).filter(|text| !text.is_empty())
    })
}

/// The user and the groups that a client with this certificate has.
fn whoami(cluster: &Cluster, certificate: &str, key: &str) -> String {
    let (crt_path, key_path) =
        (cluster.data.path().join("client.crt"), cluster.data.path().join("client.key"));
    fs::write(&crt_path, certificate).expect("a file");
    fs::write(&key_path, key).expect("a file");
    let server = cluster.ok(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let url = format!("{server}/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let answer = cluster.curl(&[
        "-k",
        "--cert",
        &crt_path.to_string_lossy(),
        "--key",
        &key_path.to_string_lossy(),
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#,
        &url,
    ]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let user = &answer["status"]["userInfo"];
    format!("{} {}", user["username"], user["groups"])
}

#[test]
fn approved_requests_become_certificates_of_clients() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let (manifest, key) = request("jane", "kubernetes.io/kube-apiserver-client", "jane", "dev");
    cluster.apply(&manifest);
    let line = cluster.ok(&["get", "csr", "jane", "--no-headers"]);
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        words[2..],
        ["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "24h", "Pending"],
        "{line}"
    );
    assert_eq!(
        cluster.ok(&["certificate", "approve", "jane"]),
        "certificatesigningrequest.certificates.k8s.io/jane approved\n"
    );
    let certificate = issued(&cluster, "jane");
    assert_eq!(whoami(&cluster, &certificate, &key), r#""jane" ["dev","system:authenticated"]"#);
    assert!(cluster.ok(&["get", "csr", "jane"]).contains("Approved,Issued"));

    let (manifest, _) = request("eve", "kubernetes.io/kube-apiserver-client", "eve", "dev");
    cluster.apply(&manifest);
    cluster.ok(&["certificate", "deny", "eve"]);
    assert!(cluster.ok(&["get", "csr", "eve"]).contains("Denied"));
    let refused = cluster.kubectl(&["certificate", "approve", "eve"]);
    assert!(!refused.status.success(), "what was denied is not approved");

    // Nobody approves a certificate that may do everything, nor one that the signer does not issue.
    let (manifest, _) = request("root", "kubernetes.io/kube-apiserver-client", "root", "system:masters");
    let path = cluster.data.path().join("root.yaml");
    fs::write(&path, manifest).expect("a file");
    let refused = cluster.kubectl(&["create", "-f", &path.to_string_lossy()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("system:masters group is not allowed"));
    let (manifest, _) = request("odd", "kubernetes.io/kube-apiserver-client-kubelet", "n", "dev");
    cluster.apply(&manifest);
    cluster.ok(&["certificate", "approve", "odd"]);
    cluster.until("the signer refuses it", || {
        let reason = "jsonpath={.status.conditions[?(@.type=='Failed')].message}";
        let text = cluster.ok(&["get", "csr", "odd", "-o", reason]);
        (text == "subject organization is not system:nodes").then_some(())
    });
}

#[test]
fn bootstrapping_nodes_are_approved_by_their_rights() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let create = |name: &str, manifest: &str| {
        let path = cluster.data.path().join(format!("{name}.yaml"));
        fs::write(&path, manifest).expect("a file");
        let as_bootstrapper = ["--as", "system:bootstrap:abcdef", "--as-group", "system:bootstrappers"];
        cluster.kubectl(&[&["create", "-f", &path.to_string_lossy()][..], &as_bootstrapper].concat())
    };
    let (manifest, key) = request("node-b", signer, "system:node:b", "system:nodes");
    assert!(!create("early", &manifest).status.success(), "nothing is bound to the roles by default");
    cluster.apply(BOOTSTRAPPERS);
    assert!(create("node-b", &manifest).status.success());
    let certificate = issued(&cluster, "node-b");
    let expected = r#""system:node:b" ["system:nodes","system:authenticated"]"#;
    assert_eq!(whoami(&cluster, &certificate, &key), expected);
}
