//! The answers on the peer port of a member that does not know its cluster yet.

use axum::{
    Router,
    http::{StatusCode, response},
};
use http::{HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    id::ClusterId,
    node::{error::Error, listeners::BoundPort},
    tls::Tls,
};

/// The cluster that an undecided member would make. Not in etcd.
const X_RAFTHTTP_UNDECIDED: HeaderName = HeaderName::from_static("x-rafthttp-undecided");

/// Answers everything with 503, and names the cluster that would be made.
pub(in crate::node) struct Undecided {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Undecided {
    /// Serves on copies of the listeners, which keep the port when this stops.
    pub(in crate::node) fn serve(
        listeners: &[BoundPort],
        tls: Option<&Tls>,
        cluster: ClusterId,
    ) -> Result<Self, Error> {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let told = HeaderValue::try_from(cluster.to_string()).expect("hexadecimal digits are a header value");
        let answer = move || {
            let told = told.clone();
            async move { (StatusCode::SERVICE_UNAVAILABLE, [(X_RAFTHTTP_UNDECIDED, told)], "no cluster yet\n") }
        };
        let router = Router::new().fallback(answer);
        for listener in listeners {
            let server = listener.server(router.clone(), tls);
            tasks.spawn(server.serve_on(listener.listen_too()?, stop.clone()));
        }
        Ok(Self { tasks, stop })
    }

    /// Ends it, and returns when every connection is closed.
    pub(in crate::node) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

/// The cluster that the answering member would make, if it is undecided.
pub(super) fn read(head: &response::Parts) -> Option<ClusterId> {
    head.headers.get(X_RAFTHTTP_UNDECIDED)?.to_str().ok()?.parse().ok()
}
