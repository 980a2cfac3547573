//! Flags as environment variables: `--listen-peer-urls` is `RAFTHTTP_LISTEN_PEER_URLS`.

use std::{collections::BTreeSet, env, ffi::OsString};

use clap::{ArgAction, Command};

const PREFIX: &str = "RAFTHTTP_";
/// The prefix of etcd's variables.
const ETCDS: &str = "ETCD_";

/// How similar a known name must be to be suggested for an unknown one, from 0 to 1 (Jaro-Winkler).
const ALIKE: f64 = 0.85;

/// Gives every flag of every command its environment variable. An empty variable counts as unset, because compose files
/// and charts write variables that they have no value for. If a flag is repeated, the last one counts, as in Go.
pub(super) fn with_variables(command: Command) -> Command {
    command
        .args_override_self(true)
        .mut_args(|arg| match arg.get_long() {
            Some("help" | "version") | None => arg,
            Some(flag) => {
                let variable = variable(flag);
                if env::var_os(&variable).is_some_and(|value| value.is_empty()) {
                    return arg;
                }
                arg.env(variable).hide_env_values(true)
            }
        })
        .mut_args(|arg| match (arg.get_long(), arg.get_action()) {
            // A repeated list replaces the list before it, instead of extending it.
            (Some(_), ArgAction::Append) => arg.action(ArgAction::Set),
            _ => arg,
        })
        .mut_subcommands(with_variables)
}

/// Warns of each variable that has the prefix of this program and is no flag, because a misspelt name would otherwise
/// go unnoticed.
pub(super) fn warn_of_unknown(command: &Command) {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let set = env::vars_os().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok());
    for name in set.collect::<BTreeSet<_>>() {
        match judge(&name, &known) {
            Some(Some(nearest)) => {
                tracing::warn!(
                    variable = name,
                    nearest,
                    "this environment variable is not a flag; `nearest` is the most similar one"
                );
            }
            Some(None) => tracing::warn!(variable = name, "this environment variable is not a flag"),
            None => {}
        }
    }
}

/// The words of a command line, with two dashes before each flag: Go, and so etcd, accepts one dash as well.
pub(super) fn with_two_dashes(command: &Command, words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let is_flag = |word: &str| {
        let name = word.strip_prefix('-').filter(|name| !name.starts_with('-'));
        name.and_then(|name| name.split('=').next()).is_some_and(|name| known.contains(&variable(name)))
    };
    let two = |word: OsString| match word.to_str() {
        Some(text) if is_flag(text) => format!("-{text}").into(),
        _ => word,
    };
    words.map(two).collect()
}

/// Warns of each etcd variable for a flag that exists here too. Its operator may expect it to work, and would get a
/// cluster of one instead of the intended one.
pub(super) fn warn_of_etcds(command: &Command) {
    let mut known = BTreeSet::new();
    command.get_subcommands().filter(|command| command.get_name() == "node").for_each(|node| collect(node, &mut known));
    for (name, _) in env::vars_os().filter(|(_, value)| !value.is_empty()) {
        let name = name.to_string_lossy();
        if let Some(ours) = of_etcds(&name, &known) {
            tracing::warn!(variable = %name, ours, "this environment variable is etcd's and has no effect here; `ours` is its counterpart");
        }
    }
}

/// The variable here for this variable of etcd's. `None` if it is not etcd's, or has no counterpart here.
fn of_etcds<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let ours = format!("{PREFIX}{}", name.strip_prefix(ETCDS)?);
    known.get(&ours).map(String::as_str).filter(|ours| env::var_os(ours).is_none_or(|value| value.is_empty()))
}

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase())
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    known.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(variable));
    command.get_subcommands().for_each(|command| collect(command, known));
}

/// `None` if the variable is fine. Otherwise the variable is unknown, and the inner value is the most similar known
/// one, if any.
fn judge<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<Option<&'a str>> {
    if !name.starts_with(PREFIX) || known.contains(name) || is_of_a_service(name) {
        return None;
    }
    let likeness = |known: &str| strsim::jaro_winkler(&name[PREFIX.len()..], &known[PREFIX.len()..]);
    let nearest =
        known.iter().map(|known| (known.as_str(), likeness(known))).max_by(|one, other| one.1.total_cmp(&other.1));
    Some(nearest.filter(|(_, alike)| *alike >= ALIKE).map(|(known, _)| known))
}

/// Whether Kubernetes sets a variable of this name for a Service: `…_SERVICE_HOST`, `…_SERVICE_PORT`,
/// `…_SERVICE_PORT_NAME`, `…_PORT`, `…_PORT_2380_TCP`, `…_PORT_2380_TCP_ADDR`, `…_PROTO` and `…_PORT` ("Discovering
/// services" in its documentation).
fn is_of_a_service(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    name.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
        let mut words = rest.split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
        number && protocol && words.next().is_none_or(|word| ["ADDR", "PORT", "PROTO"].contains(&word))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::command, *};

    fn every_flag(command: &Command, seen: &mut Vec<(String, Option<String>)>) {
        for arg in command.get_arguments() {
            if let Some(flag) = arg.get_long().filter(|flag| !["help", "version"].contains(flag)) {
                seen.push((flag.to_owned(), arg.get_env().and_then(|name| name.to_str()).map(str::to_owned)));
            }
        }
        command.get_subcommands().for_each(|command| every_flag(command, seen));
    }

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        let mut seen = Vec::new();
        every_flag(&command(), &mut seen);
        assert!(seen.len() > 30, "{seen:?}");
        for (flag, variable) in seen {
            let expected = format!("RAFTHTTP_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(variable, Some(expected), "--{flag}");
        }
    }

    #[test]
    fn a_variable_that_is_no_flag_is_told_with_the_nearest_that_is_one() {
        let mut known = BTreeSet::new();
        collect(&command(), &mut known);
        for (name, nearest) in [
            ("RAFTHTTP_INITIAL_CLUSTR", Some("RAFTHTTP_INITIAL_CLUSTER")),
            ("RAFTHTTP_DATADIR", Some("RAFTHTTP_DATA_DIR")),
            ("RAFTHTTP_LISTEN_PEER_URL", Some("RAFTHTTP_LISTEN_PEER_URLS")),
            ("RAFTHTTP_QQQ", None),
            ("RAFTHTTP_", None),
        ] {
            assert_eq!(judge(name, &known), Some(nearest), "{name}");
        }
    }

    #[test]
    fn a_variable_of_etcds_is_told_with_ours_where_there_is_one() {
        let mut known = BTreeSet::new();
        collect(&command(), &mut known);
        assert_eq!(of_etcds("ETCD_INITIAL_CLUSTER", &known), Some("RAFTHTTP_INITIAL_CLUSTER"));
        for name in ["ETCD_PORT_2379_TCP", "ETCD_WAL_DIR", "ETCDCTL_API", "RAFTHTTP_NAME"] {
            assert_eq!(of_etcds(name, &known), None, "{name}");
        }
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        let words = ["rafthttp", "node", "-name", "n1", "-data-dir=d", "--name", "-o", "-h", "-no-flag", "-", "--"];
        let turned = with_two_dashes(&command(), words.iter().map(OsString::from));
        let expected =
            ["rafthttp", "node", "--name", "n1", "--data-dir=d", "--name", "-o", "-h", "-no-flag", "-", "--"];
        assert_eq!(turned, expected.map(OsString::from));
    }

    #[test]
    fn flags_and_what_kubernetes_sets_for_a_service_are_nothing_to_speak_of() {
        let mut known = BTreeSet::new();
        collect(&command(), &mut known);
        for name in [
            "RAFTHTTP_INITIAL_CLUSTER",
            "RAFTHTTP_PORT",
            "RAFTHTTP_PORT_2380_TCP",
            "RAFTHTTP_PORT_2380_TCP_ADDR",
            "RAFTHTTP_CLIENT_PORT_53_UDP_PROTO",
            "RAFTHTTP_SERVICE_HOST",
            "RAFTHTTP_CLIENT_SERVICE_PORT",
            "RAFTHTTP_SERVICE_PORT_METRICS",
            "ETCD_NAME",
            "rafthttp_name",
        ] {
            assert_eq!(judge(name, &known), None, "{name}");
        }
        for name in ["RAFTHTTP_PORT_2380", "RAFTHTTP_PORT_2380_TPC", "RAFTHTTP_PORT_X_TCP"] {
            assert!(judge(name, &known).is_some(), "{name}");
        }
    }
}
