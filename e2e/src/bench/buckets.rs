//! A Prometheus histogram that a program shows of itself, and what it says of a stretch of time.

use crate::metrics::Metrics;

/// How often a value was at most so much, rising.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    /// The histogram of this name.
    pub fn of(page: &Metrics, name: &str) -> Self {
        let name = format!("{name}_bucket");
        let mut all: Vec<(f64, f64)> = page
            .all(&name, &[])
            .iter()
            .filter_map(|bucket| Some((most(bucket.labels.get("le")?)?, bucket.value)))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(all)
    }

    /// What came since an earlier look at it.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |at: usize| before.0.get(at).map_or(0.0, |(_, count)| *count);
        let all = self.0.iter().enumerate();
        Self(all.map(|(at, (most, count))| (*most, count - earlier(at))).collect())
    }

    /// How many values.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value that this share of all is at most, as Prometheus reckons it: values are taken
    /// to lie evenly in their bucket. Not a number when there are none.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = self.count() * share;
        let (mut least, mut below) = (0.0, 0.0);
        for (most, count) in &self.0 {
            if *count >= rank && *count > below {
                let part = (rank - below) / (count - below);
                return if most.is_finite() { least + (most - least) * part } else { least };
            }
            (least, below) = (*most, *count);
        }
        f64::NAN
    }
}

fn most(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_time_has_its_own_percentiles() {
        let page = |counts: [u32; 3]| {
            let [a, b, c] = counts;
            let text = format!(
                "x_bucket{{le=\"0.1\"}} {a}\nx_bucket{{le=\"1\"}} {b}\nx_bucket{{le=\"+Inf\"}} {c}\n"
            );
            Buckets::of(&Metrics::parse(&text).unwrap(), "x")
        };
        let both = page([110, 200, 200]).since(&page([10, 100, 100]));
        assert_eq!((both.count(), both.percentile(0.5)), (100.0, 0.05));
        let late = page([10, 100, 101]).since(&page([10, 10, 10]));
        assert!((late.percentile(0.5) - 0.555).abs() < 0.01, "{}", late.percentile(0.5));
        assert_eq!(late.percentile(1.0), 1.0, "beyond the last bucket nothing is known");
        assert!(page([0; 3]).percentile(0.99).is_nan());
    }
}
