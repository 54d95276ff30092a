//! Prometheus text 0.0.4 and OpenMetrics, read into families. Timestamps, exemplars and times of
//! creation are left out: what is relayed is what is so now.

use std::collections::{HashMap, HashSet};

use super::line::{LONGEST, Sample, is_name, sample, unescape};

/// Why a page cannot be relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// This line, counted from 1, is none of the format.
    Line(usize),
    /// It has more series than allowed, or far more names without any.
    TooMany,
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToldKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Info,
    Unknown,
}

/// A family as an application told it, named as in text 0.0.4.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub(super) name: String,
    pub(super) kind: ToldKind,
    pub(super) help: String,
    pub(super) samples: Vec<Sample>,
}

/// Names that a page may tell of beyond one for each of its series: of those that have none yet.
const NAMES_WITHOUT_SERIES: usize = 1_000;

/// Reads a page of at most `most` series.
///
/// # Errors
/// See [`Unreadable`].
pub fn parse(page: &str, most: usize) -> Result<Vec<Told>, Unreadable> {
    let mut reader = Reader::default();
    let mut series = 0;
    for (at, line) in page.lines().enumerate() {
        let wrong = || Unreadable::Line(at + 1);
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            if comment.trim() == "EOF" {
                break;
            }
            reader.comment(comment.trim_start()).ok_or_else(wrong)?;
            let names = reader.typed.len().max(reader.helps.len());
            if names > most.saturating_add(NAMES_WITHOUT_SERIES) {
                return Err(Unreadable::TooMany);
            }
        } else if !line.is_empty() {
            series += 1;
            if series > most {
                return Err(Unreadable::TooMany);
            }
            reader.sample(sample(line).ok_or_else(wrong)?);
        }
    }
    Ok(reader.finish())
}

#[derive(Debug, Default)]
struct Reader {
    families: Vec<Told>,
    /// Which family a sample of this name belongs to; none for those left out.
    by_sample: HashMap<String, Option<usize>>,
    helps: HashMap<String, String>,
    typed: HashSet<String>,
}

impl Reader {
    fn comment(&mut self, comment: &str) -> Option<()> {
        let mut words = comment.splitn(3, [' ', '\t']);
        match words.next() {
            Some("HELP") => {
                let name = words.next().filter(|name| is_name(name))?;
                let help = unescape(words.next().unwrap_or_default().trim(), false)?;
                let help = help.chars().take(LONGEST).collect();
                self.helps.insert(name.to_owned(), help);
            }
            Some("TYPE") => {
                let name = words.next().filter(|name| is_name(name))?;
                self.family(name, words.next()?.trim())?;
            }
            _ => {}
        }
        Some(())
    }

    /// A family begins: samples of these names will be its own.
    fn family(&mut self, title: &str, kind: &str) -> Option<()> {
        let (kind, suffixes): (ToldKind, &[&str]) = match kind {
            "counter" => (ToldKind::Counter, &["", "_total"]),
            "gauge" | "stateset" => (ToldKind::Gauge, &[""]),
            "histogram" => (ToldKind::Histogram, &["_bucket", "_sum", "_count"]),
            "summary" => (ToldKind::Summary, &["", "_sum", "_count"]),
            "info" => (ToldKind::Info, &["_info"]),
            "untyped" | "unknown" => (ToldKind::Unknown, &[""]),
            // Its samples have names of their own.
            "gaugehistogram" => return Some(()),
            _ => return None,
        };
        if !self.typed.insert(title.to_owned()) {
            return None;
        }
        let at = self.families.len();
        for suffix in suffixes {
            let of = self.by_sample.entry(format!("{title}{suffix}")).or_insert(Some(at));
            // What was taken for when another family began is one of its own.
            if suffix.is_empty() && of.is_none() {
                *of = Some(at);
            }
        }
        if !matches!(kind, ToldKind::Gauge | ToldKind::Info | ToldKind::Unknown) {
            self.by_sample.entry(format!("{title}_created")).or_insert(None);
        }
        let name = match kind {
            ToldKind::Info => format!("{title}_info"),
            _ => title.to_owned(),
        };
        self.families.push(Told { name, kind, help: String::new(), samples: Vec::new() });
        Some(())
    }

    fn sample(&mut self, sample: Sample) {
        let at = match self.by_sample.get(&sample.name) {
            Some(Some(at)) => *at,
            Some(None) => return,
            None => {
                let at = self.families.len();
                self.by_sample.insert(sample.name.clone(), Some(at));
                self.families.push(Told {
                    name: sample.name.clone(),
                    kind: ToldKind::Unknown,
                    help: String::new(),
                    samples: Vec::new(),
                });
                at
            }
        };
        let Some(family) = self.families.get_mut(at) else { return };
        if family.kind == ToldKind::Counter {
            // OpenMetrics names the family without the suffix of its samples.
            family.name.clone_from(&sample.name);
        }
        family.samples.push(sample);
    }

    fn finish(self) -> Vec<Told> {
        let Self { families, mut helps, .. } = self;
        let mut all = Vec::with_capacity(families.len());
        for mut family in families {
            if family.samples.is_empty() {
                continue;
            }
            let title = family.name.strip_suffix("_total").or(family.name.strip_suffix("_info"));
            let help = helps.remove(&family.name).or_else(|| helps.remove(title?));
            family.help = help.unwrap_or_default();
            family.samples = grouped(family.samples);
            if is_sound(&family) {
                all.push(family);
            } else {
                all.extend(apart(family));
            }
        }
        all
    }
}

/// Samples that belong together beside each other, buckets by their bounds.
fn grouped(samples: Vec<Sample>) -> Vec<Sample> {
    let mut order: HashMap<Vec<(String, String)>, usize> = HashMap::new();
    let mut keyed: Vec<(usize, Option<f64>, Sample)> = Vec::with_capacity(samples.len());
    for sample in samples {
        let group = sample.group();
        let group: Vec<(String, String)> =
            group.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let next = order.len();
        let place = *order.entry(group).or_insert(next);
        let bound = sample.label("le").and_then(|le| le.parse().ok());
        keyed.push((place, bound, sample));
    }
    // Those without a bound stand behind all that have one. Stable: what is not told apart stays
    // as it came.
    keyed.sort_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| match (a.1, b.1) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        })
    });
    keyed.into_iter().map(|(_, _, sample)| sample).collect()
}

/// Whether it is what its type says, so that a strict reader takes it.
fn is_sound(family: &Told) -> bool {
    let counts = |sample: &Sample| sample.value >= 0.0;
    match family.kind {
        ToldKind::Gauge | ToldKind::Unknown => true,
        ToldKind::Counter => {
            family.samples.iter().all(|sample| counts(sample) && sample.name == family.name)
        }
        ToldKind::Info => family.samples.iter().all(|sample| sample.value == 1.0),
        ToldKind::Summary => family.samples.iter().all(|sample| match sample.name == family.name {
            true => {
                let quantile = sample.label("quantile").and_then(|text| text.parse::<f64>().ok());
                quantile.is_some_and(|quantile| (0.0..=1.0).contains(&quantile))
            }
            false => counts(sample),
        }),
        ToldKind::Histogram => family
            .samples
            .chunk_by(|a, b| a.group() == b.group())
            .all(|group| is_sound_histogram(&family.name, group)),
    }
}

fn is_sound_histogram(name: &str, group: &[Sample]) -> bool {
    let (mut bound, mut below) = (f64::NEG_INFINITY, 0.0);
    let (mut count, mut sum) = (None, false);
    for (at, sample) in group.iter().enumerate() {
        match sample.name.strip_prefix(name) {
            Some("_bucket") => {
                let Some(le) = sample.label("le").and_then(|le| le.parse::<f64>().ok()) else {
                    return false;
                };
                if (at > 0 && le <= bound) || le.is_nan() || sample.value.is_nan() {
                    return false;
                }
                if sample.value < below {
                    return false;
                }
                (bound, below) = (le, sample.value);
            }
            Some("_count") if count.is_none() => count = Some(sample.value),
            Some("_sum") if !sum && sample.value >= 0.0 => sum = true,
            _ => return false,
        }
    }
    bound == f64::INFINITY && sum && count == Some(below)
}

/// Each name by itself, without a type.
fn apart(family: Told) -> Vec<Told> {
    let mut all: Vec<Told> = Vec::new();
    for sample in family.samples {
        match all.iter_mut().find(|told| told.name == sample.name) {
            Some(told) => told.samples.push(sample),
            None => all.push(Told {
                name: sample.name.clone(),
                kind: ToldKind::Unknown,
                help: family.help.clone(),
                samples: vec![sample],
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(page: &str) -> Told {
        let mut all = parse(page, 100).unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn both_formats_give_the_same() {
        let text = "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{q=\"a\"} 3\n";
        let open = "# HELP jobs Jobs.\n# TYPE jobs counter\njobs_total{q=\"a\"} 3 1700000000.5 \
                    # {trace=\"x\"} 1\njobs_created{q=\"a\"} 1700000000\n# EOF\n";
        assert_eq!(one(text), one(open));
        assert_eq!(one(text).help, "Jobs.");
        let info = one("# TYPE build info\nbuild_info{v=\"1\"} 1\n");
        assert_eq!((info.name.as_str(), info.kind), ("build_info", ToldKind::Info));
    }

    #[test]
    fn labels_are_read_as_they_were_meant() {
        let told = one("x{ a = \"b\\\"c\\\\\\n\" , e=\"\", } +Inf 1700000000000\n");
        let labels = [("a".to_owned(), "b\"c\\\n".to_owned()), ("e".to_owned(), String::new())];
        assert_eq!(told.samples[0].labels, labels);
        assert_eq!(told.samples[0].value, f64::INFINITY);
    }

    #[test]
    fn a_histogram_is_one_only_if_it_is_whole() {
        let page = |lines: &[&str]| format!("# TYPE h histogram\n{}\n", lines.join("\n"));
        let whole = ["h_bucket{le=\"1\"} 1", "h_bucket{le=\"+Inf\"} 2", "h_sum 3", "h_count 2"];
        assert_eq!(one(&page(&whole)).kind, ToldKind::Histogram);
        let mixed = [whole[3], whole[1], whole[2], whole[0]];
        assert_eq!(
            one(&page(&mixed)),
            Told { ..one(&page(&[whole[0], whole[1], whole[3], whole[2]])) }
        );
        for wrong in [
            &["h_bucket{le=\"1\"} 1", "h_sum 3", "h_count 1"][..],
            &["h_bucket{le=\"+Inf\"} 2", "h_sum 3", "h_count 3"],
            &["h_bucket{le=\"1\"} 3", "h_bucket{le=\"+Inf\"} 2", "h_sum 3", "h_count 2"],
            &["h_bucket 3", "h_sum 3", "h_count 2"],
        ] {
            let all = parse(&page(wrong), 100).unwrap();
            assert!(all.iter().all(|told| told.kind == ToldKind::Unknown), "{all:?}");
        }
    }

    #[test]
    fn what_is_no_page_is_told_by_its_line() {
        for (page, expected) in [
            ("a 1\n<html>\n", Unreadable::Line(2)),
            ("a{b=\"c} 1\n", Unreadable::Line(1)),
            ("a{b=\"c\" d=\"e\"} 1\n", Unreadable::Line(1)),
            ("a{b=\"c\",b=\"d\"} 1\n", Unreadable::Line(1)),
            ("a{__name__=\"c\"} 1\n", Unreadable::Line(1)),
            ("# TYPE a gauge\n# TYPE a gauge\n", Unreadable::Line(2)),
            ("# TYPE a thing\n", Unreadable::Line(1)),
            ("a one\n", Unreadable::Line(1)),
            ("a 1 2 3\n", Unreadable::Line(1)),
            ("a 1\nb 2\nc 3\n", Unreadable::TooMany),
        ] {
            assert_eq!(parse(page, 2), Err(expected), "{page}");
        }
        assert_eq!(parse("\n# a comment\n", 2), Ok(Vec::new()));
    }

    #[test]
    fn names_without_series_are_bounded_and_cost_little() {
        for word in ["TYPE", "HELP"] {
            let page = |count: usize| -> String {
                (0..count).map(|at| format!("# {word} some_name_{at} gauge\n")).collect()
            };
            assert_eq!(parse(&page(1_100), 100), Ok(Vec::new()));
            assert_eq!(parse(&page(1_101), 100), Err(Unreadable::TooMany));
            let begun = std::time::Instant::now();
            assert_eq!(parse(&page(100_000), 100_000), Ok(Vec::new()));
            // One look at all before for each took minutes.
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{word}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall_over(page in "(# (TYPE|HELP) )?[a-c:_]{0,3}[{}a\"\\\\=, \n0-9#]{0,40}") {
            let _ = parse(&page, 100);
        }

        #[test]
        fn any_text_is_read_or_refused(page in any::<String>()) {
            let _ = parse(&page, 100);
        }
    }
}
