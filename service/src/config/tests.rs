use super::*;
use std::time::Duration;

const SETTINGS: Settings = Settings {
    env_prefix: "PM2_TEST",
    shared: &[],
    keys: &[
        Key { name: "listen", form: Form::Text, value: "ADDRESS", help: "Where" },
        Key { name: "poll_interval", form: Form::Text, value: "DURATION", help: "How often" },
        Key { name: "pm2_homes", form: Form::List, value: "DIR,…", help: "Homes" },
        Key { name: "servers", form: Form::Toml, value: "TOML", help: "Servers" },
    ],
};

type Read = (Option<std::net::SocketAddr>, Duration, Vec<String>, Vec<wire::ServerId>);

fn read(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Read, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, file).unwrap();
    let flags = ["test", "--config", path.to_str().unwrap()].into_iter().chain(flags.to_vec());
    let matches = clap::Command::new("test").args(SETTINGS.args()).get_matches_from(flags);
    let mut reader = SETTINGS.read(&matches, |name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })?;
    let second = Duration::from_secs(1);
    let value = (
        reader.value("listen"),
        reader.duration("poll_interval", second * 10, second..=second * 60),
        reader.list("pm2_homes", |text| Ok(text.to_owned())).unwrap_or_default(),
        reader.tables("servers", |server| server.value("id")),
    );
    reader.finish(Some(value))
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = "listen = \"127.0.0.1:1\"";
    let port = |read: Read| read.0.unwrap().port();
    assert_eq!(read("", &[], &[]).unwrap().1, Duration::from_secs(10));
    assert_eq!(port(read(file, &[], &[]).unwrap()), 1);
    let env = [("PM2_TEST_LISTEN", "127.0.0.1:2")];
    assert_eq!(port(read(file, &env, &[]).unwrap()), 2);
    assert_eq!(port(read(file, &env, &["--listen", "127.0.0.1:3"]).unwrap()), 3);
}

#[test]
fn lists_and_tables_can_come_from_the_environment() {
    let env = [("PM2_TEST_PM2_HOMES", "/a, /b"), ("PM2_TEST_SERVERS", "[{id='x'},{id='y'}]")];
    let (_, _, homes, servers) = read("", &env, &[]).unwrap();
    assert_eq!(homes, ["/a", "/b"]);
    assert_eq!(servers.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn every_mistake_is_told_at_once_with_its_key() {
    let file = "listen = 5\nlissten = 1\npoll_interval = \"2h\"\n\
                [[servers]]\nid = \"a b\"\n[[servers]]\nid = \"ok\"\nurll = \"x\"";
    let mistakes = read(file, &[("PM2_TEST_PM2_HOMES", "/a")], &[]).unwrap_err();
    let text = mistakes.to_string();
    let keys: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(
        keys,
        ["listen", "poll_interval", "servers[0].id", "servers[1].urll", "lissten"],
        "{text}"
    );
    assert!(text.contains("out of range: 1s to 60s"), "{text}");
    assert!(text.contains("unknown key; known are id"), "{text}");
    assert!(text.contains("test.toml"), "{text}");
}

#[test]
fn broken_toml_is_told_without_quoting_the_line() {
    let text = read("ok = 1\ntoken = canary", &[], &[]).unwrap_err().to_string();
    assert!(text.contains("line 2"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_mistake_names_the_variable_it_came_from() {
    let text = read("", &[("PM2_TEST_LISTEN", "nowhere")], &[]).unwrap_err().to_string();
    assert!(text.contains("listen (PM2_TEST_LISTEN): \"nowhere\""), "{text}");
}
