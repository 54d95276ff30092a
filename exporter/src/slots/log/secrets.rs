//! Takes secrets out of what is printed: as they are, line by line, and as JSON, addresses and base64
//! have them.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What stands in their place.
const SHOWN: &[u8] = b"[secret]";
/// Shorter lines of a secret are mostly none, and would tear ordinary words out of the log.
const SHORTEST: usize = 8;
/// The same of the texts within one that is JSON, many of which are ordinary words.
const SHORTEST_IN_JSON: usize = 20;
/// Most texts that are looked for beside the secrets themselves, and the most bytes of them.
const MOST: (usize, usize) = (8_192, 8 << 20);
/// Bytes by which a text is found.
const BEGIN: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Secrets {
    by_begin: HashMap<[u8; BEGIN], Vec<Box<[u8]>>>,
    /// Those shorter than that.
    short: Vec<Box<[u8]>>,
}

impl Secrets {
    pub(super) fn new(secrets: Vec<String>) -> Self {
        let mut texts: HashSet<String> = HashSet::new();
        let (mut number, mut bytes) = (0, 0);
        for form in
            secrets.iter().filter(|secret| secret.len() >= SHORTEST).flat_map(|it| forms(it))
        {
            if number >= MOST.0 || bytes + form.len() > MOST.1 {
                break;
            }
            (number, bytes) = (number + 1, bytes + form.len());
            texts.insert(form);
        }
        texts.extend(secrets);
        let mut this = Self { by_begin: HashMap::new(), short: Vec::new() };
        for text in texts {
            let text = text.into_bytes().into_boxed_slice();
            match text.first_chunk() {
                Some(begin) => this.by_begin.entry(*begin).or_default().push(text),
                None if text.is_empty() => {}
                None => this.short.push(text),
            }
        }
        this
    }

    /// A line without them. Where several overlap nothing of any is left.
    pub(super) fn taken_out(&self, line: &[u8]) -> Vec<u8> {
        if self.by_begin.is_empty() && self.short.is_empty() {
            return line.to_vec();
        }
        let mut shown = Vec::with_capacity(line.len());
        let mut until = 0;
        for (at, byte) in line.iter().enumerate() {
            if let Some(length) = self.longest_at(&line[at..]) {
                if at >= until {
                    shown.extend_from_slice(SHOWN);
                }
                until = until.max(at + length);
            }
            if at >= until {
                shown.push(*byte);
            }
        }
        shown
    }

    fn longest_at(&self, rest: &[u8]) -> Option<usize> {
        let known = rest.first_chunk().and_then(|begin| self.by_begin.get(begin));
        let all = known.into_iter().flatten().chain(&self.short);
        all.filter(|text| rest.starts_with(text)).map(|text| text.len()).max()
    }
}

/// How else a secret may be printed.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = lines(secret);
    let json = |text: &str| {
        let text = serde_json::to_string(text).unwrap_or_default();
        // Without the quotation marks around it.
        text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned()
    };
    // The form with a break at its end, as files have one, and the one without.
    for text in [secret, secret.trim_end()] {
        forms.push(json(text));
        forms.push(percent(text, b"-_.~"));
        forms.push(percent(text, b"-_.~!*'()"));
        forms.push(STANDARD_NO_PAD.encode(text));
        forms.push(URL_SAFE_NO_PAD.encode(text));
    }
    if secret.trim_start().starts_with(['{', '[']) {
        let mut open: Vec<Value> = serde_json::from_str(secret).into_iter().collect();
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) if text.len() >= SHORTEST_IN_JSON => {
                    forms.extend(lines(&text));
                    forms.push(json(&text));
                }
                Value::Array(all) => open.extend(all),
                Value::Object(all) => open.extend(all.into_iter().map(|(_, value)| value)),
                _ => {}
            }
        }
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| line.len() >= SHORTEST).map(str::to_owned).collect()
}

/// As in an address: all but letters, digits and `kept` is in hexadecimal.
fn percent(text: &str, kept: &[u8]) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            all.push(byte.into());
        } else {
            all.push_str(&format!("%{byte:02X}"));
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(secrets: &[&str], line: &str) -> String {
        let secrets = Secrets::new(secrets.iter().map(|it| (*it).to_owned()).collect());
        String::from_utf8(secrets.taken_out(line.as_bytes())).unwrap()
    }

    #[test]
    fn a_key_of_several_lines_is_taken_out_in_every_form() {
        let key = "-----BEGIN KEY-----\nMIIEcanary+one/1\nMIIEcanary two?2\n-----END KEY-----\n";
        for line in key.lines() {
            assert_eq!(shown(&[key], &format!("key: {line};")), "key: [secret];");
        }
        let url = "https://x/?key=-----BEGIN%20KEY-----%0AMIIEcanary%2Bone%2F1%0AMIIEcanary%20two\
                   %3F2%0A-----END%20KEY-----%0A&b=c";
        assert_eq!(shown(&[key], url), "https://x/?key=[secret]&b=c");
        let json = serde_json::json!({"key": key, "b": "c"}).to_string();
        assert_eq!(shown(&[key], &json), r#"{"b":"c","key":"[secret]"}"#);
        let base64 = base64::engine::general_purpose::STANDARD.encode(key);
        assert_eq!(shown(&[key], &base64).trim_end_matches('='), "[secret]");
        assert_eq!(shown(&[key], &URL_SAFE_NO_PAD.encode(key.trim_end())), "[secret]");
    }

    #[test]
    fn the_texts_of_one_that_is_json_are_taken_out() {
        let account = r#"{"type":"service","key":"MIIEcanary0123456789\nMIIEcanary9876543210\n"}"#;
        assert_eq!(shown(&[account], account), "[secret]");
        assert_eq!(shown(&[account], "a MIIEcanary9876543210"), "a [secret]");
        assert_eq!(shown(&[account], "a service"), "a service");
        let quoted = serde_json::json!([account]).to_string();
        assert_eq!(shown(&[account], &quoted), r#"["[secret]"]"#);
        let within = serde_json::json!(["said \"canary\""]).to_string();
        assert_eq!(shown(&["said \"canary\""], &within), r#"["[secret]"]"#);
    }

    #[test]
    fn nothing_is_left_of_those_that_overlap() {
        let secrets = ["abcdefghij", "efghijklmnop", "abc", ""];
        assert_eq!(shown(&secrets, "x abcdefghijklmnop y abc"), "x [secret] y [secret]");
        assert_eq!(shown(&["über-canary"], "ü über-canary ü"), "ü [secret] ü");
        assert_eq!(shown(&[], "abc"), "abc");
    }

    #[test]
    fn many_and_long_ones_are_bounded_and_those_themselves_are_all_taken_out() {
        let all: Vec<String> =
            (0..768).map(|at| format!("{at:08}") + &"y\ncanary-1 ".repeat(3_000)).collect();
        let secrets = Secrets::new(all.clone());
        assert!(secrets.by_begin.values().map(Vec::len).sum::<usize>() <= MOST.0 + all.len());
        assert_eq!(secrets.taken_out(all[767].as_bytes()), SHOWN);
    }
}
