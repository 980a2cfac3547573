//! What holds of a transport at any time, whatever its peers do: the laws of its ledgers, and the bounds of its queues.

use rafthttp::{Limits, TransportStatus, metrics::Channel};

/// The messages that a reader holds beside its queue, at most: those that one read has brought.
const BATCH: u64 = 512;

/// The POSTs of a peer that may be under way, beside those that wait.
const POSTS: usize = 4;

/// Each message is accounted for.
///
/// # Errors
/// Whose ledger does not balance.
pub fn ledgers(status: &TransportStatus) -> Result<(), String> {
    for peer in &status.peers {
        let (name, outgoing, incoming) = (&peer.name, &peer.outgoing, &peer.incoming);
        if !outgoing.balances() {
            return Err(format!("the ledger of what goes to {name} does not balance: {outgoing:?}"));
        }
        if !incoming.balances() {
            return Err(format!("the ledger of what comes from {name} does not balance: {incoming:?}"));
        }
    }
    let is_well = status.strangers.as_ref().is_some_and(|strangers| strangers.balances())
        && status.others.as_ref().is_some_and(|others| others.balances());
    if is_well {
        return Ok(());
    }
    Err(format!("the ledger of others does not balance: {:?}, {:?}", status.strangers, status.others))
}

/// No queue is longer than it may be.
///
/// # Errors
/// Which one is.
#[allow(dead_code, reason = "each test binary uses its part")]
pub fn queues(status: &TransportStatus, limits: &Limits) -> Result<(), String> {
    for peer in &status.peers {
        for (channel, queued) in peer.outgoing.queued.iter() {
            let bound = match channel {
                Channel::MsgApp | Channel::Message => limits.stream_queue,
                Channel::Pipeline => limits.pipeline_queue + POSTS,
                Channel::Snapshot => limits.snapshots,
                other => return Err(format!("messages are queued on {other:?}, of which no bound is known here")),
            };
            if *queued > bound as u64 {
                return Err(format!("{queued} messages to {} are in the queue of {channel:?}", peer.name));
            }
        }
        let waiting = peer.incoming.waiting;
        if waiting > 2 * limits.receive_queue as u64 + BATCH {
            return Err(format!("{waiting} messages of {} are waiting", peer.name));
        }
    }
    Ok(())
}
