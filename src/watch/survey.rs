//! One look at a cluster: asks every URL of every member once.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};

use super::{
    WatchConfig,
    fault::WatchFault,
    members::{ListedMember, MemberList},
    question::{MemberQuestion, Wanted, ask_seed},
};
use crate::{
    dial::{
        client::Client,
        urls::{PeerUrl, UrlPicker},
    },
    id::{ClusterId, MemberId},
    transport::probe::{Probe, ProbeOutcome},
    wire::version::Version,
};

/// How many URLs are asked at a time.
const AT_ONCE: usize = 256;

/// The result of one look.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The cluster of the first seed that answered with its members. `None` if none did.
    pub cluster: Option<ClusterId>,
    /// One row for each URL of each member, ordered by member, then one for each seed that answers for another cluster.
    /// If no seed answered with its members, one row for each seed.
    pub rows: Vec<SurveyRow>,
    /// The seeds without a usable answer, and what was wrong.
    pub seeds: Vec<(PeerUrl, String)>,
}

/// The answers of one URL.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SurveyRow {
    /// The member that the URL belongs to. `None` for a seed that belongs to no member.
    pub member: Option<MemberId>,
    /// The member's name. Empty until the member was first started.
    pub name: String,
    /// Whether the member is a learner.
    pub is_learner: bool,
    /// The URL. `None` if the member has none that can be dialled.
    pub url: Option<PeerUrl>,
    /// Whether the URL answered a probe.
    pub is_reachable: bool,
    /// The round trip on a warm connection.
    pub round_trip: Option<Duration>,
    /// The clock of the member minus ours, in seconds.
    pub clock_offset: Option<f64>,
    /// The version of the member's server.
    pub version: Option<Version>,
    /// The cluster that the member answered for.
    pub cluster: Option<ClusterId>,
    /// The error, in one line.
    pub error: Option<String>,
}

impl SurveyRow {
    /// A clock is off if it differs by more than this, in seconds. etcd warns at the same difference.
    pub const CLOCK_OFF: f64 = 1.0;

    /// Whether the URL is reachable and in the cluster, and its clock within a second of ours.
    pub fn is_well(&self, cluster: Option<ClusterId>) -> bool {
        let is_foreign = self.cluster.is_some() && self.cluster != cluster;
        self.is_reachable && !is_foreign && !self.is_clock_off()
    }

    /// Whether the clock is off by more than a second.
    pub fn is_clock_off(&self) -> bool {
        self.clock_offset.is_some_and(|offset| offset.abs() > Self::CLOCK_OFF)
    }
}

impl Survey {
    /// Whether the members are known and every row is well.
    pub fn is_well(&self) -> bool {
        self.cluster.is_some() && self.rows.iter().all(|row| row.is_well(self.cluster))
    }
}

/// Looks at the cluster of the first seed that answers with its members. It takes at most four times the timeout, for
/// up to 256 URLs.
pub async fn survey(config: WatchConfig) -> Survey {
    let client = Client::anonymous(config.tls, config.timeout, &config.world);
    let surveyor = Surveyor { client, timeout: config.timeout };
    let survey = surveyor.survey(&config.seeds).await;
    surveyor.client.stop().await;
    survey
}

struct Surveyor {
    client: Client,
    timeout: Duration,
}

impl Surveyor {
    async fn survey(&self, seeds: &[PeerUrl]) -> Survey {
        let answers = join_all(seeds.iter().map(|seed| self.members(seed))).await;
        let mut survey = Survey::default();
        let mut members: Option<Arc<MemberList>> = None;
        let mut others = Vec::new();
        for (seed, answer) in seeds.iter().zip(answers) {
            match answer {
                Ok((cluster, _)) if wanted(survey.cluster).check(cluster).is_err() => others.push(seed),
                Ok((cluster, list)) if members.is_none() => (survey.cluster, members) = (Some(cluster), Some(list)),
                Ok(_) => {}
                Err(fault) => survey.seeds.push((seed.clone(), fault.of_a_seed())),
            }
        }
        let asked: Vec<SurveyRow> = match &members {
            Some(list) => list.members.iter().flat_map(rows).chain(others.into_iter().map(seed_row)).collect(),
            None => survey.seeds.iter().map(|(seed, _)| seed_row(seed)).collect(),
        };
        let cluster = survey.cluster;
        let rows = stream::iter(asked).map(|row| Box::pin(self.ask(row, cluster)));
        survey.rows = rows.buffered(AT_ONCE).collect().await;
        if survey.cluster.is_none() {
            // A seed that answers a probe is not well if it does not say who the members are.
            for (row, (_, why)) in survey.rows.iter_mut().zip(&survey.seeds) {
                row.error = Some(why.clone());
            }
        }
        survey
    }

    async fn members(&self, seed: &PeerUrl) -> Result<(ClusterId, Arc<MemberList>), WatchFault> {
        let told = ask_seed(&self.client, seed, self.timeout).await?;
        Ok((told.cluster, MemberList::parse(&told.body)?))
    }

    /// Asks one URL everything. The first probe tells whether it is reachable. The last one, on the connection that is
    /// warm by then, measures the round trip.
    async fn ask(&self, mut row: SurveyRow, watched: Option<ClusterId>) -> SurveyRow {
        let Some(url) = row.url.clone() else {
            row.error = Some("none of its URLs can be dialled".to_owned());
            return row;
        };
        let (mut probe, urls) = (Probe::default(), UrlPicker::new(vec![url]));
        if !row.note(self.probe(&mut probe, &urls).await) {
            return row;
        }
        match self.question(&mut probe, &urls).versions().await {
            Ok(versions) => row.version = Some(versions.server),
            Err(fault) => row.error = Some(fault.to_string()),
        }
        let told = self.question(&mut probe, &urls).members().await;
        let checked = told.and_then(|told| {
            row.cluster = Some(told.cluster);
            wanted(watched).check(told.cluster)
        });
        if let Err(fault) = checked {
            row.error = Some(fault.to_string());
        }
        row.note(self.probe(&mut probe, &urls).await);
        row
    }

    fn question<'a>(&'a self, probe: &'a mut Probe, urls: &'a UrlPicker) -> MemberQuestion<'a> {
        MemberQuestion { probe, client: &self.client, urls, timeout: self.timeout }
    }

    async fn probe(&self, probe: &mut Probe, urls: &UrlPicker) -> ProbeOutcome {
        probe.ask(&self.client, urls, self.timeout, None).await
    }
}

impl SurveyRow {
    /// Notes the result of a probe, and returns whether it succeeded.
    fn note(&mut self, outcome: ProbeOutcome) -> bool {
        match outcome.result {
            Ok(measured) => {
                self.is_reachable = true;
                (self.round_trip, self.clock_offset) = (Some(measured.round_trip), Some(measured.clock_offset()));
            }
            Err(failure) => {
                self.is_reachable = false;
                (self.round_trip, self.clock_offset) = (None, None);
                self.error = Some(failure.why);
            }
        }
        self.is_reachable
    }
}

fn wanted(cluster: Option<ClusterId>) -> Wanted {
    Wanted { cluster, role: "asked about" }
}

fn rows(listed: &ListedMember) -> Vec<SurveyRow> {
    let row = |url| SurveyRow {
        member: Some(listed.id),
        name: listed.name.clone(),
        is_learner: listed.is_learner,
        url,
        ..SurveyRow::default()
    };
    if listed.urls.is_empty() {
        return vec![row(None)];
    }
    listed.urls.iter().map(|url| row(Some(url.clone()))).collect()
}

fn seed_row(seed: &PeerUrl) -> SurveyRow {
    SurveyRow { url: Some(seed.clone()), ..SurveyRow::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_well_when_it_is_reachable_in_the_cluster_and_within_a_second() {
        let (ours, theirs) = (Some(ClusterId(1)), Some(ClusterId(2)));
        let row = |is_reachable, clock_offset, cluster| SurveyRow {
            is_reachable,
            clock_offset,
            cluster,
            ..SurveyRow::default()
        };
        for offset in [Some(0.0), Some(1.0), Some(-1.0), None] {
            assert!(row(true, offset, ours).is_well(ours), "{offset:?}");
        }
        // It answered a probe, but did not say which cluster it belongs to.
        assert!(row(true, Some(0.0), None).is_well(ours));
        for (row, what) in [
            (row(false, None, ours), "silent"),
            (row(true, Some(1.001), ours), "ahead"),
            (row(true, Some(-1.001), ours), "behind"),
            (row(true, Some(0.0), theirs), "foreign"),
        ] {
            assert!(!row.is_well(ours), "{what}");
        }
    }
}
