//! Why a member cannot start.

use std::{io, path::Path};

use super::{
    config::{Config, ConfigError},
    storage::StoreError,
};
use crate::{dial::urls::PeerUrl, id::MemberId, transport::TransportError};

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be used.
    #[error("data directory {directory}: {error}")]
    Store {
        /// Where.
        directory: String,
        /// Why.
        error: StoreError,
    },
    /// Received snapshots cannot be kept.
    #[error("data directory {directory}: {error}")]
    Snapshots {
        /// Where.
        directory: String,
        /// Why.
        error: io::Error,
    },
    /// The data directory is a member's of etcd.
    #[error("data directory {directory} belongs to an etcd member, as its {holds} shows: expected another directory")]
    Etcd {
        /// Where.
        directory: String,
        /// What in it is etcd's.
        holds: &'static str,
    },
    /// The data directory is another member's.
    #[error("data directory {directory} belongs to member {found:?}, not to {name:?}")]
    AnotherMember {
        /// Where.
        directory: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        name: String,
    },
    /// The data directory is another cluster's.
    #[error("data directory {directory} belongs to the cluster with the token {found:?}, not {token:?}")]
    AnotherCluster {
        /// Where.
        directory: String,
        /// Its token.
        found: String,
        /// Ours.
        token: String,
    },
    /// The others know that this member was started, and its directory is empty (etcd's words).
    #[error(
        "member {member} has already been bootstrapped, as {by} says, and data directory {directory} has none of its data: \
         remove it (rafthttp member remove) and add it anew (member add), for an ID that nobody has met"
    )]
    Bootstrapped {
        /// Who it was.
        member: MemberId,
        /// The URL of who knows it.
        by: String,
        /// Where nothing is.
        directory: String,
    },
    /// The member that this one would be runs elsewhere, at our own peer URLs.
    #[error(
        "member {member} runs at {url}: expected no other process at --initial-advertise-peer-urls while data directory \
         {directory} is empty"
    )]
    Runs {
        /// Who runs.
        member: MemberId,
        /// Where it answers.
        url: String,
        /// Where nothing is.
        directory: String,
    },
    /// A new cluster is to be forced of nothing.
    #[error(
        "--force-new-cluster: data directory {directory} has no data of a cluster: expected that of the remaining member"
    )]
    NothingToForce {
        /// Where.
        directory: String,
    },
    /// A new cluster is to be forced while the old one is not lost.
    #[error(
        "--force-new-cluster: of the {voters} other voters, {answered} answer: with this member they are a quorum, and \
         nothing is lost. Start it without the flag; to give the others up anyway, stop them first"
    )]
    NotLost {
        /// Who answered.
        answered: String,
        /// How many others there are.
        voters: usize,
    },
    /// The data directory says that this member was removed.
    #[error("{}", super::Stopped::Removed)]
    Removed,
    /// An address that cannot be listened on: in use, or not ours.
    #[error("cannot listen on {url} (--{flag}): {error}")]
    Listen {
        /// Where.
        url: String,
        /// What asks for it.
        flag: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Two URLs that mean one socket, one with TLS and one without.
    #[error("{flag} has {one} and {other}, which are one socket: expected both http or both https")]
    OneSocket {
        /// What asks for them.
        flag: &'static str,
        /// One.
        one: String,
        /// The other.
        other: String,
    },
    /// An `https` URL without certificates.
    #[error("{flag} has {url}, but there is no certificate")]
    NoCertificate {
        /// What has it.
        flag: &'static str,
        /// The URL.
        url: String,
    },
    /// The transport cannot be built.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Raft cannot be started.
    #[error("cannot start raft: {0}")]
    Raft(String),
    /// The registry refused the metrics of raft or of the peer port.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl Error {
    /// The member at `by` knows that this member, which has no data, was started as `member`.
    pub(super) fn bootstrapped(config: &Config, member: MemberId, by: &PeerUrl) -> Self {
        Self::Bootstrapped { member, by: by.to_string(), directory: config.data_dir.display().to_string() }
    }

    /// The member that this one, which has no data, would be answers at `url`.
    pub(super) fn runs(config: &Config, member: MemberId, url: &PeerUrl) -> Self {
        Self::Runs { member, url: url.to_string(), directory: config.data_dir.display().to_string() }
    }

    /// The store in `directory` cannot be used.
    pub(super) fn store(directory: &Path) -> impl Fn(StoreError) -> Self {
        move |error| Self::Store { directory: directory.display().to_string(), error }
    }
}
