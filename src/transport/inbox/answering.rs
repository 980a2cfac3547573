//! One message whose sender waits for the answer.

use tokio::time::Instant;

use super::Inbox;
use crate::{
    ledger::{Channel, MessageKind, RejectReason},
    telemetry::MessageSpan,
    wire::raftpb::Message,
};

/// One message whose sender waits for the answer. It ends in the ledger exactly once, even if its request breaks off.
pub(crate) struct Answering<'a> {
    inbox: &'a Inbox,
    channel: Channel,
    kind: MessageKind,
    since: Instant,
    outcome: Option<Result<(), RejectReason>>,
}

impl<'a> Answering<'a> {
    /// Enters the message into the ledger. On an error, it is rejected and counted.
    pub(crate) fn begin(
        inbox: &'a Inbox,
        channel: Channel,
        message: &Message,
        bytes: u64,
    ) -> Result<Self, RejectReason> {
        inbox.begin(channel, message, bytes)?;
        Ok(Self { inbox, channel, kind: MessageKind::of(message.r#type), since: Instant::now(), outcome: None })
    }

    /// The application took the message. `span` is the message's span, if it is traced.
    pub(crate) fn processed(&mut self, span: Option<&MessageSpan>) {
        self.end(span, Ok(()));
    }

    /// The application rejected the message.
    pub(crate) fn rejected(&mut self, reason: RejectReason) {
        self.end(None, Err(reason));
    }

    /// From now on, the time counts as the application's. The time before, for reading a snapshot, does not.
    pub(crate) fn handed_over(&mut self) {
        self.since = Instant::now();
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel
    }

    /// Why it was rejected.
    pub(crate) fn reason(&self) -> Option<RejectReason> {
        self.outcome.and_then(Result::err)
    }

    fn end(&mut self, span: Option<&MessageSpan>, outcome: Result<(), RejectReason>) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.inbox.end(self.kind, self.since.elapsed(), span, outcome);
        }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.end(None, Err(RejectReason::Failed));
    }
}
