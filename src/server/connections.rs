//! Limits the connections of a port, and decides which one is closed when there are too many.
//!
//! An accepted connection is *anonymous*. It becomes a peer's when a request on it passes the guard with the
//! `X-Server-From` of a configured peer, or is a probe of such a peer, and it stays that peer's. The newest few
//! connections of each peer are *kept*: they are never closed to make room, and do not count towards the port's limit.
//! All other connections share the port's limit. Anonymous ones are also counted per address.
//!
//! On a TLS port, a connection is *greeting* until its handshake is done. Greeting connections are counted per address,
//! and are the first to be closed: a client that has not presented a certificate yet never displaces one that has.
//!
//! At each limit, the newest connection replaces the oldest one that counts towards it. So a client that fills the port
//! or an address with idle connections loses them to the next peer that dials, and that peer is safe once it has sent
//! one head. Members that share an address, as on loopback, only share its limit for the moment before they are
//! identified.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{extract::ConnectInfo, http::Extensions};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::{
    dial::io::IoStatus,
    id::MemberId,
    server::metrics::{ConnectionMetrics, Shed},
    world::canonical,
};

/// Limits of a peer listener's connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections on the port, without those kept for peers. Default 1024. etcd has no limit.
    pub total: usize,
    /// Of these, the connections from one address that no peer has used yet. Default 16.
    pub per_address: usize,
    /// Connections from one address whose TLS handshake is not done. Default 16.
    pub handshakes_per_address: usize,
    /// Connections kept for each known peer: two streams, four POSTs, a snapshot and a probe. Default 8.
    pub per_peer: usize,
    /// Length of a request's head. Default 64 KiB.
    pub head_bytes: usize,
    /// How long a head may take, including the idle time before it. Default 10 s. etcd closes idle connections after 5
    /// s.
    pub head_timeout: Duration,
    /// How long a TLS handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long requests under way may take once the server stops. Default 5 s.
    pub grace: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 1024,
            per_address: 16,
            handshakes_per_address: 16,
            per_peer: 8,
            head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// All connections of a listener, in the order in which they came.
#[derive(Clone)]
pub(super) struct Connections {
    limits: Arc<ConnectionLimits>,
    metrics: ConnectionMetrics,
    state: Arc<Mutex<State>>,
}

/// How many closed connections may still be ending. Each holds a file descriptor until its task has ended.
const LEAVING: usize = 64;

#[derive(Default)]
struct State {
    next: u64,
    /// Connections that were told to close and have not ended yet.
    leaving: usize,
    open: BTreeMap<u64, ConnectionEntry>,
    /// Connections that may be closed to make room: the anonymous ones, and those of a peer beyond the kept ones.
    shared: BTreeSet<u64>,
    /// The anonymous connections, by address.
    anonymous: ByAddress,
    /// The connections whose handshake is not done, in order and by address.
    greeting: BTreeSet<u64>,
    greeting_from: ByAddress,
    /// The kept connections of each peer, the oldest first.
    kept: HashMap<MemberId, VecDeque<u64>>,
}

/// Connections by the address of their client.
#[derive(Default)]
struct ByAddress(HashMap<IpAddr, BTreeSet<u64>>);

impl ByAddress {
    fn insert(&mut self, address: IpAddr, number: u64) {
        self.0.entry(address).or_default().insert(number);
    }

    fn remove(&mut self, address: IpAddr, number: u64) {
        if let Some(same) = self.0.get_mut(&address) {
            same.remove(&number);
            if same.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    /// The oldest connection of an address, if the address has at least `limit` of them.
    fn oldest_of(&self, address: IpAddr, limit: usize) -> Option<u64> {
        self.0.get(&address).filter(|same| same.len() >= limit)?.first().copied()
    }
}

struct ConnectionEntry {
    address: IpAddr,
    peer: Option<MemberId>,
    evict: CancellationToken,
}

/// A connection's entry in the list, which is removed when this is dropped.
pub(super) struct Seat {
    connections: Connections,
    number: u64,
    evicted: CancellationToken,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits, metrics: ConnectionMetrics) -> Self {
        Self { limits: Arc::new(limits), metrics, state: Arc::default() }
    }

    /// Adds a new connection, and closes older ones if there is no room. `None` if too many closed connections have not
    /// ended yet.
    pub(super) fn seat(&self, address: IpAddr) -> Option<Seat> {
        // An IPv4-mapped IPv6 address counts as the IPv4 address.
        let address = address.to_canonical();
        let mut state = self.state();
        if state.leaving >= LEAVING {
            self.metrics.shed(Shed::Busy);
            return None;
        }
        let greeting = state.greeting_from.oldest_of(address, self.limits.handshakes_per_address);
        if let Some(oldest) = greeting.or_else(|| state.anonymous.oldest_of(address, self.limits.per_address)) {
            self.evict(&mut state, oldest, Shed::Address);
        }
        if state.shared.len() >= self.limits.total {
            self.evict_oldest_of(&mut state, Shed::Port);
        }
        let number = state.next;
        state.next += 1;
        let evicted = CancellationToken::new();
        state.open.insert(number, ConnectionEntry { address, peer: None, evict: evicted.clone() });
        state.shared.insert(number);
        state.anonymous.insert(address, number);
        state.greeting.insert(number);
        state.greeting_from.insert(address, number);
        self.metrics.opened();
        Some(Seat { connections: self.clone(), number, evicted })
    }

    /// Closes the oldest connection that is not kept.
    pub(super) fn evict_oldest(&self, reason: Shed) {
        let mut state = self.state();
        self.evict_oldest_of(&mut state, reason);
    }

    fn evict_oldest_of(&self, state: &mut State, reason: Shed) {
        if let Some(oldest) = state.greeting.first().or(state.shared.first()).copied() {
            self.evict(state, oldest, reason);
        }
    }

    fn evict(&self, state: &mut State, number: u64, reason: Shed) {
        if let Some(entry) = state.remove(number) {
            tracing::debug!(address = %entry.address, reason = reason.label(), "connection closed to make room");
            self.metrics.shed(reason);
            state.leaving += 1;
            entry.evict.cancel();
        }
    }

    fn greeted(&self, number: u64) {
        let mut state = self.state();
        let Some(address) = state.open.get(&number).map(|entry| entry.address) else { return };
        state.greeting.remove(&number);
        state.greeting_from.remove(address, number);
    }

    fn identify(&self, number: u64, peer: MemberId) {
        let mut state = self.state();
        let Some(entry) = state.open.get_mut(&number).filter(|entry| entry.peer.is_none()) else { return };
        entry.peer = Some(peer);
        let address = entry.address;
        state.anonymous.remove(address, number);
        state.shared.remove(&number);
        let kept = state.kept.entry(peer).or_default();
        kept.push_back(number);
        if kept.len() > self.limits.per_peer
            && let Some(oldest) = kept.pop_front()
        {
            state.shared.insert(oldest);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is only counts, which are accurate enough even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, number: u64) -> Option<ConnectionEntry> {
        let entry = self.open.remove(&number)?;
        self.shared.remove(&number);
        self.greeting.remove(&number);
        self.greeting_from.remove(entry.address, number);
        match entry.peer {
            None => self.anonymous.remove(entry.address, number),
            Some(peer) => {
                if let Some(kept) = self.kept.get_mut(&peer) {
                    kept.retain(|kept| *kept != number);
                    if kept.is_empty() {
                        self.kept.remove(&peer);
                    }
                }
            }
        }
        Some(entry)
    }
}

impl Seat {
    /// The handshake is done, or there is none.
    pub(super) fn greeted(&self) {
        self.connections.greeted(self.number);
    }

    /// Completes when the connection has to be closed to make room.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        if state.remove(self.number).is_none() {
            state.leaving -= 1;
        }
        self.connections.metrics.closed();
    }
}

/// The connection that a request came on, as handlers see it.
#[derive(Clone)]
pub(super) struct AcceptedConnection {
    connections: Connections,
    number: u64,
    status: Arc<IoStatus>,
    address: SocketAddr,
    certificate: Option<Arc<CertificateDer<'static>>>,
}

impl AcceptedConnection {
    pub(super) fn new(
        seat: &Seat,
        status: Arc<IoStatus>,
        address: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
    ) -> Self {
        let certificate = certificate.cloned().map(Arc::new);
        Self { connections: seat.connections.clone(), number: seat.number, status, address, certificate }
    }

    /// The certificate that the client presented. `None` without one, and on a listener that is not a
    /// [`Server`](super::Server).
    pub(super) fn certificate(extensions: &Extensions) -> Option<&CertificateDer<'static>> {
        extensions.get::<Self>()?.certificate.as_deref()
    }

    /// The client's address. On a listener that is not a [`Server`](super::Server), it is axum's `ConnectInfo`, if
    /// present.
    pub(super) fn address(extensions: &Extensions) -> Option<SocketAddr> {
        let ours = extensions.get::<Self>().map(|connection| connection.address);
        let told = || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| canonical(*address));
        ours.or_else(told)
    }

    /// The connection belongs to this peer. Does nothing on a listener that is not a [`Server`](super::Server).
    pub(super) fn identify(extensions: &Extensions, peer: MemberId) {
        if let Some(connection) = extensions.get::<Self>() {
            connection.connections.identify(connection.number, peer);
        }
    }

    /// The state of the connection. `None` on a listener that is not a [`Server`](super::Server).
    pub(super) fn status(extensions: &Extensions) -> Option<Arc<IoStatus>> {
        extensions.get::<Self>().map(|connection| Arc::clone(&connection.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: MemberId = MemberId(2);

    fn connections(total: usize, per_address: usize, per_peer: usize) -> Connections {
        Connections::new(
            ConnectionLimits { total, per_address, per_peer, ..Default::default() },
            ConnectionMetrics::new(),
        )
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Adds a connection, whose address ends in `last`.
    fn seat(connections: &Connections, last: u8) -> Seat {
        let seat = greeting(connections, last);
        seat.greeted();
        seat
    }

    /// Adds a connection whose handshake is not done.
    fn greeting(connections: &Connections, last: u8) -> Seat {
        connections.seat(address(last)).expect("none is leaving")
    }

    fn peers(connections: &Connections, last: u8, peer: MemberId) -> Seat {
        let seat = seat(connections, last);
        connections.identify(seat.number, peer);
        seat
    }

    fn stays(seat: &Seat) -> bool {
        !seat.evicted.is_cancelled()
    }

    #[test]
    fn the_oldest_of_an_address_makes_room_for_its_newest() {
        let connections = connections(100, 2, 8);
        let other = seat(&connections, 9);
        let seats: Vec<Seat> = (0..3).map(|_| seat(&connections, 1)).collect();
        assert_eq!(seats.iter().map(stays).collect::<Vec<_>>(), [false, true, true]);
        assert!(stays(&other));
    }

    #[test]
    fn handshakes_of_an_address_make_room_for_each_other_alone() {
        let limits = ConnectionLimits { handshakes_per_address: 2, per_address: 100, ..Default::default() };
        let connections = Connections::new(limits, ConnectionMetrics::new());
        let done: Vec<Seat> = (0..5).map(|_| seat(&connections, 1)).collect();
        let other = greeting(&connections, 9);
        let seats: Vec<Seat> = (0..3).map(|_| greeting(&connections, 1)).collect();
        assert_eq!(seats.iter().map(stays).collect::<Vec<_>>(), [false, true, true]);
        assert!(done.iter().all(stays) && stays(&other));
    }

    #[test]
    fn a_full_port_closes_who_has_not_shown_a_certificate_before_who_has() {
        let connections = connections(3, 16, 8);
        let first = seat(&connections, 1);
        let strangers: Vec<Seat> = (2..6).map(|last| greeting(&connections, last)).collect();
        assert_eq!(strangers.iter().map(stays).collect::<Vec<_>>(), [false, false, true, true]);
        assert!(stays(&first));
    }

    #[test]
    fn a_peers_connection_is_not_counted_by_address() {
        let connections = connections(100, 2, 8);
        let seats: Vec<Seat> = (0..6).map(|_| peers(&connections, 1, PEER)).collect();
        let strangers: Vec<Seat> = (0..2).map(|_| seat(&connections, 1)).collect();
        assert!(seats.iter().chain(&strangers).all(stays));
    }

    #[test]
    fn a_full_port_closes_the_oldest_that_no_peer_needs() {
        let connections = connections(3, 16, 8);
        let kept = peers(&connections, 1, PEER);
        let strangers: Vec<Seat> = (2..6).map(|last| seat(&connections, last)).collect();
        assert_eq!(strangers.iter().map(stays).collect::<Vec<_>>(), [false, true, true, true]);
        assert!(stays(&kept));
    }

    #[test]
    fn of_a_peers_connections_the_newest_are_kept() {
        let connections = connections(2, 16, 2);
        let seats: Vec<Seat> = (0..3).map(|_| peers(&connections, 1, PEER)).collect();
        let strangers: Vec<Seat> = (2..4).map(|last| seat(&connections, last)).collect();
        assert_eq!(seats.iter().map(stays).collect::<Vec<_>>(), [false, true, true]);
        assert!(strangers.iter().all(stays));
    }

    #[test]
    fn an_address_is_the_same_in_both_of_its_forms() {
        let connections = connections(16, 2, 8);
        let forms = ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"];
        let seats = forms.map(|form| {
            let seat = connections.seat(form.parse().expect("an address")).expect("none is leaving");
            seat.greeted();
            seat
        });
        assert_eq!(seats.each_ref().map(stays), [false, true, true, true]);
    }

    #[test]
    fn a_connection_is_the_first_peers_that_it_names() {
        let connections = connections(1, 16, 1);
        let first = peers(&connections, 1, PEER);
        connections.identify(first.number, MemberId(3));
        let second = peers(&connections, 1, MemberId(3));
        let _stranger = seat(&connections, 2);
        assert!(stays(&first) && stays(&second));
    }

    #[test]
    fn while_too_many_are_leaving_none_comes() {
        let connections = connections(1, 1, 8);
        let mut leaving: Vec<Seat> = (0..=LEAVING).map(|_| seat(&connections, 1)).collect();
        assert!(connections.seat(address(2)).is_none());
        leaving.remove(0);
        assert!(connections.seat(address(2)).is_some());
    }

    #[test]
    fn nothing_is_left_of_connections_that_ended() {
        let connections = connections(4, 2, 2);
        let mut seats: Vec<Seat> = (0..4).map(|_| peers(&connections, 1, PEER)).collect();
        seats.extend((0..8).map(|last| seat(&connections, last)));
        seats.extend((0..3).map(|last| greeting(&connections, last)));
        drop(seats);
        let state = connections.state();
        assert!(
            state.open.is_empty() && state.shared.is_empty() && state.anonymous.0.is_empty() && state.kept.is_empty()
        );
        assert!(state.greeting.is_empty() && state.greeting_from.0.is_empty());
        assert_eq!(state.leaving, 0);
    }
}
