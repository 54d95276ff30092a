//! Fetching a repository: git as a child process, with nothing in reach that could run a
//! program of the repository's or ask a question.

use std::path::Path;
use std::time::Duration;

use service::shutdown::Shutdown;
use tokio::time::Instant;

use super::child::{Task, TaskError};
use super::env::Env;
use super::log::Log;
use super::repository::Repository;

/// What git may see of the exporter's own environment: how to reach the network.
const PASSED: [&str; 12] = [
    "PATH",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "SSH_AUTH_SOCK",
    "TMPDIR",
];

/// What is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Its branch or tag.
    pub branch: Option<&'a str>,
    /// Its commit.
    pub commit: Option<&'a str>,
    /// The new folder.
    pub into: &'a Path,
    /// The git program.
    pub git: &'a Path,
    /// This program.
    pub exporter: &'a Path,
    /// A folder that serves as home.
    pub home: &'a Path,
    /// Whether `file://` is allowed.
    pub allow_file: bool,
    /// See [`Task::mark`].
    pub mark: &'a str,
}

impl Fetch<'_> {
    /// Fetches it, without history, and gives its commit. The folder then holds the files and
    /// no `.git`.
    ///
    /// # Errors
    /// Why not.
    pub async fn run(
        &self,
        log: &Log,
        deadline: Instant,
        shutdown: &Shutdown,
        own: &(dyn Fn(&str) -> Option<String> + Send + Sync),
    ) -> Result<String, String> {
        let env = self.env(own);
        std::fs::create_dir_all(self.into).map_err(|error| error.to_string())?;
        let git = async |words: &[&str]| -> Result<(), TaskError> {
            let mut args: Vec<String> = SETTINGS
                .iter()
                .flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()])
                .collect();
            args.extend(words.iter().map(|word| (*word).to_owned()));
            let task = Task {
                program: self.git,
                args: &args,
                cwd: self.into,
                env: &env,
                mark: self.mark,
                grace: Duration::from_secs(2),
            };
            task.run(log, deadline, shutdown).await
        };
        let said = |error: TaskError| error.to_string();
        git(&["init", "--quiet", "--template="]).await.map_err(said)?;
        let fetch = async |depth: &[&str], reference: &str| {
            let mut words = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
            words.extend(depth);
            words.extend(["--", self.repository.url(), reference]);
            git(&words).await
        };
        let shallow = &["--depth=1"][..];
        match (self.commit, self.branch) {
            (Some(commit), branch) => {
                // Not every server gives a commit by its id; all give a branch.
                if let Err(error) = fetch(shallow, commit).await {
                    if !matches!(error, TaskError::Exit(..)) {
                        return Err(said(error));
                    }
                    let reference = branch
                        .map_or_else(|| "HEAD".to_owned(), |name| format!("refs/heads/{name}"));
                    fetch(&[], &reference).await.map_err(said)?;
                }
                let detached = ["checkout", "--quiet", "--detach", commit, "--"];
                git(&detached).await.map_err(|error| {
                    format!("commit {commit} is not in the repository: {error}")
                })?;
            }
            (None, Some(branch)) => {
                if let Err(error) = fetch(shallow, &format!("refs/heads/{branch}")).await {
                    if !matches!(error, TaskError::Exit(..)) {
                        return Err(said(error));
                    }
                    fetch(shallow, &format!("refs/tags/{branch}")).await.map_err(said)?;
                }
                git(&["checkout", "--quiet", "--detach", "FETCH_HEAD", "--"])
                    .await
                    .map_err(said)?;
            }
            (None, None) => {
                fetch(shallow, "HEAD").await.map_err(said)?;
                git(&["checkout", "--quiet", "--detach", "FETCH_HEAD", "--"])
                    .await
                    .map_err(said)?;
            }
        }
        let dot_git = self.into.join(".git");
        // Detached, so that HEAD holds the commit itself.
        let commit = std::fs::read_to_string(dot_git.join("HEAD"))
            .map_err(|error| format!("the commit cannot be read: {error}"))?;
        std::fs::remove_dir_all(&dot_git).map_err(|error| error.to_string())?;
        super::repository::commit(commit.trim())
    }

    fn env(&self, own: &(dyn Fn(&str) -> Option<String> + Send + Sync)) -> Env {
        let mut env: Env =
            PASSED.into_iter().filter_map(|name| Some((name.to_owned(), own(name)?))).collect();
        let protocols = if self.allow_file { "https:ssh:file" } else { "https:ssh" };
        for (name, value) in [
            ("GIT_ALLOW_PROTOCOL", protocols),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS_REQUIRE", "never"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("PM2_EXPORTER_AS", "ssh"),
            ("GIT_SSH_VARIANT", "ssh"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("LC_ALL", "C.UTF-8"),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        // A program by its name, not a command line: git would give that to a shell. It is this
        // one, which runs ssh with the options that keep it from asking.
        env.insert("GIT_SSH".to_owned(), self.exporter.display().to_string());
        env.insert("HOME".to_owned(), self.home.display().to_string());
        // In the environment, which only this user can read; arguments are everybody's.
        if let Some(header) = self.repository.authorization() {
            env.insert("GIT_CONFIG_COUNT".to_owned(), "1".to_owned());
            env.insert("GIT_CONFIG_KEY_0".to_owned(), "http.extraHeader".to_owned());
            env.insert("GIT_CONFIG_VALUE_0".to_owned(), header);
        }
        env
    }
}

/// Settings of git that no repository can change.
const SETTINGS: [&str; 12] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "core.askPass=",
    "credential.helper=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "http.followRedirects=false",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// Becomes ssh, which asks nothing, with the arguments that git gave; gives why not.
pub fn as_ssh() -> std::io::Error {
    use std::os::unix::process::CommandExt;
    std::process::Command::new("ssh")
        .args(["-oBatchMode=yes", "-oConnectTimeout=30"])
        .args(std::env::args_os().skip(1))
        .env_remove("PM2_EXPORTER_AS")
        .exec()
}
