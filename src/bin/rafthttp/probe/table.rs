//! Formats a survey for people and for programs.

use std::{fmt::Write as _, time::Duration};

use rafthttp::{MemberId, Survey, SurveyRow};
use serde::Serialize;

const HEADER: [&str; 9] =
    ["MEMBER", "NAME", "URL", "REACHABLE", "ROUND TRIP", "CLOCK OFFSET", "VERSION", "CLUSTER", "ERROR"];

/// A table with a header and one line for each URL.
pub(super) fn table(survey: &Survey) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(survey.rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(written, "{cell:<width$}  ").expect("a string takes what is written to it");
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &SurveyRow) -> [String; 9] {
    let nothing = || "-".to_owned();
    let clock = row.clock_offset.map_or_else(nothing, offset);
    [
        row.member.map_or_else(nothing, |member| member.to_string()),
        match row.member {
            None => nothing(),
            // As in etcdctl: a member has no name until it was first started.
            Some(_) if row.name.is_empty() => "(unstarted)".to_owned(),
            Some(_) => printable(&row.name),
        },
        row.url.as_ref().map_or_else(nothing, ToString::to_string),
        if row.is_reachable { "yes" } else { "no" }.to_owned(),
        row.round_trip.map_or_else(nothing, |time| format!("{time:.2?}")),
        if row.is_clock_off() { format!("{clock} (off)") } else { clock },
        row.version.map_or_else(nothing, |version| version.to_string()),
        row.cluster.map_or_else(nothing, |cluster| cluster.to_string()),
        row.error.as_deref().map(printable).unwrap_or_default(),
    ]
}

/// The offset with its sign: `+1.20ms` means that the other clock is ahead.
fn offset(seconds: f64) -> String {
    let size = Duration::try_from_secs_f64(seconds.abs()).unwrap_or(Duration::MAX);
    format!("{}{size:.2?}", if seconds < 0.0 { '-' } else { '+' })
}

/// Text from others, without characters that a terminal would act on.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// A summary of what is not well, in one line.
pub(super) fn summary(survey: &Survey) -> String {
    let count = |is: &dyn Fn(&SurveyRow) -> bool| survey.rows.iter().filter(|row| is(row)).count();
    let foreign = |row: &SurveyRow| row.cluster.is_some() && row.cluster != survey.cluster;
    let counts = [
        (count(&|row| !row.is_reachable), "not reachable"),
        (count(&foreign), "in another cluster"),
        (count(&SurveyRow::is_clock_off), "more than a second off"),
    ];
    let said: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("of {} peer URLs: {}", survey.rows.len(), said.join(", "))
}

/// One JSON object in a line. Field names are stable.
pub(super) fn json(survey: &Survey) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        cluster: Option<String>,
        healthy: bool,
        members: Vec<Row<'a>>,
        seed_errors: Vec<SeedError<'a>>,
    }
    #[derive(Serialize)]
    struct Row<'a> {
        member: Option<MemberId>,
        name: &'a str,
        learner: bool,
        url: Option<&'a str>,
        reachable: bool,
        round_trip_seconds: Option<f64>,
        clock_offset_seconds: Option<f64>,
        version: Option<String>,
        cluster: Option<String>,
        healthy: bool,
        error: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct SeedError<'a> {
        url: &'a str,
        error: &'a str,
    }
    let members = survey.rows.iter().map(|row| Row {
        member: row.member,
        name: &row.name,
        learner: row.is_learner,
        url: row.url.as_ref().map(AsRef::as_ref),
        reachable: row.is_reachable,
        round_trip_seconds: row.round_trip.map(|time| time.as_secs_f64()),
        clock_offset_seconds: row.clock_offset,
        version: row.version.map(|version| version.to_string()),
        cluster: row.cluster.map(|cluster| cluster.to_string()),
        healthy: row.is_well(survey.cluster),
        error: row.error.as_deref(),
    });
    let seed_errors = survey.seeds.iter().map(|(url, error)| SeedError { url: url.as_str(), error });
    let document = Document {
        cluster: survey.cluster.map(|cluster| cluster.to_string()),
        healthy: survey.is_well(),
        members: members.collect(),
        seed_errors: seed_errors.collect(),
    };
    serde_json::to_string(&document).expect("our own types always serialize") + "\n"
}

#[cfg(test)]
mod tests {
    use rafthttp::ClusterId;

    use super::*;

    fn survey() -> Survey {
        let mut well = SurveyRow::default();
        well.member = Some(MemberId(0x2a));
        well.name = "etcd-1".to_owned();
        well.url = Some("http://10.0.0.1:2380".parse().expect("a URL"));
        well.is_reachable = true;
        well.round_trip = Some(Duration::from_micros(213));
        well.clock_offset = Some(-0.0012);
        well.version = Some("3.6.16".parse().expect("a version"));
        well.cluster = Some(ClusterId(0x1000));
        let mut dead = SurveyRow::default();
        dead.member = Some(MemberId(0x8e9e_05c5_2164_694d));
        dead.url = Some("http://10.0.0.2:2380".parse().expect("a URL"));
        dead.error = Some("connect to 10.0.0.2:2380: Connection refused\u{1b}[31m".to_owned());
        let mut off = well.clone();
        off.name = "e".to_owned();
        off.clock_offset = Some(3661.5);
        let mut survey = Survey::default();
        survey.cluster = Some(ClusterId(0x1000));
        survey.rows = vec![well, dead, off];
        survey
    }

    #[test]
    fn columns_are_aligned_and_nothing_reaches_the_terminal_that_it_would_act_on() {
        let text = table(&survey());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        for column in HEADER {
            let at = lines[0].find(column).expect(column);
            // It counts characters, because `µ` has two bytes.
            let starts = |line: &str| {
                let mut characters = line.chars().skip(at - 1);
                characters.next().is_none_or(|before| at == 0 || before == ' ')
            };
            assert!(at == 0 || lines[1..].iter().all(|line| starts(line)), "{column}:\n{text}");
        }
        assert!(lines[1].contains("213.00µs") && lines[1].contains("-1.20ms") && lines[1].contains("3.6.16"), "{text}");
        assert!(lines[2].contains("(unstarted)") && lines[2].contains("no "), "{text}");
        assert!(lines[3].contains("+3661.50s (off)"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_is_wrong_is_counted() {
        let mut survey = survey();
        assert!(!survey.is_well());
        assert_eq!(summary(&survey), "of 3 peer URLs: 1 not reachable, 1 more than a second off");
        survey.rows.truncate(1);
        assert!(survey.is_well());
        survey.rows[0].cluster = Some(ClusterId(0x2000));
        assert!(!survey.is_well());
        assert_eq!(summary(&survey), "of 1 peer URLs: 1 in another cluster");
    }

    #[test]
    fn json_has_the_same_rows() {
        let document: serde_json::Value = serde_json::from_str(&json(&survey())).expect("JSON");
        assert_eq!((&document["cluster"], &document["healthy"]), (&"1000".into(), &false.into()));
        let first = &document["members"][0];
        assert_eq!(
            (&first["member"], &first["version"], &first["healthy"]),
            (&"2a".into(), &"3.6.16".into(), &true.into())
        );
        assert_eq!(first["round_trip_seconds"], 0.000_213);
        assert_eq!(document["members"][1]["round_trip_seconds"], serde_json::Value::Null);
    }
}
