use std::fmt::Write as _;

use prometheus::proto::{MetricFamily, MetricType};

use crate::{Family, Format, Kind};

/// Labels, escaped once and used for many samples: `name="api",namespace="default"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    /// These, in this order.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut all = Self::default();
        for (name, value) in labels {
            all.push(name, value);
        }
        all
    }

    /// One more.
    pub fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        push_label(&mut self.0, name, value);
    }

    /// Whether there is one of this name. A quote within a value is escaped, so none looks like one.
    pub fn has(&self, name: &str) -> bool {
        let mut rest = self.0.as_str();
        let start = format!("{name}=\"");
        while let Some(at) = rest.find(&start) {
            if at == 0 || rest.as_bytes()[at - 1] == b',' {
                return true;
            }
            rest = &rest[at + start.len()..];
        }
        false
    }

    /// Both, these first.
    pub fn with<'a>(&self, more: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut all = self.clone();
        for (name, value) in more {
            all.push(name, value);
        }
        all
    }
}

impl Labels {
    /// All of both, these first.
    pub(crate) fn with_all(&self, more: &Self) -> Self {
        match (self.0.as_str(), more.0.as_str()) {
            ("", _) => more.clone(),
            (_, "") => self.clone(),
            (these, more) => Self(format!("{these},{more}")),
        }
    }
}

fn push_label(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    escape(out, value, true);
    out.push('"');
}

/// Both formats escape the same in label values; a help text has no quotes to escape.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(letter),
        }
    }
}

/// Writes a page family by family. A family without samples leaves no trace.
#[derive(Debug)]
pub struct Writer {
    out: String,
    format: Format,
}

impl Writer {
    /// An empty page.
    pub fn new(format: Format) -> Self {
        Self::with_capacity(format, 8 * 1024)
    }

    /// For a page of about so many bytes: one that is longer is moved as it grows.
    pub fn with_capacity(format: Format, bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), format }
    }

    /// All samples of one family: `write` is given a function that takes labels and a value.
    pub fn family(&mut self, family: &Family, write: impl FnOnce(&mut Samples<'_>)) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
            Kind::Info => "info",
        };
        self.named(family.name, kind, family.help, write);
    }

    /// All samples of a gauge that is not in the list of families: for [`crate::compat`].
    pub fn gauge(&mut self, name: &str, help: &str, write: impl FnOnce(&mut Samples<'_>)) {
        self.named(name, "gauge", help, write);
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn named(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        write: impl FnOnce(&mut Samples<'_>),
    ) {
        let start = self.out.len();
        let (title, kind) = match self.format {
            Format::Text => match kind {
                "info" => (name, "gauge"),
                "unknown" => (name, "untyped"),
                _ => (name, kind),
            },
            // Only samples with the suffix are a counter's there.
            Format::OpenMetrics if kind == "counter" && !name.ends_with("_total") => {
                (name, "unknown")
            }
            // The suffix belongs to the sample, not to the family (OpenMetrics, 5.1).
            Format::OpenMetrics => (
                match kind {
                    "counter" => name.strip_suffix("_total").unwrap_or(name),
                    "info" => name.strip_suffix("_info").unwrap_or(name),
                    _ => name,
                },
                kind,
            ),
        };
        let out = &mut self.out;
        let _ = writeln!(out, "# TYPE {title} {kind}");
        if self.format == Format::OpenMetrics {
            // Only these two units are in use, and a family has to be named after its unit.
            for unit in ["seconds", "bytes"] {
                if title.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) {
                    let _ = writeln!(out, "# UNIT {title} {unit}");
                }
            }
        }
        let _ = write!(out, "# HELP {title} ");
        escape(out, help, self.format == Format::OpenMetrics);
        out.push('\n');
        let head = out.len();
        let format = self.format;
        write(&mut Samples { out, name, suffix: "", format });
        if self.out.len() == head {
            self.out.truncate(start);
        }
    }

    /// What the `prometheus` crate gathered: a program's metrics of itself.
    pub fn gathered(&mut self, families: &[MetricFamily]) {
        for family in families {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::HISTOGRAM => "histogram",
                _ if family.name().ends_with("_info") => "info",
                _ => "gauge",
            };
            self.named(family.name(), kind, family.help(), |samples| {
                for metric in family.get_metric() {
                    let labels = metric.get_label();
                    let labels = Labels::new(labels.iter().map(|pair| (pair.name(), pair.value())));
                    match family.get_field_type() {
                        MetricType::COUNTER => {
                            samples.add(&labels, metric.get_counter().get_value())
                        }
                        MetricType::HISTOGRAM => samples.histogram(&labels, metric.get_histogram()),
                        _ => samples.add(&labels, metric.get_gauge().get_value()),
                    }
                }
            });
        }
    }

    /// The page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// Takes the samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    out: &'a mut String,
    name: &'a str,
    suffix: &'static str,
    format: Format,
}

impl Samples<'_> {
    /// One sample.
    pub fn add(&mut self, labels: &Labels, value: f64) {
        self.add_with(labels, &[], value);
    }

    /// One sample with further labels.
    pub fn add_with(&mut self, labels: &Labels, more: &[(&str, &str)], value: f64) {
        let name = (self.name, self.suffix);
        self.write(name, labels, more, value);
    }

    /// One sample of a name that is not the family's.
    pub(crate) fn add_as(
        &mut self,
        name: &str,
        labels: &Labels,
        more: &[(&str, &str)],
        value: f64,
    ) {
        self.write((name, ""), labels, more, value);
    }

    fn write(
        &mut self,
        (name, suffix): (&str, &str),
        labels: &Labels,
        more: &[(&str, &str)],
        value: f64,
    ) {
        let out = &mut *self.out;
        out.push_str(name);
        out.push_str(suffix);
        if !labels.0.is_empty() || !more.is_empty() {
            out.push('{');
            out.push_str(&labels.0);
            for (index, (name, value)) in more.iter().enumerate() {
                if index > 0 || !labels.0.is_empty() {
                    out.push(',');
                }
                push_label(out, name, value);
            }
            out.push('}');
        }
        out.push(' ');
        push_number(out, value);
        out.push('\n');
    }

    fn histogram(&mut self, labels: &Labels, histogram: &prometheus::proto::Histogram) {
        self.suffix = "_bucket";
        for bucket in histogram.get_bucket() {
            let mut text = String::new();
            push_number(&mut text, bucket.upper_bound());
            if bucket.upper_bound().is_finite() {
                let le = bound(&text, self.format);
                self.add_with(labels, &[("le", &le)], bucket.cumulative_count() as f64);
            }
        }
        let count = histogram.get_sample_count() as f64;
        self.add_with(labels, &[("le", "+Inf")], count);
        self.suffix = "_sum";
        self.add(labels, histogram.get_sample_sum());
        self.suffix = "_count";
        self.add(labels, count);
        self.suffix = "";
    }
}

/// The bound of a bucket or a quantile as the format has it: OpenMetrics writes whole numbers with
/// a decimal (1.0, "Canonical numbers").
pub(crate) fn bound(text: &str, format: Format) -> String {
    match text.parse::<f64>() {
        Ok(number) if format == Format::OpenMetrics => {
            let mut out = String::new();
            push_number(&mut out, number);
            if number.is_finite() && !out.contains('.') {
                out.push_str(".0");
            }
            out
        }
        _ => text.to_owned(),
    }
}

fn push_number(out: &mut String, value: f64) {
    let _ = match value {
        _ if value.is_nan() => out.write_str("NaN"),
        f64::INFINITY => out.write_str("+Inf"),
        f64::NEG_INFINITY => out.write_str("-Inf"),
        _ => write!(out, "{value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families;
    use proptest::prelude::*;

    fn page(format: Format) -> String {
        let mut writer = Writer::new(format);
        let labels = Labels::new([("name", "a\"b\\c\nd"), ("instance_id", "0")]);
        writer.family(&families::PROCESS_CPU, |samples| samples.add(&labels, 1.5));
        writer.family(&families::PROCESS_MEMORY, |_| {});
        writer.family(&families::INFO, |samples| {
            samples.add_with(&Labels::default(), &[("version", "7.0.4")], 1.0);
        });
        writer.finish()
    }

    #[test]
    fn text_is_as_prometheus_documents_it() {
        let expected = "\
# TYPE pm2_process_cpu_seconds_total counter
# HELP pm2_process_cpu_seconds_total CPU time used by the process and its children, user and system.
pm2_process_cpu_seconds_total{name=\"a\\\"b\\\\c\\nd\",instance_id=\"0\"} 1.5
# TYPE pm2_info gauge
# HELP pm2_info The PM2 daemon.
pm2_info{version=\"7.0.4\"} 1
";
        assert_eq!(page(Format::Text), expected);
    }

    #[test]
    fn openmetrics_names_the_family_without_suffix_and_ends_with_eof() {
        let page = page(Format::OpenMetrics);
        for line in [
            "# TYPE pm2_process_cpu_seconds counter\n",
            "# UNIT pm2_process_cpu_seconds seconds\n",
            "pm2_process_cpu_seconds_total{",
            "# TYPE pm2 info\n",
            "pm2_info{version=\"7.0.4\"} 1\n# EOF\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        assert!(!page.contains("resident"), "{page}");
    }

    #[test]
    fn a_programs_own_metrics_are_written_too() {
        let registry = prometheus::Registry::new();
        let options = prometheus::HistogramOpts::new("x_seconds", "X.").buckets(vec![0.5, 1.0]);
        let histogram = prometheus::Histogram::with_opts(options).unwrap();
        registry.register(Box::new(histogram.clone())).unwrap();
        histogram.observe(0.7);
        let mut writer = Writer::new(Format::Text);
        writer.gathered(&registry.gather());
        let page = writer.finish();
        let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "x_seconds_bucket{le=\"0.5\"} 0",
                "x_seconds_bucket{le=\"1\"} 1",
                "x_seconds_bucket{le=\"+Inf\"} 1",
                "x_seconds_sum 0.7",
                "x_seconds_count 1"
            ]
        );
    }

    proptest! {
        #[test]
        fn a_label_value_never_leaves_its_quotes(value: String) {
            let mut writer = Writer::new(Format::Text);
            let labels = Labels::new([("name", value.as_str())]);
            writer.family(&families::PROCESS_UP, |samples| samples.add(&labels, 1.0));
            let page = writer.finish();
            prop_assert_eq!(page.matches('\n').count(), 3);
            let inner = page.lines().last().unwrap();
            let inner = inner.strip_prefix("pm2_process_up{name=\"").unwrap();
            let inner = inner.strip_suffix("\"} 1").unwrap();
            let back = inner.replace("\\\\", "\u{0}").replace("\\n", "\n").replace("\\\"", "\"");
            prop_assert_eq!(back.replace('\u{0}', "\\"), value.replace('\u{0}', "\\"));
        }
    }
}
