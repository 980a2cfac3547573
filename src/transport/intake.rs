//! What the server side needs: requests of members, and what they bring.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;

use super::{
    Transport, inbox,
    limits::Limits,
    raft::{Members, Raft, Rejected},
    snapshot::receiver::{Receiving, SnapshotError},
    writer::StreamBody,
};
use crate::{
    dial::{io::IoStatus, urls::PeerUrl},
    id::MemberId,
    ledger::{Channel, RejectReason},
    telemetry::Origin,
    wire::{
        message::message_size,
        probing::{Report, Sight},
        raftpb::Message,
        stream::StreamKind,
    },
    world::World,
};

impl Transport {
    pub(crate) fn members(&self) -> Option<Members> {
        self.inner.shared.raft.members()
    }

    pub(crate) fn raft(&self) -> &Arc<dyn Raft> {
        &self.inner.shared.raft
    }

    pub(crate) fn world(&self) -> &World {
        &self.inner.shared.world
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.shared.limits
    }

    /// Whether this is a configured peer, not a remote.
    pub(crate) fn is_peer(&self, id: MemberId) -> bool {
        self.peer(id).is_some_and(|peer| !peer.is_remote())
    }

    /// Whether this is a configured peer or a remote.
    pub(crate) fn is_known(&self, id: MemberId) -> bool {
        self.inner.peers.load().contains_key(&id)
    }

    /// Notes that a member asked us, and what it said of itself: who is not known is added as a remote, when its URLs
    /// are legal (etcd's `addRemoteFromRequest`).
    pub(crate) fn admit(&self, from: MemberId, urls: Option<&str>) {
        if let Some(peer) = self.peer(from) {
            return peer.heard();
        }
        if self.inner.shared.raft.is_removed(from) {
            return;
        }
        if let Some(Ok(urls)) = urls.map(PeerUrl::told) {
            // Its own ID, or nobody's: not to be added, and no reason to refuse the request.
            let _ = self.add_remote(from, urls);
        }
    }

    /// Opens a stream that this peer has asked for, and named where it is one of ours. None: it is not a peer.
    pub(crate) fn open_stream(
        &self,
        kind: StreamKind,
        from: MemberId,
        name: Option<u64>,
        connection: Option<Arc<IoStatus>>,
        origin: &Origin,
    ) -> Option<StreamBody> {
        let peer = self.peer(from).filter(|peer| !peer.is_remote())?;
        StreamBody::attach(peer, kind, name, connection, origin)
    }

    /// What a member that we know is told when it probes us: what was read on the streams that it writes, and how we
    /// reach our peers. None: a stranger.
    pub(crate) fn report(&self, asker: MemberId) -> Option<Report> {
        let member = self.inner.shared.identity.member;
        if asker == member {
            // By a peer's name we have reached ourselves: whoever asks must learn it.
            return Some(Report { member, streams: Vec::new(), peers: Vec::new() });
        }
        let peers = self.inner.peers.load();
        let streams = peers.get(&asker)?.inbox.readings();
        let mut sights: Vec<Sight> =
            peers.values().filter(|peer| !peer.is_remote()).map(|peer| peer.link(|link| link.sight(peer.id))).collect();
        // With more than an answer holds, the asker's own comes first.
        sights.sort_unstable_by_key(|sight| (sight.id != asker, sight.id));
        Some(Report { member, streams, peers: sights })
    }

    /// Takes the message of one `POST /raft`, and waits for the application.
    pub(crate) async fn receive(
        &self,
        from: Option<MemberId>,
        message: Message,
        bytes: u64,
        origin: Origin,
    ) -> Result<(), Rejected> {
        let peer = from.and_then(|from| self.peer(from));
        if let Some(peer) = &peer {
            peer.acknowledged(std::slice::from_ref(&message));
        }
        let inbox = peer.as_ref().map_or(&self.inner.strangers, |peer| &peer.inbox);
        match inbox::Answering::begin(inbox, Channel::Pipeline, &message, bytes) {
            Ok(answering) => self.answer(from, message, answering, origin).await,
            // Who is cut off looks like a network that swallows.
            Err(RejectReason::Paused) => Ok(()),
            Err(_) => Err(Rejected::one("stopped")),
        }
    }

    /// Notes for the log that a request was not taken.
    pub(crate) fn refused(&self, reason: &'static str, from: Option<MemberId>, address: Option<SocketAddr>) {
        self.inner.refusals.note(reason, from, address);
    }

    /// Counts what could not be read from a request.
    pub(crate) fn undecodable(&self, from: Option<MemberId>, channel: Channel, kind: &'static str) {
        match from.and_then(|from| self.peer(from)) {
            Some(peer) => peer.unreadable(channel, kind),
            None => self.inner.strangers.unreadable(channel, kind),
        }
    }

    /// Saves the body of one `POST /raft/snapshot`, hands its message over, and waits for the application. `length` is
    /// what the sender says of the body.
    pub(crate) async fn receive_snapshot<S>(
        &self,
        from: Option<MemberId>,
        message: Message,
        envelope_bytes: u64,
        (body, length): (S, Option<u64>),
        origin: Origin,
    ) -> Result<(), SnapshotError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let peer = from.and_then(|from| self.peer(from));
        let trace = self.inner.shared.sampler.trace_id(&message);
        let mut receiving = Receiving::begin(peer, &message, length, (trace, &origin), self.events());
        // The span that the request names is the snapshot's, not its message's.
        let origin = Origin { span: None, ..origin };
        let outcome = self.save_and_process(from, message, envelope_bytes, body, &mut receiving, origin).await;
        receiving.end(&outcome);
        outcome
    }

    async fn save_and_process<S>(
        &self,
        from: Option<MemberId>,
        message: Message,
        envelope_bytes: u64,
        body: S,
        receiving: &mut Receiving,
        origin: Origin,
    ) -> Result<(), SnapshotError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let peer = from.and_then(|from| self.peer(from));
        let inbox = peer.as_ref().map_or(&self.inner.strangers, |peer| &peer.inbox);
        let mut answering = match inbox::Answering::begin(inbox, Channel::Snapshot, &message, envelope_bytes) {
            Ok(answering) => answering,
            // Not swallowed as a message is: success would say that raft has it.
            Err(reason) => return Err(SnapshotError::Process(reason.label().to_owned())),
        };
        let saved = async {
            let store = self.inner.snapshots.as_ref().ok_or("this member takes no snapshots")?;
            // Whoever is no peer yet has a place of its own, and takes none of the peers'.
            let configured = peer.as_ref().is_some_and(|peer| !peer.is_remote());
            let places = if configured { &self.inner.receiving } else { &self.inner.receiving_others };
            let _place = places.try_acquire().map_err(|_| "too many snapshots at a time")?;
            let shared = &self.inner.shared;
            let most = shared.limits.snapshot_bytes;
            let saving = store.save(receiving.index(), body, most, &shared.tasks, |bytes| {
                inbox.body(bytes);
                receiving.progressed(bytes);
            });
            saving.await.map_err(|error| error.to_string())
        };
        let saved: Result<u64, String> = self.until_stopped(saved).await.unwrap_or_else(|| Err("stopped".to_owned()));
        match saved {
            Ok(bytes) => inbox.saved(bytes),
            Err(why) => {
                answering.rejected(RejectReason::Failed);
                return Err(SnapshotError::Save(why));
            }
        }
        let outcome = self.answer(from, message, answering, origin).await;
        outcome.map_err(|rejected| SnapshotError::Process(rejected.to_string()))
    }

    /// Hands one message over whose sender waits.
    async fn answer(
        &self,
        from: Option<MemberId>,
        message: Message,
        mut answering: inbox::Answering<'_>,
        origin: Origin,
    ) -> Result<(), Rejected> {
        let size = message_size(&message);
        let peer = from.and_then(|from| self.peer(from));
        let span = peer.and_then(|peer| peer.tracer(origin).receive_span(&message, answering.channel(), size));
        answering.handed_over();
        let processing = self.inner.shared.raft.process(from.unwrap_or_default(), vec![message]);
        let outcome = self.until_stopped(processing).await;
        match &outcome {
            Some(Ok(())) => answering.processed(),
            Some(Err(Rejected(rejections))) => match rejections.first() {
                Some(rejection) => answering.rejected(rejection.kind.into()),
                None => answering.processed(),
            },
            None => answering.rejected(RejectReason::Stopped),
        }
        if let (Some(span), Some(reason)) = (&span, answering.reason()) {
            span.failed(reason.label());
        }
        outcome.unwrap_or_else(|| Err(Rejected::one("stopped")))
    }

    async fn until_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.inner.stop.run_until_cancelled(future).await
    }
}
