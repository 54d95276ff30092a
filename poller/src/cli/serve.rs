use clap::ArgMatches;
use service::Failure;
use service::shutdown::Shutdown;

use super::{config, env};
use crate::config::Config;
use crate::program::Program;

pub(super) async fn run(matches: ArgMatches) -> Result<(), Failure> {
    let config = config(&matches)?;
    service::log::init(config.log_format, config.log_level.clone());
    let shutdown = Shutdown::on_signals()?;
    let program = Program::build(config, shutdown).await?;
    program.run(Box::new(move || Config::read(&matches, env))).await
}
