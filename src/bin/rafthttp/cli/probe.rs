//! `rafthttp probe`: the members of a cluster, watched from outside.

use std::time::Duration;

use clap::{Args, ValueEnum};
use prometheus::Registry;
use rafthttp::{PeerUrl, WatchConfig, metrics::trace_collector, telemetry::Telemetry};

use super::{
    BadFlag, Failure, Stop,
    client_tls::ClientTls,
    listen::{METRICS, listen_for_metrics},
    port_tls::PortTls,
};
use crate::{
    config::{self, ListenUrl},
    probe,
};

const EXAMPLES: &str = "\
Examples:
  rafthttp probe --once http://10.0.0.1:2380          a table and an exit status
  rafthttp probe http://10.0.0.1:2380,http://10.0.0.2:2380
                                                      metrics on http://127.0.0.1:9379/metrics, a page on /
  rafthttp probe --once -o json http://10.0.0.1:2380 | jq '.members[] | select(.error)'
  rafthttp probe --once https://10.0.0.1:2380 --cacert /etc/kubernetes/pki/etcd/ca.crt \\
    --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key
                                                      on a control plane node made by kubeadm

With --once the exit status is 0 if every URL of every member is reachable, belongs to the same
cluster, and has a clock within a second of ours; otherwise 1. With bad flags it is 2.";

/// Watch the members of any etcd or rafthttp cluster from outside: reachability, round trip, clock and version.
///
/// `probe` finds the members by GET /members at the given URLs, and follows changes of the membership. It asks these
/// URLs again only if no known member answers. It writes nothing and sends no raft message.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub(crate) struct Flags {
    /// Peer URLs of members (port 2380, not the client port 2379); one that answers is enough.
    #[arg(value_name = "URL", value_delimiter = ',', required = true)]
    urls: Vec<PeerUrl>,

    /// Ask every URL of every member once, print the answers, and end.
    #[arg(long)]
    once: bool,

    /// The format of the output of --once [default: table]
    #[arg(long, short, value_name = "FORMAT", value_enum, requires = "once")]
    output: Option<ProbeOutput>,

    #[command(flatten)]
    tls: ClientTls,

    /// The time between two probes of a member.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = config::duration)]
    interval: Duration,

    /// The longest time that a probe may take; shorter than the interval, unless with --once.
    #[arg(long, value_name = "DURATION", default_value = "700ms", value_parser = config::duration)]
    timeout: Duration,

    /// URLs that serve the page (/), /metrics, /livez, /readyz, /health, /api/peers and /api/events; https needs
    /// --cert-file.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:9379")]
    listen_metrics_urls: Vec<ListenUrl>,

    #[command(flatten)]
    port: PortTls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ProbeOutput {
    #[default]
    Table,
    Json,
}

impl Flags {
    /// Whether it asks once and ends.
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }

    pub(crate) async fn run(self, stop: &Stop, telemetry: &Telemetry) -> Result<(), Failure> {
        self.check()?;
        probe::raise_open_files();
        let https = self.urls.iter().find(|url| url.is_tls());
        let tls = self.tls.load(https, |url, expected| BadFlag::argument("URL", url, expected))?;
        let seeds = each_once(self.urls);
        let config =
            WatchConfig { seeds, tls, interval: self.interval, timeout: self.timeout, ..WatchConfig::default() };
        let port = self.port.load(&[(METRICS, &self.listen_metrics_urls)])?;
        if self.once {
            let survey = stop.token().run_until_cancelled(rafthttp::survey(config)).await;
            let survey = survey.ok_or_else(|| Failure::failed("stopped before it was done"))?;
            return probe::report(&survey, self.output.unwrap_or_default() == ProbeOutput::Json)
                .map_err(Failure::failed);
        }
        let listeners = listen_for_metrics(&self.listen_metrics_urls, port)?;
        let registry = Registry::new();
        if let Some(exported) = telemetry.export_status() {
            registry.register(trace_collector(exported)).map_err(Failure::failed)?;
        }
        probe::watch(config, listeners, registry, stop.token()).await.map_err(Failure::failed)
    }

    /// Checks the values that depend on each other.
    fn check(&self) -> Result<(), BadFlag> {
        let text = |duration| humantime::format_duration(duration).to_string();
        for (flag, duration) in [("interval", self.interval), ("timeout", self.timeout)] {
            if duration.is_zero() {
                return Err(BadFlag::new(flag, text(duration), "expected more than nothing"));
            }
        }
        if !self.once && self.timeout >= self.interval {
            let expected = format!("expected less than --interval {}", text(self.interval));
            return Err(BadFlag::new("timeout", text(self.timeout), expected));
        }
        Ok(())
    }
}

/// Removes repeated URLs, so that each is asked once.
fn each_once(urls: Vec<PeerUrl>) -> Vec<PeerUrl> {
    let mut once = Vec::with_capacity(urls.len());
    for url in urls {
        if !once.contains(&url) {
            once.push(url);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn flags(line: &str) -> Result<Flags, clap::Error> {
        Line::try_parse_from(["probe"].into_iter().chain(line.split_whitespace())).map(|line| line.flags)
    }

    #[test]
    fn several_urls_stand_beside_each_other_or_with_commas() {
        for line in ["http://a:1 http://b:2", "http://a:1,http://b:2"] {
            assert_eq!(flags(line).unwrap().urls, PeerUrl::list("http://a:1,http://b:2").unwrap());
        }
        assert!(flags("--once").is_err());
    }

    #[test]
    fn a_probe_is_shorter_than_the_interval_unless_there_is_only_one() {
        assert!(flags("http://a:1 --interval 500ms").unwrap().check().is_err());
        assert_eq!(flags("http://a:1 --once --timeout 5s").unwrap().check(), Ok(()));
    }

    #[test]
    fn no_time_at_all_is_refused_and_the_flag_is_the_one_that_says_so() {
        for (line, flag) in
            [("--interval 0s", "--interval"), ("--timeout 0s", "--timeout"), ("--once --timeout 0s", "--timeout")]
        {
            let said = flags(&format!("http://a:1 {line}")).unwrap().check().expect_err(line).to_string();
            assert!(said.contains(&format!("for '{flag}'")), "{line}: {said}");
        }
    }

    #[test]
    fn a_url_that_is_given_twice_is_asked_once() {
        let given = flags("http://a:1,http://b:2 http://a:1").unwrap().urls;
        assert_eq!(each_once(given), PeerUrl::list("http://a:1,http://b:2").unwrap());
    }

    #[test]
    fn a_format_is_for_one_look() {
        assert!(flags("http://a:1 -o json").is_err());
        assert_eq!(flags("http://a:1 --once -o json").unwrap().output, Some(ProbeOutput::Json));
    }
}
