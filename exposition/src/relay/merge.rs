//! Several pages onto one.

use std::collections::{HashMap, HashSet};

use super::line::Sample;
use super::parse::{Told, ToldKind};
use crate::writer::{Labels, Writer, bound};

/// A page and the labels that its series get.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Which application it is of, and the labels of every series.
    pub labels: &'a Labels,
    /// What it told.
    pub families: &'a [Told],
}

/// Why a family of a page could not stand as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    /// Left out: names that begin with `pm2_` are the exporter's own.
    OwnName,
    /// Left out: another application has a family of this name and another type.
    Type,
    /// Left out: a name that it uses belongs to another family.
    Name,
    /// Relayed with the help text of the application that is named first.
    Help,
    /// Series left out: they are there already.
    Duplicate,
}

impl Clash {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::OwnName, Self::Type, Self::Name, Self::Help, Self::Duplicate];

    /// The word used in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnName => "own_name",
            Self::Type => "type",
            Self::Name => "name",
            Self::Help => "help",
            Self::Duplicate => "duplicate",
        }
    }
}

/// What became of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Series that were written.
    pub series: usize,
    /// Families that clashed, each with its name.
    pub clashes: Vec<(Clash, String)>,
}

struct Merged<'a> {
    name: &'a str,
    kind: ToldKind,
    help: &'a str,
    parts: Vec<(usize, &'a Told)>,
}

/// Writes all pages, each family once. The first page that names a family says what it is.
pub fn write(writer: &mut Writer, pages: &[Page<'_>]) -> Vec<Relayed> {
    let mut results = vec![Relayed::default(); pages.len()];
    let mut families: Vec<Merged<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    for (at, page) in pages.iter().enumerate() {
        for told in page.families {
            let mut clash = |clash| results[at].clashes.push((clash, told.name.clone()));
            if told.name.starts_with("pm2_") || told.name == "pm2" {
                clash(Clash::OwnName);
                continue;
            }
            if let Some(&place) = places.get(told.name.as_str()) {
                let family = &mut families[place];
                if family.kind != told.kind {
                    clash(Clash::Type);
                    continue;
                }
                if family.help != told.help {
                    clash(Clash::Help);
                }
                family.parts.push((at, told));
                continue;
            }
            let names = names_of(told);
            if names.iter().any(|name| taken.contains(name)) {
                clash(Clash::Name);
                continue;
            }
            taken.extend(names);
            places.insert(&told.name, families.len());
            let (name, kind, help) = (&*told.name, told.kind, &*told.help);
            families.push(Merged { name, kind, help, parts: vec![(at, told)] });
        }
    }
    for family in families {
        one(writer, pages, &family, &mut results);
    }
    results
}

/// Every name that a strict reader counts as the family's own (OpenMetrics 1.0).
fn names_of(told: &Told) -> Vec<String> {
    let name = told.name.as_str();
    let (title, suffixes): (&str, &[&str]) = match told.kind {
        ToldKind::Counter => match name.strip_suffix("_total") {
            Some(title) => (title, &["", "_total", "_created"]),
            None => (name, &[""]),
        },
        ToldKind::Info => (name.strip_suffix("_info").unwrap_or(name), &["", "_info"]),
        ToldKind::Histogram => (name, &["", "_bucket", "_count", "_sum", "_created"]),
        ToldKind::Summary => (name, &["", "_count", "_sum", "_created"]),
        ToldKind::Gauge | ToldKind::Unknown => (name, &[""]),
    };
    suffixes.iter().map(|suffix| format!("{title}{suffix}")).collect()
}

fn one(writer: &mut Writer, pages: &[Page<'_>], family: &Merged<'_>, results: &mut [Relayed]) {
    let format = writer.format();
    let kind = match family.kind {
        ToldKind::Counter => "counter",
        ToldKind::Gauge => "gauge",
        ToldKind::Histogram => "histogram",
        ToldKind::Summary => "summary",
        ToldKind::Info => "info",
        ToldKind::Unknown => "unknown",
    };
    let bounds: &[&str] = match family.kind {
        ToldKind::Histogram => &["le"],
        ToldKind::Summary => &["quantile"],
        _ => &[],
    };
    let mut seen: HashSet<String> = HashSet::new();
    writer.named(family.name, kind, family.help, |samples| {
        for (at, told) in &family.parts {
            let own = pages[*at].labels;
            let mut twice = false;
            for sample in &told.samples {
                let mut labels = beside(own, sample);
                for (_, value) in
                    labels.iter_mut().filter(|(name, _)| bounds.contains(&name.as_str()))
                {
                    *value = bound(value, format);
                }
                let mut key: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}\u{0}{value}")).collect();
                key.sort_unstable();
                let key = format!("{}\u{0}{own:?}\u{0}{}", sample.name, key.join("\u{0}"));
                if !seen.insert(key) {
                    twice = true;
                    continue;
                }
                let more: Vec<(&str, &str)> =
                    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                samples.add_as(&sample.name, own, &more, sample.value);
                results[*at].series += 1;
            }
            if twice {
                results[*at].clashes.push((Clash::Duplicate, told.name.clone()));
            }
        }
    });
}

/// The sample's own labels; where one is named as ours are, it is told as Prometheus does.
fn beside(own: &Labels, sample: &Sample) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::with_capacity(sample.labels.len());
    for (name, value) in &sample.labels {
        let mut name = name.clone();
        while own.has(&name) || (all.iter().any(|(other, _)| *other == name)) {
            name.insert_str(0, "exported_");
        }
        all.push((name, value.clone()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::Format;

    fn relay(format: Format, pages: &[(&str, &str)]) -> (String, Vec<Relayed>) {
        let read: Vec<(Labels, Vec<Told>)> = pages
            .iter()
            .map(|(app, page)| (Labels::new([("name", *app)]), parse(page, 1_000).unwrap()))
            .collect();
        let pages: Vec<Page<'_>> =
            read.iter().map(|(labels, families)| Page { labels, families }).collect();
        let mut writer = Writer::new(format);
        let relayed = write(&mut writer, &pages);
        (writer.finish(), relayed)
    }

    const JOBS: &str =
        "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{name=\"x\"} 3\n";

    #[test]
    fn one_family_for_all_with_the_labels_of_each() {
        let (page, relayed) = relay(Format::Text, &[("api", JOBS), ("web", JOBS)]);
        let expected = "# TYPE jobs_total counter\n# HELP jobs_total Jobs.\n\
            jobs_total{name=\"api\",exported_name=\"x\"} 3\n\
            jobs_total{name=\"web\",exported_name=\"x\"} 3\n";
        assert_eq!(page, expected);
        assert!(relayed.iter().all(|one| one.series == 1 && one.clashes.is_empty()));
        let (page, _) = relay(Format::OpenMetrics, &[("api", JOBS)]);
        assert!(page.starts_with("# TYPE jobs counter\n# HELP jobs Jobs.\njobs_total{"), "{page}");
    }

    #[test]
    fn what_cannot_stand_beside_the_rest_is_left_out_and_told() {
        let other = "# HELP jobs_total Work.\n# TYPE jobs_total gauge\njobs_total 1\n\
            # TYPE pm2_up gauge\npm2_up 1\njobs 5\nok 1\nok 2\n";
        let (page, relayed) = relay(Format::Text, &[("api", JOBS), ("web", other)]);
        let told: Vec<(Clash, &str)> =
            relayed[1].clashes.iter().map(|(clash, name)| (*clash, name.as_str())).collect();
        assert_eq!(
            told,
            [
                (Clash::Type, "jobs_total"),
                (Clash::OwnName, "pm2_up"),
                // In OpenMetrics it would be the name of the counter.
                (Clash::Name, "jobs"),
                (Clash::Duplicate, "ok"),
            ]
        );
        assert_eq!(relayed[1].series, 1, "{page}");
        assert!(page.ends_with("# TYPE ok untyped\n# HELP ok \nok{name=\"web\"} 1\n"), "{page}");
        let work = JOBS.replace("Jobs.", "Work.");
        let (page, relayed) = relay(Format::Text, &[("api", JOBS), ("web", &work)]);
        assert_eq!(relayed[1].clashes, [(Clash::Help, "jobs_total".to_owned())]);
        assert_eq!(page.matches("# HELP").count(), 1);
        let (_, relayed) = relay(Format::Text, &[("api", JOBS), ("api", JOBS)]);
        assert_eq!((relayed[1].series, relayed[1].clashes[0].0), (0, Clash::Duplicate));
    }

    #[test]
    fn bounds_and_counters_are_written_as_each_format_has_them() {
        let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\n\
            h_count 2\n# TYPE odd counter\nodd 1\n";
        let (text, _) = relay(Format::Text, &[("api", page)]);
        assert!(text.contains("le=\"1\"}") && text.contains("# TYPE odd counter"), "{text}");
        let (open, _) = relay(Format::OpenMetrics, &[("api", page)]);
        assert!(open.contains("le=\"1.0\"}") && open.contains("# TYPE odd unknown"), "{open}");
        assert!(open.contains("le=\"+Inf\"}"), "{open}");
    }

    #[test]
    fn what_is_no_bound_is_written_as_it_was_and_a_name_is_its_own_family() {
        let page = "# TYPE x gauge\nx{quantile=\"1\"} 1\nx{le=\"1\"} 2\nx{le=\"1.0\"} 3\n\
            # TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.50\"} 2\ns_sum 3\ns_count 2\n\
            # TYPE tickets counter\ntickets 5\n# TYPE tickets_created counter\ntickets_created 7\n\
            # TYPE seconds gauge\nseconds 1\n# TYPE bytes_total counter\nbytes_total 1\n";
        for format in [Format::Text, Format::OpenMetrics] {
            let (written, results) = relay(format, &[("api", page)]);
            for kept in ["quantile=\"1\"} 1", "le=\"1\"} 2", "le=\"1.0\"} 3"] {
                assert!(written.contains(kept), "{kept}: {written}");
            }
            assert!(written.contains("tickets_created{") && written.contains("} 7"), "{written}");
            let twice = results[0].clashes.iter().filter(|(clash, _)| *clash == Clash::Duplicate);
            let twice: Vec<&str> = twice.map(|(_, name)| name.as_str()).collect();
            let one: &[&str] = if format == Format::OpenMetrics { &["s"] } else { &[] };
            assert_eq!(twice, one, "two that are one: {written}");
            assert!(!written.contains("# UNIT"), "{written}");
        }
    }
}
