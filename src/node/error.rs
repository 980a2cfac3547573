//! Why a member cannot start.

use std::{io, path::Path};

use super::{
    config::{Config, ConfigError},
    storage::StoreError,
};
use crate::{dial::urls::PeerUrl, id::MemberId, transport::TransportError};

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The config cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be used.
    #[error("data directory {directory}: {error}")]
    Store {
        /// The directory.
        directory: String,
        /// The error.
        error: StoreError,
    },
    /// Received snapshots cannot be stored.
    #[error("data directory {directory}: {error}")]
    Snapshots {
        /// The directory.
        directory: String,
        /// The error.
        error: io::Error,
    },
    /// The data directory belongs to an etcd member.
    #[error("data directory {directory} belongs to an etcd member, as its {holds} shows: expected another directory")]
    Etcd {
        /// The directory.
        directory: String,
        /// The part of it that is etcd's.
        holds: &'static str,
    },
    /// The data directory belongs to another member.
    #[error("data directory {directory} belongs to member {found:?}, not to {name:?}")]
    AnotherMember {
        /// The directory.
        directory: String,
        /// The name of its member.
        found: String,
        /// The name of this member.
        name: String,
    },
    /// The data directory belongs to another cluster.
    #[error("data directory {directory} belongs to the cluster with the token {found:?}, not {token:?}")]
    AnotherCluster {
        /// The directory.
        directory: String,
        /// Its token.
        found: String,
        /// The configured token.
        token: String,
    },
    /// The other members know that this member was started, but its directory is empty (the words are etcd's).
    #[error(
        "member {member} has already been bootstrapped, as {by} says, and data directory {directory} has none of its data: \
         remove it (rafthttp member remove) and add it anew (member add), for an ID that nobody has met"
    )]
    Bootstrapped {
        /// The ID that it had.
        member: MemberId,
        /// The URL of the member that knows it.
        by: String,
        /// The empty directory.
        directory: String,
    },
    /// The member whose identity this one would take runs elsewhere, at this one's own peer URLs.
    #[error(
        "member {member} runs at {url}: expected no other process at --initial-advertise-peer-urls while data directory \
         {directory} is empty"
    )]
    Runs {
        /// The running member.
        member: MemberId,
        /// The URL at which it answers.
        url: String,
        /// The empty directory.
        directory: String,
    },
    /// A new cluster is to be forced, but there is no data.
    #[error(
        "--force-new-cluster: data directory {directory} has no data of a cluster: expected that of the remaining member"
    )]
    NothingToForce {
        /// The directory.
        directory: String,
    },
    /// A new cluster is to be forced, but the old one is not lost.
    #[error(
        "--force-new-cluster: of the {voters} other voters, {answered} answer: with this member they are a quorum, and \
         nothing is lost. Start it without the flag; to give the others up anyway, stop them first"
    )]
    NotLost {
        /// The members that answered.
        answered: String,
        /// How many other voters there are.
        voters: usize,
    },
    /// The data directory says that this member was removed.
    #[error("{}", super::Stopped::Removed)]
    Removed,
    /// A URL cannot be listened on: its address is in use, or does not belong to this machine.
    #[error("cannot listen on {url} (--{flag}): {error}")]
    Listen {
        /// The URL.
        url: String,
        /// The flag that has it.
        flag: &'static str,
        /// The error.
        error: io::Error,
    },
    /// Two URLs mean the same socket, one with TLS and one without.
    #[error("{flag} has {one} and {other}, which are one socket: expected both http or both https")]
    OneSocket {
        /// The flag that has them.
        flag: &'static str,
        /// The first URL.
        one: String,
        /// The second URL.
        other: String,
    },
    /// An `https` URL has no certificates.
    #[error("{flag} has {url}, but there is no certificate")]
    NoCertificate {
        /// The flag that has it.
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
    /// The system refuses to start a thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl Error {
    /// The member at `by` knows that this member, which has no data, was started as `member`.
    pub(super) fn bootstrapped(config: &Config, member: MemberId, by: &PeerUrl) -> Self {
        Self::Bootstrapped { member, by: by.to_string(), directory: config.data_dir.display().to_string() }
    }

    /// The member whose identity this one, which has no data, would take answers at `url`.
    pub(super) fn runs(config: &Config, member: MemberId, url: &PeerUrl) -> Self {
        Self::Runs { member, url: url.to_string(), directory: config.data_dir.display().to_string() }
    }

    /// The store in `directory` cannot be used.
    pub(super) fn store(directory: &Path) -> impl Fn(StoreError) -> Self {
        move |error| Self::Store { directory: directory.display().to_string(), error }
    }
}
