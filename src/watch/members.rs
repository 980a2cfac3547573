//! The list of members that `GET /members` answers. It is parsed within limits, because the answering side may be
//! anyone.

use std::{collections::HashSet, hash::Hasher, sync::Arc};

use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3;

use super::fault::WatchFault;
use crate::{dial::urls::PeerUrl, id::MemberId};

/// The most members in an answer: a hundred times more than any etcd cluster can have.
const MEMBERS: usize = 10_000;
/// The most URLs of a member.
const URLS: usize = 16;
/// The longest name, in bytes.
const NAME_BYTES: usize = 256;

/// A member in such a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedMember {
    pub(super) id: MemberId,
    /// Empty until the member was first started.
    pub(super) name: String,
    pub(super) is_learner: bool,
    /// Its peer URLs that can be dialled.
    pub(super) urls: Vec<PeerUrl>,
}

/// Members, sorted by ID.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MemberList {
    /// Equal for equal members, whichever member answered.
    pub(super) digest: u64,
    pub(super) members: Vec<ListedMember>,
}

impl MemberList {
    /// Parses etcd's list: decimal IDs, and `peerURLs`, `name` and `isLearner` if they are set.
    pub(super) fn parse(body: &[u8]) -> Result<Arc<Self>, WatchFault> {
        #[derive(Deserialize)]
        struct Entry {
            id: u64,
            #[serde(default)]
            name: String,
            #[serde(rename = "isLearner", default)]
            is_learner: bool,
            #[serde(rename = "peerURLs", default)]
            urls: Option<Vec<String>>,
        }
        let members: Vec<Entry> =
            serde_json::from_slice(body).map_err(|error| WatchFault::NoList(error.to_string()))?;
        if members.is_empty() || members.len() > MEMBERS {
            return Err(WatchFault::Members { told: members.len(), most: MEMBERS });
        }
        let mut seen = HashSet::new();
        let mut listed = Vec::with_capacity(members.len());
        for Entry { id, name, is_learner, urls } in members {
            let (id, urls) = (MemberId(id), urls.unwrap_or_default());
            if id.0 == 0 || !seen.insert(id) {
                return Err(WatchFault::Twice(id));
            }
            if name.len() > NAME_BYTES || urls.len() > URLS {
                return Err(WatchFault::TooMuch { member: id, urls: URLS, name: NAME_BYTES });
            }
            // A Unix socket is a legal peer URL, but is useless from another machine.
            let urls = urls.iter().filter_map(|url| url.parse().ok()).collect();
            listed.push(ListedMember { id, name, is_learner, urls });
        }
        listed.sort_unstable_by_key(|member| member.id);
        Ok(Arc::new(Self { digest: digest(&listed), members: listed }))
    }
}

fn digest(members: &[ListedMember]) -> u64 {
    let mut hash = Xxh3::new();
    for ListedMember { id, name, is_learner, urls } in members {
        hash.write_u64(id.0);
        hash.write_u8(u8::from(*is_learner));
        for text in urls.iter().map(PeerUrl::as_str).chain([name.as_str()]) {
            hash.write(text.as_bytes());
            hash.write_u8(0);
        }
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_etcd_writes_it() {
        let list = MemberList::parse(
            br#"[{"id":10276657743932975437,"peerURLs":["http://b:2380"],"isLearner":true},
                 {"id":10,"peerURLs":["unix://a:1","http://a:2380"],"name":"a","clientURLs":["http://a:2379"]}]"#,
        )
        .expect("a list");
        let [first, second] = &list.members[..] else { panic!("{list:?}") };
        assert_eq!((first.id, first.name.as_str(), first.is_learner), (MemberId(10), "a", false));
        assert_eq!(first.urls, ["http://a:2380".parse().expect("a URL")]);
        assert_eq!((second.id.to_string().as_str(), second.name.as_str()), ("8e9e05c52164694d", ""));
        assert!(second.is_learner);
    }

    #[test]
    fn the_same_members_have_the_same_digest_however_they_are_written() {
        let one =
            MemberList::parse(br#"[{"id":1,"peerURLs":["http://a:1"],"name":"a"},{"id":2,"peerURLs":["http://b:1"]}]"#);
        let two = MemberList::parse(
            br#"[{"id":2,"peerURLs":["http://b:1"],"name":""},{"id":1,"name":"a","peerURLs":["http://a:1"],"isLearner":false}]"#,
        );
        let other =
            MemberList::parse(br#"[{"id":1,"peerURLs":["http://a:2"],"name":"a"},{"id":2,"peerURLs":["http://b:1"]}]"#);
        let digest = |list: Result<Arc<MemberList>, WatchFault>| list.expect("a list").digest;
        let one = digest(one);
        assert_eq!(one, digest(two));
        assert_ne!(one, digest(other));
    }

    #[test]
    fn what_is_no_list_or_too_long_is_refused_in_one_line() {
        let many: Vec<String> = (1..=10_001).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
        let urls = vec![r#""http://a:1""#; 17].join(",");
        for (body, word) in [
            (String::new(), "not a list"),
            ("{}".to_owned(), "not a list"),
            ("[]".to_owned(), "0 members"),
            (format!("[{}]", many.join(",")), "10001 members"),
            (r#"[{"id":1},{"id":1}]"#.to_owned(), "twice"),
            (r#"[{"id":0}]"#.to_owned(), "without an ID"),
            (format!(r#"[{{"id":1,"peerURLs":[{urls}]}}]"#), "more than 16 URLs"),
            (format!(r#"[{{"id":1,"name":"{}"}}]"#, "x".repeat(257)), "256 bytes"),
        ] {
            let fault = MemberList::parse(body.as_bytes()).expect_err(word).to_string();
            assert!(fault.contains(word) && fault.lines().count() == 1, "{fault}");
        }
    }
}
