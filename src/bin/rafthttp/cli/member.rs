//! `rafthttp member`: lists and changes the members of a cluster of nodes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rafthttp::PeerUrl;

use super::{BadFlag, Failure, Stop, client_tls::ClientTls};
use crate::{
    client::MemberClient,
    config::{self, ListenUrl},
    member::{MembershipClient, shrink},
};

/// List, add, remove and promote the members of a cluster of nodes; the commands have etcdctl's names.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Client URLs of members; the command asks the first one that it can reach.
    #[arg(long, global = true, value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<ListenUrl>,

    #[command(flatten)]
    tls: ClientTls,

    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// List the members of the cluster.
    List {
        /// The format of the list.
        #[arg(long, short, value_enum, default_value_t)]
        output: MemberOutput,
    },
    /// Add a member; do this before you start it with --initial-cluster-state existing.
    Add {
        /// The name of the new member.
        name: String,
        /// The peer URLs of the new member.
        #[arg(long, value_name = "URL,…", value_delimiter = ',', required = true)]
        peer_urls: Vec<PeerUrl>,
        /// Add the member as a learner: it has no vote until it is promoted.
        #[arg(long)]
        learner: bool,
    },
    /// Remove a member for ever: its ID is never used again.
    Remove {
        /// Its ID or its name.
        member: String,
    },
    /// Make a learner a voter; it must have caught up with the leader.
    Promote {
        /// Its ID or its name.
        member: String,
    },
    /// Remove the members whose name is PREFIX and a number of at least N, before a stateful set gets fewer replicas: one
    /// at a time, the highest number first, and only while a quorum of the remaining members is connected.
    Shrink {
        /// The part of the names before the number: "db-" for db-0, db-1…
        prefix: String,
        /// The lowest number to remove; a stateful set of N replicas keeps 0 to N-1.
        #[arg(long, value_name = "N", value_parser = config::positive)]
        to: u64,
        /// How long to wait for a quorum.
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = config::duration)]
        timeout: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum MemberOutput {
    #[default]
    Table,
    Json,
}

impl Flags {
    pub(crate) async fn run(self, stop: &Stop) -> Result<(), Failure> {
        let https = self.endpoints.iter().find(|url| url.is_tls());
        let tls = self.tls.load(https, |url, expected| BadFlag::new("endpoints", url, expected))?;
        let membership =
            MembershipClient::new(MemberClient::new(tls), self.endpoints.iter().map(ListenUrl::to_string).collect());
        let done = stop.token().run_until_cancelled(self.command.run(&membership)).await;
        done.unwrap_or_else(|| Err(Failure::failed("stopped before it was done")))
    }
}

impl MemberCommand {
    async fn run(self, membership: &MembershipClient) -> Result<(), Failure> {
        match self {
            Self::List { output } => {
                let members = membership.list().await.map_err(Failure::failed)?;
                match output {
                    MemberOutput::Table => print!("{}", members.table()),
                    MemberOutput::Json => println!("{}", members.json()),
                }
            }
            Self::Add { name, peer_urls, learner } => {
                let member = membership.add(&name, &peer_urls, learner).await.map_err(Failure::failed)?;
                println!("member {} added", member.id);
            }
            Self::Remove { member } => {
                let id = membership.find(&member).await.map_err(Failure::failed)?;
                membership.remove(id).await.map_err(Failure::failed)?;
                println!("member {id} removed");
            }
            Self::Promote { member } => {
                let id = membership.find(&member).await.map_err(Failure::failed)?;
                membership.promote(id).await.map_err(Failure::failed)?;
                println!("member {id} promoted");
            }
            Self::Shrink { prefix, to, timeout } => {
                shrink(membership, &prefix, to, timeout).await.map_err(Failure::failed)?;
            }
        }
        Ok(())
    }
}
