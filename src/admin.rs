//! What operators look at: metrics, health, the state of every peer. A listener of its own.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the page that shows it all, live; its files are below `/page/` |
//! | `/metrics` | OpenMetrics 1.0 where [that is asked for](crate::metrics::Format::asked_for), else Prometheus text, format 0.0.4 |
//! | `/livez`, `/readyz` | `ok`, or 503 and the checks that failed; `?verbose` lists all, `?exclude=NAME` leaves one out |
//! | `/livez/NAME`, `/readyz/NAME` | one check |
//! | `/health` | etcd's `{"health":"true","reason":""}`, 503 when not |
//! | `/api/peers` | [everything about every peer](peers) as JSON |
//! | `/api/events` | [the last transitions](events) as JSON |

use std::{future::ready, sync::Arc};

use axum::{Router, http::HeaderMap, routing::get};
use prometheus::Registry;

use self::pieces::Gate;
use crate::{metrics::Options, telemetry::Events, transport::status::TransportStatus};

mod about;
pub mod events;
pub mod health;
mod listener;
mod metrics;
mod page;
pub mod peers;
mod pieces;

pub use about::{About, AboutSource, RaftView, Role};
pub use health::{Check, Health};
pub use listener::{serve, server};

/// Reads the state of a transport: `Arc::new(move || transport.status())`.
pub type StatusSource = Arc<dyn Fn() -> TransportStatus + Send + Sync>;

/// Runs the checks. Called once for every request for health, so it only looks at what is known already.
pub type HealthSource = Arc<dyn Fn() -> Health + Send + Sync>;

/// What the admin endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// Everything for `/metrics` but the transport: the process, raft, the exporter of traces. A transport's
    /// [`Collector`](crate::metrics::Collector) must not be in it as well, or its series come twice.
    pub registry: Registry,
    /// The transport, if there is one.
    pub transport: Option<StatusSource>,
    /// The last transitions, if there is a transport: [`Transport::events`](crate::Transport::events).
    pub events: Option<Events>,
    /// What is shown of the transport.
    pub options: Options,
    /// Who this member is: `Arc::new(About::default)` where that is nobody's business.
    pub about: AboutSource,
    /// The health checks.
    pub health: HealthSource,
}

/// The admin endpoints. Merge it into a router of one's own, or give it to [`serve`].
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
