use clap::ArgMatches;
use service::{Exit, Failure};
use wire::Time;

use super::{config, say, storage};
use crate::registry;
use crate::store::Store;

/// Says what is in order and what is not. Nothing is changed; a missing database is not made.
pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    say(&format!("configuration: in order, {} servers", config.servers.len()))?;
    let file = config.database.display();
    if !config.database.exists() {
        say(&format!("database: {file} is not there yet; 'serve' makes it"))?;
        return Ok(());
    }
    let store = Store::open_existing(&config.database).await.map_err(storage)?;
    let looked = look(&config, &store).await;
    store.close().await;
    looked
}

async fn look(config: &crate::config::Config, store: &Store) -> Result<(), Failure> {
    let file = config.database.display();
    let found = store.integrity().await.map_err(storage)?;
    for line in &found {
        say(&format!("database: {line}"))?;
    }
    if !found.is_empty() {
        let error = anyhow::anyhow!("{file} is damaged: {} faults", found.len());
        return Err(Failure::new(Exit::Storage, error));
    }
    say(&format!("database: {file} is in order, {} bytes", store.sizes().0))?;
    let targets = registry::read(config, store).await.map_err(storage)?;
    say(&format!("servers: {} in all", targets.len()))?;
    let mut problems = 0;
    for target in &targets {
        if let Err(problem) = &target.credential {
            problems += 1;
            say(&format!("server {}: {problem}", target.id))?;
        }
    }
    let now = Time::now();
    let tokens = store.tokens().await.map_err(storage)?;
    let valid = tokens.iter().filter(|token| token.is_valid(now)).count();
    say(&format!("tokens: {valid} in use"))?;
    if valid == 0 && !config.listen.ip().is_loopback() {
        problems += 1;
        say(&format!(
            "listen: {} is reachable from outside, and there is no token",
            config.listen
        ))?;
    }
    match problems {
        0 => Ok(()),
        _ => Err(Failure::new(
            Exit::Configuration,
            anyhow::anyhow!("{problems} problems, see above"),
        )),
    }
}
