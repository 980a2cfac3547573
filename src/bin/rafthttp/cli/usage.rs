//! Errors in flags, in one line: the flag, its value and what was expected.

use std::{error::Error, process};

use clap::error::ErrorKind;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Answers `--help` and `--version`, or reports the error, and ends the process.
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

/// The first paragraph of clap's message, in one line. The other paragraphs are advice.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    words.join(" ").replacen("error: ", "rafthttp: ", 1)
}

/// Reports what failed and why, in one line.
pub(super) fn complain(error: &dyn Error, json: bool) {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error has the same text as its source.
        if !line.ends_with(&cause_text) {
            line.push_str(": ");
            line.push_str(&cause_text);
        }
        source = cause.source();
    }
    if json {
        // It is written whatever the log filter, because it is the last line, and explains the exit status.
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
    use crate::bad_flag::BadFlag;

    #[test]
    fn a_bad_flag_names_itself_its_value_and_what_was_expected() {
        let bad = BadFlag::new("election-timeout", "200ms", "expected at least five heartbeat intervals");
        assert_eq!(
            bad.to_string(),
            "invalid value '200ms' for '--election-timeout': expected at least five heartbeat intervals"
        );
    }
}
