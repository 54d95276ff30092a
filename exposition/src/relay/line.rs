//! One line of a page: a sample with its name, labels and value, and the texts in it.

/// Longest label value and help text.
pub(super) const LONGEST: usize = 4 * 1024;
/// Most labels of a series.
const MOST_LABELS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Its labels but `le` and `quantile`: what it belongs together with.
    pub(super) fn group(&self) -> Vec<(&str, &str)> {
        let mut group: Vec<(&str, &str)> = self
            .labels
            .iter()
            .filter(|(name, _)| name != "le" && name != "quantile")
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        group.sort_unstable();
        group
    }
}

/// Whether it can be the name of a metric.
pub(super) fn is_name(text: &str) -> bool {
    is_label(&text.replacen(':', "_", text.len()))
}

fn is_label(text: &str) -> bool {
    text.len() <= 256
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `name{label="value",…} value [timestamp] [# exemplar]`
pub(super) fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return None;
    }
    let mut labels: Vec<(String, String)> = Vec::new();
    rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start();
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once('=')?;
            let label = label.trim();
            let after = after.trim_start().strip_prefix('"')?;
            let end = closing_quote(after)?;
            let value = unescape(&after[..end], true)?;
            let known = labels.iter().any(|(name, _)| name == label);
            if !is_label(label)
                || label == "__name__"
                || known
                || value.len() > LONGEST
                || labels.len() >= MOST_LABELS
            {
                return None;
            }
            labels.push((label.to_owned(), value));
            rest = after[end + 1..].trim_start();
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_start();
            } else if !rest.starts_with('}') {
                return None;
            }
        }
    }
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse::<f64>().ok()?;
    match words.next() {
        None | Some("#") => {}
        Some(time) => {
            time.parse::<f64>().ok()?;
            if words.next().is_some_and(|word| word != "#") {
                return None;
            }
        }
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// What a quoted value (`quotes`) or a help text means.
pub(super) fn unescape(text: &str, quotes: bool) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') => out.push('"'),
            // A help text may have a lone one.
            other if !quotes => {
                out.push('\\');
                out.extend(other);
            }
            _ => return None,
        }
    }
    Some(out)
}
