//! Watches members from outside: finds them by `GET /members` and probes them, without sending or receiving raft
//! messages. For programs that are no member of the cluster.
//!
//! [`Watch`] runs until it is stopped, and follows the membership. Its status is the source of `/metrics` and
//! `/api/peers`, like that of a transport. [`survey`] looks once.
//!
//! ```text
//!  seeds ─▶ follow ─ GET /members ─┐
//!                                  ▼
//!                                Book: which list of members is believed ─▶ a Target each, added, updated, removed
//!                                  ▲                                            │
//!                                  └── GET /members, /version ◀── Watcher ──▶ GET /raft/probing ──▶ Link
//! ```

use std::{sync::Arc, time::Duration};

use crate::{
    admin::{Check, Health},
    dial::urls::PeerUrl,
    telemetry::Events,
    tls::Tls,
    transport::status::TransportStatus,
    world::World,
};

mod book;
mod fault;
mod hub;
mod members;
mod question;
mod seeds;
mod survey;
mod target;
mod watcher;

use hub::Hub;
use members::MemberList;
pub use survey::{Survey, SurveyRow, survey};

/// Which members to watch, and how.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// Peer URLs, of which at least one answers `GET /members`. Default: none, and no member is found.
    pub seeds: Vec<PeerUrl>,
    /// Certificates for members on `https`. Default: none, and such members cannot be dialled.
    pub tls: Option<Tls>,
    /// The time between the starts of two probes of a member, ± 10 %. Default: 1 s.
    pub interval: Duration,
    /// The time limit for each request, including its dial. Default: 700 ms.
    pub timeout: Duration,
    /// The world that the watch runs in. Default: the real one.
    #[doc(hidden)]
    pub world: World,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            tls: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(700),
            world: World::default(),
        }
    }
}

/// The number of members in an answer to `GET /members`. The error says in one line why it is no list of members.
pub(crate) fn listed(json: &[u8]) -> Result<usize, String> {
    MemberList::parse(json).map(|list| list.members.len()).map_err(|fault| fault.to_string())
}

/// A running watch. Cheap to clone: all clones are one watch, which ends when it is stopped, or when its last clone is
/// dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use rafthttp::{Watch, WatchConfig};
///
/// let config = WatchConfig { seeds: vec!["http://127.0.0.1:1".parse()?], ..WatchConfig::default() };
/// let watch = Watch::start(config);
/// for member in watch.status().peers {
///     println!("{} {}: reachable {:?}, in {:?}", member.id, member.name, member.link.reachable, member.link.round_trip);
/// }
/// // Nobody listens there, so nobody has told who the members are.
/// assert!(watch.health().ready[0].failure.is_some());
/// watch.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Watch {
    hub: Arc<Hub>,
    _ends: Arc<tokio_util::sync::DropGuard>,
}

impl Watch {
    /// Starts to watch, on the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: WatchConfig) -> Self {
        let hub = Hub::new(config);
        hub.spawn(seeds::follow(Arc::downgrade(&hub), hub.stop.clone()));
        Self { _ends: Arc::new(hub.stop.clone().drop_guard()), hub }
    }

    /// The state of every member, in the form of a transport's status: `local` is 0, and every peer is
    /// [watched](crate::Watched).
    pub fn status(&self) -> TransportStatus {
        self.hub.status()
    }

    /// The last transitions.
    pub fn events(&self) -> &Events {
        &self.hub.events
    }

    /// One check, `members`: whether a seed has answered who the members are.
    pub fn health(&self) -> Health {
        let members = match self.hub.cluster() {
            Some(_) => Check::ok("members"),
            None => Check::failed("members", "no seed has returned the list of members yet"),
        };
        Health { live: Vec::new(), ready: vec![members] }
    }

    /// Ends every connection and every task, and returns when none is left.
    pub async fn stop(&self) {
        self.hub.stop.cancel();
        self.hub.client.stop().await;
        self.hub.tasks.close();
        self.hub.tasks.wait().await;
    }
}
