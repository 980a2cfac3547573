//! Decides which list of members is believed. A member that is cut off from its cluster, or was removed without hearing
//! of it, still answers with an old list. So the answering members vote, each for the list that it answers with.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::members::MemberList;
use crate::id::{ClusterId, MemberId};

/// The lists, and the members that answered with them.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The watched cluster: the cluster of the first answer.
    pub(super) cluster: Option<ClusterId>,
    believed: Option<Arc<MemberList>>,
    votes: HashMap<MemberId, Vote>,
}

#[derive(Debug)]
struct Vote {
    at: Instant,
    list: Arc<MemberList>,
}

impl Book {
    /// A voter answered with this list. Returns the newly believed list, if that changed.
    pub(super) fn vote(
        &mut self,
        voter: MemberId,
        list: Arc<MemberList>,
        now: Instant,
        fresh: Duration,
    ) -> Option<Arc<MemberList>> {
        self.expire(now, fresh);
        self.votes.insert(voter, Vote { at: now, list });
        self.elect()
    }

    /// A voter does not answer any more, or answers for another cluster. Returns the newly believed list, if that
    /// changed.
    pub(super) fn withdraw(&mut self, voter: MemberId) -> Option<Arc<MemberList>> {
        self.votes.remove(&voter)?;
        self.elect()
    }

    /// A voter was removed from the membership.
    pub(super) fn forget(&mut self, voter: MemberId) {
        self.votes.remove(&voter);
    }

    /// Whether any vote counts.
    pub(super) fn is_told(&self) -> bool {
        !self.votes.is_empty()
    }

    /// Removes the votes that are older than `fresh`.
    pub(super) fn expire(&mut self, now: Instant, fresh: Duration) {
        self.votes.retain(|_, vote| now.saturating_duration_since(vote.at) <= fresh);
    }

    /// The list with the most votes, if it differs from the believed one. In a tie, the believed list wins; if it is
    /// not among the tied ones, the list with the lowest digest wins, so that the result is always the same.
    fn elect(&mut self) -> Option<Arc<MemberList>> {
        let mut counts: HashMap<u64, (usize, &Arc<MemberList>)> = HashMap::new();
        for Vote { list, .. } in self.votes.values() {
            counts.entry(list.digest).or_insert((0, list)).0 += 1;
        }
        let believed = self.believed.as_ref().map(|list| list.digest);
        let (_, list) = counts
            .into_values()
            .max_by_key(|(votes, list)| (*votes, Some(list.digest) == believed, std::cmp::Reverse(list.digest)))?;
        if Some(list.digest) == believed {
            return None;
        }
        let list = list.clone();
        self.believed = Some(list.clone());
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(3);

    fn list(ids: &[u64]) -> Arc<MemberList> {
        let members: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"id":{id},"peerURLs":["http://h:{id}"]}}"#)).collect();
        MemberList::parse(format!("[{}]", members.join(",")).as_bytes()).expect("a list")
    }

    fn ids(list: Option<Arc<MemberList>>) -> Option<Vec<u64>> {
        list.map(|list| list.members.iter().map(|member| member.id.0).collect())
    }

    #[test]
    fn the_first_list_is_believed_and_told_once() {
        let (mut book, now) = (Book::default(), Instant::now());
        assert_eq!(ids(book.vote(MemberId(0), list(&[1, 2, 3]), now, FRESH)), Some(vec![1, 2, 3]));
        assert_eq!(book.vote(MemberId(1), list(&[1, 2, 3]), now, FRESH), None);
    }

    #[test]
    fn a_list_is_believed_once_most_of_those_who_answer_tell_it() {
        let (mut book, now) = (Book::default(), Instant::now());
        for voter in 1..=3 {
            book.vote(MemberId(voter), list(&[1, 2, 3]), now, FRESH);
        }
        assert_eq!(book.vote(MemberId(1), list(&[1, 2, 3, 4]), now, FRESH), None);
        assert_eq!(ids(book.vote(MemberId(2), list(&[1, 2, 3, 4]), now, FRESH)), Some(vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_member_that_tells_an_old_list_is_outvoted_and_a_tie_changes_nothing() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.vote(MemberId(1), list(&[1, 2]), now, FRESH);
        assert_eq!(book.vote(MemberId(3), list(&[1, 2, 3]), now, FRESH), None);
        assert_eq!(book.vote(MemberId(2), list(&[1, 2]), now, FRESH), None);
    }

    #[test]
    fn who_answers_no_more_has_no_vote() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.vote(MemberId(1), list(&[1, 2]), now, FRESH);
        book.vote(MemberId(2), list(&[2]), now, FRESH);
        assert_eq!(ids(book.withdraw(MemberId(1))), Some(vec![2]));
        book.expire(now + FRESH, FRESH);
        assert!(book.is_told());
        book.expire(now + FRESH * 2, FRESH);
        assert!(!book.is_told());
        assert_eq!(ids(book.believed.clone()), Some(vec![2]), "what is known is kept");
        assert_eq!(ids(book.vote(MemberId(0), list(&[2, 3]), now + FRESH * 2, FRESH)), Some(vec![2, 3]));
    }
}
