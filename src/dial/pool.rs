//! Connections that wait for the next POST.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::FusedFuture;
use tokio::time::Instant;

use crate::dial::connection::DialledConnection;

/// How long a connection is kept without a request. etcd closes it after 5 s.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How many connections to a host are kept without a request. A pipeline has as many workers.
const IDLE_PER_HOST: usize = 4;

/// Whether another request may follow on a connection: it is open, and nothing of the last request is under way.
pub(super) fn is_idle(connection: &mut DialledConnection) -> bool {
    let cx = &mut Context::from_waker(Waker::noop());
    !connection.driver.is_terminated()
        && Pin::new(&mut connection.driver).poll(cx).is_pending()
        && matches!(connection.sender.poll_ready(cx), Poll::Ready(Ok(())))
}

/// Connections that wait for the next request, by URL. A host without connections has no entry.
#[derive(Default)]
pub(super) struct Pool(pub(super) Mutex<IdleConnections>);

#[derive(Default)]
pub(super) struct IdleConnections {
    pub(super) hosts: BTreeMap<Box<str>, Vec<(Instant, DialledConnection)>>,
    swept: bool,
    closed: bool,
}

impl Pool {
    /// The connection that was used last, if it is still open.
    pub(super) fn take(&self, url: &str) -> Option<DialledConnection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.hosts.get_mut(url)?;
        let mut found = None;
        while let Some((since, mut connection)) = kept.pop() {
            if since.elapsed() < IDLE_TIMEOUT && is_idle(&mut connection) {
                found = Some(connection);
                break;
            }
        }
        if kept.is_empty() {
            idle.hosts.remove(url);
        }
        found
    }

    /// Keeps a connection, unless the pool is closed. Returns true if the caller has to start sweeping.
    pub(super) fn put(&self, url: &str, connection: DialledConnection) -> bool {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.closed {
            return false;
        }
        let kept = idle.hosts.entry(url.into()).or_default();
        if kept.len() >= IDLE_PER_HOST {
            kept.remove(0);
        }
        kept.push((Instant::now(), connection));
        !std::mem::replace(&mut idle.swept, true)
    }

    /// Closes connections that waited too long. Returns when to sweep again, or `None` when nothing is left: the next
    /// `put` then starts the sweeping anew.
    pub(super) fn sweep(&self) -> Option<Duration> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.hosts.retain(|_, kept| {
            kept.retain(|(since, _)| since.elapsed() < IDLE_TIMEOUT);
            !kept.is_empty()
        });
        let oldest = idle.hosts.values().flatten().map(|(since, _)| *since).min();
        idle.swept = oldest.is_some();
        oldest.map(|since| IDLE_TIMEOUT.saturating_sub(since.elapsed()))
    }

    /// Closes the pool: the connections in it, and those that are put later.
    pub(super) fn close(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.closed = true;
        idle.hosts.clear();
    }
}
