//! A server with a certificate of its own, as webhooks are.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// Serves JSON at an address, with a certificate for a name: the answer to a request and its body. Returns the port and the
/// certificate in base64. A request for `/hang` is never answered.
pub async fn serve(
    (address, name): (IpAddr, &str),
    respond: impl Fn(&Parts, &Value) -> Value + Send + Sync + 'static,
) -> (u16, String) {
    let respond = Arc::new(respond);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("names");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let bundle = STANDARD.encode(certificate.pem());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, respond) = (acceptor.clone(), respond.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
                    let respond = respond.clone();
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.expect("a body").to_bytes();
                    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                    if parts.uri.path() == "/hang" {
                        std::future::pending::<()>().await;
                    }
                    let answer = respond(&parts, &body).to_string();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
                });
                // A client that gives up ends the connection.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    (port, bundle)
}
