//! Which messages are traced.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::TraceId;
use crate::{
    id::ClusterId,
    wire::raftpb::{Message, MessageType},
};

/// The bits of the trace ID that decide whether a message is traced.
const SAMPLED_BITS: u64 = (1 << 63) - 1;

/// Decides which messages are traced, and gives them their trace IDs.
///
/// Both decisions depend on the message alone, so its sender and its receiver agree without communication. The trace ID
/// is the xxh3-128 (seed 0) of seven big-endian `u64`: cluster, from, to, type, term, index, and the index of the last
/// entry (0 without entries). For `MsgProp`, `MsgReadIndex`, `MsgReadIndexResp`, `MsgHeartbeat` and `MsgHeartbeatResp`,
/// these fields are not unique, so two more hashes follow, big-endian too: the xxh3-64 of `context`, and the xxh3-64 of
/// the first entry's data (of nothing without entries). A message is traced if the low 63 bits of its trace ID are
/// below ratio × 2⁶³.
///
/// A test vector:
///
/// ```
/// use rafthttp::{
///     id::ClusterId,
///     telemetry::Sampler,
///     wire::raftpb::{Entry, Message, MessageType},
/// };
///
/// let mut message = Message {
///     r#type: MessageType::MsgApp as i32, from: 1, to: 2, term: 3, log_term: 3, index: 41,
///     entries: vec![Entry { term: 3, index: 42, data: "payload".into(), ..Default::default() }],
///     ..Default::default()
/// };
/// let sampler = Sampler::new(1.0, ClusterId(0x1000));
/// let trace = sampler.sample(&message).unwrap();
/// assert_eq!(trace.to_string(), "e5c18f3ded68a23ebc73f1d69373ce51");
/// assert_eq!(trace.send_span_id().to_string(), "8d5d5f40aa82cdb1");
///
/// // The data of a proposal are part of its trace ID.
/// message.r#type = MessageType::MsgProp as i32;
/// assert_eq!(sampler.sample(&message).unwrap().to_string(), "317a71fd62f1fee7c1c6e8404b2b703f");
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    threshold: u64,
    cluster: ClusterId,
    heartbeats: bool,
}

impl Sampler {
    /// A sampler for the messages of `cluster`. `ratio` is the share of messages that are traced, from 0 to 1. With 0,
    /// no hash is computed. Values outside of the range are clamped; not-a-number is 0.
    pub fn new(ratio: f64, cluster: ClusterId) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and makes not-a-number 0")]
        let threshold = (ratio.clamp(0.0, 1.0) * (SAMPLED_BITS as f64 + 1.0)) as u64;
        Self { threshold, cluster, heartbeats: false }
    }

    /// Whether raft's heartbeats and their answers are traced too. Default: false, they are only counted.
    pub fn heartbeats(self, traced: bool) -> Self {
        Self { heartbeats: traced, ..self }
    }

    /// The message's trace ID, if the message is traced.
    #[inline]
    pub fn sample(&self, message: &Message) -> Option<TraceId> {
        if self.threshold == 0 {
            return None;
        }
        let kind = message.r#type;
        let heartbeat = kind == MessageType::MsgHeartbeat as i32 || kind == MessageType::MsgHeartbeatResp as i32;
        if heartbeat && !self.heartbeats {
            return None;
        }
        let trace = self.trace_id(message);
        let low_bits = trace.0 & u128::from(SAMPLED_BITS);
        (low_bits < u128::from(self.threshold)).then_some(trace)
    }

    /// The message's trace ID, whether or not the message is traced.
    pub fn trace_id(&self, message: &Message) -> TraceId {
        let last_index = message.entries.last().map_or(0, |entry| entry.index);
        // An enum has 32 bits on the wire. A negative value, which no raft sends, still gives the same ID on both ends.
        let kind = i64::from(message.r#type) as u64;
        let head = [self.cluster.0, message.from, message.to, kind, message.term, message.index, last_index];
        let mut bytes = [0; 9 * 8];
        for (place, value) in bytes.chunks_exact_mut(8).zip(head) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        if !is_told_apart_by_content(message.r#type) {
            return TraceId(xxh3_128(&bytes[..7 * 8]));
        }
        let data = message.entries.first().map_or(&[][..], |entry| &entry.data);
        bytes[56..64].copy_from_slice(&xxh3_64(&message.context).to_be_bytes());
        bytes[64..].copy_from_slice(&xxh3_64(data).to_be_bytes());
        TraceId(xxh3_128(&bytes))
    }
}

fn is_told_apart_by_content(message_type: i32) -> bool {
    use MessageType::{MsgHeartbeat, MsgHeartbeatResp, MsgProp, MsgReadIndex, MsgReadIndexResp};
    [MsgProp, MsgReadIndex, MsgReadIndexResp, MsgHeartbeat, MsgHeartbeatResp]
        .iter()
        .any(|kind| *kind as i32 == message_type)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::raftpb::Entry;

    const CLUSTER: ClusterId = ClusterId(0x1000);

    fn append(index: u64) -> Message {
        let entry = Entry { term: 3, index: index + 1, data: "payload".into(), ..Entry::default() };
        Message {
            r#type: MessageType::MsgApp as i32,
            from: 1,
            to: 2,
            term: 3,
            index,
            entries: vec![entry],
            ..Message::default()
        }
    }

    fn of_kind(kind: MessageType) -> Message {
        Message { r#type: kind as i32, ..append(1) }
    }

    fn sampled(sampler: &Sampler) -> usize {
        (0..100_000).filter(|index| sampler.sample(&append(*index)).is_some()).count()
    }

    #[test]
    fn the_ratio_is_the_share_of_messages() {
        for (ratio, expected) in [(0.5, 50_000.0), (0.1, 10_000.0), (0.001, 100.0)] {
            let found = sampled(&Sampler::new(ratio, CLUSTER)) as f64;
            // The tolerance is five standard deviations. The hash is fixed, so this passes always or never.
            let tolerance = 5.0 * f64::sqrt(100_000.0 * ratio * (1.0 - ratio));
            assert!((found - expected).abs() < tolerance, "{ratio}: {found}");
        }
    }

    #[test]
    fn ratios_at_and_beyond_the_ends_are_none_and_all() {
        for (ratio, expected) in [(0.0, 0), (-1.0, 0), (f64::NAN, 0), (1.0, 100_000), (2.0, 100_000)] {
            assert_eq!(sampled(&Sampler::new(ratio, CLUSTER)), expected, "{ratio}");
        }
    }

    #[test]
    fn what_a_smaller_ratio_takes_a_larger_takes_too() {
        let (smaller, larger) = (Sampler::new(0.1, CLUSTER), Sampler::new(0.3, CLUSTER));
        for message in (0..10_000).map(append) {
            if let Some(trace) = smaller.sample(&message) {
                assert_eq!(larger.sample(&message), Some(trace));
            }
        }
    }

    #[test]
    fn both_ends_decide_alike() {
        let sampler = Sampler::new(0.1, CLUSTER);
        for message in (0..10_000).map(append) {
            let received = Message::decode(&message.encode_to_vec()[..]).expect("we encoded it");
            assert_eq!(sampler.sample(&message), sampler.sample(&received));
        }
    }

    #[test]
    fn heartbeats_are_traced_only_when_asked_for() {
        let sampler = Sampler::new(1.0, CLUSTER);
        for kind in [MessageType::MsgHeartbeat, MessageType::MsgHeartbeatResp] {
            assert_eq!(sampler.sample(&of_kind(kind)), None);
            assert!(sampler.clone().heartbeats(true).sample(&of_kind(kind)).is_some());
        }
    }

    #[test]
    fn each_field_of_the_rule_tells_messages_apart_and_no_other_does() {
        let id = |cluster, message: &Message| Sampler::new(1.0, ClusterId(cluster)).sample(message);
        let base = append(1);
        let mut others = vec![Message { from: 9, ..base.clone() }, Message { to: 9, ..base.clone() }];
        others.extend([Message { term: 9, ..base.clone() }, Message { index: 9, ..base.clone() }]);
        others.push(of_kind(MessageType::MsgVote));
        let last = Entry { index: 9, ..Entry::default() };
        others.push(Message { entries: vec![base.entries[0].clone(), last], ..base.clone() });
        for other in &others {
            assert_ne!(id(1, other), id(1, &base), "{other:?}");
        }
        assert_ne!(id(2, &base), id(1, &base));
        let same = Message { commit: 9, log_term: 9, context: "other".into(), ..base.clone() };
        assert_eq!(id(1, &same), id(1, &base));
    }

    #[test]
    fn context_and_data_tell_apart_the_five_kinds_that_nothing_else_does() {
        use MessageType::{MsgHeartbeat, MsgHeartbeatResp, MsgProp, MsgReadIndex, MsgReadIndexResp};
        let sampler = Sampler::new(1.0, CLUSTER).heartbeats(true);
        for kind in [MsgProp, MsgReadIndex, MsgReadIndexResp, MsgHeartbeat, MsgHeartbeatResp] {
            let base = of_kind(kind);
            let other_context = Message { context: "other".into(), ..base.clone() };
            let mut other_data = base.clone();
            other_data.entries[0].data = "other".into();
            assert_ne!(sampler.sample(&other_context), sampler.sample(&base), "{kind:?}");
            assert_ne!(sampler.sample(&other_data), sampler.sample(&base), "{kind:?}");
        }
    }
}
