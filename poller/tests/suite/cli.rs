//! The program as people start it: command line, exit codes, signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{PATIENCE, folder};

struct Home(TempDir);

impl Home {
    fn new(config: &str) -> Self {
        let folder = folder();
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
    for look in [["token", "list"], ["user", "list"]] {
        let nowhere = home.run(&[&look[..], &["--database", "none.db"]].concat());
        assert_eq!(nowhere.status.code(), Some(2));
        assert!(stderr(&nowhere).contains("none.db: there is no such file"), "{look:?}");
    }
    assert!(!home.0.path().join("none.db").exists());
    let list = stdout(&home.run(&["token", "list"]));
    assert!(list.starts_with("ci\toperator\tservers vm1\t") && list.contains("expires"), "{list}");
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
fn users_are_made_with_a_password_from_standard_input() {
    let home = Home::new(SERVERS);
    let with = |arguments: &[&str], password: &str| -> Output {
        let mut command = home.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let add =
        ["user", "add", "alice", "--role", "operator", "--tag", "prod", "--action", "restart"];
    let short = with(&add, "canary\n");
    assert_eq!(short.status.code(), Some(2));
    assert!(stderr(&short).contains("12 to 256 bytes"), "{}", stderr(&short));
    assert!(!stderr(&short).contains("canary"));
    let made = with(&add, "correct horse canary\n");
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&made).contains("operator, tags prod; actions restart"), "{}", stdout(&made));
    assert_eq!(with(&add, "correct horse canary\n").status.code(), Some(2), "is there already");
    let wrong = with(&["user", "add", "b", "--role", "viewer", "--action", "explode"], "");
    assert!(stderr(&wrong).contains("--action"), "{}", stderr(&wrong));
    let list = stdout(&home.run(&["user", "list"]));
    assert!(list.starts_with("alice\toperator\ttags prod; actions restart\t"), "{list}");
    assert!(with(&["user", "passwd", "alice"], "another good canary").status.success());
    assert_eq!(with(&["user", "passwd", "nobody"], "another good canary").status.code(), Some(2));
    assert!(stdout(&home.run(&["check"])).contains("users: 1\n"));
    assert!(home.run(&["user", "remove", "alice"]).status.success());
    assert_eq!(home.run(&["user", "remove", "alice"]).status.code(), Some(2));
    for file in std::fs::read_dir(home.0.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"canary"));
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
    assert!(!home.0.path().join("exporter-tokens").exists(), "none was made");
    assert_eq!(home.run(&add).status.code(), Some(2));
    for (wrong, word) in [
        (["server", "add", "a b", "--url", "http://a"], "server id"),
        (["server", "add", "a", "--url", "ftp://a"], "ftp"),
        (["server", "add", "a", "--url", "http://u:canary@a"], "user name"),
    ] {
        let output = home.run(&wrong);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert!(!stderr(&output).contains("canary"));
    }
    let clash = home.run(&["server", "add", "vm1", "--url", "http://a", "--no-token"]);
    assert_eq!(clash.status.code(), Some(2));
    assert!(stderr(&clash).contains("the configuration has vm1 already"), "{}", stderr(&clash));
    let stays = home.run(&["server", "remove", "vm1"]);
    assert!(stderr(&stays).contains("the configuration has it"), "{}", stderr(&stays));
    std::fs::write(
        home.0.path().join("list.json"),
        r#"[{"targets": ["a:1"], "labels": {"server": "vm3"}},
            {"targets": ["b:1"], "labels": {"server": "vm1"}}]"#,
    )
    .unwrap();
    let listed = home.run(&["server", "remove", "vm3", "--server-files", "list.json"]);
    assert!(stderr(&listed).contains("a file of server_files has it"), "{}", stderr(&listed));
    assert!(home.run(&["server", "remove", "vm2"]).status.success());
    assert_eq!(home.run(&["server", "remove", "vm2"]).status.code(), Some(2));
    std::fs::write(home.0.path().join("bad.json"), "[{\"targets\": [\"a\"]}]").unwrap();
    let checked = home.run(&["check", "--server-files", "*.json"]);
    assert_eq!(checked.status.code(), Some(2));
    let (line, also) =
        ("bad.json: [0].targets: \"a\" is not HOST:PORT", "server vm1: is in file too");
    assert!(stdout(&checked).contains(line) && stdout(&checked).contains(also), "{checked:?}");
}

#[test]
fn a_token_is_made_for_a_server_and_stands_alone_on_the_last_line() {
    let home = Home::new(SERVERS);
    let add = ["server", "add", "vm2", "--url", "http://vm2:10209", "--scope", "read"];
    let added = home.run(&add);
    assert!(added.status.success(), "{}", stderr(&added));
    let text = stdout(&added);
    let token = text.lines().last().unwrap();
    assert!(service::token::Token::is_well_formed(token, service::token::Issuer::Exporter));
    let hash = service::token::TokenHash::of(token).to_string();
    let block =
        format!("[[tokens]]\nname = \"poller\"\nsha256 = \"{hash}\"\nscopes = [\"read\"]\n");
    assert!(text.contains(&block), "{text}");
    let files = || {
        let folder = std::fs::read_dir(home.0.path().join("exporter-tokens")).unwrap();
        folder.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
    };
    assert_eq!(files().collect::<Vec<_>>(), [format!("{token}\n")]);
    assert_eq!(home.run(&add).status.code(), Some(2));
    assert_eq!(files().count(), 1, "what was not used is gone");
    let database = std::fs::read(home.0.path().join("pm2-poller.db")).unwrap();
    assert!(!database.windows(token.len()).any(|part| part == token.as_bytes()));
    assert!(home.run(&["server", "remove", "vm2"]).status.success());
    assert_eq!(files().count(), 0);
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
    assert!(fresh.status.success(), "{}", stderr(&fresh));
    // What is wrong without a database is told before there is one.
    std::fs::write(home.0.path().join("bad.json"), "[{\"targets\": [\"a\"]}]").unwrap();
    let wrong = home.run(&["check", "--server-files", "bad.json", "--listen", "0.0.0.0:10210"]);
    assert_eq!(wrong.status.code(), Some(2));
    for words in ["bad.json: [0].targets", "neither token nor user", "servers: 1 in all"] {
        assert!(stdout(&wrong).contains(words), "{}", stdout(&wrong));
    }
    assert!(!home.0.path().join("pm2-poller.db").exists());
    assert!(home.run(&["token", "create", "--name", "a", "--role", "admin"]).status.success());
    let checked = home.run(&["check"]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    for words in
        ["is in order, ", "audit: 1 rows, unchanged", "servers: 1 in all", "tokens: 1 in use"]
    {
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
    assert!(stderr(&broken).contains("damaged: pm2-poller.db"), "{}", stderr(&broken));
}

#[test]
fn check_names_the_row_of_the_audit_that_was_changed() {
    let home = Home::new(SERVERS);
    for name in ["first", "second", "third"] {
        assert!(home.run(&["token", "create", "--name", name, "--role", "admin"]).status.success());
    }
    let checked = stdout(&home.run(&["check"]));
    assert!(checked.contains("audit: 3 rows, unchanged; the newest is 3, "), "{checked}");
    // A byte of the second row, as it stands in the file.
    let path = home.0.path().join("pm2-poller.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let word = b"token second";
    let at = bytes.windows(word.len()).position(|part| part == word).unwrap();
    bytes[at + word.len() - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let changed = home.run(&["check"]);
    assert_eq!(changed.status.code(), Some(4), "{}", stderr(&changed));
    assert!(stdout(&changed).contains("audit: row 2 was changed"), "{}", stdout(&changed));
    assert!(stderr(&changed).contains("row 2 was changed"), "{}", stderr(&changed));
}

#[test]
fn receivers_are_checked_and_tried_and_their_secrets_stay_where_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let begin = head.len();
            reader.read_line(&mut head).unwrap();
            let line = head[begin..].trim().to_ascii_lowercase();
            if let Some(size) = line.strip_prefix("content-length:") {
                length = size.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        (head, String::from_utf8(body).unwrap())
    });
    let home = Home::new(&format!(
        "{SERVERS}[[notify]]\nname = \"hook\"\ntype = \"webhook\"\nurl_file = \"hook.url\"\n\
         token_file = \"hook.token\"\n[[notify]]\nname = \"gone\"\ntype = \"slack\"\n\
         url = \"http://127.0.0.1:1/canary\"\n"
    ));
    std::fs::write(home.0.path().join("hook.url"), format!("http://{address}/canary")).unwrap();
    std::fs::write(home.0.path().join("hook.token"), "canary").unwrap();

    let check = home.run(&["check"]);
    assert!(check.status.success(), "{}", stderr(&check));
    let said = stdout(&check);
    assert!(said.contains(&format!("notify: hook, webhook at http://{address}\n")), "{said}");

    let test = home.run(&["notify", "test", "hook"]);
    assert!(test.status.success(), "{}", stderr(&test));
    let (head, body) = receiver.join().unwrap();
    assert!(head.starts_with("POST /canary HTTP/1.1"), "{head}");
    assert!(head.to_ascii_lowercase().contains("authorization: bearer canary"), "{head}");
    assert!(body.contains("Nothing is wrong"), "{body}");

    let gone = home.run(&["notify", "test", "gone"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stdout(&gone).contains("gone: slack at http://127.0.0.1:1 did not take it"));
    let nobody = home.run(&["notify", "test", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(stderr(&nobody).contains("no [[notify]] is called \"nobody\": hook, gone"));
    for output in [check, test, gone, nobody] {
        let said = stdout(&output) + &stderr(&output);
        assert!(!said.contains("canary"), "{said}");
    }
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
fn line_with(lines: &Receiver<String>, word: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line has {word:?}"));
        if line.contains(word) {
            return line;
        }
    }
}

/// Ends a program that a test has started, whatever becomes of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[test]
fn signals_reload_and_stop() {
    let home = Home::new(SERVERS);
    let mut child = Ended(home.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap());
    let read = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let (send, lines) = channel();
    std::thread::spawn(move || read.map_while(Result::ok).all(|line| send.send(line).is_ok()));
    let line = line_with(&lines, "listening");
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(get("/readyz").ends_with("ok\n"));
    let file = home.0.path().join("poller.toml");
    std::fs::write(&file, format!("{SERVERS}[[servers]]\nid = \"vm2\"\nurl = \"nope\"\n")).unwrap();
    signal(&child.0, "-HUP");
    let line = line_with(&lines, "not reloaded");
    assert!(line.contains("servers[1].url"), "{line}");
    assert!(get("/metrics").contains("pm2_poller_config_last_reload_successful 0"));
    // One that is cut off before anything is written is none.
    std::fs::write(&file, "").unwrap();
    let line = line_with(&lines, "not reloaded");
    assert!(line.contains("poller.toml is empty"), "{line}");
    std::fs::write(&file, format!("{SERVERS}[[servers]]\nid = \"vm2\"\nurl = \"http://a:1\"\n"))
        .unwrap();
    signal(&child.0, "-HUP");
    line_with(&lines, "was reloaded");
    let end = Instant::now() + PATIENCE;
    while !get("/api/servers").contains("\"vm2\"") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    // What changes in the file is used without a signal as well.
    std::fs::write(&file, SERVERS).unwrap();
    line_with(&lines, "was reloaded");
    let end = Instant::now() + PATIENCE;
    while get("/api/servers").contains("\"vm2\"") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child.0, "-TERM");
    assert!(child.0.wait().unwrap().success());
    // It ended by itself, and was not cut off.
    assert!(lines.iter().all(|line| !line.contains("did not end in time")));
    // The write-ahead log is folded into the file.
    assert!(!home.0.path().join("pm2-poller.db-wal").exists());
}
