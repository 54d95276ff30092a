use service::config::Mistakes;

use super::*;

fn parse(text: &str) -> Result<Vec<Arc<Receiver>>, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("slack.url", "https://hooks.slack.com/services/T0/B0/canary\n"),
        ("wrong.url", "https://user:canary@hooks.example/"),
        ("key.txt", "canary-key\n"),
        ("two.txt", "canary\nkey"),
        ("good.token", "canary-token"),
        ("body.json", "{\"text\": {{text}}}"),
        ("wrong.json", "{\"text\": canary}"),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let mut reader = Reader::new(text.parse().unwrap(), "", "poller.toml");
    reader.set_base(folder.path());
    let all = read(&mut reader);
    reader.finish(Some(all))
}

#[test]
fn each_type_has_its_defaults() {
    let all = parse(
        "[[notify]]\nname = \"am\"\ntype = \"alertmanager\"\nurl = \"http://127.0.0.1:9093/am/\"\n\
         [[notify]]\nname = \"slack\"\ntype = \"slack\"\nurl_file = \"slack.url\"\n\
         severities = [\"critical\"]\ngroups = [\"eu\"]\nhold = \"5m\"\n\
         [[notify]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"https://hooks.example/a?b=c\"\n\
         token_file = \"good.token\"\nbody_file = \"body.json\"\nheader_files = {X-Key = \"key.txt\"}\n\
         runbook_url = \"https://wiki.example/pm2/\"",
    )
    .unwrap();
    let [am, slack, hook] = &all[..] else { panic!("{all:?}") };
    assert_eq!(am.address.0.as_str(), "http://127.0.0.1:9093/am/api/v2/alerts");
    assert_eq!((am.group_wait, am.repeat_interval), (Duration::ZERO, MINUTE));
    assert_eq!(slack.address.0.path(), "/services/T0/B0/canary");
    assert_eq!((slack.group_wait, slack.repeat_interval), (10 * SECOND, 4 * HOUR));
    assert_eq!(slack.hold, Some(5 * MINUTE));
    assert!(slack.tls.is_some() && am.tls.is_none(), "the system's authorities");
    let headers: Vec<(&str, &str)> =
        hook.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("authorization", "Bearer canary-token"), ("x-key", "canary-key")]);
    assert!(matches!(hook.kind, Kind::Webhook(Some(_))));
    assert_eq!(hook.runbook_url.as_deref(), Some("https://wiki.example/pm2"));
    let shown = format!("{all:?}");
    assert!(!shown.contains("canary") && shown.contains("hooks.slack.com"), "{shown}");
}

#[test]
fn every_mistake_is_told_at_once_by_key_and_without_secrets() {
    let mistakes = parse(
        "[[notify]]\ntype = \"smtp\"\nurl = \"http://a\"\n\
         [[notify]]\nname = \"a b\"\ntype = \"slack\"\nurl = \"http://169.254.169.254/canary\"\n\
         [[notify]]\nname = \"x\"\ntype = \"slack\"\nurl_file = \"wrong.url\"\nbody = \"{}\"\n\
         [[notify]]\nname = \"y\"\ntype = \"webhook\"\nbody_file = \"wrong.json\"\n\
         severities = [\"info\"]\nalerts = [\"Pm2PollerDown\", \"Pm2Nothing\"]\ncanary = 1\n\
         [[notify]]\nname = \"z\"\ntype = \"alertmanager\"\nurl = \"http://am?x=canary\"\n\
         header_files = {Content-Type = \"key.txt\", X-Two = \"two.txt\", X-No = \"no.txt\"}\n\
         timeout = \"1h\"\ntls = {}\n\
         [[notify]]\nname = \"y\"\ntype = \"webhook\"\nurl = \"ftp://a/canary\"\n\
         [[notify]]\nname = \"ok\"\ntype = \"webhook\"\nurl = \"http://a/\"\n\
         [[notify]]\nname = \"ok\"\ntype = \"webhook\"\nurl = \"http://a/\"\n",
    )
    .unwrap_err();
    let keys: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "notify[0].name",
            "notify[0].type",
            "notify[1].name",
            "notify[1].url",
            "notify[2].body",
            "notify[2].url_file",
            "notify[3].body_file",
            "notify[3].url",
            "notify[3].severities[0]",
            "notify[3].alerts[0]",
            "notify[3].alerts[1]",
            "notify[3].canary",
            "notify[4].url",
            "notify[4].header_files.Content-Type",
            "notify[4].header_files.X-No",
            "notify[4].header_files.X-Two",
            "notify[4].timeout",
            "notify[5].url",
            "notify[7].name",
        ],
        "{mistakes}"
    );
    let text = mistakes.to_string().replace("notify[3].canary", "");
    assert!(!text.contains("canary"), "{text}");
}
