//! The command line.

mod backup;
mod check;
mod limits;
mod notify;
mod pki;
mod serve;
mod server;
mod token;
mod user;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use service::{Exit, Failure};

use crate::config::{Config, SETTINGS};
use crate::store::{NewAudit, Store, StoreError};

/// How long is waited at the end for what cannot be stopped.
const LEFT: Duration = Duration::from_secs(1);

/// Everything that can be asked for.
pub fn command() -> Command {
    Command::new("pm2-poller")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(
            Command::new("serve").about("Poll the servers, keep what they say, serve it"),
        ))
        .subcommand(server::command())
        .subcommand(token::command())
        .subcommand(user::command())
        .subcommand(notify::command())
        .subcommand(pki::command())
        .subcommands(backup::commands())
        .subcommand(with_settings(
            Command::new("check").about("Say whether configuration and database are in order"),
        ))
}

/// Every command knows every setting, so that the same line of flags fits all.
fn with_settings(command: Command) -> Command {
    command.args(SETTINGS.args())
}

/// Runs the program: its arguments, and its exit code.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    service::exit("pm2-poller", run(&matches))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    // One thread: polling waits most of the time, and SQLite has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match matches.subcommand() {
            Some(("serve", matches)) => serve::run(matches.clone()).await,
            Some(("server", matches)) => server::run(matches).await,
            Some(("token", matches)) => token::run(matches).await,
            Some(("user", matches)) => user::run(matches).await,
            Some(("notify", matches)) => notify::run(matches).await,
            Some(("pki", matches)) => pki::run(matches),
            Some(("backup", matches)) => backup::run(matches).await,
            Some(("restore", matches)) => backup::restore(matches).await,
            Some(("check", matches)) => check::run(matches).await,
            _ => Err(Failure::new(Exit::Configuration, anyhow::anyhow!("nothing was asked for"))),
        }
    });
    // A read of a file system that does not answer has no end.
    runtime.shutdown_timeout(LEFT);
    ended
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn config(matches: &ArgMatches) -> Result<Config, Failure> {
    Ok(Config::read(matches, env)?)
}

/// Something wrong with what was typed.
fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Configuration, anyhow::anyhow!("{message}"))
}

fn storage(error: StoreError) -> Failure {
    match error {
        StoreError::Exists(message) => usage(message),
        error => Failure::new(Exit::Storage, error),
    }
}

async fn store(config: &Config) -> Result<Store, Failure> {
    Store::open(&config.database).await.map_err(storage)
}

/// The same for who looks or takes away: a wrong path makes no database.
async fn present_store(config: &Config) -> Result<Store, Failure> {
    if !config.database.exists() {
        return Err(usage(format!("{}: there is no such file", config.database.display())));
    }
    store(config).await
}

/// One line on stdout. A reader that went away is not an error.
fn say(line: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Who sits at the command line, for the audit.
fn operator() -> String {
    for name in ["SUDO_USER", "USER", "LOGNAME"] {
        if let Some(user) = env(name).filter(|user| !user.is_empty() && user.len() <= 64) {
            return user;
        }
    }
    "unknown".to_owned()
}

/// A row about something that was done at the command line.
fn done(act: &'static str, subject: String, detail: Option<String>) -> NewAudit {
    NewAudit {
        who: operator(),
        address: "command line".to_owned(),
        act,
        outcome: "succeeded".to_owned(),
        subject,
        detail,
        ..NewAudit::default()
    }
}
