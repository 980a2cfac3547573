//! What the server side needs: it admits the senders of requests, and takes what they bring.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::{
    Transport, inbox,
    limits::Limits,
    raft::{Judgement, Members, Raft, Rejected, Source},
    roster::KnownMember,
    sender::{Sender, SenderClaim, SenderKind},
    snapshot::{
        part::{Handing, PartState},
        place::{Placed, Room},
        receiver::{ReceiveError, Receiving},
    },
    writer::StreamBody,
};
use crate::{
    dial::{io::IoStatus, urls::PeerUrl},
    id::MemberId,
    ledger::{Channel, RejectReason},
    telemetry::Origin,
    tls::{Tls, name_of},
    wire::{
        message::message_size,
        probing::{ProbeReport, Sight},
        raftpb::Message,
        resumption::{Named, Rest},
        stream::{StreamId, StreamKind},
    },
    world::World,
};

mod places;

use places::Granted;

/// A snapshot that a request brings.
pub(crate) struct ArrivingSnapshot {
    /// Its message for raft.
    pub(crate) message: Message,
    /// The length of the message, in bytes.
    pub(crate) envelope_bytes: u64,
    /// Its body, or the rest of it.
    pub(crate) body: BoxStream<'static, std::io::Result<Bytes>>,
    /// The length of the body, as the sender says.
    pub(crate) length: Option<u64>,
    /// The identity of the snapshot, and the offset of the body, if the sender resumes snapshots.
    pub(crate) rest: Option<Rest>,
    /// The origin of the request.
    pub(crate) origin: Origin,
    /// Pays for the message, until this is dropped.
    pub(crate) paid: Box<dyn Send>,
}

/// The result of receiving a body.
enum ReceivedBody {
    /// It is in its final place.
    Placed(Placed, Option<Handing>),
    /// It was read and discarded.
    Discarded,
    /// Another connection brought the whole snapshot, and raft has answered.
    Answered(Result<(), ReceiveError>),
}

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

    /// Whether this is a configured peer, as opposed to a remote.
    pub(crate) fn is_peer(&self, id: MemberId) -> bool {
        self.peer(id).is_some()
    }

    /// The certificates, if there are any.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.inner.tls.as_ref()
    }

    /// The URLs of a configured peer, or our own. `None` for any other member.
    pub(crate) fn urls_of(&self, id: MemberId) -> Option<Vec<PeerUrl>> {
        let identity = &self.inner.shared.identity;
        if id == identity.member {
            return Some(identity.urls.clone());
        }
        self.peer(id).map(|peer| peer.urls.all())
    }

    /// Reports that a request claimed to be from a member that its certificate is not for: the certificate is not valid
    /// for any URL of that member.
    pub(crate) fn mismatched(
        &self,
        claimed: MemberId,
        urls: &[PeerUrl],
        certificate: &CertificateDer<'_>,
        address: Option<SocketAddr>,
        refused: bool,
    ) {
        let of = if self.is_peer(claimed) { Some(claimed) } else { None };
        self.events().identity_mismatch(of, claimed, urls, &name_of(certificate), address, refused);
    }

    /// Records that a member sent a request, and what it said about itself. An unknown member is added as a remote, if
    /// its URLs are legal and may be dialled (etcd's `addRemoteFromRequest`). Returns the sender.
    pub(crate) fn admit(&self, from: Option<MemberId>, told: SenderClaim<'_>) -> Sender {
        let Some(id) = from else { return Sender::new(None, None) };
        if let Some(known) = self.known(id) {
            match &known {
                KnownMember::Peer(peer) => peer.heard(),
                KnownMember::Remote(remote) => remote.heard(),
            }
            return Sender::new(from, Some(known));
        }
        if !self.inner.shared.raft.is_removed(id)
            && let Some(Ok(urls)) = told.urls.map(PeerUrl::told)
        {
            let (urls, only) = self.may_be_dialled(urls, told);
            // It fails for our own ID, for 0, and without a URL. The member is then not added, but its request need not
            // be refused.
            let _ = self.add_remote_at(id, urls, only);
        }
        Sender::new(from, self.known(id))
    }

    /// The URLs of a request that may be dialled, and the only address that they may lead to, if it is limited. Anyone
    /// who can reach the port can send any URL, and must not make us connect to a host that they cannot reach
    /// themselves. So an address must be the one that the request came from, and a name must resolve to it, which is
    /// checked at the dial.
    fn may_be_dialled(&self, urls: Vec<PeerUrl>, told: SenderClaim<'_>) -> (Vec<PeerUrl>, Option<IpAddr>) {
        if told.authenticated || self.inner.shared.skips_url_verification {
            return (urls, None);
        }
        let Some(asked) = told.address.map(|address| address.to_canonical()) else { return (Vec::new(), None) };
        let fits = |url: &PeerUrl| url.address().is_none_or(|address| address == asked);
        (urls.into_iter().filter(fits).collect(), Some(asked))
    }

    /// Opens a stream that this peer has asked for. `id` is the ID that its reader sent, if any. `None` if it is not a peer.
    pub(crate) fn open_stream(
        &self,
        kind: StreamKind,
        sender: &Sender,
        id: Option<StreamId>,
        connection: Option<Arc<IoStatus>>,
        origin: &Origin,
    ) -> Option<StreamBody> {
        StreamBody::attach(sender.peer()?.clone(), kind, id, connection, origin)
    }

    /// The report to a peer that probes us: how far we read the streams that it writes, and how we reach our peers.
    /// `None` for a stranger.
    pub(crate) fn report(&self, asker: MemberId) -> Option<ProbeReport> {
        let member = self.inner.shared.identity.member;
        if asker == member {
            // We have dialled ourselves by a peer's URL. The report says so by our own ID.
            return Some(ProbeReport { member, streams: Vec::new(), peers: Vec::new() });
        }
        let peers = &self.inner.known.load().peers;
        let streams = peers.get(&asker)?.inbox.readings();
        let now = self.inner.shared.world.now();
        let mut sights: Vec<Sight> =
            peers.values().map(|peer| peer.link(|link| link.read().sight(peer.id, now))).collect();
        // If there are more peers than an answer can hold, the asking peer's own entry comes first.
        sights.sort_unstable_by_key(|sight| (sight.id != asker, sight.id));
        Some(ProbeReport { member, streams, peers: sights })
    }

    /// Takes the message of one `POST /raft`, and waits for the application.
    pub(crate) async fn receive(
        &self,
        sender: &Sender,
        message: Message,
        bytes: u64,
        origin: Origin,
    ) -> Result<(), Rejected> {
        if let Some(peer) = sender.peer() {
            peer.acknowledged(std::slice::from_ref(&message));
        }
        let inbox = sender.inbox(&self.inner.strangers);
        match inbox::Answering::begin(inbox, Channel::Pipeline, &message, bytes) {
            Ok(answering) => {
                let outcome = self.answer(sender, message, answering, origin).await;
                outcome.unwrap_or_else(|| Err(Rejected::one("stopped")))
            }
            // A cut peer gets the impression of a network that swallows messages.
            Err(RejectReason::Paused) => Ok(()),
            Err(_) => Err(Rejected::one("stopped")),
        }
    }

    /// Notes a refused request for the log.
    pub(crate) fn refused(&self, reason: &'static str, from: Option<MemberId>, address: Option<SocketAddr>) {
        self.inner.refusals.note(reason, from, address);
    }

    /// Counts a request that could not be decoded.
    pub(crate) fn undecodable(&self, sender: &Sender, channel: Channel, kind: &'static str) {
        sender.unreadable(&self.inner.strangers, channel, kind);
    }

    /// Whether this member keeps the part of a snapshot that arrived before its connection broke.
    pub(crate) fn resumes_snapshots(&self) -> bool {
        self.inner.snapshots.is_some()
    }

    /// How many bytes of a peer's snapshot have arrived.
    pub(crate) async fn has_of_snapshot(&self, sender: &Sender, of: &Named) -> Result<u64, ReceiveError> {
        match &self.inner.snapshots {
            Some(store) => store.parts().has(sender.id(), of).await,
            None => Ok(0),
        }
    }

    /// Saves the body of one `POST /raft/snapshot`, passes its message on, and waits for the application.
    pub(crate) async fn receive_snapshot(
        &self,
        sender: &Sender,
        mut arrival: ArrivingSnapshot,
    ) -> Result<(), ReceiveError> {
        if arrival.rest.is_none() || sender.kind() != SenderKind::Peer {
            if let Some(Rest { offset: 1.., .. }) = arrival.rest {
                // No part is kept for a sender that is no peer.
                return Err(ReceiveError::OtherOffset(0));
            }
            return self.take_in(sender, arrival).await;
        }
        arrival.length = arrival.rest.map(|rest| rest.of.length);
        // A task of the transport: when the connection breaks, it still syncs the part, or passes the whole on.
        let (transport, sender) = (self.clone(), sender.clone());
        let taking = self.inner.shared.tasks.spawn(async move { transport.take_in(&sender, arrival).await });
        // Without a verdict, the sender may bring the rest again.
        taking.await.unwrap_or(Err(ReceiveError::Stopped))
    }

    async fn take_in(&self, sender: &Sender, arrival: ArrivingSnapshot) -> Result<(), ReceiveError> {
        let ArrivingSnapshot { message, length, origin, .. } = &arrival;
        let mut receiving = Receiving::begin(sender.peer().cloned(), message, *length, origin, self.events());
        let outcome = self.save_and_process(sender, arrival, &mut receiving).await;
        receiving.end(&outcome);
        outcome
    }

    async fn save_and_process(
        &self,
        sender: &Sender,
        arrival: ArrivingSnapshot,
        receiving: &mut Receiving,
    ) -> Result<(), ReceiveError> {
        let ArrivingSnapshot { message, envelope_bytes, body, rest, origin, length: _, paid: _paid } = arrival;
        // The span that the request names belongs to the snapshot, not to its message.
        let origin = Origin { span: None, ..origin };
        let inbox = sender.inbox(&self.inner.strangers);
        let mut answering = match inbox::Answering::begin(inbox, Channel::Snapshot, &message, envelope_bytes) {
            Ok(answering) => answering,
            // Unlike a message, a snapshot is not swallowed silently, because an answer of success would say that raft
            // has it.
            Err(RejectReason::Stopped) => return Err(ReceiveError::Stopped),
            Err(reason) => return Err(ReceiveError::Process(reason.label().to_owned())),
        };
        let judgement = self.judge(sender, &message, rest, &mut answering).await?;
        let taking = async {
            match judgement {
                Judgement::Wanted => self.save(sender, body, rest, receiving).await,
                Judgement::PassedOver => self.discard(sender, body, receiving).await,
            }
        };
        match self.until_stopped(taking).await.unwrap_or(Err(ReceiveError::Stopped)) {
            Ok(ReceivedBody::Placed(_placed, handing)) => {
                let outcome = self.answer(sender, message, answering, origin).await;
                // Without an answer, it can be handed over again: nobody remembers one.
                let outcome = outcome.ok_or(ReceiveError::Stopped)?;
                let outcome = outcome.map_err(|rejected| ReceiveError::Process(rejected.to_string()));
                if let (Some(handing), Some(store)) = (handing, &self.inner.snapshots) {
                    store.handed_over(handing, &outcome).await;
                }
                outcome
            }
            Ok(ReceivedBody::Discarded) => {
                answering.processed(None);
                Ok(())
            }
            Ok(ReceivedBody::Answered(outcome)) => {
                receiving.was_counted();
                match &outcome {
                    Ok(()) => answering.processed(None),
                    Err(_) => answering.rejected(RejectReason::Failed),
                }
                outcome
            }
            Err(error) => {
                let is_stopped = error == ReceiveError::Stopped;
                answering.rejected(if is_stopped { RejectReason::Stopped } else { RejectReason::Failed });
                Err(error)
            }
        }
    }

    /// Saves a snapshot's body, if there is a place for one more.
    async fn save(
        &self,
        sender: &Sender,
        body: BoxStream<'static, std::io::Result<Bytes>>,
        rest: Option<Rest>,
        receiving: &mut Receiving,
    ) -> Result<ReceivedBody, ReceiveError> {
        let failed = |why: String| ReceiveError::Save(why);
        let store = self.inner.snapshots.as_ref().ok_or_else(|| failed("this member takes no snapshots".into()))?;
        let (shared, inbox) = (&self.inner.shared, sender.inbox(&self.inner.strangers));
        let Limits { snapshot_bytes: most, snapshot_headroom: headroom, .. } = shared.limits;
        let of = rest.map(|rest| rest.of);
        if of.is_some_and(|of| of.length > most) {
            return Err(failed(format!("the snapshot has more than {most} bytes")));
        }
        let (claim, _place) = match self.grant(store, sender, rest, receiving).await? {
            Granted::Place(place, claim) => (claim, place),
            Granted::Whole(state) => return Ok(ReceivedBody::Answered(answered(state).await)),
        };
        let (index, term, told) = (receiving.index(), receiving.term(), receiving.length());
        let progress = |bytes| {
            inbox.body(bytes);
            receiving.progressed(bytes);
        };
        let (placed, handing) = match claim {
            Some(claim) => {
                store.parts().make_room(&claim, headroom).await;
                let (placed, handing) = store.keep(claim, term, body, headroom, &shared.tasks, progress).await?;
                (placed, Some(handing))
            }
            None => {
                let room = Room { most, headroom, told, of };
                let saved = store.save(index, body, room, &shared.tasks, progress).await;
                (saved.map_err(|error| failed(error.to_string()))?, None)
            }
        };
        inbox.saved(placed.length);
        Ok(ReceivedBody::Placed(placed, handing))
    }

    /// Raft's judgement of a snapshot. The part of an unwanted one is dropped.
    async fn judge(
        &self,
        sender: &Sender,
        message: &Message,
        rest: Option<Rest>,
        answering: &mut inbox::Answering<'_>,
    ) -> Result<Judgement, ReceiveError> {
        let judged = self.until_stopped(self.raft().judge_snapshot(sender.id(), message)).await;
        let Some(judgement) = judged else {
            answering.rejected(RejectReason::Stopped);
            return Err(ReceiveError::Stopped);
        };
        if !matches!(judgement, Ok(Judgement::Wanted)) {
            self.forget_part(sender, rest).await;
        }
        judgement.map_err(|rejected| {
            answering.rejected(rejected.0.first().map_or(RejectReason::Refused, |first| first.kind.into()));
            ReceiveError::Process(rejected.to_string())
        })
    }

    /// Drops the part of an unwanted snapshot.
    async fn forget_part(&self, sender: &Sender, rest: Option<Rest>) {
        if let (Some(rest), Some(store)) = (rest, &self.inner.snapshots)
            && sender.kind() == SenderKind::Peer
        {
            store.parts().forget(sender.id(), &rest.of).await;
        }
    }

    /// Reads the body of an unwanted snapshot and discards it, because a sender reads no answer before it has sent the
    /// whole body.
    async fn discard(
        &self,
        sender: &Sender,
        mut body: BoxStream<'static, std::io::Result<Bytes>>,
        receiving: &mut Receiving,
    ) -> Result<ReceivedBody, ReceiveError> {
        let most = self.inner.shared.limits.snapshot_bytes;
        let mut length = 0;
        while let Some(piece) = body.next().await {
            let bytes = piece.map_err(|error| ReceiveError::Save(error.to_string()))?.len() as u64;
            length += bytes;
            if length > most {
                return Err(ReceiveError::Save(format!("the snapshot has more than {most} bytes")));
            }
            sender.inbox(&self.inner.strangers).body(bytes);
            receiving.progressed(bytes);
        }
        Ok(ReceivedBody::Discarded)
    }

    /// Passes on one message, whose sender waits. `None` if this transport stopped before the application answered.
    async fn answer(
        &self,
        sender: &Sender,
        message: Message,
        mut answering: inbox::Answering<'_>,
        origin: Origin,
    ) -> Option<Result<(), Rejected>> {
        let size = message_size(&message);
        let span = sender.peer().and_then(|peer| peer.tracer(origin).receive_span(&message, answering.channel(), size));
        answering.handed_over();
        let processing = self.inner.shared.raft.process(sender.id(), Source::Anyone, vec![message]);
        let outcome = self.until_stopped(processing).await;
        match &outcome {
            Some(Ok(())) => answering.processed(span.as_ref()),
            Some(Err(Rejected(rejections))) => match rejections.first() {
                Some(rejection) => answering.rejected(rejection.kind.into()),
                None => answering.processed(span.as_ref()),
            },
            None => answering.rejected(RejectReason::Stopped),
        }
        if let (Some(span), Some(reason)) = (&span, answering.reason()) {
            span.failed(reason.label());
        }
        outcome
    }

    async fn until_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.inner.stop.run_until_cancelled(future).await
    }
}

/// Raft's answer to a snapshot that another connection has brought.
async fn answered(mut state: watch::Receiver<PartState>) -> Result<(), ReceiveError> {
    let ended = state.wait_for(|state| !matches!(state, PartState::Handing { .. })).await;
    match ended.map(|state| state.clone()) {
        Ok(PartState::Done { outcome, .. }) => outcome,
        _ => Err(ReceiveError::UNANSWERED),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::{
        id::ClusterId,
        ledger::Incoming,
        transport::{raft::Taker, snapshot::store::SnapshotStore},
        wire::raftpb::MessageType,
    };

    const SENDER: MemberId = MemberId(2);

    fn message(kind: MessageType) -> Message {
        Message { r#type: kind as i32, from: 2, to: 1, snapshot: Some(Box::default()), ..Message::default() }
    }

    #[tokio::test]
    async fn a_strangers_urls_are_dialled_where_it_asked_from() {
        let build = |skips| {
            let builder = Transport::builder(MemberId(1), ClusterId(1), Arc::new(Taker));
            builder.skip_url_verification(skips).build().expect("a transport")
        };
        let (transport, skipping) = (build(false), build(true));
        let urls = "http://10.0.0.1:1,http://[::ffff:10.0.0.1]:2,http://name:3,http://10.0.0.2:4,http://[fd00::1]:5";
        let urls = PeerUrl::list(urls).expect("URLs");
        let ports = |transport: &Transport, address: Option<&str>, authenticated| {
            let address = address.map(|address| address.parse().expect("an address"));
            let told = SenderClaim { address, authenticated, ..SenderClaim::default() };
            let (urls, only) = transport.may_be_dialled(urls.clone(), told);
            (urls.iter().map(PeerUrl::port).collect::<Vec<_>>(), only.map(|only| only.to_string()))
        };
        let own = Some("10.0.0.1".to_owned());
        for form in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(ports(&transport, Some(form), false), (vec![1, 2, 3], own.clone()), "{form}");
        }
        assert_eq!(ports(&transport, Some("fd00::1"), false).0, [3, 5]);
        assert_eq!(ports(&transport, None, false).0, [0; 0], "nobody knows where it asked from");
        for any in [ports(&transport, Some("10.0.0.1"), true), ports(&skipping, None, false)] {
            assert_eq!(any, (vec![1, 2, 3, 4, 5], None));
        }
        transport.stop().await;
        skipping.stop().await;
    }

    #[tokio::test]
    async fn what_one_request_brings_stands_in_one_ledger_though_its_sender_is_removed_meanwhile() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let builder = Transport::builder(MemberId(1), ClusterId(1), Arc::new(Taker)).snapshots(store);
        let transport = builder.build().expect("a transport");
        transport.add_peer(SENDER, PeerUrl::list("http://127.0.0.1:1").expect("a URL")).expect("a peer");
        let sender = transport.admit(Some(SENDER), SenderClaim::default());
        assert_eq!(sender.kind(), SenderKind::Peer);
        let removes = transport.clone();
        let body = stream::once(async move {
            removes.remove_peer(SENDER);
            Ok(Bytes::from_static(b"data"))
        });
        let arrival = ArrivingSnapshot {
            message: message(MessageType::MsgSnap),
            envelope_bytes: 10,
            body: body.boxed(),
            length: Some(4),
            rest: None,
            origin: Origin::default(),
            paid: Box::new(()),
        };
        let saved = transport.receive_snapshot(&sender, arrival).await;
        assert_eq!(saved, Ok(()));
        let heartbeat = message(MessageType::MsgHeartbeat);
        assert!(transport.receive(&sender, heartbeat, 20, Origin::default()).await.is_err());
        transport.undecodable(&sender, Channel::Pipeline, "truncated");

        let Incoming { received, bytes, rejected, frame_errors, .. } = sender.peer().expect("a peer").inbox.ledger();
        assert!(sender.peer().is_some_and(|peer| peer.inbox.ledger().balances()));
        assert_eq!(received.total(), 2);
        assert_eq!(bytes.total(), 34);
        assert_eq!((rejected.total(), frame_errors.total()), (1, 1));
        let strangers = format!("{:?}", transport.inner.strangers.ledger());
        assert_eq!(strangers, format!("{:?}", Incoming::default()), "nothing of it is a stranger's");
        transport.stop().await;
    }
}
