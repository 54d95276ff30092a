//! What a message looks like to each kind of receiver.

use std::collections::BTreeMap;
use std::time::Duration;

use exposition::Alert;
use serde_json::{Map, Value, json};
use wire::Time;

use super::book::{Message, Notice};
use super::receiver::{Kind, Receiver};

/// Most characters of a text for people: Discord, which takes what is for Slack, refuses more than 2,000.
const MAX_TEXT: usize = 1_950;
/// Most alerts that it spells out, and the longest summary and description of one.
const MAX_LINES: usize = 20;
const MAX_SUMMARY: usize = 300;
const MAX_DESCRIPTION: usize = 500;
/// Alertmanager takes an alert for over that is not repeated for so many intervals.
const REPEATS: u32 = 4;

/// The body of a request, as JSON.
pub fn body(message: &Message, receiver: &Receiver) -> String {
    match &receiver.kind {
        Kind::Alertmanager => alertmanager(message, receiver).to_string(),
        Kind::Slack => json!({"text": text(message, receiver, &SLACK)}).to_string(),
        Kind::Webhook(None) => webhook(message, receiver).to_string(),
        Kind::Webhook(Some(template)) => {
            let whole = webhook(message, receiver);
            let field = |name: &str| whole[name].clone();
            let mut values: BTreeMap<&'static str, Value> =
                ["alerts", "firing", "receiver", "resolved", "severity", "status"]
                    .map(|name| (name, field(name)))
                    .into();
            values.insert("title", title(message).into());
            values.insert("text", text(message, receiver, &PLAIN).into());
            template.fill(&values)
        }
    }
}

/// Alertmanager's `postableAlerts`.
fn alertmanager(message: &Message, receiver: &Receiver) -> Value {
    let stays = receiver.repeat_interval.saturating_mul(REPEATS).max(Duration::from_secs(240));
    let stays = i64::try_from(stays.as_millis()).unwrap_or(i64::MAX);
    let one = |notice: &Notice| {
        let (severity, summary) = (notice.key.severity(), notice.key.summary());
        let mut labels: Map<String, Value> = notice
            .key
            .labels
            .iter()
            // A label without a value is none.
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        labels.insert("alertname".to_owned(), notice.key.alert.clone().into());
        labels.insert("severity".to_owned(), severity.as_str().into());
        let mut annotations = json!({"summary": summary, "description": notice.description});
        if let Some(url) = runbook(notice, receiver) {
            annotations["runbook_url"] = url.into();
        }
        let ends = notice.ended.unwrap_or_else(|| message.time.plus_millis(stays));
        let mut alert = json!({
            "labels": labels,
            "annotations": annotations,
            "startsAt": notice.since,
            "endsAt": ends,
        });
        if let Some(url) = page(notice, receiver) {
            alert["generatorURL"] = url.into();
        }
        alert
    };
    message.notices.iter().map(one).collect()
}

/// All that is known, as README has it.
fn webhook(message: &Message, receiver: &Receiver) -> Value {
    let one = |notice: &Notice| {
        let (severity, summary) = (notice.key.severity(), notice.key.summary());
        json!({
            "name": notice.key.alert,
            "status": status(notice),
            "severity": severity,
            "labels": notice.key.labels,
            "summary": summary,
            "description": notice.description,
            "starts_at": notice.since,
            "ends_at": notice.ended,
            "runbook_url": runbook(notice, receiver),
            "page_url": page(notice, receiver),
        })
    };
    let firing = message.firing();
    let worst = message.notices.iter().map(|notice| notice.key.severity()).max();
    json!({
        "version": "1",
        "receiver": receiver.name,
        "status": if firing > 0 { "firing" } else { "resolved" },
        "severity": worst,
        "firing": firing,
        "resolved": message.notices.len() - firing,
        "more": message.left,
        "alerts": message.notices.iter().map(one).collect::<Vec<_>>(),
    })
}

fn status(notice: &Notice) -> &'static str {
    if notice.ended.is_some() { "resolved" } else { "firing" }
}

fn runbook(notice: &Notice, receiver: &Receiver) -> Option<String> {
    let Alert { name, .. } = notice.key.of()?;
    Some(format!("{}/{name}.md", receiver.runbook_url.as_ref()?))
}

fn page(notice: &Notice, receiver: &Receiver) -> Option<String> {
    let base = receiver.page_url.as_ref()?;
    Some(format!("{base}{}", notice.key.page()))
}

/// How a text for people is marked up.
struct Markup {
    /// What stands for a character that means something else there.
    escape: fn(char) -> Option<&'static str>,
    bold: &'static str,
    quote: &'static str,
    link: fn(&str, &str) -> String,
}

const PLAIN: Markup =
    Markup { escape: |_| None, bold: "", quote: "  ", link: |name, url| format!("{name}: {url}") };

/// Slack's `mrkdwn`: without these three characters nobody is addressed and nothing is linked.
const SLACK: Markup = Markup {
    escape: |letter| match letter {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    },
    bold: "*",
    quote: ">",
    link: |name, url| format!("<{url}|{name}>"),
};

fn title(message: &Message) -> String {
    let firing = message.firing();
    let resolved = message.notices.len() - firing;
    let more =
        if message.left > 0 { format!(", {} more follow", message.left) } else { String::new() };
    match (firing, resolved) {
        (firing, 0) => format!("PM2: {firing} firing{more}"),
        (0, resolved) => format!("PM2: {resolved} resolved{more}"),
        (firing, resolved) => format!("PM2: {firing} firing, {resolved} resolved{more}"),
    }
}

impl Markup {
    /// A line of others' words, which are not all known to mean well, in at most so many characters:
    /// nobody is addressed in it by an `@`, and no address in it becomes a link.
    fn line(&self, words: &str, most: usize) -> String {
        const NOTHING: char = '\u{200b}';
        let (mut line, mut length) = (String::new(), 0);
        for letter in words.chars() {
            let apart = letter == '@' || (letter == '/' && line.ends_with(":/"));
            let stands = (self.escape)(letter);
            length += stands.map_or(1, str::len) + usize::from(apart);
            if length >= most {
                line.push('…');
                break;
            }
            match stands {
                Some(text) => line.push_str(text),
                None if letter.is_control() => line.push(' '),
                None => line.push(letter),
            }
            line.extend(apart.then_some(NOTHING));
        }
        line
    }

    /// What is said of one alert.
    fn notice(&self, notice: &Notice, receiver: &Receiver) -> String {
        let Self { bold, quote, link, .. } = self;
        let status = status(notice).to_uppercase();
        let summary = self.line(&notice.key.summary(), MAX_SUMMARY);
        let severity = notice.key.severity().as_str();
        let mut text = format!("{bold}{status} {severity}:{bold} {summary}");
        if notice.ended.is_none() {
            text += &format!("\n{quote}{}", self.line(&notice.description, MAX_DESCRIPTION));
        }
        text += &format!("\n{quote}since {}", brief(notice.since));
        if let Some(end) = notice.ended {
            text += &format!(", until {}", brief(end));
        }
        for (name, url) in
            [("page", page(notice, receiver)), ("runbook", runbook(notice, receiver))]
        {
            // Names in it may make it very long, and what is cut off leads nowhere.
            if let Some(url) = url.filter(|url| url.len() <= MAX_DESCRIPTION) {
                text += &format!(", {}", link(name, &url));
            }
        }
        text
    }
}

fn text(message: &Message, receiver: &Receiver, markup: &Markup) -> String {
    let bold = markup.bold;
    let mut text = format!("{bold}{}{bold}", title(message));
    let mut length = text.chars().count();
    let all = message.notices.len();
    for (told, notice) in message.notices.iter().enumerate() {
        let rest = format!("\n… and {} more", all - told);
        let one = markup.notice(notice, receiver);
        length += 1 + one.chars().count();
        if told == MAX_LINES || length + rest.chars().count() > MAX_TEXT {
            return text + &rest;
        }
        text.push('\n');
        text += &one;
    }
    text
}

/// To the second.
fn brief(time: Time) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
