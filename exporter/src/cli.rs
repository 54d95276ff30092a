//! The command line.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use service::Failure;
use service::config::Mistakes;
use service::shutdown::Shutdown;
use service::token::{Issuer, Token};
use wire::{SlotId, Time};

use crate::access::Scope;
use crate::app::App;
use crate::check::{self, Level};
use crate::config::{Config, SETTINGS};
use crate::journal::Journal;
use crate::pm2::{Homes, Shared};
use crate::readings::Host;
use crate::revision::Revision;
use crate::slots::up::Workspace;
use crate::{http, placeholder, slots};

fn command() -> Command {
    Command::new("pm2-exporter")
        .version(env!("CARGO_PKG_VERSION"))
        .about("PM2's state, events, logs and control of one host over HTTP")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about("Watch PM2 and serve HTTP; starts no daemon, changes what it is asked to and, with [slots], slots and logs")
                .args(SETTINGS.args()),
        )
        .subcommand(
            Command::new("placeholder")
                .about("Serve the page of a free slot; PORT, SLOT_NAME and ADMIN_URL come from the environment"),
        )
        .subcommand(slots::cli::command())
        .subcommand(
            Command::new("token").about("Tokens").subcommand_required(true).subcommand(
                Command::new("create")
                    .about("Print a new token and the [[tokens]] block for its configuration")
                    .arg(
                        Arg::new("config")
                            .long("config")
                            .value_name("FILE")
                            .default_value("exporter.toml")
                            .help("Where the block is to stand; it is named, and neither read nor changed"),
                    )
                    .arg(Arg::new("name").long("name").value_name("NAME").required(true).help("Who uses it"))
                    .arg(
                        Arg::new("scope")
                            .long("scope")
                            .value_name("SCOPE")
                            .required(true)
                            .action(ArgAction::Append)
                            .value_parser(|text: &str| text.parse::<Scope>())
                            .help("read, control or deploy; may be repeated"),
                    )
                    .arg(
                        Arg::new("app")
                            .long("app")
                            .value_name("NAME")
                            .action(ArgAction::Append)
                            .help("Reaches this app only; * stands for anything; may be repeated"),
                    )
                    .arg(
                        Arg::new("slot")
                            .long("slot")
                            .value_name("SLOT")
                            .action(ArgAction::Append)
                            .value_parser(|text: &str| text.parse::<SlotId>())
                            .help("Reaches this slot only; may be repeated"),
                    )
                    .arg(
                        Arg::new("expires")
                            .long("expires")
                            .value_name("DURATION")
                            .value_parser(service::quantity::duration)
                            .help("Ends so long from now: 90d"),
                    ),
            ),
        )
        .subcommand(
            Command::new("check").about("Say what is wrong with the configuration and this machine's PM2").arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON"))
                .args(SETTINGS.args()),
        )
}

/// Reads the command line and does what it says.
///
/// # Errors
/// With the exit code for what went wrong.
pub fn run() -> Result<(), Failure> {
    // git runs this program as its ssh: see `slots::git`.
    if std::env::var_os("PM2_EXPORTER_AS").is_some_and(|word| word == "ssh") {
        return Err(slots::git::as_ssh().into());
    }
    // Not even the command line is built for it: a placeholder is to cost little memory.
    if std::env::args_os().skip(1).eq(["placeholder"]) {
        return block_on(placeholder::serve(|name| std::env::var(name).ok()));
    }
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("serve", matches)) => {
            let config = config(matches)?;
            service::log::init(config.log_format, config.log_level.clone());
            block_on(serve(config, matches.clone()))
        }
        Some(("slots", matches)) => {
            let config = config(slots::cli::inner(matches).unwrap_or(matches))?;
            service::log::init(config.log_format, "off".parse().unwrap_or_default());
            block_on(slots::cli::run(matches, config))
        }
        Some(("placeholder", _)) => block_on(placeholder::serve(|name| std::env::var(name).ok())),
        Some(("token", matches)) => match matches.subcommand() {
            Some(("create", matches)) => create_token(matches),
            _ => Ok(()),
        },
        Some(("check", matches)) => {
            let config = config(matches)?;
            service::log::init(config.log_format, "off".parse().unwrap_or_default());
            block_on(check(config, matches.get_flag("json")))
        }
        _ => Ok(()),
    }
}

fn config(matches: &ArgMatches) -> Result<Config, Failure> {
    Ok(read(matches)?)
}

fn read(matches: &ArgMatches) -> Result<Config, Mistakes> {
    let env = |name: &str| std::env::var(name).ok();
    Config::read(SETTINGS.read(matches, env)?, env)
}

/// How long a stop waits for the instance that a command is at.
const COMMANDS: Duration = Duration::from_secs(5);
/// How long is waited at the end for what cannot be stopped.
const LEFT: Duration = Duration::from_secs(1);

fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // One thread is enough for all of it, and costs the least memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let ended = runtime.block_on(task);
    // Work on files of a file system that does not answer has no end.
    runtime.shutdown_timeout(LEFT);
    ended
}

async fn serve(config: Config, matches: ArgMatches) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let listener = service::serve::bind(config.listen, config.has_credentials()).await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let app = App::start(config, shutdown.clone())
        .map_err(|error| Failure::new(service::Exit::Storage, error))?;
    Arc::clone(app.slots.manager()).resume();
    tokio::spawn(slots::guard::run(Arc::clone(app.slots.manager())));
    tokio::spawn(slots::rotate::run(Arc::clone(&app)));
    let mut hangups = service::shutdown::hangups().context("signals cannot be listened to")?;
    let reloading = Arc::clone(&app);
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            reloading.reload(read(&matches));
        }
    });
    let homes: Vec<String> =
        app.homes.all().map(|home| home.path().display().to_string()).collect();
    tracing::info!(%address, home = homes.join(", "), "listening");
    let (ending, abort) = (Arc::clone(&app), shutdown.abort.clone());
    http::serve(listener, app, shutdown).await;
    let ended = async {
        ending.slots.manager().idle(Duration::from_secs(3)).await;
        ending.commands.idle(COMMANDS).await;
    };
    abort.run_until_cancelled(ended).await;
    tracing::info!("stopped");
    Ok(())
}

fn create_token(matches: &ArgMatches) -> Result<(), Failure> {
    let name: &String = matches.get_one("name").context("--name is missing")?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Failure::new(
            service::Exit::Configuration,
            anyhow::anyhow!(
                "--name: {name:?} is not a name: 1 to 64 letters, digits, '-', '_', '.'"
            ),
        ));
    }
    let scopes: Vec<String> = matches
        .get_many::<Scope>("scope")
        .into_iter()
        .flatten()
        .map(|scope| format!("\"{scope}\""))
        .collect();
    let mut more = String::new();
    if let Some(apps) = matches.get_many::<String>("app") {
        let apps: Vec<String> = apps.map(|app| toml_text(app)).collect();
        more += &format!("apps = [{}]\n", apps.join(", "));
    }
    if let Some(slots) = matches.get_many::<SlotId>("slot") {
        let slots: Vec<String> = slots.map(|slot| toml_text(slot)).collect();
        more += &format!("slots = [{}]\n", slots.join(", "));
    }
    if let Some(within) = matches.get_one::<std::time::Duration>("expires") {
        let millis = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        more += &format!("expires = \"{}\"\n", Time::now().plus_millis(millis));
    }
    let file: &String = matches.get_one("config").context("--config is missing")?;
    let token = Token::new(Issuer::Exporter).context("no random numbers")?;
    let mut out = std::io::stdout().lock();
    let written = writeln!(
        out,
        "# For {}. The token itself is on the last line: it is shown only this once.\n\
         [[tokens]]\nname = \"{name}\"\nsha256 = \"{}\"\nscopes = [{}]\n{more}\n{}",
        file.escape_debug(),
        token.hash(),
        scopes.join(", "),
        token.reveal()
    );
    written.context("standard output cannot be written")?;
    Ok(())
}

/// A text as TOML has it: JSON's escapes are TOML's too.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Looks from the side: no part of the exporter that runs is started, and none of its files
/// is touched.
async fn check(config: Config, json: bool) -> Result<(), Failure> {
    let journal = Arc::new(Journal::new("check".to_owned(), 64 * 1024));
    let shared = Shared {
        journal,
        revision: Revision::default(),
        state: None,
        exit_stderr: false,
        filter: config.filter.clone(),
    };
    let homes = Homes::watch(&config.pm2_homes, &shared).context("PM2's directory")?;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut findings = Vec::new();
    for home in homes.all() {
        while home.refresh().await.is_err() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let (path, processes) = (home.path(), home.processes(|_| Default::default()));
        let drift = home.drift();
        let host = Host::read(path);
        let found = check::findings(path, &home.state(), &processes, drift.as_ref(), &host);
        findings.extend(found.into_iter().map(|found| found.of_home(home.label())));
    }
    findings.push(check::startup());
    findings.extend(check::tokens(&config.tokens, Time::now()));
    let processes = homes.first().processes(|_| Default::default());
    let root = config.slots.root(config.state_dir.as_deref(), std::env::var("HOME").ok());
    let nobody = config.tokens.is_empty() && config.users.is_empty();
    let open = config.anonymous_read || nobody;
    let other_admin = match homes.first().rpc() {
        Ok(rpc) => Workspace::new(&config).admin_is_another(&rpc).await.unwrap_or(false),
        Err(_) => false,
    };
    let of_slots = slots::check::findings(&config.slots, root, &processes, open, other_admin);
    findings.extend(of_slots.await);
    let text = if json {
        serde_json::to_string_pretty(&serde_json::json!({ "findings": findings }))?
    } else {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    writeln!(std::io::stdout().lock(), "{text}").context("standard output cannot be written")?;
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
    if problems > 0 {
        return Err(anyhow::anyhow!("{problems} problems").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
