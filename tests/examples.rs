//! The examples run, and do what their first lines say.

#[path = "traces/collector.rs"]
#[allow(dead_code, reason = "the tests of traces use the rest")]
mod collector;

use std::{path::PathBuf, process::Stdio, time::Duration};

use collector::Collector;
use tokio::{process::Command, time::timeout};

/// Longer than an example takes, on a machine with a hundred other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds an example if it has changed, runs it to its end, and returns its output.
async fn printed(name: &str, environment: &[(&str, String)]) -> String {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--example", name, "--manifest-path", manifest]);
    let built = build.status().await.expect("cargo can be started");
    assert!(built.success(), "the example {name} does not build");

    let directory =
        PathBuf::from(env!("CARGO_BIN_EXE_rafthttp")).parent().expect("it is in a directory").join("examples");
    let mut command = Command::new(directory.join(name));
    command.envs(environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends within two minutes").expect("it was built");
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} ended with {}\n{said}{log}", output.status);
    said.into_owned()
}

#[tokio::test]
async fn the_cluster_elects_replicates_and_outlives_a_member() {
    let said = printed("cluster", &[]).await;
    assert!(said.lines().any(|line| line.ends_with(" leads")), "{said}");
    let maps: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("a member has ")).collect();
    assert_eq!(maps.len(), 2, "two members are left\n{said}");
    assert_eq!(maps[0], maps[1]);
    for key in ["put-by-1", "put-by-2", "put-by-3", "later"] {
        assert!(maps[0].contains(key), "{key} is not in {}", maps[0]);
    }
}

#[tokio::test]
async fn the_transport_shows_its_metrics_and_its_trace() {
    let collector = Collector::start().await;
    let said = printed("transport", &[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())]).await;
    // A label for each channel that carried some: together they are all that were sent.
    let counts = said.lines().filter(|line| line.contains("rafthttp_messages_sent_total{") && line.contains("MsgApp"));
    let sent: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(sent, 100.0, "{said}");
    let trace = said.lines().find_map(|line| line.strip_prefix("trace ")?.split(' ').next()).expect("a trace");
    let spans = collector.spans();
    let id = |span: &collector::Span| span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for name in ["raft.send", "raft.receive"] {
        assert!(spans.iter().any(|span| span.name == name && id(span) == trace), "no {name} in trace {trace}");
    }
}

#[test]
fn the_cluster_fits_in_200_lines() {
    let text = include_str!("../examples/cluster.rs");
    assert!(text.lines().count() <= 200, "it is to be read in one go");
}
