//! Removes members one by one, and never at the price of quorum.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{MemberEntry, MemberError, MembersAnswer, MembershipClient};

/// The pause before looking for a quorum again, and between two removals.
const PAUSE: Duration = Duration::from_secs(1);

/// Removes the members whose names are `prefix` and a number at or above `to`, and reports each. Waits up to `patience`
/// for each to become removable. It also retries endpoints that cannot be reached for that long.
pub(crate) async fn shrink(
    membership: &MembershipClient,
    prefix: &str,
    to: u64,
    patience: Duration,
) -> Result<(), MemberError> {
    let mut end = Instant::now() + patience;
    let mut said = String::new();
    loop {
        match step(membership, prefix, to).await {
            Ok(Some(removed)) => {
                println!("{} ({}) removed", removed.name, removed.id);
                end = Instant::now() + patience;
            }
            Ok(None) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error),
            // Each reason is reported once, however long it holds.
            Err(error) if said == error.to_string() => {}
            Err(error) => {
                said = error.to_string();
                eprintln!("waiting: {said}");
            }
        }
        sleep(PAUSE).await;
    }
}

/// Removes one member. `None` if no member is left to remove.
async fn step(membership: &MembershipClient, prefix: &str, to: u64) -> Result<Option<MemberEntry>, MemberError> {
    let MembersAnswer { members } = membership.list().await?;
    let Some(going) = next(&members, prefix, to) else {
        println!("{} members, none numbered {to} or above", members.len());
        return Ok(None);
    };
    let remaining: Vec<&MemberEntry> =
        members.iter().filter(|other| other.id != going.id && !other.is_learner).collect();
    let healthy = join_all(remaining.iter().map(|other| membership.is_healthy(&other.client_urls))).await;
    let healthy = healthy.into_iter().filter(|healthy| *healthy).count();
    if !going.is_learner && !is_quorum(healthy, remaining.len()) {
        let of = remaining.len();
        return Err(MemberError::Quorum(format!(
            "{} stays: only {healthy} of the {of} voters that would remain have a leader and answer",
            going.name
        )));
    }
    membership.remove(going.id).await?;
    Ok(Some(going.clone()))
}

/// The member with the highest number at or above `to`.
fn next<'a>(members: &'a [MemberEntry], prefix: &str, to: u64) -> Option<&'a MemberEntry> {
    let number = |member: &MemberEntry| number(&member.name, prefix);
    members
        .iter()
        .filter(|member| number(member).is_some_and(|number| number >= to))
        .max_by_key(|member| number(member))
}

/// The number after the prefix.
fn number(name: &str, prefix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn is_quorum(healthy: usize, of: usize) -> bool {
    healthy > of / 2
}

#[cfg(test)]
mod tests {
    use rafthttp::MemberId;

    use super::*;

    fn member(name: &str) -> MemberEntry {
        let (peer_urls, client_urls) = (Vec::new(), Vec::new());
        MemberEntry { id: MemberId(1), name: name.to_owned(), peer_urls, client_urls, is_learner: false }
    }

    #[test]
    fn the_highest_goes_first_by_its_number_and_nobody_else_goes() {
        let members = ["db-2", "db-10", "db-9", "db-", "db-x", "other-11", "db-1-30"].map(member);
        assert_eq!(next(&members, "db-", 3).map(|member| member.name.as_str()), Some("db-10"));
        assert_eq!(next(&members, "db-", 11).map(|member| member.name.as_str()), None);
        assert_eq!(next(&members, "db-1-", 3).map(|member| member.name.as_str()), Some("db-1-30"));
    }

    #[test]
    fn a_quorum_is_more_than_half() {
        assert!(is_quorum(2, 3) && is_quorum(3, 4) && is_quorum(1, 1));
        assert!(!is_quorum(1, 2) && !is_quorum(2, 4) && !is_quorum(0, 0));
    }
}
