//! A client of members, which uses their client URLs.

use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rafthttp::Tls;
use rustls::{AlertDescription, ClientConfig};
use tokio::time::timeout;

/// How long an answer may take. A member gives up earlier, and then says what it knows about the outcome.
const ANSWER: Duration = Duration::from_secs(15);
/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes. Values and lists are short here.
const ANSWER_BYTES: usize = 64 << 10;

type PlainClient = legacy::Client<HttpConnector, Full<Bytes>>;
type Secure = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends requests to members over kept connections.
#[derive(Clone, Debug)]
pub(crate) struct MemberClient {
    plain: PlainClient,
    secure: Option<Arc<SecureClient>>,
}

/// The client for https, with the current certificates.
#[derive(Debug)]
struct SecureClient {
    tls: Tls,
    made: Mutex<Option<(Arc<ClientConfig>, Secure)>>,
}

impl MemberClient {
    /// A client with the certificates and CAs of `tls`. Without them, it speaks plain HTTP only.
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        let secure = tls.map(|tls| Arc::new(SecureClient { tls, made: Mutex::default() }));
        Self { plain: legacy::Client::builder(TokioExecutor::new()).build(connector()), secure }
    }

    /// Sends one request, and returns the status and the body of its answer.
    pub(crate) async fn ask(&self, method: Method, url: String, body: Bytes) -> Result<(StatusCode, Bytes), AskError> {
        let secure = url.starts_with("https://");
        let request = Request::builder().method(method).uri(url).body(Full::new(body));
        let request = request.map_err(|error| AskError::NotAsked(error.to_string()))?;
        let exchange = async {
            let answer = match secure {
                true => self.secure()?.request(request).await,
                false => self.plain.request(request).await,
            };
            let (head, body) = answer.map_err(AskError::of)?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| AskError::NoAnswer(error.to_string()))?.to_bytes();
            Ok((head.status, body))
        };
        let late = || AskError::NoAnswer(format!("none within {} s", ANSWER.as_secs()));
        timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    fn secure(&self) -> Result<Secure, AskError> {
        let client = self.secure.as_ref().and_then(|secure| secure.current());
        client.ok_or_else(|| AskError::NotAsked("it uses https: expected --cacert to verify it".to_owned()))
    }
}

impl SecureClient {
    /// The https client, which is made anew when the certificates change. `None` if there is no CA.
    fn current(&self) -> Option<Secure> {
        let config = self.tls.client()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*made
            && Arc::ptr_eq(of, &config)
        {
            return Some(client.clone());
        }
        let mut connector = connector();
        connector.enforce_http(false);
        let tls = HttpsConnectorBuilder::new().with_tls_config((*config).clone()).https_only().enable_http1();
        let client: Secure = legacy::Client::builder(TokioExecutor::new()).build(tls.wrap_connector(connector));
        *made = Some((config, client.clone()));
        Some(client)
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The request was not sent, so another member can be asked instead.
    #[error("cannot be reached: {0}")]
    NotAsked(String),
    /// The request was sent, and its outcome is unknown.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

impl AskError {
    fn of(error: legacy::Error) -> Self {
        let connect = error.is_connect();
        let mut innermost: &dyn Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
            if let Some(why) = refused(innermost) {
                return Self::NotAsked(why);
            }
        }
        let why = innermost.to_string();
        if connect { Self::NotAsked(why) } else { Self::NoAnswer(why) }
    }
}

/// What the alert of the other side says about our certificate, which is verified before a request is read.
fn refused(error: &(dyn Error + 'static)) -> Option<String> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    let rustls::Error::AlertReceived(alert) = inner.downcast_ref()? else { return None };
    Some(match alert {
        AlertDescription::CertificateRequired => "it asks for a certificate: expected --cert and --key".to_owned(),
        alert => format!("it refused our certificate: {alert:?}"),
    })
}
