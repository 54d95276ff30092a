//! A page of Prometheus text, taken apart for a test to look at.

use std::collections::BTreeMap;

use anyhow::Context;

/// All series of a page.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Metric>);

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Metrics {
    /// Reads a page.
    ///
    /// # Errors
    /// A line is no series, or a series is there twice.
    pub fn parse(page: &str) -> anyhow::Result<Self> {
        let mut all: Vec<Metric> = Vec::new();
        for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let metric = parse(line).with_context(|| format!("no series: {line:?}"))?;
            let twice =
                all.iter().any(|other| other.name == metric.name && other.labels == metric.labels);
            anyhow::ensure!(!twice, "there twice: {line:?}");
            all.push(metric);
        }
        Ok(Self(all))
    }

    /// The series of a name that have these labels, and maybe others.
    pub fn all<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> Vec<&'a Metric> {
        self.0
            .iter()
            .filter(|metric| metric.name == name)
            .filter(|metric| {
                let has = |(key, value): &(&str, &str)| {
                    metric.labels.get(*key).is_some_and(|its| its == value)
                };
                labels.iter().all(has)
            })
            .collect()
    }

    /// The value of the one series of a name that has these labels.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        match self.all(name, labels).as_slice() {
            [one] => Ok(one.value),
            other => anyhow::bail!("{} series {name} {labels:?}: {other:?}", other.len()),
        }
    }

    /// Whether there is any series of a name that has these labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        !self.all(name, labels).is_empty()
    }

    /// How many series have this label with this value, whatever their name.
    pub fn count(&self, label: &str, value: &str) -> usize {
        self.0
            .iter()
            .filter(|metric| metric.labels.get(label).is_some_and(|its| its == value))
            .count()
    }

    /// Every series.
    pub fn iter(&self) -> impl Iterator<Item = &Metric> {
        self.0.iter()
    }
}

fn parse(line: &str) -> Option<Metric> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Metric { name: name.to_owned(), labels, value })
}

/// What stands before the closing quote, unescaped, and what stands after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_as_they_were_meant() {
        let page = "# TYPE a gauge\na{b=\"c\\\"d\\\\,}\\n\",e=\"\"} 1.5\na 2\nb{x=\"y\",} +Inf\n";
        let metrics = Metrics::parse(page).unwrap();
        assert_eq!(metrics.value("a", &[("b", "c\"d\\,}\n"), ("e", "")]).unwrap(), 1.5);
        assert!(metrics.value("a", &[]).is_err(), "two series");
        assert_eq!(metrics.value("b", &[]).unwrap(), f64::INFINITY);
        assert!(Metrics::parse("a 1\na 1\n").is_err());
        assert!(Metrics::parse("a{b=\"} 1\n").is_err());
    }
}
