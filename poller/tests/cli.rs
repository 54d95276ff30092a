//! The program as people start it: command line, exit codes, signals.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct Home(TempDir);

impl Home {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("poller.toml"), config).unwrap();
        Self(folder)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pm2-poller"));
        command.args(arguments).args(["--config", "poller.toml"]).current_dir(self.0.path());
        command.env_clear().stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const SERVERS: &str =
    "listen = \"127.0.0.1:0\"\n[[servers]]\nid = \"vm1\"\nurl = \"http://127.0.0.1:9\"\n";

#[test]
fn a_new_token_stands_alone_on_the_last_line() {
    let home = Home::new(SERVERS);
    let create = [
        "token",
        "create",
        "--name",
        "ci",
        "--role",
        "operator",
        "--server",
        "vm1",
        "--expires",
        "90d",
    ];
    let made = home.run(&create);
    assert!(made.status.success(), "{}", stderr(&made));
    let token = stdout(&made).lines().last().unwrap().to_owned();
    assert!(token.starts_with("pm2p_") && token.len() == 41, "{token}");
    assert!(stderr(&made).contains("shown this once"), "{}", stderr(&made));
    let again = home.run(&create);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("\"ci\" is there already"), "{}", stderr(&again));
    let list = stdout(&home.run(&["token", "list"]));
    assert!(list.starts_with("ci\toperator\tvm1\t") && list.contains("expires"), "{list}");
    assert!(!list.contains(&token[5..]), "{list}");
    assert!(home.run(&["token", "revoke", "ci"]).status.success());
    assert_eq!(home.run(&["token", "revoke", "ci"]).status.code(), Some(2));
    // Nothing but the hash of it is in the files.
    for file in std::fs::read_dir(home.0.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(36).any(|part| part == &token.as_bytes()[5..]));
    }
}

#[test]
fn servers_are_added_and_listed() {
    let home = Home::new(SERVERS);
    std::fs::write(home.0.path().join("secret"), "pm2x_abc").unwrap();
    let add = [
        "server",
        "add",
        "vm2",
        "--url",
        "http://vm2:10209",
        "--group",
        "eu",
        "--tag",
        "b",
        "--tag",
        "a",
        "--token-file",
        "secret",
    ];
    let added = home.run(&add);
    assert!(added.status.success(), "{}", stderr(&added));
    assert_eq!(
        stdout(&home.run(&["server", "list"])),
        "vm1\thttp://127.0.0.1:9\tconfiguration\n\
         vm2\thttp://vm2:10209\tdatabase\tgroup=eu\ttags=a,b\n"
    );
    assert_eq!(home.run(&add).status.code(), Some(2));
    for (wrong, word) in [
        (["server", "add", "a b", "--url", "http://a"], "server id"),
        (["server", "add", "a", "--url", "https://a"], "no TLS"),
        (["server", "add", "a", "--url", "http://u:canary@a"], "user name"),
    ] {
        let output = home.run(&wrong);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert!(!stderr(&output).contains("canary"));
    }
    let clash = home.run(&["server", "add", "vm1", "--url", "http://a"]);
    assert!(stderr(&clash).contains("wins"), "{}", stderr(&clash));
}

#[test]
fn what_cannot_be_used_has_its_own_exit_code() {
    let mistakes = Home::new("lisen = 1\npoll_timeout = \"1m\"\n[[servers]]\nid = \"a\"");
    for command in ["serve", "check"] {
        let output = mistakes.run(&[command]);
        assert_eq!(output.status.code(), Some(2));
        for key in ["poll_timeout", "servers[0].url", "lisen"] {
            assert!(stderr(&output).contains(key), "{}", stderr(&output));
        }
    }
    let home = Home::new(SERVERS);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = home.run(&["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let output = home.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("token create"), "{}", stderr(&output));
    std::fs::write(home.0.path().join("text"), "no database\n".repeat(100)).unwrap();
    for command in ["serve", "check"] {
        let output = home.run(&[command, "--database", "text"]);
        assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        assert!(stderr(&output).contains("text: cannot be opened"), "{}", stderr(&output));
    }
    let output = home.run(&["backup"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn check_says_in_words_what_is_in_order() {
    let home = Home::new(SERVERS);
    let fresh = home.run(&["check"]);
    assert!(stdout(&fresh).contains("not there yet"), "{}", stdout(&fresh));
    assert!(!home.0.path().join("pm2-poller.db").exists());
    assert!(home.run(&["token", "create", "--name", "a", "--role", "admin"]).status.success());
    let checked = home.run(&["check"]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    for words in ["is in order, ", "servers: 1 in all", "tokens: 1 in use"] {
        assert!(stdout(&checked).contains(words), "{}", stdout(&checked));
    }
    // A flipped byte in the middle of the file.
    let path = home.0.path().join("pm2-poller.db");
    let mut bytes = std::fs::read(&path).unwrap();
    for page in 1..bytes.len() / 4096 {
        bytes[page * 4096] ^= 0xff;
    }
    std::fs::write(&path, bytes).unwrap();
    let broken = home.run(&["check"]);
    assert_eq!(broken.status.code(), Some(4), "{}", stdout(&broken));
}

#[test]
fn help_names_every_setting() {
    let home = Home::new("");
    let help = stdout(&home.command(&["serve", "--help"]).output().unwrap());
    for key in pm2_poller::config::SETTINGS.keys {
        assert!(help.contains(&format!("--{}", key.name.replace('_', "-"))), "{help}");
        assert!(help.contains(&format!("PM2_POLLER_{}", key.name.to_uppercase())), "{help}");
    }
}

/// Waits for a line on stderr that contains `word`, and gives it.
fn line_with(lines: &mut impl Iterator<Item = std::io::Result<String>>, word: &str) -> String {
    lines.map(Result::unwrap).find(|line| line.contains(word)).expect(word)
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[test]
fn signals_reload_and_stop() {
    let home = Home::new(SERVERS);
    let mut child = home.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = line_with(&mut lines, "listening");
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(get("/readyz").ends_with("ok\n"));
    let file = home.0.path().join("poller.toml");
    std::fs::write(&file, format!("{SERVERS}[[servers]]\nid = \"vm2\"\nurl = \"nope\"\n")).unwrap();
    signal(&child, "-HUP");
    let line = line_with(&mut lines, "not reloaded");
    assert!(line.contains("servers[1].url"), "{line}");
    assert!(get("/metrics").contains("pm2_poller_config_last_reload_successful 0"));
    std::fs::write(&file, format!("{SERVERS}[[servers]]\nid = \"vm2\"\nurl = \"http://a:1\"\n"))
        .unwrap();
    signal(&child, "-HUP");
    line_with(&mut lines, "was reloaded");
    let end = Instant::now() + Duration::from_secs(10);
    while !get("/api/servers").contains("\"vm2\"") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // The write-ahead log is folded into the file.
    assert!(!home.0.path().join("pm2-poller.db-wal").exists());
}
