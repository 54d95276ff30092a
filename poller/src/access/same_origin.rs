//! Whether a request that changes something comes from this program's own pages. A browser
//! says where it comes from; programs like curl say nothing, and no browser acts for them.

use axum::http::{HeaderMap, HeaderName, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the request says of where it comes from: `None` when it says nothing.
fn said(headers: &HeaderMap) -> Option<bool> {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        // 'none': the user typed it. Anything unknown counts as elsewhere.
        return Some(matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    let origin = headers.get(header::ORIGIN)?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    Some(matches!((from, host), (Some((_, from)), Some(host)) if from == host))
}

/// Whether the request says that another site made it.
pub fn from_elsewhere(headers: &HeaderMap) -> bool {
    said(headers) == Some(false)
}

/// Whether the request says that this program's own page made it: needed where a cookie is
/// the credential.
pub fn same_origin(headers: &HeaderMap) -> bool {
    said(headers) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_what() {
        type Case = (&'static [(&'static str, &'static str)], Option<bool>);
        let cases: [Case; 9] = [
            (&[], None),
            (&[("host", "a:1")], None),
            (&[("sec-fetch-site", "same-origin")], Some(true)),
            (&[("sec-fetch-site", "none")], Some(true)),
            (&[("sec-fetch-site", "same-site")], Some(false)),
            (
                &[("sec-fetch-site", "cross-site"), ("origin", "http://a:1"), ("host", "a:1")],
                Some(false),
            ),
            (&[("origin", "http://a:1"), ("host", "a:1")], Some(true)),
            (&[("origin", "http://b"), ("host", "a:1")], Some(false)),
            (&[("origin", "null"), ("host", "a:1")], Some(false)),
        ];
        for (pairs, expected) in cases {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(said(&headers), expected, "{pairs:?}");
        }
    }
}
