//! What is said about flags that cannot be used: one line with the flag, its value and what was expected.

use std::{error::Error, process};

use clap::{Command, error::ErrorKind};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Gives every flag of every command its environment variable.
pub(super) fn with_environment(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_long() {
            Some("help" | "version") | None => arg,
            Some(flag) => {
                let variable = format!("RAFTHTTP_{}", flag.replace('-', "_").to_uppercase());
                arg.env(variable).hide_env_values(true)
            }
        })
        .mut_subcommands(with_environment)
}

/// Answers `--help` and `--version`, or says what was wrong, and ends the process.
pub(super) fn refuse(error: &clap::Error) -> ! {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.exit()
        }
        _ => {
            eprintln!("{}", one_line(error));
            process::exit(2)
        }
    }
}

/// The first paragraph of clap's answer, in one line: what follows is advice.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    words.join(" ").replacen("error: ", "rafthttp: ", 1)
}

/// Says what failed and why, in one line.
pub(super) fn complain(error: &dyn Error, json: bool) {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error repeats its source's words.
        if !line.ends_with(&cause_text) {
            line.push_str(": ");
            line.push_str(&cause_text);
        }
        source = cause.source();
    }
    if json {
        // Whatever the filter says: it is the last line, and the reason for the status.
        let timestamp = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let object = serde_json::json!({
            "timestamp": timestamp, "level": "ERROR", "message": line, "target": module_path!(),
        });
        eprintln!("{object}");
    } else {
        eprintln!("rafthttp: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bad_flag::BadFlag;

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
        every_flag(&super::super::command(), &mut seen);
        assert!(seen.len() > 30, "{seen:?}");
        for (flag, variable) in seen {
            let expected = format!("RAFTHTTP_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(variable, Some(expected), "--{flag}");
        }
    }

    #[test]
    fn a_bad_flag_names_itself_its_value_and_what_was_expected() {
        let bad = BadFlag::new("election-timeout", "200ms", "expected at least five heartbeat intervals");
        assert_eq!(
            bad.to_string(),
            "invalid value '200ms' for '--election-timeout': expected at least five heartbeat intervals"
        );
    }
}
