//! Whether each stream brings its messages as they were sent: in their order, and none that was not sent.
//!
//! Each message of the members is traced: the hash that is its trace's ID is made of the message at both ends. The spans
//! of a stream's writer are what it was given, and those of its reader must come in the same order. Some may be missing,
//! which the ledgers count.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::{self, Debug},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use rafthttp::telemetry::MESSAGE_TARGET;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

/// How many messages of a stream may wait for their reader.
const KEPT: usize = 100_000;

/// What each stream was given and has brought. Every clone is the same.
#[derive(Clone, Default)]
pub struct Order(Arc<Shared>);

#[derive(Default)]
struct Shared {
    spans: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Spans whose channel is not known yet.
    open: HashMap<u64, Message>,
    /// The messages that were given to the streams and not read yet, by sender, receiver and channel.
    given: BTreeMap<(String, String, String), VecDeque<String>>,
    wrong: Option<String>,
}

/// The fields of a span that count.
#[derive(Default)]
struct Message {
    end: String,
    trace: String,
    from: String,
    to: String,
    kind: String,
    channel: String,
}

impl Order {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics while it holds this")
    }

    /// The first message that came out of order, or was never sent.
    pub fn look(&self) -> Result<(), String> {
        self.state().wrong.clone().map_or(Ok(()), Err)
    }
}

impl State {
    fn take(&mut self, message: Message) {
        // A follower passes these on in their sender's name, so they may come on two streams. Requests have no order.
        let is_passed_on = ["MsgProp", "MsgReadIndex", "MsgTransferLeader"].contains(&message.kind.as_str());
        if is_passed_on || !["msgapp", "message"].contains(&message.channel.as_str()) {
            return;
        }
        let Message { end, trace, from, to, kind, channel } = message;
        let stream = self.given.entry((from.clone(), to.clone(), channel.clone())).or_default();
        if end == "raft.send" {
            stream.push_back(trace);
            if stream.len() > KEPT {
                stream.pop_front();
            }
        } else if let Some(place) = stream.iter().position(|given| *given == trace) {
            stream.drain(..=place);
        } else {
            let said = format!(
                "{to} has read a {kind} of {from} on its {channel} stream that was not sent, or sent before another that was read"
            );
            self.wrong.get_or_insert(said);
        }
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let into = match field.name() {
            "otel.name" => &mut self.end,
            "trace_id" => &mut self.trace,
            "raft.from" => &mut self.from,
            "raft.to" => &mut self.to,
            "raft.message.type" => &mut self.kind,
            "messaging.destination.name" => &mut self.channel,
            _ => return,
        };
        value.clone_into(into);
    }
}

impl Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Order")
    }
}

impl Subscriber for Order {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == MESSAGE_TARGET { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == MESSAGE_TARGET
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let number = self.0.spans.fetch_add(1, Ordering::Relaxed) + 1;
        let mut message = Message::default();
        span.record(&mut message);
        self.state().open.insert(number, message);
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut state = self.state();
        let Some(message) = state.open.get_mut(&span.into_u64()) else { return };
        values.record(message);
        if !message.channel.is_empty()
            && let Some(message) = state.open.remove(&span.into_u64())
        {
            state.take(message);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn try_close(&self, span: Id) -> bool {
        self.state().open.remove(&span.into_u64()).is_some()
    }
}
