use std::path::Path;

use clap::ArgMatches;
use service::Failure;
use service::shutdown::Shutdown;

use super::{config, env, storage};
use crate::config::Config;
use crate::program::Program;
use crate::store::{Lock, is_marked};

pub(super) async fn run(matches: ArgMatches) -> Result<(), Failure> {
    let config = config(&matches)?;
    service::log::init(config.log_format, config.log_level.clone());
    // Each server is a connection, and nothing is started that would have as many from it.
    service::limits::raise_open_files();
    let shutdown = Shutdown::on_signals()?;
    let _lock = Lock::take(&config.database).map_err(storage)?;
    loop {
        // A database that is found damaged ends the program's life, and not the process.
        let life =
            Shutdown { drain: shutdown.drain.child_token(), abort: shutdown.abort.child_token() };
        let matches = matches.clone();
        let program = Program::build(config.clone(), life).await?;
        let ended = program.run(Box::new(move || Config::read(&matches, env))).await;
        if shutdown.drain.is_cancelled() || !damaged(&config.database) {
            return ended;
        }
    }
}

fn damaged(database: &Path) -> bool {
    is_marked(database)
}
