//! Login by the tokens of an OpenID Connect provider, which a small HTTPS server plays here.

use std::fs;
use std::process::{Child, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};

use super::cluster::Cluster;

const ISSUER: &str = "https://localhost:8444";

/// Serves the files of the working directory over HTTPS.
const PROVIDER: &str = r#"
import http.server, ssl
server = http.server.HTTPServer(("127.0.0.1", 8444), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.crt", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// A token of the provider: ES256, whose signature is the two numbers that DER wraps.
fn token(key: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "k1"})), part(claims));
    let der = key.sign(signed.as_bytes()).expect("a signature");
    let (mut rest, mut raw) = (&der[2..], Vec::new());
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        raw.extend(vec![0; 32 - digits.len()]);
        raw.extend(digits);
        rest = after;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw))
}

struct Provider(Child);

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The user and the groups that the holder of a token is taken for, or the code of the refusal.
fn whoami(cluster: &Cluster, token: &str) -> String {
    let server = cluster.ok(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let (header, url) = (
        format!("Authorization: Bearer {token}"),
        format!("{server}/apis/authentication.k8s.io/v1/selfsubjectreviews"),
    );
    let body = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
    let answer =
        cluster.curl(&["-k", "-H", &header, "-H", "Content-Type: application/json", "-d", body, &url]);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    match answer["code"].as_u64() {
        Some(code) => code.to_string(),
        None => {
            let user = &answer["status"]["userInfo"];
            format!("{} {}", user["username"], user["groups"])
        }
    }
}

#[test]
fn people_log_in_by_tokens_of_their_provider() {
    let files = tempfile::tempdir().expect("a folder");
    let key = KeyPair::generate().expect("a key");
    let server_key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&server_key).expect("a certificate").pem();
    let point = key.der_bytes();
    let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let keys = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "x": coordinate(&point[1..33]), "y": coordinate(&point[33..]),
    }]});
    fs::create_dir(files.path().join(".well-known")).expect("a folder");
    for (name, content) in [
        ("server.crt", certificate),
        ("server.key", server_key.serialize_pem()),
        ("keys", keys.to_string()),
        (
            ".well-known/openid-configuration",
            json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")}).to_string(),
        ),
    ] {
        fs::write(files.path().join(name), content).expect("a file");
    }
    let ca = files.path().join("server.crt");
    let ca = ca.to_string_lossy();
    let options = [
        "--oidc-issuer-url",
        ISSUER,
        "--oidc-client-id",
        "yado",
        "--oidc-ca-file",
        &ca,
        "--oidc-username-claim",
        "email",
        "--oidc-groups-claim",
        "groups",
        "--oidc-groups-prefix",
        "oidc:",
        "--oidc-signing-algs",
        "ES256",
    ];
    let Some(cluster) = Cluster::start_with(&["busybox.tar"], &options) else { return };
    let mut command = cluster.command("python3");
    command.args(["-c", PROVIDER]).current_dir(files.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let _provider = Provider(command.spawn().expect("python3"));

    let claims = json!({
        "iss": ISSUER, "aud": "yado", "sub": "7", "email": "jane@example.com", "groups": ["dev"], "exp": 4_102_444_800_i64,
    });
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        changed
    };
    // The provider was not there when the engine started: its keys are fetched when a token needs them.
    let known = token(&key, &claims);
    let expected = r#""jane@example.com" ["oidc:dev","system:authenticated"]"#;
    cluster.until("the provider's keys are known", || (whoami(&cluster, &known) == expected).then_some(()));
    for changed in
        [with("aud", json!("other")), with("exp", json!(1)), with("iss", json!("https://localhost:1"))]
    {
        assert_eq!(whoami(&cluster, &token(&key, &changed)), "401", "{changed}");
    }
    assert_eq!(whoami(&cluster, &token(&KeyPair::generate().expect("a key"), &claims)), "401");
    // Roles are bound to the prefixed names.
    cluster.ok(&["create", "clusterrolebinding", "dev", "--clusterrole=view", "--group=oidc:dev"]);
    let header = format!("Authorization: Bearer {known}");
    let server = cluster.ok(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let code = |path: &str| {
        let url = format!("{server}{path}");
        cluster.curl(&["-k", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url])
    };
    assert_eq!(code("/api/v1/namespaces/default/pods"), "200");
    assert_eq!(code("/api/v1/namespaces/default/secrets"), "403");
}
