//! Environment variables in place of flags, as compose files, charts and habit write them.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

#[path = "support/binary.rs"]
mod binary;
#[path = "support/ports.rs"]
mod ports;

use binary::rafthttp;

fn output(mut command: Command) -> (Output, String) {
    let output = command.stdin(Stdio::null()).output().expect("the binary was built");
    let said = String::from_utf8(output.stderr.clone()).expect("it speaks UTF-8");
    (output, said)
}

/// The variables of every flag of `node`, as its help names them.
fn variables() -> Vec<String> {
    let mut command = rafthttp();
    command.args(["node", "--help"]);
    let (output, _) = output(command);
    let help = String::from_utf8(output.stdout).expect("it speaks UTF-8");
    let names = help.split("[env:").skip(1).filter_map(|rest| rest.trim_start().split(['=', ']']).next());
    names.map(str::to_owned).collect()
}

#[test]
fn a_node_starts_where_every_variable_is_set_to_nothing() {
    let (directory, [peer, client, metrics]) =
        (tempfile::tempdir().expect("a directory"), [(); 3].map(|()| ports::free_url()));
    let mut command = rafthttp();
    let variables = variables();
    assert!(variables.len() > 20, "{variables:?}");
    command.envs(variables.iter().map(|name| (name, "")));
    command.arg("node").arg("--data-dir").arg(directory.path());
    command.args(["--name", "n1", "--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-metrics-urls", &metrics, "--log-format", "json"]);
    command
        .env("RAFTHTTP_INITIAL_CLUSTR", "n1=http://10.0.0.1:2380")
        .env("ETCD_INITIAL_CLUSTER", "n1=http://10.0.0.1:2380")
        .env("ETCD_WAL_DIR", "/wal")
        .env("RAFTHTTP_PORT_2380_TCP", "tcp://10.0.0.1:2380");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary was built");

    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok) {
        said += &format!("{line}\n");
        if line.contains("\"started\"") {
            break;
        }
    }
    let _ = child.kill();
    let status = child.wait().expect("it was started");
    assert!(said.contains("\"started\""), "{status}: {said}");
    let of_etcd: Vec<&str> = said.lines().filter(|line| line.contains("is etcd's")).collect();
    assert_eq!(of_etcd.len(), 1, "{said}");
    assert!(of_etcd[0].contains("ETCD_INITIAL_CLUSTER") && of_etcd[0].contains("RAFTHTTP_INITIAL_CLUSTER"), "{said}");
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("not a flag")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(
        warnings[0].contains("RAFTHTTP_INITIAL_CLUSTR\"") && warnings[0].contains("RAFTHTTP_INITIAL_CLUSTER\""),
        "{said}"
    );
}

#[test]
fn a_variable_counts_where_it_says_something_and_a_flag_counts_more() {
    let mut command = rafthttp();
    command.args(["probe", "--once", "http://127.0.0.1:1"]).env("RAFTHTTP_TIMEOUT", "soon");
    let (refused, said) = output(command);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("soon"), "{said}");

    let mut command = rafthttp();
    command.args(["probe", "--once", "--timeout", "200ms", "http://127.0.0.1:1"]).env("RAFTHTTP_TIMEOUT", "100ms");
    assert_eq!(output(command).0.status.code(), Some(1));
}

/// In a mail of cron, or a script's output, there is no terminal and nobody who reads JSON.
#[test]
fn what_answers_and_ends_speaks_in_sentences_unless_json_is_asked_for() {
    let dead = format!("http://127.0.0.1:{}", ports::free_port());
    for arguments in [&["probe", "--once", &dead][..], &["member", "list", "--endpoints", &dead]] {
        let mut command = rafthttp();
        command.args(arguments).env("RAFTHTTP_QQQ", "1");
        let (_, said) = output(command);
        assert!(said.contains("RAFTHTTP_QQQ") && !said.contains('{'), "{arguments:?}: {said}");

        let mut command = rafthttp();
        command.args(["--log-format", "json"]).args(arguments).env("RAFTHTTP_QQQ", "1");
        let (_, said) = output(command);
        assert!(said.lines().next().is_some_and(|line| line.starts_with('{')), "{arguments:?}: {said}");
    }
}
