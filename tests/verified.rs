//! Connections whose peer's certificate no longer verifies are closed while members run, and those that do stay.

mod support;

use std::time::{Duration, SystemTime};

use rafthttp::{
    MemberId, Tls,
    metrics::{Channel, Direction, LossReason},
    telemetry::EventKind,
    tls::HandshakeReason,
};
use support::{
    TestMember,
    certificates::{Authority, Files, Leaf},
    connected, until,
};

/// What is promised, and what a busy machine takes beyond it.
const SOON: Duration = Duration::from_secs(10);

struct Secured {
    files: Files,
    tls: Tls,
    member: TestMember,
}

/// A member with a revocation list that is empty so far.
async fn member(id: u64, authority: &Authority, leaf: Leaf) -> Secured {
    let files = Files::new(&authority.issue(leaf), &authority.pem);
    files.write("crl.pem", authority.revoke(&[], 2190).0);
    let mut config = files.config();
    config.crl_file = Some(files.path("crl.pem"));
    let tls = Tls::load(config).expect("the files are good");
    let member = TestMember::start_over(id, Some(tls.clone()), |builder| builder).await;
    Secured { files, tls, member }
}

fn serial(serial: u64) -> Leaf {
    Leaf { serial: Some(serial), ..Leaf::default() }
}

async fn meet(members: &[&Secured]) {
    for one in members {
        for other in members.iter().filter(|other| other.member.id != one.member.id) {
            one.member.add(&other.member);
        }
    }
    for (place, one) in members.iter().enumerate() {
        for other in &members[place + 1..] {
            connected(&one.member, &other.member).await;
        }
    }
}

/// Streams of a member to and from a peer that were lost, by direction: for this reason, or for any.
fn lost(of: &Secured, peer: &Secured, direction: Direction, reason: Option<LossReason>) -> u64 {
    let peers = of.member.transport.peers();
    let status = peers.iter().find(|status| status.id == peer.member.id).expect("a peer");
    let counts = status.link.losses.iter();
    let wanted = counts.filter(|((_, way, why), _)| *way == direction && reason.is_none_or(|reason| reason == *why));
    wanted.map(|(_, count)| count).sum()
}

fn lost_nothing(of: &Secured, peer: &Secured) -> bool {
    [Direction::In, Direction::Out].iter().all(|way| lost(of, peer, *way, None) == 0)
}

async fn soon(what: &str, holds: impl FnMut() -> bool) {
    let begin = SystemTime::now();
    until(what, holds).await;
    let took = begin.elapsed().unwrap_or_default();
    assert!(took <= SOON, "{what}: it took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peers_connections_are_closed_both_ways_and_those_of_others_stay() {
    let authority = Authority::new("ca");
    let (one, two, three) = (
        member(1, &authority, serial(1)).await,
        member(2, &authority, serial(2)).await,
        member(3, &authority, serial(3)).await,
    );
    meet(&[&one, &two, &three]).await;
    one.files.write("crl.pem", authority.revoke(&[3], 2190).0);
    soon("closed, for the certificate", || {
        [Direction::In, Direction::Out].iter().all(|way| lost(&one, &three, *way, Some(LossReason::Certificate)) > 0)
    })
    .await;
    let closed = one.tls.connections_closed();
    for direction in [Direction::In, Direction::Out] {
        assert!(closed.of((direction, HandshakeReason::Revoked)) >= 2, "{direction:?}: {closed:?}");
    }
    assert_eq!(closed.total(), closed.iter().map(|(_, count)| count).sum::<u64>());
    let told = || {
        let mut events = one.member.transport.events().after(0);
        events.retain(|event| event.kind == EventKind::TlsConnectionsClosed);
        events
    };
    until("both ways are told of", || told().len() >= 2).await;
    assert!(told().iter().all(|event| event.reason == Some("revoked")));
    // It comes back again and again, and is refused at each handshake.
    until("refused at the door", || one.tls.handshake_failures().of((Direction::In, HandshakeReason::Revoked)) > 2)
        .await;
    assert!(lost_nothing(&one, &two) && lost_nothing(&two, &one), "the others stay");
    assert!(lost_nothing(&two, &three) && lost_nothing(&three, &two), "who has no such list keeps it");
    assert!(!one.member.stream(three.member.id, Channel::MsgApp, Direction::In));
    // With another certificate it is back.
    three.files.replace(&authority.issue(serial(4)));
    connected(&one.member, &three.member).await;
    for secured in [one, two, three] {
        secured.member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_with_the_certificate_that_they_began_with() {
    let authority = Authority::new("ca");
    let expires = SystemTime::now() + Duration::from_secs(6);
    let (one, two) = (
        member(1, &authority, serial(1)).await,
        member(2, &authority, Leaf { expires: Some(expires), ..serial(2) }).await,
    );
    meet(&[&one, &two]).await;
    // The next one is there before, and those that are open stand on the old one all the same.
    two.files.replace(&authority.issue(serial(3)));
    soon("taken up", || two.tls.reloads().ok == 1).await;
    tokio::time::sleep(expires.duration_since(SystemTime::now()).expect("this machine is not that slow")).await;
    soon("closed", || {
        let count = |way| one.tls.connections_closed().of((way, HandshakeReason::Expired));
        count(Direction::In) >= 2 && count(Direction::Out) >= 2
    })
    .await;
    connected(&one.member, &two.member).await;
    assert_eq!(two.tls.connections_closed().total(), 0, "it has nothing against the other's");
    for secured in [one, two] {
        secured.member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_the_authority_closes_nothing_until_the_old_one_goes() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.pem, new.pem);
    let (one, two) = (member(1, &old, serial(1)).await, member(2, &old, serial(2)).await);
    meet(&[&one, &two]).await;
    for secured in [&one, &two] {
        secured.files.write("ca.pem", &both);
    }
    soon("both are trusted", || [&one, &two].iter().all(|secured| secured.tls.reloads().ok == 1)).await;
    for (secured, number) in [(&one, 3), (&two, 4)] {
        secured.files.replace(&new.issue(serial(number)));
    }
    soon("the new certificates are shown", || [&one, &two].iter().all(|secured| secured.tls.reloads().ok == 2)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(lost_nothing(&one, &two) && lost_nothing(&two, &one));
    // What was opened with a certificate of the old authority goes with it, and comes back with the new.
    one.files.write("ca.pem", &new.pem);
    soon("closed", || {
        let count = |way| one.tls.connections_closed().of((way, HandshakeReason::UnknownAuthority));
        count(Direction::In) >= 2 && count(Direction::Out) >= 2
    })
    .await;
    connected(&one.member, &two.member).await;
    let lost_now = lost(&one, &two, Direction::In, None);
    two.files.write("ca.pem", &new.pem);
    soon("the second trusts the new alone", || two.tls.reloads().ok == 3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lost(&one, &two, Direction::In, None), lost_now, "what was opened since stays");
    assert_eq!(one.member.status().peers.iter().filter(|peer| peer.id == MemberId(2)).count(), 1);
    for secured in [one, two] {
        secured.member.stop().await;
    }
}
