//! The steps of a deployment before anything that runs is touched: fetch, install, build.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use wire::{CommandId, DeployRequest};

use super::child::Task;
use super::env::{self, Env};
use super::git::Fetch;
use super::install::{Project, Todo};
use super::log::Log;
use super::run::{Failed, Runner};
use super::start::{Finder, on_path};
use super::{repository, tree, words};

impl Runner<'_> {
    fn release(&self, id: &CommandId) -> PathBuf {
        self.workshop.store.release(&self.managed.place.slot, id)
    }

    /// The application's folder within a release.
    fn folder(&self, id: &CommandId) -> Result<PathBuf, Failed> {
        let release = self.release(id);
        let subdir =
            self.managed.state().deployed(id).and_then(|deployed| deployed.shown.subdir.clone());
        let Some(subdir) = subdir else { return Ok(release) };
        let checked = repository::subdir(&subdir).map_err(Failed::Wrong)?;
        let folder = release.join(checked);
        let real = folder.canonicalize().map_err(|_| {
            Failed::Wrong(format!("subdir: the repository has no folder {subdir:?}"))
        })?;
        let root = release.canonicalize().map_err(|error| Failed::Wrong(error.to_string()))?;
        if !real.starts_with(root) || !real.is_dir() {
            return Err(Failed::Wrong(format!(
                "subdir: {subdir:?} is not a folder of the repository"
            )));
        }
        Ok(real)
    }

    pub(super) async fn fetch(
        &self,
        id: &CommandId,
        log: &Log,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let Some((request, repository)) = self.deploy else {
            return Err(Failed::Wrong("what is to be deployed is not known any more".to_owned()));
        };
        self.stop_if_foreign().await?;
        let into = self.release(id);
        let path = self.workshop.path();
        let git = on_path("git", &path)
            .ok_or_else(|| Failed::Wrong("git is needed and is not on the PATH".to_owned()))?;
        let home = self.workshop.store.tools_home();
        log.note(&format!("fetching {repository}"));
        let mark = self.workshop.mark(&self.managed.place);
        let fetch = Fetch {
            repository,
            branch: request.branch.as_deref(),
            commit: request.commit.as_deref(),
            into: &into,
            git: &git,
            exporter: &self.workshop.exporter,
            home: &home,
            allow_file: self.workshop.settings.allow_file_repositories,
            mark: &mark,
        };
        let commit = fetch.run(log, deadline, self.shutdown, &*self.workshop.own).await;
        let commit = self.or_stopped(commit.map_err(|error| with_last(error, log)))?;
        log.note(&format!("commit {commit}"));
        {
            let mut state = self.managed.state();
            if let Some(deployed) = state.deployed_mut(id) {
                deployed.shown.commit = Some(commit);
            }
        }
        self.measure(id).await?;
        self.folder(id).map(drop)
    }

    /// Sees that no link leads out and that it is not too big.
    async fn measure(&self, id: &CommandId) -> Result<(), Failed> {
        let (release, limit) = (self.release(id), self.workshop.settings.release_limit);
        let checked = tokio::task::spawn_blocking(move || tree::check(&release, limit)).await;
        match checked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(Failed::Wrong(refused.to_string())),
            Err(error) => Err(Failed::Wrong(error.to_string())),
        }
    }

    pub(super) async fn install(
        &self,
        id: &CommandId,
        log: &Log,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let folder = self.folder(id)?;
        let (release, path) = (self.release(id), self.workshop.path());
        let release = release.canonicalize().unwrap_or(release);
        let given = self.given(|request| request.install.as_ref())?;
        let project = Project { release: &release, folder: &folder, path: &path };
        match project.install(given.as_deref()).map_err(Failed::Wrong)? {
            Some(todo) => self.todo(id, &todo, log, deadline).await,
            None => {
                log.note("nothing to install");
                Ok(())
            }
        }
    }

    pub(super) async fn build(
        &self,
        id: &CommandId,
        log: &Log,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let folder = self.folder(id)?;
        let (release, path) = (self.release(id), self.workshop.path());
        let release = release.canonicalize().unwrap_or(release);
        let given = self.given(|request| request.build.as_ref())?;
        let project = Project { release: &release, folder: &folder, path: &path };
        match project.build(given.as_deref()).map_err(Failed::Wrong)? {
            Some(todo) => self.todo(id, &todo, log, deadline).await?,
            None => log.note("nothing to build"),
        }
        let given = self.given(|request| request.start.as_ref())?;
        let finder = Finder { release: &release, folder: &folder, path: &path };
        let start = finder.find(given.as_deref()).map_err(Failed::Wrong)?;
        log.note(&format!("is started as: {}", start.shown()));
        self.settle_on_disk().await;
        let mut state = self.managed.state();
        if let Some(deployed) = state.deployed_mut(id) {
            deployed.shown.start = Some(start.shown());
            deployed.start = Some(start);
        }
        Ok(())
    }

    /// Has the release written out: after a power cut the slot's state may name it, and then
    /// it must be whole.
    async fn settle_on_disk(&self) {
        let root = self.workshop.store.root().to_owned();
        let written = tokio::task::spawn_blocking(move || {
            std::fs::File::open(root).and_then(|root| Ok(rustix::fs::syncfs(root)?))
        });
        match tokio::time::timeout(Duration::from_secs(30), written).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("a release may not be on disk yet"),
        }
    }

    fn given(
        &self,
        pick: impl Fn(&DeployRequest) -> Option<&wire::CommandLine>,
    ) -> Result<Option<Vec<String>>, Failed> {
        let line = self.deploy.and_then(|(request, _)| pick(request));
        line.map(words::of).transpose().map_err(|error| Failed::Wrong(error.to_string()))
    }

    async fn todo(
        &self,
        id: &CommandId,
        todo: &Todo,
        log: &Log,
        deadline: Instant,
    ) -> Result<(), Failed> {
        log.note(&todo.shown());
        log.forget_lines();
        let place = &self.managed.place;
        let mut env = {
            let state = self.managed.state();
            let own = state.deployed(id).map(|deployed| deployed.env.clone()).unwrap_or_default();
            env::of_build(self.workshop.application_env(place, &state, &own, place.port))
        };
        self.add_tools_env(&mut env);
        let mark = self.workshop.mark(place);
        let task = Task {
            program: &todo.program,
            args: &todo.args,
            cwd: &todo.cwd,
            env: &env,
            mark: &mark,
            grace: self.workshop.settings.kill_timeout,
        };
        let done = task.run(log, deadline, self.shutdown).await;
        self.or_stopped(done.map_err(|error| with_last(error.to_string(), log)))?;
        self.measure(id).await
    }

    /// How npm and its like reach their registry is the host's matter.
    fn add_tools_env(&self, env: &mut Env) {
        for name in [
            "https_proxy",
            "HTTPS_PROXY",
            "http_proxy",
            "HTTP_PROXY",
            "no_proxy",
            "NO_PROXY",
            "NODE_EXTRA_CA_CERTS",
            "SSL_CERT_FILE",
            "npm_config_registry",
            "NPM_CONFIG_REGISTRY",
            "npm_config_userconfig",
            "NPM_CONFIG_USERCONFIG",
            "npm_config_cache",
        ] {
            if let Some(value) = (self.workshop.own)(name) {
                env.entry(name.to_owned()).or_insert(value);
            }
        }
        env.insert("npm_config_update_notifier".to_owned(), "false".to_owned());
    }

    fn or_stopped<T>(&self, result: Result<T, String>) -> Result<T, Failed> {
        result.map_err(|error| match self.shutdown.drain.is_cancelled() {
            true => Failed::Stopped,
            false => Failed::Wrong(error),
        })
    }
}

/// An error with the last line that was printed, which mostly says why.
fn with_last(error: String, log: &Log) -> String {
    match log.last_lines().last() {
        Some(line) => format!("{error}: {line}"),
        None => error,
    }
}
