use std::collections::BTreeMap;

use exposition::alerts;

use super::super::book::tests::{key, receiver};
use super::super::template::Template;
use super::*;

fn message() -> Message {
    let time = Time::from_millis(1_700_000_000_000);
    let mut errored = key(&alerts::ERRORED, "vm1");
    errored.labels.extend(
        [("name", "a<b> & *c*"), ("namespace", "default"), ("instance_id", "0"), ("pm2_home", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let notice = |key, ended| Notice {
        key,
        since: time.plus_millis(-60_000),
        ended,
        description: "It \"is\" <!channel>\nso.".to_owned(),
    };
    let down = key(&alerts::SERVER_DOWN, "vm2");
    Message { time, notices: vec![notice(errored, None), notice(down, Some(time))], left: 0 }
}

fn with(kind: Kind) -> Receiver {
    Receiver {
        kind,
        page_url: Some("https://pm2.example".to_owned()),
        runbook_url: Some("https://wiki.example/pm2".to_owned()),
        ..receiver()
    }
}

fn parsed(kind: Kind) -> Value {
    serde_json::from_str(&body(&message(), &with(kind))).unwrap()
}

/// By the time of day, which may have been set since the message's own time began.
#[test]
fn what_holds_ends_later_than_now_however_long_the_machine_slept() {
    let asleep = 3 * 86_400_000;
    let told = message().later_by(asleep);
    let alerts = body(&told, &with(Kind::Alertmanager));
    let alerts: Value = serde_json::from_str(&alerts).unwrap();
    assert_eq!(alerts[0]["startsAt"], "2023-11-17T22:12:20.000Z");
    assert_eq!(alerts[0]["endsAt"], "2023-11-18T02:13:20.000Z");
    assert_eq!(alerts[1]["endsAt"], "2023-11-17T22:13:20.000Z");
}

#[test]
fn alertmanager_gets_the_labels_that_prometheus_gives() {
    let alerts = parsed(Kind::Alertmanager);
    assert_eq!(
        alerts[0],
        json!({
            "labels": {
                "alertname": "Pm2ProcessErrored", "severity": "critical", "server": "vm1",
                "name": "a<b> & *c*", "namespace": "default", "instance_id": "0",
            },
            "annotations": {
                "summary": "a<b> & *c* on vm1 is errored: PM2 gave up on it",
                "description": "It \"is\" <!channel>\nso.",
                "runbook_url": "https://wiki.example/pm2/Pm2ProcessErrored.md",
            },
            "startsAt": "2023-11-14T22:12:20.000Z",
            "endsAt": "2023-11-15T02:13:20.000Z",
            "generatorURL": "https://pm2.example/servers/vm1/apps/a%3Cb%3E%20%26%20%2Ac%2A",
        })
    );
    assert_eq!(alerts[1]["endsAt"], "2023-11-14T22:13:20.000Z");
    assert_eq!(alerts[1]["generatorURL"], "https://pm2.example/servers/vm2");
}

#[test]
fn slack_gets_a_text_in_which_nobody_is_addressed() {
    let slack = parsed(Kind::Slack);
    assert_eq!(
        slack["text"],
        "*PM2: 1 firing, 1 resolved*\n\
         *FIRING critical:* a&lt;b&gt; &amp; *c* on vm1 is errored: PM2 gave up on it\n\
         >It \"is\" &lt;!channel&gt; so.\n\
         >since 2023-11-14T22:12:20Z, \
         <https://pm2.example/servers/vm1/apps/a%3Cb%3E%20%26%20%2Ac%2A|page>, \
         <https://wiki.example/pm2/Pm2ProcessErrored.md|runbook>\n\
         *RESOLVED critical:* vm2 does not answer\n\
         >since 2023-11-14T22:12:20Z, until 2023-11-14T22:13:20Z, \
         <https://pm2.example/servers/vm2|page>, \
         <https://wiki.example/pm2/Pm2ServerDown.md|runbook>"
    );
}

#[test]
fn a_webhook_gets_all_of_it() {
    let all = parsed(Kind::Webhook(None));
    assert_eq!(all["status"], "firing");
    assert_eq!((&all["firing"], &all["resolved"], &all["more"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(all["severity"], "critical");
    assert_eq!(all["alerts"][0]["name"], "Pm2ProcessErrored");
    assert_eq!(all["alerts"][0]["labels"]["name"], "a<b> & *c*");
    assert_eq!(all["alerts"][0]["ends_at"], Value::Null);
    assert_eq!(all["alerts"][1]["status"], "resolved");
    assert_eq!(all["alerts"][1]["starts_at"], "2023-11-14T22:12:20.000Z");
}

#[test]
fn a_template_is_filled() {
    let template =
        Template::parse("{\"summary\": {{title}}, \"n\": {{firing}}, \"body\": {{ text }}}");
    let filled = parsed(Kind::Webhook(Some(template.unwrap())));
    assert_eq!(filled["summary"], "PM2: 1 firing, 1 resolved");
    assert_eq!(filled["n"], 1);
    let text = filled["body"].as_str().unwrap();
    assert!(text.contains("\nFIRING critical: a<b> & *c* on vm1 is errored"), "{text}");
    assert!(text.contains("page: https://pm2.example/servers/vm2"), "{text}");
}

#[test]
fn a_storm_is_cut_short_for_people() {
    let one = message().notices.remove(0);
    let labels: BTreeMap<String, String> = one.key.labels.clone();
    let notices = (0..100)
        .map(|n| {
            let mut notice = one.clone();
            notice.description = "x".repeat(5_000);
            notice.key.labels = labels.clone();
            notice.key.labels.insert("instance_id".to_owned(), n.to_string());
            notice
        })
        .collect();
    let storm = Message { notices, left: 50, ..message() };
    let slack = |message: &Message| {
        let body: Value = serde_json::from_str(&body(message, &with(Kind::Slack))).unwrap();
        body["text"].as_str().unwrap().to_owned()
    };
    let text = slack(&storm);
    assert!((1_000..=1_950).contains(&text.chars().count()), "{}", text.len());
    assert!(text.starts_with("*PM2: 100 firing, 50 more follow*\n"), "{text}");
    assert!(text.ends_with("\n… and 98 more"), "{text}");
    // What is short is told of as many as people read.
    let mut brief = storm.clone();
    brief.notices.iter_mut().for_each(|notice| notice.ended = Some(message().time));
    let plain = Receiver { page_url: None, runbook_url: None, ..with(Kind::Slack) };
    let told: Value = serde_json::from_str(&body(&brief, &plain)).unwrap();
    let lines = told["text"].as_str().unwrap().lines().count();
    assert!((25..=2 + 2 * 20).contains(&lines), "{lines}");
    // The longest words that there can be are still told.
    let mut worst = storm;
    worst.notices[0].key.labels.insert("name".to_owned(), "<\u{1f600}&".repeat(85));
    worst.notices[0].description = "&".repeat(5_000);
    let text = slack(&worst);
    assert!(text.chars().count() <= 1_950 && text.contains("FIRING critical:"), "{text}");
    assert!(text.ends_with(" more"), "{text}");
}

#[test]
fn others_words_address_nobody_and_link_to_nothing() {
    let mut told = message();
    told.notices[0].key.labels.insert("name".to_owned(), "@everyone".to_owned());
    told.notices[0].description = "see https://evil.example/?a=/b or\r\n@here".to_owned();
    let template = Template::parse("{\"body\": {{ text }}}").unwrap();
    for (kind, field) in [(Kind::Slack, "text"), (Kind::Webhook(Some(template)), "body")] {
        let whole: Value = serde_json::from_str(&body(&told, &with(kind))).unwrap();
        let text = whole[field].as_str().unwrap();
        assert!(text.contains("@\u{200b}everyone on vm1"), "{text}");
        let said = "see https://\u{200b}evil.example/?a=/b or  @\u{200b}here\n";
        assert!(text.contains(said), "{text}");
        assert!(text.contains("https://wiki.example/pm2/"), "ours do: {text}");
    }
}
