//! What is over a limit, wherever it stands in a page, is refused whole and counted.

use proptest::prelude::*;
use tokio::time::{Duration, sleep};
use wire::{CustomMetric, Entry, JournalPage, Record, SampledProcess};

use super::life::{Life, TIMING};
use super::network::Wires;
use super::world;
use crate::store::{Cursor, EventFilter, HistoryQuery, Subject};
use crate::world::now;

/// Something that there is too much of; how much is above the limit, and in which of the entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excess {
    of: Of,
    above: usize,
    entry: usize,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Processes,
    Namespace,
    Metrics,
    MetricName,
    MetricUnit,
    NodeName,
    Message,
    Details,
    DetailName,
    Detail,
    HostName,
}

impl Of {
    const ALL: [Self; 11] = [
        Self::Processes,
        Self::Namespace,
        Self::Metrics,
        Self::MetricName,
        Self::MetricUnit,
        Self::NodeName,
        Self::Message,
        Self::Details,
        Self::DetailName,
        Self::Detail,
        Self::HostName,
    ];
}

impl Excess {
    pub(super) fn put_into(self, page: &mut JournalPage) {
        let (above, name) = (self.above, "x".repeat(255 + self.above));
        if let (Of::HostName, Some(state)) = (self.of, &mut page.state) {
            state.exporter.hostname = name;
            return;
        }
        let is_event = matches!(self.of, Of::Message | Of::Details | Of::DetailName | Of::Detail);
        let fits = |entry: &&mut Entry| matches!(entry.record, Record::Event(_)) == is_event;
        let mut entries: Vec<&mut Entry> = page.entries.iter_mut().filter(fits).collect();
        let count = entries.len();
        let Some(entry) = (count > 0).then(|| &mut entries[self.entry % count].record) else {
            return;
        };
        match entry {
            Record::Event(event) => match self.of {
                Of::Message => event.message = "x".repeat(16 * 1024 + above),
                Of::Details => {
                    let more = (0..32 + above).map(|it| (it.to_string(), String::new()));
                    event.details.extend(more);
                }
                Of::DetailName => _ = event.details.insert(name, String::new()),
                _ => _ = event.details.insert("stack".to_owned(), "x".repeat(64 * 1024 + above)),
            },
            Record::Sample(sample) => {
                let process = &mut sample.processes[0];
                let metric = |name: String, unit: String| CustomMetric {
                    name: name.into(),
                    value: 1.0,
                    unit: unit.into(),
                };
                let readings = &mut process.readings;
                match self.of {
                    Of::Processes => {
                        let process = process.clone();
                        let numbered = |number: usize| {
                            let mut process: SampledProcess = process.clone();
                            process.instance.instance_id = number as u32;
                            process
                        };
                        sample.processes = (0..1000 + above).map(numbered).collect();
                    }
                    Of::Metrics => {
                        let more = (0..128 + above).map(|it| metric(it.to_string(), String::new()));
                        readings.custom.extend(more);
                    }
                    Of::MetricName => readings.custom.push(metric(name, String::new())),
                    Of::MetricUnit => readings.custom.push(metric("m".to_owned(), name)),
                    Of::NodeName => _ = readings.node.insert(name.into(), 1.0),
                    _ => process.instance.namespace = name.into(),
                }
            }
        }
    }
}

fn run(excess: Excess) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        world::begin(1);
        let name = "vm0".to_owned();
        let wires = Wires::new(1, std::slice::from_ref(&name), 0);
        wires.with(&name, |place| place.exporter.excess = Some(excess));
        for _ in 0..3 {
            wires.with(&name, |place| (place.exporter.sample(), place.exporter.event()));
            sleep(Duration::from_secs(1)).await;
        }
        let life = Life::begin(&folder.path().join("poller.db"), &wires, TIMING).await;
        let id = name.parse().unwrap();
        let kept = async || {
            let _holding = world::hold();
            let exits =
                EventFilter { kind: Some("exit".to_owned()), limit: 100, ..EventFilter::default() };
            let query = HistoryQuery {
                server: "vm0".parse().unwrap(),
                subject: Subject::App("api".parse().unwrap()),
                metrics: vec!["memory".to_owned()],
                from: now().plus_millis(-3_600_000),
                to: now().plus_millis(1000),
                step_millis: 1,
            };
            let samples = life.store.history(&query).await.unwrap();
            (
                life.store.known_server(&id).await.unwrap().cursor,
                life.store.events(&exits).await.unwrap().len(),
                samples.iter().map(|series| series.points.len()).sum::<usize>(),
            )
        };
        sleep(TIMING.interval * 5 / 2).await;
        let polls = |result| life.metrics.polls.with_label_values(&[result]).get();
        let refused = polls("limits");
        assert!(refused >= 2 && polls("success") == 0, "{refused} refused");
        let member = life.fleet.get(&id).unwrap();
        let reason = member.failure.as_ref().map(|failure| failure.reason.as_str());
        assert_eq!((reason, member.state.is_none()), (Some("limits"), true), "nor shown");
        assert_eq!(kept().await, (Cursor::default(), 0, 0), "nothing half-written");

        // Nothing of it stays behind: what is good is taken in whole.
        wires.with(&name, |place| place.exporter.excess = None);
        sleep(TIMING.interval + TIMING.timeout).await;
        assert_eq!(polls("limits"), refused);
        let cursor = Cursor { epoch: "life-0".into(), after: 6 };
        assert_eq!(kept().await, (cursor, 3, 3));
        life.stop().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_page_over_a_limit_is_refused_whole_wherever_it_is_and_counted(
        of in 0..Of::ALL.len(), above in prop_oneof![1..3usize, 1..1000usize], entry in 0..3usize,
    ) {
        run(Excess { of: Of::ALL[of], above, entry });
    }
}
