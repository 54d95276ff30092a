use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};
use service::Failure;

use super::{config, say, storage, usage, with_settings};
use crate::store;

pub(super) fn commands() -> [Command; 2] {
    let file = |help: &'static str| {
        Arg::new("file")
            .value_name("FILE")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    [
        with_settings(
            Command::new("backup")
                .about("Copy the database while it is in use")
                .arg(file("Where the copy goes; must not be there yet")),
        ),
        with_settings(
            Command::new("restore")
                .about("Put a copy in the database's place, and keep the old one beside it")
                .arg(file("The copy")),
        ),
    ]
}

fn file(matches: &ArgMatches) -> Result<PathBuf, Failure> {
    matches.get_one::<PathBuf>("file").cloned().ok_or_else(|| usage("FILE is missing"))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, file) = (config(matches)?, file(matches)?);
    store::copy(&config.database, &file).await.map_err(storage)?;
    let size = std::fs::metadata(&file).map_or(0, |file| file.len());
    say(&format!("{} is a copy of {}, {size} bytes", file.display(), config.database.display()))
}

pub(super) async fn restore(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, file) = (config(matches)?, file(matches)?);
    let kept = store::restore(&config.database, &file).await.map_err(storage)?;
    if let Some(kept) = kept {
        say(&format!("what was there is kept as {}", kept.display()))?;
    }
    say(&format!("{} is restored from {}", config.database.display(), file.display()))
}
