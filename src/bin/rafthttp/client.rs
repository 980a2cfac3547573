//! A client of members, at their client URLs.

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

/// How long an answer may take. A member gives up earlier, and says then what it knows of the outcome.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: values and lists here are short.
const ANSWER_BYTES: usize = 64 << 10;

type Plain = legacy::Client<HttpConnector, Full<Bytes>>;
type Secure = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Talks to members over kept connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    plain: Plain,
    secure: Option<Arc<SecureClient>>,
}

/// Talks to those on https, with the certificates as they are now.
#[derive(Debug)]
struct SecureClient {
    tls: Tls,
    made: Mutex<Option<(Arc<ClientConfig>, Secure)>>,
}

impl Client {
    /// A client that shows and trusts what is in `tls`; without, it speaks plain HTTP alone.
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        let secure = tls.map(|tls| Arc::new(SecureClient { tls, made: Mutex::default() }));
        Self { plain: legacy::Client::builder(TokioExecutor::new()).build(connector()), secure }
    }

    /// One request; the status and the body of its answer.
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
        client.ok_or_else(|| AskError::NotAsked("it is on https: expected --cacert to verify it by".to_owned()))
    }
}

impl SecureClient {
    /// Made anew when the certificates changed; none where there is no CA.
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
    /// Nobody was asked: another member may be.
    #[error("cannot be reached: {0}")]
    NotAsked(String),
    /// It was asked; nobody knows what it did.
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

/// What the other end's alert says about our certificate, which it looks at before it reads a request.
fn refused(error: &(dyn Error + 'static)) -> Option<String> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    let rustls::Error::AlertReceived(alert) = inner.downcast_ref()? else { return None };
    Some(match alert {
        AlertDescription::CertificateRequired => "it asks for a certificate: expected --cert and --key".to_owned(),
        alert => format!("it refused our certificate: {alert:?}"),
    })
}
