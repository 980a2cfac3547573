//! A client of the members, over kept connections.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};

/// Longer than any member takes to say what it knows.
const ANSWER: Duration = Duration::from_secs(12);

#[derive(Clone)]
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// A client that trusts nobody on https.
    pub(crate) fn new() -> Self {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the versions are its own").with_root_certificates(RootCertStore::empty());
        Self::with_tls(config.with_no_client_auth())
    }

    pub(crate) fn with_tls(config: ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        // A kept connection that its server has just closed would make a write's outcome unknown for no reason.
        Self(Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(2)).build(connector))
    }

    /// `None`: there was no answer, so the outcome is unknown.
    pub(crate) async fn ask(&self, method: Method, url: String, body: String) -> Option<(StatusCode, String)> {
        let request = Request::builder().method(method).uri(url).body(Full::new(body.into())).expect("a good URL");
        let exchange = async {
            let (head, body) = self.0.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some((head.status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(ANSWER, exchange).await.ok().flatten()
    }
}
