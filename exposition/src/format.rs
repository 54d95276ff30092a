/// The form of a metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header prefers (RFC 9110, 12.5.1); text when it says nothing of either.
    pub fn from_accept(accept: Option<&str>) -> Self {
        let (mut text, mut open) = (None, None);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, "");
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    _ => {}
                }
            }
            let best = match kind {
                // 0.0.1 is a draft whose pages this program does not write.
                "application/openmetrics-text" if matches!(version, "" | "1.0.0") => &mut open,
                "text/plain" if matches!(version, "" | "0.0.4") => &mut text,
                _ => continue,
            };
            *best = Some(best.unwrap_or(0.0f64).max(quality));
        }
        match (open, text) {
            (Some(open), text) if open > 0.0 && open >= text.unwrap_or(0.0) => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_what_it_asks_for() {
        // The headers that Prometheus sends: 2.42 with and without OpenMetrics, and 3.0.
        let open = "application/openmetrics-text;version=1.0.0,\
                    application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let plain = "text/plain;version=0.0.4;q=0.3, */*;q=0.1";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                     application/openmetrics-text;version=0.0.1;q=0.4,\
                     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                     text/plain;version=0.0.4;q=0.2,/;q=0.1";
        assert_eq!(Format::from_accept(Some(open)), Format::OpenMetrics);
        assert_eq!(Format::from_accept(Some(plain)), Format::Text);
        assert_eq!(Format::from_accept(Some(three)), Format::OpenMetrics);
    }

    #[test]
    fn everybody_else_gets_text() {
        for accept in [None, Some(""), Some("*/*"), Some("text/html"), Some("application/json;q=x")]
        {
            assert_eq!(Format::from_accept(accept), Format::Text);
        }
        let refused = "application/openmetrics-text;q=0, text/plain";
        assert_eq!(Format::from_accept(Some(refused)), Format::Text);
        let draft = "application/openmetrics-text;version=0.0.1";
        assert_eq!(Format::from_accept(Some(draft)), Format::Text);
    }
}
