//! The commands `pm2-exporter slots …`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use service::Failure;

use super::import;
use super::table::table;
use super::up::Workspace;
use crate::config::{Config, SETTINGS};

/// The command line.
pub fn command() -> Command {
    let reclaim = Arg::new("reclaim")
        .long("reclaim")
        .action(ArgAction::SetTrue)
        .help("End whatever else holds a slot's port");
    Command::new("slots")
        .about("The workspace: an admin server and slots, each one PM2 process")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("up")
                .about("Bring it to its state: starts PM2 if needed, and what is missing; then saves")
                .arg(reclaim)
                .args(SETTINGS.args()),
        )
        .subcommand(Command::new("status").about("Print how it stands").args(SETTINGS.args()))
        .subcommand(
            Command::new("down")
                .about("Save, then stop the slots and the admin server")
                .args(SETTINGS.args()),
        )
        .subcommand(
            Command::new("import")
                .about("Take over a workspace of slots.json and ecosystem.config.js, without a restart")
                .arg(file("slots_json", "SLOTS_JSON", "The old workspace's slots.json"))
                .arg(file("ecosystem", "ECOSYSTEM", "Its ecosystem.config.js"))
                .args(SETTINGS.args()),
        )
}

fn file(id: &'static str, name: &'static str, help: &'static str) -> Arg {
    Arg::new(id)
        .value_name(name)
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help(help)
}

/// The matches of the command that was given, for reading the configuration.
pub fn inner(matches: &ArgMatches) -> Option<&ArgMatches> {
    matches.subcommand().map(|(_, matches)| matches)
}

/// Does what was asked for.
///
/// # Errors
/// Something is not as it should be, or could not be brought there.
pub async fn run(matches: &ArgMatches, config: Config) -> Result<(), Failure> {
    let workspace = Workspace::new(&config);
    let lines = match matches.subcommand() {
        Some(("up", matches)) => workspace.up(matches.get_flag("reclaim")).await?,
        Some(("down", _)) => workspace.down().await?,
        Some(("import", matches)) => {
            let file = |id: &str| {
                matches.get_one::<PathBuf>(id).cloned().context("a file's name is missing")
            };
            import::run(workspace, &file("slots_json")?, &file("ecosystem")?).await?
        }
        _ => workspace.status().await?,
    };
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table(&lines)).context("standard output cannot be written")?;
    let wrong = lines.iter().filter(|line| !line.well).count();
    if wrong > 0 {
        return Err(anyhow!("{wrong} of {} are not as they should be", lines.len()).into());
    }
    Ok(())
}
