//! A PM2, an exporter with two slots, and repositories to deploy from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Answer, Client, Pm2, Port, SOON, wait_until};
use reqwest::Method;
use serde_json::{Value, json};
use service::token::{Issuer, Token};

const EXPORTER: &str = env!("CARGO_BIN_EXE_pm2-exporter");

pub(crate) struct Stage {
    pub(crate) pm2: Pm2,
    pub(crate) client: Client,
    pub(crate) ports: BTreeMap<&'static str, u16>,
    exporter: Option<Child>,
    mark: String,
    variables: Vec<(String, String)>,
    config: PathBuf,
    listen: Port,
    token: String,
    _held: Vec<Port>,
}

/// Lines of `[slots]` that make a test quick.
pub(crate) const QUICK: &str = "probe_attempts = 60\nprobe_interval = \"500ms\"\nsettle = \"600ms\"\nkill_timeout = \"400ms\"\n";

impl Stage {
    /// With both placeholders up, and the exporter serving.
    pub(crate) async fn new() -> Self {
        Self::with(QUICK).await
    }

    pub(crate) async fn with(settings: &str) -> Self {
        let pm2 = Pm2::start().await.unwrap();
        let (listen, a, b) = (Port::free().unwrap(), Port::free().unwrap(), Port::free().unwrap());
        let token = Token::new(Issuer::Exporter).unwrap();
        let root = pm2.folder().join("slots");
        let text = format!(
            "listen = \"{}\"\npm2_homes = [\"{}\"]\nsample_interval = \"1s\"\n\
             [[tokens]]\nname = \"tester\"\nsha256 = \"{}\"\n\
             scopes = [\"read\", \"control\", \"deploy\"]\n\
             [slots]\nroot = \"{}\"\nallow_file_repositories = true\npm2 = \"{}\"\n\
             inherit = [\"{}\"]\n{settings}\
             [slots.env]\nWORKSPACE = \"canary-workspace\"\n\
             [slots.admin]\nenabled = false\n\
             [[slots.slot]]\nname = \"a\"\nport = {}\n[[slots.slot]]\nname = \"b\"\nport = {}\n",
            listen.address(),
            pm2.home().display(),
            token.hash(),
            root.display(),
            e2e::setup::pm2_cli().display(),
            MARK,
            a.number(),
            b.number(),
        );
        let config = pm2.folder().write("exporter.toml", &text).unwrap();
        let client = Client::new(format!("http://{}", listen.address()))
            .unwrap()
            .with_token(token.reveal().to_string());
        let token = token.reveal().to_string();
        let ports = BTreeMap::from([("a", a.number()), ("b", b.number())]);
        let mut stage = Self {
            pm2,
            client,
            ports,
            exporter: None,
            mark: e2e::process::new_mark(),
            variables: Vec::new(),
            config,
            listen,
            token,
            _held: vec![a, b],
        };
        let (out, well) = stage.slots(&["up"]);
        assert!(well, "{out}");
        stage.serve().await;
        stage
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.pm2.folder().join("slots")
    }

    /// What everything that is started for the test carries, to be found by when it ends.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// The token that may do everything.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A variable of the exporter's environment, from its next start.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Changes words of the configuration.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        self.command_under(&[], words)
    }

    /// By another program, which is given the exporter's command line.
    fn command_under(&self, under: &[&str], words: &[&str]) -> Command {
        let mut command = match under {
            [] => Command::new(EXPORTER),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(EXPORTER);
                command
            }
        };
        command
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .env("PATH", self.path())
            .env("HOME", self.pm2.folder().path())
            .env(MARK, &self.mark)
            .envs(registry())
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// The PATH, with a folder of the test's own before all others.
    fn path(&self) -> std::ffi::OsString {
        let own = self.pm2.folder().join("bin");
        let rest = std::env::var_os("PATH").unwrap();
        std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&rest))).unwrap()
    }

    /// Puts a program on the PATH of the exporter.
    pub(crate) fn program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.pm2.folder().join("bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Asks the exporter to end, and waits until it has.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut child = self.exporter.take()?;
        // The exporter itself, not the program that it is run by.
        let is_exporter = |pid: &u32| {
            std::fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe == Path::new(EXPORTER))
        };
        let pid = std::iter::once(child.id())
            .chain(e2e::process::descendants(child.id()))
            .find(is_exporter)
            .unwrap();
        e2e::process::signal(pid, rustix::process::Signal::TERM);
        child.wait().unwrap().code()
    }

    /// Runs `pm2-exporter slots …`.
    pub(crate) fn slots(&self, words: &[&str]) -> (String, bool) {
        let words: Vec<&str> = std::iter::once("slots").chain(words.iter().copied()).collect();
        let (out, error, well) = self.run(&words);
        (out + &error, well)
    }

    /// Runs `pm2-exporter …`; gives what it printed, what it complained of, and whether all was
    /// well.
    pub(crate) fn run(&self, words: &[&str]) -> (String, String, bool) {
        let output = self.command(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.success())
    }

    /// Makes a program of this name, which is that file.
    pub(crate) fn link_program(&self, name: &str, file: &Path) {
        let path = self.pm2.folder().join("bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(file, path).unwrap();
    }

    /// Starts the exporter.
    pub(crate) async fn serve(&mut self) {
        self.serve_under(&[]).await;
    }

    /// Starts the exporter by another program.
    pub(crate) async fn serve_under(&mut self, under: &[&str]) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.pm2.folder().join("exporter.log"))
            .unwrap();
        let child = self
            .command_under(under, &["serve"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.exporter = Some(child);
        wait_until("the exporter knows PM2", SOON, async || {
            let ready = self.client.get("/readyz").await.is_ok_and(|answer| answer.status == 200);
            ready.then_some(())
        })
        .await
        .unwrap();
        let _ = &self.listen;
    }

    /// Ends the exporter as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.exporter.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.pm2.folder().join("exporter.log")).unwrap_or_default()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.client.request(Method::POST, path).json(body);
        self.client.send(request).await.unwrap()
    }

    /// Deploys into a slot and waits for the end.
    pub(crate) async fn deploy(&self, slot: &str, body: Value) -> Value {
        let answer = self.post(&format!("/api/slots/{slot}/deploy?wait=150s"), &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json().unwrap()
    }

    /// A deployment that must end well.
    pub(crate) async fn deployed(&self, slot: &str, repository: &Repo) -> Value {
        let value = self.deploy(slot, json!({"repository": repository.url()})).await;
        assert_eq!(value["status"], "healthy", "{value:#}");
        value
    }

    /// A deployment that must fail, and what ran must run on.
    pub(crate) async fn fails(&self, slot: &str, body: Value) -> Value {
        let before = self.get(slot, "/").await;
        let value = self.deploy(slot, body).await;
        assert_eq!(value["status"], "failed", "{value:#}");
        assert_eq!(self.get(slot, "/").await, before, "{value:#}");
        self.at_rest(slot).await;
        value
    }

    /// What a slot's port answers.
    pub(crate) async fn get(&self, slot: &str, path: &str) -> Option<String> {
        let port = self.ports[slot];
        let client = Client::new(format!("http://127.0.0.1:{port}")).unwrap();
        client.get(path).await.ok().map(|answer| answer.text)
    }

    pub(crate) async fn slot(&self, slot: &str) -> Value {
        self.client.json(&format!("/api/slots/{slot}")).await.unwrap()
    }

    /// How many programs that were run for a slot still run.
    fn left_behind(&self) -> usize {
        let mark = format!("PM2_EXPORTER_TASK={}#", self.root().display());
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                environ.split(|byte| *byte == 0).any(|one| one.starts_with(mark.as_bytes()))
            })
            .count()
    }

    /// Waits until none of them does.
    pub(crate) async fn leaves_nothing_behind(&self) {
        wait_until("nothing that was tried is left behind", SOON, async || {
            (self.left_behind() == 0).then_some(())
        })
        .await
        .unwrap();
    }

    /// The invariant: exactly one PM2 process, and no half-made folder.
    pub(crate) async fn at_rest(&self, slot: &str) {
        let name = format!("slot-{slot}");
        let what = format!("{name} is one process, online");
        wait_until(&what, SOON, async || {
            let found = self.pm2.processes_of(&name).ok()?;
            (found.len() == 1 && found[0]["pm2_env"]["status"] == "online").then_some(())
        })
        .await
        .unwrap();
        // A change is told to be at its end before what is old is removed.
        wait_until("nothing half-made is left", SOON, async || {
            let text = std::fs::read_to_string(self.root().join(format!("state/{slot}.json")));
            let state: Value = serde_json::from_str(&text.unwrap_or("{}".to_owned())).ok()?;
            let kept = state["standing"]["kept"].as_array().cloned().unwrap_or_default();
            let releases = std::fs::read_dir(self.root().join("releases").join(slot)).ok()?;
            let known = |name: String| kept.iter().any(|kept| *kept == name);
            let mut names = releases
                .flatten()
                .map(|release| release.file_name().to_string_lossy().into_owned());
            (state["standing"]["change"].is_null() && names.all(known)).then_some(())
        })
        .await
        .unwrap();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the exporter said:\n{}", self.log());
        }
        let _ = self.pm2.kill_daemon();
        // A daemon that 'slots up' started.
        e2e::process::end_all(|| e2e::process::marked(&self.mark));
    }
}

pub(crate) const MARK: &str = e2e::process::MARK;

/// How npm reaches its registry here, if the environment says.
fn registry() -> Vec<(String, String)> {
    std::env::vars().filter(|(name, _)| name.to_lowercase().starts_with("npm_config_")).collect()
}

/// A git repository in a folder of its own.
pub(crate) struct Repo {
    folder: e2e::Folder,
}

impl Repo {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let repo = Self { folder: e2e::Folder::new().unwrap() };
        repo.git(&["init", "-q", "-b", "main"]);
        repo.commit(files);
        repo
    }

    /// An application that says `text`, and its environment at `/env`.
    pub(crate) fn app(text: &str) -> Self {
        Self::new(&[("package.json", PACKAGE), ("server.js", &server(text))])
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// Writes files (`-> target` makes a link) and commits them. Gives the commit.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&path);
            match text.strip_prefix("-> ") {
                Some(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
                None => std::fs::write(&path, text).unwrap(),
            }
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(words)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

pub(crate) const PACKAGE: &str =
    r#"{"name":"x","version":"1.0.0","scripts":{"start":"node server.js"}}"#;

pub(crate) fn server(text: &str) -> String {
    format!(
        "require('http').createServer((q, r) => r.end(q.url === '/env' ? \
         JSON.stringify(process.env) : {text:?})).listen(process.env.PORT, () => console.log('up'));\n"
    )
}
