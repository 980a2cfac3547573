//! The command line: the flags, the errors in them, and the exit of the process.

use std::{env, error::Error, process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rafthttp::{
    node::ConfigError,
    telemetry::{InitError, Telemetry},
};
use tokio::runtime::{self, Runtime};

mod bench;
mod client_tls;
mod demo;
mod key_pair;
mod listen;
mod log;
mod member;
mod member_as_client;
mod node;
mod peer_tls;
mod port_tls;
mod probe;
mod stop;
mod usage;
mod variables;

pub(crate) use stop::Stop;

use crate::{bad_flag::BadFlag, config};

const EXAMPLES: &str = "\
Examples:
  rafthttp demo --for 20s     three members on loopback with a steady write load
  rafthttp node --name n1 --data-dir n1.data \\
    --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380,n3=http://10.0.0.3:2380 \\
    --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380
  rafthttp member list --endpoints http://10.0.0.1:2379
  rafthttp probe --once http://10.0.0.1:2380
  rafthttp bench sink --listen 127.0.0.1:9000
  rafthttp bench source --to 127.0.0.1:9000 --work append --size 128 --messages 1000000

Every flag is also an environment variable: --listen-peer-urls is RAFTHTTP_LISTEN_PEER_URLS.
An empty variable counts as unset, and a flag wins over its variable.
Durations are written 250ms or 10s, sizes 64KiB or 64MiB.

Exit status: 0 done, or stopped in good order; 1 failed; 2 a flag or its value cannot be used;
3 (node) this member was removed from its cluster; 4 (node) no other member hears this one.";

/// etcd's raft transport in Rust, and a service around it.
#[derive(Debug, Parser)]
#[command(name = "rafthttp", version, after_help = EXAMPLES, after_long_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: log::Flags,

    /// The longest time that a stop (SIGTERM, SIGINT) may take; a second signal ends the process at once.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = config::duration)]
    pub(crate) grace: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run several members in this process on loopback, write to them, and report at the end where every message went.
    Demo(demo::Flags),
    /// Run one member of a replicated key-value store; the flags have etcd's names.
    Node(Box<node::Flags>),
    /// List and change the members of a cluster of nodes.
    Member(member::Flags),
    /// Watch the members of any etcd or rafthttp cluster from outside.
    Probe(probe::Flags),
    /// Drive load between the transports of two processes.
    Bench(bench::Flags),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A flag has an unusable value.
    #[error(transparent)]
    Usage(#[from] BadFlag),
    /// Flags contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The variables for logs and traces have unusable values.
    #[error(transparent)]
    Telemetry(#[from] InitError),
    /// This member was removed from its cluster.
    #[error("{0}")]
    Removed(String),
    /// This member is not the one that the other members have met.
    #[error("{0}")]
    Refused(String),
    /// Any other failure.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// A failure from any error, or from a text.
    pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) | Self::Telemetry(_) => 2,
            Self::Removed(_) => 3,
            Self::Refused(_) => 4,
        }
    }
}

impl Flags {
    /// Parses the flags of this process. Bad flags, `--help` and `--version` are answered here and end the process.
    pub(crate) fn of_this_process() -> Self {
        let (command, words) = (command(), env::args_os());
        let words = variables::with_two_dashes(&command, words);
        let read = command.try_get_matches_from(words).and_then(|matches| Self::from_arg_matches(&matches));
        let mut flags = read.unwrap_or_else(|error| usage::refuse(&error));
        if flags.command.is_for_people() {
            flags.log.human_unless_told();
        }
        flags
    }
}

impl Command {
    /// Makes the runtime for the command. `bench` uses one thread, so that two processes fit two cores. `probe` does
    /// too, because its thousand small tasks would only wake each other's threads.
    pub(crate) fn runtime(&self) -> Runtime {
        let mut builder = match self {
            Self::Bench(_) | Self::Probe(_) => runtime::Builder::new_current_thread(),
            Self::Demo(_) | Self::Node(_) | Self::Member(_) => runtime::Builder::new_multi_thread(),
        };
        builder.enable_all().build().expect("the system gives a process a thread and an event queue")
    }

    /// Whether the command answers a question and then ends. Its lines are read in a cron mail or in a script's output,
    /// and not by a log collector.
    fn is_for_people(&self) -> bool {
        match self {
            Self::Member(_) => true,
            Self::Probe(flags) => flags.is_once(),
            Self::Demo(_) | Self::Node(_) | Self::Bench(_) => false,
        }
    }

    /// Runs the command until it is done or told to stop.
    pub(crate) async fn run(self, stop: &Stop, telemetry: &Telemetry) -> Result<(), Failure> {
        variables::warn_of_unknown(&command());
        if let Self::Node(_) = self {
            variables::warn_of_etcds(&command());
        }
        match self {
            Self::Demo(flags) => flags.run(stop).await,
            Self::Node(flags) => flags.run(stop, telemetry).await,
            Self::Member(flags) => flags.run(stop).await,
            Self::Probe(flags) => flags.run(stop, telemetry).await,
            Self::Bench(flags) => flags.run(stop).await,
        }
    }
}

/// Reports a failure in one line, and returns the exit status. The line is JSON if log lines are. Errors in flags and
/// variables are always text, because a person reads them.
pub(crate) fn exit_code(outcome: Result<(), Failure>, json: bool) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    let code = failure.code();
    usage::complain(&failure, json && code != 2);
    ExitCode::from(code)
}

/// The command line. Every flag is also an environment variable.
fn command() -> clap::Command {
    variables::with_variables(Flags::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Flags, String> {
        let matches = command().try_get_matches_from(line.split(' '));
        matches.and_then(|matches| Flags::from_arg_matches(&matches)).map_err(|error| usage::one_line(&error))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_bad_value_is_refused_in_one_line_with_flag_value_and_what_was_expected() {
        for (line, words) in [
            ("rafthttp demo --for soon", ["--for", "soon", "expected a duration"]),
            ("rafthttp demo --members 0", ["--members", "'0'", "0 is not in"]),
            ("rafthttp node --listen-peer-urls 10.0.0.1", ["--listen-peer-urls", "10.0.0.1", "http://HOST:PORT"]),
            ("rafthttp bench source --to 127.0.0.1:1 --work dance", ["--work", "dance", "append"]),
            ("rafthttp bench source --to nowhere --work ping", ["--to", "nowhere", "expected HOST:PORT"]),
            ("rafthttp --log-format xml demo", ["--log-format", "xml", "json"]),
        ] {
            let said = read(line).expect_err(line);
            assert!(words.iter().all(|word| said.contains(word)), "{line}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named_in_one_line() {
        for (line, word) in [("rafthttp bench source --work ping", "--to"), ("rafthttp node --wal-dir x", "--wal-dir")]
        {
            let said = read(line).expect_err(line);
            assert!(said.contains(word), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    /// As in Go, and so in etcd: units and scripts override a flag by giving it again.
    #[test]
    fn a_flag_that_is_given_again_is_the_last() {
        assert_eq!(read("rafthttp demo --grace 3s --grace 4s").unwrap().grace, Duration::from_secs(4));
        let line = "rafthttp node --listen-peer-urls http://a:1,http://a:2 --listen-peer-urls http://b:1";
        let said = format!("{:?}", read(line).unwrap());
        assert!(said.contains("listen_peer_urls: [http://b:1]"), "{said}");
    }

    #[test]
    fn a_bool_is_what_go_takes_for_one() {
        for (text, taken) in [("1", "true"), ("T", "true"), ("True", "true"), ("0", "false"), ("f", "false")] {
            let said = format!("{:?}", read(&format!("rafthttp node --etcd-metrics={text}")).unwrap());
            assert!(said.contains(&format!("etcd_metrics: {taken}")), "{said}");
        }
        assert!(read("rafthttp node --etcd-metrics=soon").is_err());
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        assert_eq!(read("rafthttp demo --grace 3s").unwrap().grace, Duration::from_secs(3));
        assert_eq!(read("rafthttp --grace 3s demo").unwrap().grace, Duration::from_secs(3));
    }
}
