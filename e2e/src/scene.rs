//! What most tests begin with: programs around a PM2, real or fake, quick enough for a test.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::json;
use service::token::{Issuer, Token};

use crate::client::{Answer, Client};
use crate::fleet::{new_poller_token, write_secret};
use crate::folder::Folder;
use crate::metrics::Metrics;
use crate::port::Port;
use crate::program::{Launch, Program};
use crate::wait::{SOON, wait_until};

/// An exporter with no configuration at all.
///
/// # Errors
/// It does not start.
pub async fn exporter(home: &Path) -> anyhow::Result<Program> {
    Launch::exporter()?.pm2_home(home).start().await
}

/// An exporter with tokens.
#[derive(Debug)]
pub struct Guarded {
    /// It.
    pub program: Program,
    /// Asks with a token that may read.
    pub read: Client,
    /// Asks with a token that may read and control.
    pub control: Client,
    /// That token.
    pub token: String,
}

/// An exporter with a token that may read and one that may control; `more` is further
/// configuration, before the tokens.
///
/// # Errors
/// It does not start.
pub async fn guarded_exporter(home: &Path, more: &str) -> anyhow::Result<Guarded> {
    let (read, read_block) = exporter_token("reader", &["read"])?;
    let (token, control_block) = exporter_token("poller", &["read", "control"])?;
    let launch = Launch::exporter()?
        .pm2_home(home)
        .configuration(&format!("{more}\n{read_block}{control_block}"))?;
    let program = launch.start().await?;
    let client = program.client();
    Ok(Guarded {
        read: client.with_token(read),
        control: client.with_token(&token),
        token,
        program,
    })
}

/// An exporter of one slot, `a`, that takes repositories of this machine; and a token for it that
/// may do everything.
///
/// # Errors
/// It does not start.
pub async fn exporter_with_slot(home: &Path, slot: &Port) -> anyhow::Result<(Program, String)> {
    let (token, block) = exporter_token("poller", &["read", "control", "deploy"])?;
    let exporter = Launch::exporter()?.pm2_home(home);
    let settings = format!(
        "{block}[slots]\nroot = {:?}\nallow_file_repositories = true\n\
         probe_interval = \"500ms\"\nprobe_attempts = 120\nsettle = \"600ms\"\n[slots.admin]\nenabled = false\n\
         [[slots.slot]]\nname = \"a\"\nport = {}\n",
        exporter.folder().join("slots"),
        slot.number(),
    );
    Ok((exporter.configuration(&settings)?.start().await?, token))
}

/// A git repository of an application that answers, with a build script or none.
///
/// # Errors
/// There is no git, or the files cannot be written.
pub fn repository(build: &str) -> anyhow::Result<Folder> {
    let folder = Folder::new()?;
    let scripts = if build.is_empty() { json!({}) } else { json!({ "build": build }) };
    let package = json!({"name": "shop", "main": "server.js", "scripts": scripts});
    let server = "const http = require('http');\n\
        http.createServer((_, answer) => answer.end('deployed'))\
          .listen(process.env.PORT, '127.0.0.1');\n";
    folder.write("package.json", &package.to_string())?;
    folder.write("server.js", server)?;
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["add", "."],
        &["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-q", "-m", "one"],
    ] {
        let done = Command::new("git").current_dir(folder.path()).args(words).status()?;
        anyhow::ensure!(done.success(), "git {words:?}");
    }
    Ok(folder)
}

/// A token for an exporter and the block that lets it in.
///
/// # Errors
/// There is no randomness.
pub fn exporter_token(name: &str, scopes: &[&str]) -> anyhow::Result<(String, String)> {
    let token = Token::new(Issuer::Exporter)?;
    let sha256 = token.hash();
    let block =
        format!("[[tokens]]\nname = {name:?}\nsha256 = \"{sha256}\"\nscopes = {scopes:?}\n");
    Ok((token.reveal().to_owned(), block))
}

/// A server that a poller is to watch.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// Where its exporter is.
    pub url: String,
    /// A token for it.
    pub token: Option<String>,
}

impl Server {
    /// One whose exporter has tokens.
    pub fn of(id: &str, exporter: &Guarded) -> Self {
        let url = exporter.program.launch().base();
        Self { id: id.to_owned(), url, token: Some(exporter.token.clone()) }
    }

    /// One whose exporter has none.
    pub fn open(id: &str, url: impl Into<String>) -> Self {
        Self { id: id.to_owned(), url: url.into(), token: None }
    }
}

/// A poller that polls every second, with an admin.
#[derive(Debug)]
pub struct Watcher {
    /// It.
    pub program: Program,
    /// Asks it with the token of an admin.
    pub admin: Client,
    /// That token.
    pub token: String,
}

/// Times for a poller that misses no poll, and calls nobody offline, because of a stop of a second.
pub const UNHURRIED: &str = "poll_interval = \"3s\"\npoll_timeout = \"3s\"\nstale_after = \"9s\"\n";

/// A poller of these servers; `more` is further configuration, before the servers, and has its
/// own times where it names `poll_interval`.
///
/// # Errors
/// It does not start.
pub async fn poller(servers: &[Server], more: &str) -> anyhow::Result<Watcher> {
    let launch = poller_launch(servers, more)?;
    let configuration = launch.folder().join("configuration.toml");
    let token = new_poller_token(&configuration.display().to_string(), "admin", "admin").await?;
    let program = launch.start().await?;
    Ok(Watcher { admin: program.client().with_token(&token), token, program })
}

/// The same, not yet started and without an admin.
///
/// # Errors
/// Its files cannot be written.
pub fn poller_launch(servers: &[Server], more: &str) -> anyhow::Result<Launch> {
    let launch = Launch::poller()?;
    let text = poller_configuration(&launch, servers, more)?;
    launch.configuration(&text)
}

/// The configuration of such a poller; its token files are written.
///
/// # Errors
/// They cannot be written.
pub fn poller_configuration(
    launch: &Launch,
    servers: &[Server],
    more: &str,
) -> anyhow::Result<String> {
    let timing = match more.contains("poll_interval") {
        true => "",
        false => "poll_interval = \"1s\"\npoll_timeout = \"1s\"\nstale_after = \"3s\"\n",
    };
    let mut text = format!("database = \"poller.db\"\n{timing}{more}\n");
    for Server { id, url, token } in servers {
        text += &format!("[[servers]]\nid = {id:?}\nurl = {url:?}\n");
        if let Some(token) = token {
            let name = format!("{id}.token");
            write_secret(&launch.folder().join(&name), token)?;
            text += &format!("token_file = {name:?}\n");
        }
    }
    Ok(text)
}

impl Watcher {
    /// Waits until a server has a status (`online`, `stale`, `offline`).
    ///
    /// # Errors
    /// It does not get it in time.
    pub async fn wait_for(&self, server: &str, status: &str) -> anyhow::Result<serde_json::Value> {
        let path = format!("/api/servers/{server}");
        let last = std::sync::Mutex::new(String::new());
        wait_until(&format!("{server} is {status}"), SOON, async || {
            let answer = self.admin.get(&path).await.ok()?;
            if let Ok(mut last) = last.lock() {
                last.clone_from(&answer.text);
            }
            let found: serde_json::Value = answer.json().ok()?;
            (found["status"] == status).then_some(found)
        })
        .await
        .with_context(|| format!("last seen: {last:?}; {}", self.program.stderr()))
    }

    /// The events of a server, oldest first, without samples of other servers.
    ///
    /// # Errors
    /// The poller does not tell them.
    pub async fn events(&self, server: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let path = format!("/api/events?server={server}&limit=1000");
        let answer: serde_json::Value = self.admin.json(&path).await?;
        let mut events = answer["events"].as_array().context("no events")?.clone();
        // Newest come first, as a page shows them.
        events.reverse();
        Ok(events)
    }

    /// What it shows to Prometheus.
    ///
    /// # Errors
    /// It shows nothing, or something else.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        metrics(&self.admin).await
    }

    /// Waits for what it shows to Prometheus to be as wanted: one poll that is late takes a
    /// server's series away until the next.
    ///
    /// # Errors
    /// It is not so in time.
    pub async fn metrics_with(
        &self,
        what: &str,
        wanted: impl Fn(&Metrics) -> bool,
    ) -> anyhow::Result<Metrics> {
        wait_until(what, SOON, async || self.metrics().await.ok().filter(|page| wanted(page))).await
    }
}

/// What a program shows to Prometheus.
///
/// # Errors
/// It shows nothing, or something else.
pub async fn metrics(client: &Client) -> anyhow::Result<Metrics> {
    Metrics::parse(&client.get("/metrics").await?.ok()?)
}

/// The exporter's processes of a name.
///
/// # Errors
/// It does not tell them.
pub async fn instances(client: &Client, name: &str) -> anyhow::Result<Vec<wire::Process>> {
    let list: wire::ProcessList = client.json("/api/processes").await?;
    Ok(list.processes.into_iter().filter(|process| &*process.instance.name == name).collect())
}

/// Waits until exactly `count` processes of a name have a status at the exporter.
///
/// # Errors
/// That is not so in time.
pub async fn wait_for_instances(
    client: &Client,
    name: &str,
    status: wire::Status,
    count: usize,
) -> anyhow::Result<Vec<wire::Process>> {
    let what = format!("{count} processes {name} are {status} at the exporter");
    wait_until(&what, SOON, async || {
        let mut found = instances(client, name).await.ok()?;
        found.retain(|process| process.status == status);
        (found.len() == count).then_some(found)
    })
    .await
}

/// The answer of a command, which must have ended well.
///
/// # Errors
/// It has not.
pub fn succeeded(answer: &Answer) -> anyhow::Result<serde_json::Value> {
    anyhow::ensure!(answer.status == 200, "{}: {} {}", answer.request, answer.status, answer.text);
    let record: serde_json::Value = answer.json()?;
    anyhow::ensure!(record["status"] == "succeeded", "{}", answer.text);
    Ok(record)
}
