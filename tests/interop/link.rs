//! What lies between the two: a version of etcd, with TLS or without.

use std::{fmt, path::PathBuf, time::Duration};

use rafthttp::{
    Builder, MemberId, Tls,
    metrics::{AttemptResult, Channel, Direction},
    wire::raftpb::{Message, Snapshot, SnapshotMetadata},
};

use crate::{
    gopeer::GoPeer,
    support::{
        TestMember,
        certificates::{Authority, Files, Leaf},
        program, tier_is_all, until,
    },
};

/// Ours is member 1, etcd's is member 2.
pub(crate) const OURS: u64 = 1;
pub(crate) const ETCDS: u64 = 2;

pub(crate) struct Link {
    version: &'static str,
    program: PathBuf,
    certificates: Option<Files>,
}

/// Every link that this run covers; none where etcd's side cannot be built, which is named.
pub(crate) fn links() -> Vec<Link> {
    let versions: &[&str] = if tier_is_all() { &["3.5", "3.6", "3.7"] } else { &["3.6"] };
    let mut links = Vec::new();
    for version in versions {
        let what = format!("our transport against that of etcd {version}");
        let Some(program) = program(&what, "gopeer", &[version]) else { continue };
        let authority = Authority::new("ca");
        let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
        links.push(Link { version, program: program.clone(), certificates: None });
        links.push(Link { version, program, certificates: Some(files) });
    }
    links
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd {}, {}", self.version, if self.certificates.is_some() { "mTLS" } else { "plain" })
    }
}

impl Link {
    pub(crate) async fn ours(&self) -> TestMember {
        self.ours_with(|builder| builder).await
    }

    pub(crate) async fn ours_with(&self, configure: impl FnOnce(Builder) -> Builder) -> TestMember {
        // The output of a test that fails tells which link it was.
        println!("{self}");
        // What a busy machine holds up is no reason to dial anew, as three probes that fail would be.
        let patient = |builder: Builder| configure(builder.probe(Duration::from_secs(1), Duration::from_secs(10)));
        TestMember::start_over(OURS, self.tls(), patient).await
    }

    pub(crate) async fn etcds(&self) -> GoPeer {
        self.etcds_with(&[]).await
    }

    pub(crate) async fn etcds_with(&self, arguments: &[&str]) -> GoPeer {
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        if let Some(files) = &self.certificates {
            for (flag, file) in [("-cert", "cert.pem"), ("-key", "key.pem"), ("-ca", "ca.pem")] {
                all.extend([flag.to_owned(), files.path(file).display().to_string()]);
            }
        }
        GoPeer::start(&self.program, ETCDS, &all).await
    }

    /// Both, with all four streams open, and nothing yet in etcd's log.
    pub(crate) async fn pair(&self) -> (TestMember, GoPeer) {
        let (ours, mut etcds) = (self.ours().await, self.etcds().await);
        ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        etcds.add_peer(ours.id, &ours.url).await;
        connected(&ours, &mut etcds).await;
        etcds.take_log().await;
        (ours, etcds)
    }

    pub(crate) fn tls(&self) -> Option<Tls> {
        self.certificates.as_ref().map(|files| Tls::load(files.config()).unwrap())
    }

    /// A URL of this link's scheme.
    pub(crate) fn url(&self, address: &str) -> rafthttp::PeerUrl {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}").parse().unwrap()
    }

    /// A message as it reads after etcd has had it: an empty snapshot and none are the same, what is embedded is there,
    /// and 3.5 has no field 13.
    pub(crate) fn known(&self, message: &Message) -> Message {
        let mut message = message.clone();
        if self.version == "3.5" {
            message.vote = 0;
        }
        let filled = message.snapshot.take().map(|snapshot| {
            let Snapshot { data, metadata } = *snapshot;
            let metadata = metadata.unwrap_or_default();
            let conf_state = Some(metadata.conf_state.unwrap_or_default());
            Box::new(Snapshot { data, metadata: Some(SnapshotMetadata { conf_state, ..metadata }) })
        });
        let empty = SnapshotMetadata { conf_state: Some(Default::default()), ..Default::default() };
        let empty = Snapshot { metadata: Some(empty), ..Default::default() };
        message.snapshot = filled.filter(|snapshot| **snapshot != empty);
        message
    }

    /// Asserts that what was received is what was sent: message for message, in order on each way that has one.
    pub(crate) fn assert_same(&self, received: &[Message], sent: &[Message]) {
        for way in Way::ALL {
            let mut received: Vec<Message> = way.of(received).map(|message| self.known(message)).collect();
            let mut sent: Vec<Message> = way.of(sent).map(|message| self.known(message)).collect();
            if way == Way::Posts {
                // Four requests go at a time.
                let key = |message: &Message| prost::Message::encode_to_vec(message);
                received.sort_by_key(key);
                sent.sort_by_key(key);
            }
            assert_eq!(received.len(), sent.len(), "{self}: messages by {way:?}");
            for (position, (received, sent)) in received.iter().zip(&sent).enumerate() {
                assert!(received == sent, "{self}: {way:?} {position}: {} for {}", brief(received), brief(sent));
            }
        }
    }
}

/// A way on which messages keep their order, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Appends,
    Proposals,
    Rest,
    /// Snapshots without a body, which go by `POST /raft`.
    Posts,
}

impl Way {
    const ALL: [Self; 4] = [Self::Appends, Self::Proposals, Self::Rest, Self::Posts];

    fn of(self, messages: &[Message]) -> impl Iterator<Item = &Message> {
        use rafthttp::wire::raftpb::MessageType::{MsgApp, MsgProp, MsgSnap};
        messages.iter().filter(move |message| {
            let way = match message.r#type() {
                MsgApp => Self::Appends,
                MsgProp => Self::Proposals,
                MsgSnap => Self::Posts,
                _ => Self::Rest,
            };
            way == self
        })
    }
}

/// A message without megabytes.
fn brief(message: &Message) -> String {
    let text = format!("{message:?}");
    text.chars().take(600).collect()
}

/// Waits until our four streams are open, and etcd's writers have taken over those that we dialled: what they write
/// before that goes to the stream that ours replaced, and is lost.
pub(crate) async fn connected(ours: &TestMember, etcds: &mut GoPeer) {
    until("all four streams are open", || all_open(ours)).await;
    let dialled = |channel| ours.transport.peers()[0].link.attempts.of((channel, AttemptResult::Ok));
    let dialled = dialled(Channel::MsgApp) + dialled(Channel::Message);
    etcds.until("its writers have taken over our streams", |state| state.attached >= dialled).await;
}

pub(crate) fn all_open(ours: &TestMember) -> bool {
    [Channel::MsgApp, Channel::Message].into_iter().all(|channel| {
        [Direction::In, Direction::Out].into_iter().all(|way| ours.stream(MemberId(ETCDS), channel, way))
    })
}

/// Waits for as many messages, and takes them, in the order in which our raft was given them.
pub(crate) async fn take(ours: &TestMember, count: usize) -> Vec<Message> {
    until(&format!("{count} messages taken"), || ours.taken() >= count).await;
    let taken: Vec<Message> = crate::support::lock(&ours.raft.taken).drain(..).map(|(_, message)| message).collect();
    assert_eq!(taken.len(), count, "what was taken");
    taken
}
