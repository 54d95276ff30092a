//! The workspace as a whole: its admin server, and `ecosystem.config.js`, which says the same
//! to PM2's own command.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::env::Env;
use super::plan::Occupant;
use super::record::{RESTARTS_PLACEHOLDER, Wanted};
use super::start::{Start, on_path};
use super::up::ADMIN;
use super::workshop::Workshop;
use crate::pm2::launch::{Running, SETTINGS};

impl Workshop {
    /// What is to run as admin server; nothing where it is turned off.
    pub fn admin(&self) -> Option<Wanted> {
        let settings = &self.settings;
        let admin = &settings.admin;
        if !admin.enabled {
            return None;
        }
        let path = self.path();
        let cwd = admin.cwd.clone().unwrap_or_else(|| self.store.root().to_owned());
        let mut env: Env = ["PATH", "HOME", "LANG", "TZ"]
            .into_iter()
            .map(str::to_owned)
            .chain(settings.inherit.iter().cloned())
            .filter_map(|name| Some((name.clone(), (self.own)(&name)?)))
            .collect();
        env.extend(settings.env.iter().cloned());
        env.insert("PORT".to_owned(), admin.port.to_string());
        let start = match &admin.command {
            Some(words) => command(words, &cwd, &path),
            None => {
                let beside = self.exporter.with_file_name("pm2-poller");
                let script = if beside.is_file() {
                    beside
                } else {
                    on_path("pm2-poller", &path).unwrap_or(beside)
                };
                env.insert("PM2_POLLER_LISTEN".to_owned(), format!("127.0.0.1:{}", admin.port));
                env.insert("PM2_POLLER_SERVERS".to_owned(), self.watched_by_admin());
                Start { script, node: None, args: vec!["serve".to_owned()], env: Env::new(), cwd }
            }
        };
        env.insert(SETTINGS.to_owned(), self.digest_of_admin(&start));
        let name = ADMIN.to_owned();
        Some(Wanted { name, start, env, max_restarts: RESTARTS_PLACEHOLDER })
    }

    /// Whether an admin server is to be started anew: it runs with other settings. None where it is
    /// somebody's own, which nobody here started.
    pub fn admin_differs(&self, wanted: &Wanted, running: &Running) -> Option<bool> {
        let ours =
            !running.settings.is_empty() || wanted.start.script == Path::new(&running.script);
        ours.then(|| wanted.env.get(SETTINGS) != Some(&running.settings))
    }

    /// What is set of the admin server, so that it can be told whether that was changed since it was
    /// started, and nothing else. Without what comes from whoever asks: `PATH` and its like.
    fn digest_of_admin(&self, start: &Start) -> String {
        let admin = &self.settings.admin;
        let token = admin.token_file.as_ref().and_then(|file| std::fs::read(file).ok());
        let set =
            serde_json::json!([start, self.settings.env, admin.port, self.watched_by_admin()]);
        let digest =
            Sha256::new().chain_update(set.to_string()).chain_update(token.unwrap_or_default());
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// `servers` of the poller that watches this exporter.
    fn watched_by_admin(&self) -> String {
        // A string of JSON is one of TOML as well.
        let quoted = |text: String| serde_json::Value::from(text).to_string();
        let url = quoted(format!("http://{}", self.listen));
        let token_file = match &self.settings.admin.token_file {
            Some(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!(", token_file = {}", quoted(path.display().to_string()))
            }
            None => String::new(),
        };
        format!("[{{id = \"local\", url = {url}{token_file}}}]")
    }

    /// Writes what `pm2 start ecosystem.config.js` would make the same of. It holds
    /// environments: only its owner may read it.
    ///
    /// # Errors
    /// It cannot be written, or a slot's state cannot be read.
    pub fn write_ecosystem(&self) -> anyhow::Result<PathBuf> {
        let mut apps = Vec::new();
        let mut add = |wanted: &Wanted| {
            apps.push(wanted.ecosystem(&self.settings, &self.store, &self.node));
        };
        if let Some(wanted) = self.admin() {
            add(&wanted);
        }
        for place in &self.settings.places {
            let state = self.store.load(&place.slot)?;
            let wanted = self
                .wanted(place, &state, &state.standing.current)
                .or_else(|_| self.wanted(place, &state, &Occupant::Placeholder));
            add(&wanted.map_err(anyhow::Error::msg)?);
        }
        let json = serde_json::to_string_pretty(&serde_json::json!({"apps": apps}))?;
        let text = format!(
            "// Written by 'pm2-exporter slots up': what it changes here is lost at the next one.\n\
             module.exports = {json};\n"
        );
        let path = self.store.root().join("ecosystem.config.js");
        super::store::write_whole(&path, text.as_bytes())
            .with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// A program with its arguments; `node file …` is run by Node.js directly.
fn command(words: &[String], cwd: &Path, path: &str) -> Start {
    let (program, args) =
        words.split_first().map_or(("", &[][..]), |(word, rest)| (word.as_str(), rest));
    if program == "node"
        && let Some((file, args)) = args.split_first()
    {
        let (script, args) = (cwd.join(file), args.to_vec());
        return Start {
            script,
            node: Some(Vec::new()),
            args,
            env: Env::new(),
            cwd: cwd.to_owned(),
        };
    }
    let script = if program.contains('/') {
        cwd.join(program)
    } else {
        on_path(program, path).unwrap_or_else(|| PathBuf::from(program))
    };
    Start { script, node: None, args: args.to_vec(), env: Env::new(), cwd: cwd.to_owned() }
}
