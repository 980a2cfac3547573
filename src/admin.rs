//! The endpoints for operators: metrics, health, the state of every peer. They have a listener of their own.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the page that shows it all, live; its files are below `/page/` |
//! | `/metrics` | OpenMetrics 1.0 where [that is asked for](crate::metrics::Format::asked_for), else Prometheus text, format 0.0.4 |
//! | `/livez`, `/readyz` | `ok`, or 503 and the checks that failed; `?verbose` lists all, `?exclude=NAME` leaves one out |
//! | `/livez/NAME`, `/readyz/NAME` | one check |
//! | `/health` | etcd's `{"health":"true","reason":""}`, 503 when not |
//! | `/api/peers` | everything about every peer, as JSON |
//! | `/api/events` | the last transitions, as JSON |

use std::{future::ready, sync::Arc};

use axum::{Router, http::HeaderMap, routing::get};
use prometheus::Registry;

use self::pieces::Gate;
use crate::{metrics::Options, telemetry::Events, transport::status::TransportStatus};

mod about;
pub mod events;
mod health;
mod listener;
mod metrics;
mod page;
pub mod peers;
mod pieces;

pub use about::{About, AboutSource, RaftView, Role};
pub use health::{Check, Health};
pub use listener::{serve, server};

/// Reads the status of a transport: `Arc::new(move || transport.status())`.
pub type StatusSource = Arc<dyn Fn() -> TransportStatus + Send + Sync>;

/// Runs the checks. It is called once for every health request, so it must only look at what is known already.
pub type HealthSource = Arc<dyn Fn() -> Health + Send + Sync>;

/// What the admin endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// All metrics for `/metrics` except the transport's: the process, raft, the exporter of traces. It must not
    /// contain a [`Collector`](crate::metrics::Collector) of the transport as well, or its series appear twice.
    pub registry: Registry,
    /// The transport, if there is one.
    pub transport: Option<StatusSource>,
    /// The last transitions, if there is a transport: [`Transport::events`](crate::Transport::events).
    pub events: Option<Events>,
    /// Which families of the transport are shown.
    pub options: Options,
    /// The identity of this member: `Arc::new(About::default)` if it should not be shown.
    pub about: AboutSource,
    /// The health checks.
    pub health: HealthSource,
}

/// The admin endpoints. Merge them into another router, or pass them to [`serve`].
pub fn router(admin: Admin) -> Router {
    let mut router = health::router(admin.health.clone());
    if let Some(source) = admin.transport.clone() {
        let (about, health, gate) = (admin.about.clone(), admin.health.clone(), Arc::new(Gate::new()));
        router = router.merge(page::router());
        router = router.route("/api/peers", get(move || ready(peers::answer(&source, &about, &health, &gate))));
    }
    if let Some(events) = admin.events.clone() {
        router = router.route("/api/events", get(move |range| ready(events::answer(&events, range))));
    }
    let state = Arc::new((admin, Gate::new()));
    let metrics = move |headers: HeaderMap| {
        let (admin, gate) = &*state;
        ready(metrics::answer(admin, gate, &headers))
    };
    router.route("/metrics", get(metrics))
}
