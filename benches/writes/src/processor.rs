//! The processor time of this process and of the members, from /proc.

use std::fs;

/// Clock ticks a second. Linux shows every process 100, whatever its own clock (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The processor time so far, user and system, in seconds: of this process, and of all these together.
pub fn seconds(processes: &[u32]) -> Result<(f64, f64), String> {
    let members = processes.iter().map(|id| of(&id.to_string())).sum::<Result<f64, String>>()?;
    Ok((of("self")?, members))
}

fn of(process: &str) -> Result<f64, String> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse(&stat).ok_or(format!("{path}: expected the fields of proc(5)"))
}

fn parse(stat: &str) -> Option<f64> {
    // The name may have spaces and brackets in it. Fields 14 and 15 of the line are 12 and 13 after it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_after_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(parse(stat), Some(3.0));
        assert_eq!(parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_that_is_gone_is_told() {
        assert!(seconds(&[]).is_ok());
        assert!(seconds(&[u32::MAX]).expect_err("gone").starts_with("/proc/4294967295/stat: "));
    }
}
