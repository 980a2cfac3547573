//! `--initial-cluster`: the members of a new cluster, and the IDs that they get.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::config::{Config, ConfigError};
use crate::{
    dial::urls::{PeerUrl, PeerUrlError},
    id::{ClusterId, MemberId},
};

/// Names and peer URLs, in the form of etcd's `--initial-cluster`: `n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380`. A
/// member with several URLs is listed several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster(pub Vec<(String, PeerUrl)>);

/// Why a text is no initial cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitialClusterError {
    /// It is empty.
    #[error("expected NAME=URL, such as n1=http://10.0.0.1:2380")]
    Empty,
    /// One of its pairs has no `=`.
    #[error("{0:?}: expected NAME=URL, such as n1=http://10.0.0.1:2380")]
    NoUrl(String),
    /// The name before the `=` is missing.
    #[error("{0:?}: expected NAME=URL: the name is missing")]
    NoName(String),
    /// Two names differ only in the spaces around them. etcd takes them for two members.
    #[error("the name {0:?} appears with and without spaces around it: expected one spelling")]
    Space(String),
    /// The text after the `=` is no peer URL.
    #[error("expected NAME=URL: {0}")]
    Url(#[from] PeerUrlError),
}

impl FromStr for InitialCluster {
    type Err = InitialClusterError;

    /// Parses as etcd's `types.NewURLsMap`: there may be nothing between two commas. Spaces around a name do not belong
    /// to it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut members: Vec<(&str, PeerUrl)> = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let own = || pair.trim().to_owned();
            let (written, url) = pair.split_once('=').ok_or_else(|| InitialClusterError::NoUrl(own()))?;
            let name = written.trim();
            if name.is_empty() {
                return Err(InitialClusterError::NoName(own()));
            }
            if members.iter().any(|(known, _)| known.trim() == name && *known != written) {
                return Err(InitialClusterError::Space(name.to_owned()));
            }
            members.push((written, url.parse()?));
        }
        if members.is_empty() {
            return Err(InitialClusterError::Empty);
        }
        Ok(Self(members.into_iter().map(|(name, url)| (name.trim().to_owned(), url)).collect()))
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, url)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{name}={url}")?;
        }
        Ok(())
    }
}

/// The IDs of a new cluster and its first members.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InitialIds {
    /// The ID of the cluster.
    pub cluster: ClusterId,
    /// The ID of each member, by its name.
    pub members: BTreeMap<String, MemberId>,
}

impl Config {
    /// The IDs that the initial cluster gets when it is made, which are those that etcd derives from the same flags. A
    /// member that was started before has them in its data directory instead.
    ///
    /// # Errors
    /// No cluster can be made from it, for example because this member is not in it.
    pub fn initial_ids(&self) -> Result<InitialIds, ConfigError> {
        let id = |urls: &[PeerUrl]| MemberId::derive(urls, &self.initial_cluster_token, None);
        let members = self.initial_members()?;
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.name, id(&member.urls))).collect();
        Ok(InitialIds { cluster: ClusterId::derive(&members.values().copied().collect::<Vec<_>>()), members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, InitialClusterError> {
        text.parse::<InitialCluster>().map(|cluster| cluster.to_string())
    }

    #[test]
    fn a_cluster_is_pairs_with_commas_between_and_nothing_between_two_commas_is_nothing() {
        for text in ["a=http://h:1,b=http://h:2", ",a=http://h:1,,b=http://h:2,", " a = HTTP://h:1 ,\n b=http://h:2\n"]
        {
            assert_eq!(read(text).as_deref(), Ok("a=http://h:1,b=http://h:2"), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_pair_is_named() {
        assert_eq!(read(" , "), Err(InitialClusterError::Empty));
        for (text, named) in [
            ("a=http://h:1,b", "\"b\""),
            ("=http://h:1", "name is missing"),
            ("a=http://h:1,b=10.0.0.1", "\"10.0.0.1\""),
            ("a=http://h", "http://h"),
            ("a=http://h:1, a=http://h:2", "spaces around"),
        ] {
            let said = read(text).expect_err(text).to_string();
            assert!(said.contains(named), "{text:?}: {said}");
        }
    }

    /// etcd's default, and a cluster as in its documentation. The IDs come from etcd itself.
    #[test]
    fn ids_are_those_that_etcd_derives() {
        let ids = Config::default().initial_ids().expect("the default makes a cluster");
        assert_eq!(ids.cluster.to_string(), "cdf818194e3a8c32");
        assert_eq!(ids.members["default"].to_string(), "8e9e05c52164694d");
        let upper = Config {
            name: "a".to_owned(),
            initial_cluster: vec![("a".to_owned(), "HTTP://h:1".parse().expect("a URL"))],
            initial_advertise_peer_urls: PeerUrl::list("http://h:1,http://h:1").expect("URLs"),
            ..Config::default()
        };
        let ids = upper.initial_ids().expect("the same URL, once");
        assert_eq!(
            (ids.cluster.to_string(), ids.members["a"].to_string()),
            ("56f1ab956fbfebdd".into(), "9cbc6cef9f593757".into())
        );
    }
}
