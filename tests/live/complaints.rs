//! What etcd's log says about us.

use crate::{
    learner::Learner,
    support::etcd::{Cluster, Line},
};

/// What etcd logs as a warning although nobody did anything wrong, and when.
const ALLOWED: [&str; 14] = [
    // A member was restarted, frozen, cut off or removed, and its connections went.
    "lost TCP streaming connection with remote peer",
    "closed TCP streaming connection with remote peer",
    "closed former TCP streaming connection with remote peer",
    "stopped TCP streaming connection with remote peer",
    "peer became inactive (message send to peer failed)",
    "prober detected unhealthy status",
    "dropped internal Raft message since sending buffer is full",
    // A probe was answered while its asker stood still.
    "prober found high clock drift",
    // 3.4 warns of that too.
    "established TCP streaming connection with remote peer",
    // etcdctl's request, while the members have not been connected to each other for long enough.
    "rejecting member add request; local member has not been connected to majority peers, reconfigure breaks active quorum",
    // A member that has not applied yet that we were added. It is asked again, as by any etcd that joins.
    "failed to find remote peer in cluster",
    // A member that has applied that we were removed: the answer is our 410.
    "rejected stream from remote peer because it was removed",
    "failed to process Raft message",
    "rejected Raft message from removed member",
];

/// Why a message of a removed member is refused: it acknowledged the entry that removed it, as any member does.
const OF_REMOVED: &str = "cannot process message from removed member";

/// What etcd logs of itself, and names us as one whom it concerns: its own disk was slow.
const OF_ITSELF: &str = "leader failed to send out heartbeat on time";

/// Words of complaints about the content of a message. A correct member causes none of them, whoever sent the message.
const OF_MESSAGES: [&str; 13] = [
    "panic",
    "malformed",
    "unmarshal",
    "decode",
    "mismatch",
    "incompatible",
    "unexpected raft",
    "refused to",
    "out of range",
    "failed to process",
    "failed to read raft",
    "wrong raft",
    "unknown raft",
];

/// A place in every member's log.
pub struct Since(Vec<usize>);

impl Since {
    pub fn start() -> Self {
        Self(Vec::new())
    }

    pub fn now(cluster: &Cluster) -> Self {
        Self(cluster.members.iter().map(|member| member.lines().len()).collect())
    }

    /// What was logged since, worse than `info`, by each member.
    fn complaints(&self, cluster: &Cluster) -> Vec<Line> {
        let lines = cluster.members.iter().enumerate().flat_map(|(index, member)| {
            let seen = self.0.get(index).copied().unwrap_or(0);
            member.lines().into_iter().skip(seen).collect::<Vec<_>>()
        });
        lines.filter(Line::is_complaint).collect()
    }
}

/// Panics if a member complained of us while nothing was done to anybody.
pub fn check_quiet(cluster: &Cluster, learner: &Learner, since: &Since) {
    let complaints = about(learner, since.complaints(cluster));
    let complaints: Vec<_> = complaints.iter().filter(|line| !line.message.starts_with("established")).collect();
    assert!(complaints.is_empty(), "etcd complains of {}:\n{}", learner.id, text(complaints));
}

/// Panics if a member ever complained of us but for connections that the test cut, or of any message.
pub fn check_all(cluster: &Cluster, learner: &Learner) {
    let all = Since::start().complaints(cluster);
    let of_messages = all.iter().filter(|line| {
        let text = line.text.to_lowercase();
        OF_MESSAGES.iter().any(|word| text.contains(word)) && !text.contains(OF_REMOVED)
    });
    let of_messages: Vec<_> = of_messages.collect();
    assert!(of_messages.is_empty(), "etcd complains of messages:\n{}", text(of_messages));
    let others = about(learner, all.clone());
    let others: Vec<_> = others.iter().filter(|line| !ALLOWED.contains(&line.message.as_str())).collect();
    assert!(others.is_empty(), "etcd complains of {}:\n{}", learner.id, text(others));
}

fn about(learner: &Learner, lines: Vec<Line>) -> Vec<Line> {
    let names = [learner.id.to_string(), learner.url.clone()];
    let named = lines.into_iter().filter(|line| line.names(&[&names[0], &names[1]]));
    named.filter(|line| !line.message.starts_with(OF_ITSELF)).collect()
}

fn text(lines: Vec<&Line>) -> String {
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}
