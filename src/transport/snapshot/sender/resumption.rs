//! Sends a snapshot to a peer that keeps what it received. Whenever the connection breaks, the peer is asked what it
//! has, and sent the rest. Raft is told once: when the peer has taken everything, or when there is no hope any more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::Xxh3;

use super::{SendingSnapshot, exchange, request, whole};
use crate::{
    dial::{
        connection::{DialledConnection, drive, empty},
        post::{self, PostAnswer},
    },
    ledger::{Direction, RestartReason},
    transport::{
        attempt::{Attempt, Reached, Undelivered},
        pace::{Slot, deadline::Deadline},
        peer::Peer,
        redial::Permit,
        snapshot::Repeatable,
    },
    wire::{
        headers,
        raftpb::Message,
        resumption::{self, Named, Rest},
    },
};

/// How long a peer may make no progress before the snapshot is given up. Raft then decides anew what the peer needs.
const HOPE: Duration = Duration::from_secs(300);
/// How long a write may make no progress. It is short because dialling again costs little.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is sent again from the beginning because the received bytes differed from those sent. If it happens
/// more often, the bits probably flip in our own file.
const MISMATCHES: u32 = 1;

/// Sends the peer what it does not have, until it has everything. `None` if the answering member does not resume
/// snapshots any more, and has to be sent the whole like any other.
pub(super) async fn deliver(
    peer: &Arc<Peer>,
    message: &Message,
    body: &Repeatable,
    underway: &SendingSnapshot,
) -> Option<Result<(), Undelivered>> {
    let of = match named(peer, body).await {
        Ok(of) => of,
        Err(why) => return Some(Err(why)),
    };
    let mut sending = Sending {
        peer,
        message,
        body,
        underway,
        of,
        reached: 0,
        furthest: 0,
        mismatches: 0,
        hope: Instant::now() + HOPE,
        deadline: Deadline::new(peer.shared.limits.snapshot_rate),
    };
    let mut failures = 0;
    loop {
        let before = sending.reached;
        match sending.attempt().await {
            Ended::Taken => return Some(Ok(())),
            Ended::Hopeless(why) => return Some(Err(why)),
            Ended::Foreign => break,
            Ended::BrokeOff(why) if Instant::now() >= sending.hope => return Some(Err(why)),
            Ended::BrokeOff(Undelivered { why, .. }) => {
                tracing::debug!(peer = %peer.id, why, "snapshot broke off");
                failures = if sending.reached > before { 1 } else { failures + 1 };
                peer.redial.rest(failures).await;
            }
        }
    }
    peer.set_resumes_snapshots(false);
    sending.goes_on(0);
    None
}

/// The identity of a body. If its checksum is not known, the body is read once to compute it.
async fn named(peer: &Peer, body: &Repeatable) -> Result<Named, Undelivered> {
    let world = &peer.shared.world;
    let failed = |why: String| Undelivered::failed(format!("the snapshot cannot be read: {why}"));
    let length = body.length;
    let checksum = match body.checksum {
        Some(checksum) => checksum,
        None => {
            let mut pieces = body.pieces(0, world);
            let (mut hash, mut read) = (Xxh3::new(), 0);
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|error| failed(error.to_string()))?;
                read += piece.len() as u64;
                hash.update(&piece);
            }
            if read != length {
                return Err(failed(format!("it has {read} bytes, not the {length} that it promised")));
            }
            hash.digest128()
        }
    };
    let random = || u128::from(world.number()) << 64 | u128::from(world.number());
    Ok(Named { name: body.name.unwrap_or_else(random), length, checksum })
}

/// A snapshot on its way, in as many requests as it takes.
struct Sending<'a> {
    peer: &'a Arc<Peer>,
    message: &'a Message,
    body: &'a Repeatable,
    underway: &'a SendingSnapshot,
    of: Named,
    /// The most bytes that the peer has said that it has.
    reached: u64,
    /// How far its bytes were sent since then.
    furthest: u64,
    /// How often the received bytes differed from those sent.
    mismatches: u32,
    /// Until when it may make no progress.
    hope: Instant,
    /// The peer has to take a part of it in each minute, however often its connection breaks.
    deadline: Deadline,
}

/// The outcome of one attempt.
enum Ended {
    /// The peer has taken the snapshot.
    Taken,
    /// Another attempt may get further.
    BrokeOff(Undelivered),
    /// No other attempt will get further.
    Hopeless(Undelivered),
    /// The answering member does not know resumption.
    Foreign,
}

impl<'a> Sending<'a> {
    /// Asks the peer what it has, and sends it the rest on the same connection, so that the member that answered is the
    /// one that receives.
    async fn attempt(&mut self) -> Ended {
        let peer = self.peer;
        let Some((permit, _slot)) = self.may_dial().await else {
            return Ended::BrokeOff(Undelivered::failed("the peer is down".to_owned()));
        };
        let attempt = peer.attempt();
        let mut starts = peer.incarnation.news();
        let dialled = peer.shared.client.dial(&attempt.url).await;
        drop(permit);
        let mut connection = match dialled {
            Ok(connection) => connection,
            Err(error) => return Ended::BrokeOff(peer.post_failed(&attempt, Reached::Nobody, error.to_string())),
        };
        self.underway.span.address(connection.remote);
        if let Some(sent) = &self.underway.sent {
            sent.address(connection.remote);
        }
        let offset = match self.ask(&mut connection, &attempt).await {
            Ok(offset) => offset,
            Err(ended) => return ended,
        };
        self.goes_on(offset);
        // If its machine has lost power, the connection breaks only when TCP asks, after half a minute.
        let answer = tokio::select! {
            biased;
            answer = self.send_rest(connection, &attempt, offset) => answer,
            () = starts.changed() => Err("the peer was started again".to_owned()),
        };
        match answer {
            Ok(answer) => self.answered(&attempt, &answer),
            Err(why) => {
                self.broke_off();
                let why = format!("POST {} failed: {why}", headers::RAFT_SNAPSHOT);
                let failed = peer.post_failed(&attempt, Reached::Unknown, why);
                if self.underway.progress.hopeless.load(Ordering::Relaxed) {
                    return Ended::Hopeless(failed);
                }
                Ended::BrokeOff(failed)
            }
        }
    }

    /// Waits until the peer may be dialled, and until one more snapshot may go out. `None` if there is no hope for the
    /// peer any more. No permit is needed to dial a peer that is up.
    async fn may_dial(&mut self) -> Option<(Option<Permit<'a>>, Slot<'a>)> {
        let Peer { redial, shared, .. } = &**self.peer;
        loop {
            let permit = timeout_at(self.hope, redial.permit()).await.ok()?;
            if let Some(slot) = shared.pace.try_slot() {
                return Some((Some(permit), slot));
            }
            // All slots may be taken for long, and meanwhile others may dial the peer. The wait says nothing about the
            // peer.
            drop(permit);
            let begun = Instant::now();
            let slot = shared.pace.slot().await;
            self.hope += begun.elapsed();
            if !redial.is_down() {
                return Some((None, slot));
            }
        }
    }

    /// Asks how many bytes the peer has.
    async fn ask(&self, connection: &mut DialledConnection, attempt: &Attempt) -> Result<u64, Ended> {
        let peer = self.peer;
        let request = self.head(attempt, 0).body(empty());
        let request = request.map_err(|error| Ended::Hopeless(Undelivered::failed(error.to_string())))?;
        let answer = match post::exchange(connection, request).await {
            Ok(answer) => answer,
            Err(error) => {
                let why = format!("POST {} failed: {error}", headers::RAFT_SNAPSHOT);
                return Err(Ended::BrokeOff(peer.post_failed(attempt, Reached::Unknown, why)));
            }
        };
        if let Some(offset) = resumption::offset(&answer.headers, self.of.length)
            && answer.status == StatusCode::NO_CONTENT
        {
            let DialledConnection { sender, driver, .. } = connection;
            let is_ready = drive(driver, sender.ready()).await;
            return is_ready
                .map(|()| offset)
                .map_err(|error| Ended::BrokeOff(peer.post_failed(attempt, Reached::Unknown, error.to_string())));
        }
        match answer.status {
            // A member that does not know this request takes its empty body for an invalid message.
            StatusCode::BAD_REQUEST => Err(Ended::Foreign),
            _ => Err(self.refused(attempt, &answer)),
        }
    }

    /// Records the offset at which the snapshot goes on.
    fn goes_on(&mut self, offset: u64) {
        let SendingSnapshot { peer, progress, .. } = self.underway;
        let sent = progress.body.swap(offset, Ordering::Relaxed);
        progress.whole.store(false, Ordering::Relaxed);
        if sent > 0 || offset > 0 {
            peer.link(|link| link.snapshot_resumed(Direction::Out, sent, offset));
        }
        if offset > 0 {
            peer.shared.events.snapshot_resumed(peer.id, Direction::Out, offset, self.of.length);
        } else if self.reached > 0 {
            self.starts_over(RestartReason::Lost);
        }
        if offset > self.reached {
            (self.reached, self.furthest, self.hope) = (offset, offset, Instant::now() + HOPE);
        }
        self.deadline.goes_on(offset);
    }

    /// The connection broke. If more was sent than ever before, that was progress, however much of it has arrived.
    fn broke_off(&mut self) {
        let sent = self.underway.progress.body.load(Ordering::Relaxed);
        if sent > self.furthest {
            (self.furthest, self.hope) = (sent, Instant::now() + HOPE);
        }
    }

    fn starts_over(&mut self, reason: RestartReason) {
        let peer = self.peer;
        peer.link(|link| link.snapshot_restarted(Direction::Out, reason));
        peer.shared.events.snapshot_restarted(peer.id, Direction::Out, reason, self.reached);
        (self.reached, self.furthest) = (0, 0);
    }

    async fn send_rest(
        &mut self,
        connection: DialledConnection,
        attempt: &Attempt,
        offset: u64,
    ) -> Result<PostAnswer, String> {
        let Self { peer, message, body, underway, of, .. } = self;
        let pieces = body.pieces(offset, &peer.shared.world);
        let body = whole(peer, message, pieces, Some(of.length), &underway.progress);
        let request = self.head(attempt, offset).body(body).map_err(|error| error.to_string())?;
        let Self { peer, underway, deadline, .. } = self;
        exchange(peer, connection, request, &underway.progress, WRITE_PATIENCE, deadline).await
    }

    fn head(&self, attempt: &Attempt, offset: u64) -> http::request::Builder {
        // The length is one of the headers that identify it.
        let mut request = request(self.peer, &attempt.url, None, self.underway);
        for (header, value) in (Rest { of: self.of, offset }).headers() {
            request = request.header(header, value);
        }
        request
    }

    fn answered(&mut self, attempt: &Attempt, answer: &PostAnswer) -> Ended {
        match answer.status {
            StatusCode::NO_CONTENT => match self.peer.post_answered(attempt, headers::RAFT_SNAPSHOT, answer) {
                Ok(()) => Ended::Taken,
                Err(why) => Ended::Hopeless(why),
            },
            StatusCode::UNPROCESSABLE_ENTITY if self.mismatches < MISMATCHES => {
                self.mismatches += 1;
                self.reached = self.of.length;
                self.starts_over(RestartReason::Checksum);
                self.refused_for_now(attempt, answer)
            }
            _ => self.refused(attempt, answer),
        }
    }

    /// It was refused. The status says whether another attempt is useful.
    fn refused(&self, attempt: &Attempt, answer: &PostAnswer) -> Ended {
        let there = resumption::offset(&answer.headers, self.of.length);
        match answer.status {
            // A peer that has just started may not know its own peers yet: it did when it said that it resumes.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_FOUND => self.refused_for_now(attempt, answer),
            StatusCode::CONFLICT if there.is_some() => self.refused_for_now(attempt, answer),
            _ => match self.peer.post_answered(attempt, headers::RAFT_SNAPSHOT, answer) {
                Ok(()) => Ended::Foreign,
                Err(why) => Ended::Hopeless(why),
            },
        }
    }

    fn refused_for_now(&self, attempt: &Attempt, answer: &PostAnswer) -> Ended {
        match self.peer.post_answered(attempt, headers::RAFT_SNAPSHOT, answer) {
            Ok(()) => Ended::Taken,
            Err(why) => Ended::BrokeOff(why),
        }
    }
}
