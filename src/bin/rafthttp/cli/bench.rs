//! `rafthttp bench`: load between two transports.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    Failure, Stop,
    peer_tls::{PeerNames, PeerTls},
};
use crate::{
    bench::{self, EndpointConfig, Extent, Plan, Work},
    config::{self, HostPort},
};

/// Drive load between the transports of two processes: one is the sink, the other the source.
///
/// Start the sink first. It is one member for each address that it has, and each is sent the whole load. Each side prints
/// one JSON line when the source has finished, and its exit status is 1 if a message was lost. Both sides listen, because
/// the receiver dials: the source tells the sink its address.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    side: BenchSide,
}

#[derive(Debug, Subcommand)]
enum BenchSide {
    /// Receive messages from one source, count and acknowledge them, and end when the source has finished.
    Sink(SinkFlags),
    /// Send messages to a sink.
    Source(SourceFlags),
    /// Measure what peers that never answer cost: memory, and processor time after a settling time.
    Idle(IdleFlags),
}

#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    tls: PeerTls,

    /// Whether the transport's metrics are read and written out, as a scrape does: once a second, and by `idle` every
    /// 10 s.
    #[arg(long, value_name = "on|off", value_enum, default_value_t = Switch::On)]
    metrics: Switch,

    /// The share of messages that are traced, 0 to 1.
    #[arg(long, value_name = "RATIO", default_value = "0.001", value_parser = config::ratio)]
    trace_ratio: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Args, Debug)]
struct SinkFlags {
    /// The addresses to listen on, with commas between them: each is a member.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:9000")]
    listen: Vec<HostPort>,

    /// The directory for received snapshots; a directory is made in it and removed at the end [default: the system's
    /// directory for temporary files]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct SourceFlags {
    /// The addresses of the sink's members, with commas between them, in the order of the sink's `--listen`.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    to: Vec<HostPort>,

    /// The address to listen on for the sink's dials.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: HostPort,

    /// The kind of messages to send.
    #[arg(long, value_enum)]
    work: Work,

    /// The size of a message's payload.
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = config::size)]
    size: u64,

    /// The most messages that are sent to a member and not yet acknowledged [default: 2048; ping and snapshot have one
    /// at a time]
    #[arg(long, value_name = "N", value_parser = config::positive)]
    window: Option<u64>,

    #[command(flatten)]
    extent: ExtentFlags,

    /// After the load, keep the streams open and serve `/metrics` at this address, until told to stop.
    #[arg(long, value_name = "HOST:PORT")]
    hold: Option<HostPort>,

    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct ExtentFlags {
    /// The number of messages to each member; for a snapshot, its one body has this many times SIZE.
    #[arg(long, value_name = "N", value_parser = config::positive)]
    messages: Option<u64>,

    /// How long to send, instead of a number of messages.
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    r#for: Option<Duration>,
}

#[derive(Args, Debug)]
struct IdleFlags {
    /// The number of peers; all have the address `--to`.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = config::positive)]
    peers: u64,

    /// An address at which nothing answers.
    #[arg(long, value_name = "HOST:PORT")]
    to: HostPort,

    /// How long to wait before the measurement.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = config::duration)]
    settle: Duration,

    /// How long the measurement takes.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = config::duration)]
    r#for: Duration,

    #[command(flatten)]
    common: Common,
}

impl Flags {
    pub(crate) async fn run(self, stop: &Stop) -> Result<(), Failure> {
        let stop = stop.token();
        match self.side {
            BenchSide::Sink(flags) => {
                let endpoint = flags.common.endpoint(&HostPort::any_port_on_loopback(), 1)?;
                bench::sink(endpoint, &flags.listen, flags.data_dir, stop).await.map_err(Failure::failed)
            }
            BenchSide::Source(flags) => {
                let plan = flags.plan()?;
                let endpoint = flags.common.endpoint(&flags.listen, flags.to.len())?;
                bench::source(endpoint, &flags.to, plan, flags.hold, stop).await.map_err(Failure::failed)
            }
            BenchSide::Idle(flags) => {
                let endpoint = flags.common.endpoint(&HostPort::any_port_on_loopback(), 1)?;
                let idle = bench::Idle { peers: flags.peers, settle: flags.settle, measure: flags.r#for };
                bench::idle(endpoint, &flags.to, idle, stop).await.map_err(Failure::failed)
            }
        }
    }
}

impl Common {
    fn endpoint(self, listen: &HostPort, peers: usize) -> Result<EndpointConfig, Failure> {
        Ok(EndpointConfig {
            listen: listen.clone(),
            tls: self.tls.load(PeerNames::default())?,
            scrape_every: (self.metrics == Switch::On).then_some(bench::SCRAPE_EVERY),
            trace_ratio: self.trace_ratio,
            peers,
        })
    }
}

impl SourceFlags {
    fn plan(&self) -> Result<Plan, Failure> {
        let extent = match (self.extent.messages, self.extent.r#for) {
            (Some(messages), _) => Extent::Messages(messages),
            (None, time) => Extent::Time(time.expect("clap requires one of the two")),
        };
        Ok(Plan::new(self.work, self.size, self.window, extent)?)
    }
}
