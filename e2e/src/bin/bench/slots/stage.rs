//! A PM2, an exporter with slots, and repositories to deploy from.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Answer, Client, Folder, Pm2, Port, SOON, wait_until};
use reqwest::Method;
use serde_json::{Value, json};

/// How long a deployment is waited for.
const DEPLOYED: Duration = Duration::from_secs(120);

/// See the module.
pub(crate) struct Stage {
    pub(crate) pm2: Pm2,
    pub(crate) client: Client,
    /// Of the slots `a`, `b` and so on.
    pub(crate) ports: Vec<Port>,
    exporter: Child,
}

impl Stage {
    /// With so many placeholders up, and the exporter serving; `more` is further lines of
    /// `[slots]`.
    pub(crate) async fn start(slots: usize, more: &str) -> anyhow::Result<Self> {
        let pm2 = Pm2::start().await?;
        let listen = Port::free()?;
        let ports = (0..slots).map(|_| Port::free()).collect::<anyhow::Result<Vec<_>>>()?;
        let (token, block) = e2e::scene::exporter_token("bench", &["read", "control", "deploy"])?;
        let mut text = format!(
            "listen = \"{}\"\npm2_homes = [\"{}\"]\n{block}[slots]\nroot = \"{}\"\n\
             allow_file_repositories = true\npm2 = \"{}\"\n{more}[slots.admin]\nenabled = false\n",
            listen.address(),
            pm2.home().display(),
            pm2.folder().join("slots").display(),
            e2e::setup::pm2_cli().display(),
        );
        for (name, port) in ('a'..='z').zip(&ports) {
            text += &format!("[[slots.slot]]\nname = \"{name}\"\nport = {}\n", port.number());
        }
        let config = pm2.folder().write("exporter.toml", &text)?;
        let command = |words: &[&str]| -> anyhow::Result<Command> {
            let mut command = Command::new(program()?);
            command
                .args(words)
                .arg("--config")
                .arg(&config)
                .env("HOME", pm2.folder().path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Ok(command)
        };
        let up = command(&["slots", "up"])?.status()?;
        ensure!(up.success(), "'slots up' ended with {up}");
        let exporter = command(&["serve"])?.spawn()?;
        let client = Client::new(format!("http://{}", listen.address()))?.with_token(token);
        let stage = Self { pm2, client, ports, exporter };
        wait_until("the exporter knows PM2", SOON, async || {
            let ready = stage.client.get("/readyz").await.is_ok_and(|it| it.status == 200);
            ready.then_some(())
        })
        .await?;
        Ok(stage)
    }

    /// The port of slot `a`.
    pub(crate) fn port(&self) -> u16 {
        self.ports.first().map_or(0, Port::number)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.client.send(self.client.request(Method::POST, path).json(body)).await
    }

    /// Deploys into slot `a` and gives what became of it.
    pub(crate) async fn deploy(&self, body: Value) -> anyhow::Result<Value> {
        let wait = DEPLOYED.as_secs();
        let answer = self.post(&format!("/api/slots/a/deploy?wait={wait}s"), &body).await?;
        ensure!(answer.status == 200, "{}", answer.text);
        answer.json()
    }

    /// A deployment that ends well.
    pub(crate) async fn deployed(&self, repo: &Repo) -> anyhow::Result<()> {
        let done = self.deploy(json!({"repository": repo.url()})).await?;
        ensure!(done["status"] == "healthy", "{done:#}");
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.exporter.kill();
        let _ = self.exporter.wait();
    }
}

/// `pm2-exporter` as it is shipped.
fn program() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("PM2_FLEET_BIN").context("PM2_FLEET_BIN is not set")?;
    let path = std::path::absolute(PathBuf::from(folder).join("pm2-exporter"))?;
    ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}

/// A git repository in a folder of its own.
pub(crate) struct Repo(Folder);

impl Repo {
    /// With these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let repo = Self(Folder::new()?);
        repo.git(&["init", "-q", "-b", "main"])?;
        repo.commit(files)?;
        Ok(repo)
    }

    /// A dependency-free application.
    pub(crate) fn app(text: &str) -> anyhow::Result<Self> {
        Self::new(&[("package.json", PACKAGE), ("server.js", &server(text))])
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.0.path().display())
    }

    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> anyhow::Result<()> {
        for (name, text) in files {
            self.0.write(name, text)?;
        }
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "--allow-empty", "-m", "x"])
    }

    fn git(&self, words: &[&str]) -> anyhow::Result<()> {
        let done = Command::new("git")
            .args(["-c", "user.name=bench", "-c", "user.email=bench@example.org"])
            .args(words)
            .current_dir(self.0.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()?;
        ensure!(done.success(), "git {words:?}: {done}");
        Ok(())
    }
}

pub(crate) const PACKAGE: &str =
    r#"{"name":"x","version":"1.0.0","scripts":{"start":"node server.js"}}"#;

/// A server that says `text`.
pub(crate) fn server(text: &str) -> String {
    format!("require('http').createServer((q, r) => r.end({text:?})).listen(process.env.PORT);\n")
}
