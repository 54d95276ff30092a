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
    for receiver in &config.notify {
        let (name, kind, address) = (&receiver.name, receiver.kind.as_str(), &receiver.address);
        say(&format!("notify: {name}, {kind} at {address}"))?;
    }
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
    let audit = store.check_audit().await.map_err(storage)?;
    let (last, hash) = &audit.last;
    if let Some(fault) = audit.fault {
        say(&format!("audit: {fault}; the {} rows before are as they were written", audit.sound))?;
        let error = anyhow::anyhow!("the audit was changed: {fault}");
        return Err(Failure::new(Exit::Storage, error));
    }
    say(&format!("audit: {} rows, unchanged; the newest is {last}, {hash}", audit.sound))?;
    let mut files = registry::Files::default();
    let all = registry::read(config, store, &mut files).await.map_err(storage)?;
    say(&format!("servers: {} in all", all.len()))?;
    let mut problems = 0;
    for (file, error) in files.all() {
        for line in error.unwrap_or_default().lines() {
            problems += 1;
            say(&format!("{}: {line}", file.display()))?;
        }
    }
    for registry::Registered { target, about } in all.values() {
        if !about.also.is_empty() {
            let also: Vec<&str> = about.also.iter().map(|it| it.as_str()).collect();
            let (also, used) = (also.join(", "), about.origin.as_str());
            say(&format!("server {}: is in {also} too; {used} is used", target.id))?;
        }
        if let Err(problem) = &target.credential {
            problems += 1;
            say(&format!("server {}: {problem}", target.id))?;
        }
    }
    let now = Time::now();
    let tokens = store.tokens().await.map_err(storage)?;
    let valid = tokens.iter().filter(|token| token.is_valid(now)).count();
    say(&format!("tokens: {valid} in use"))?;
    let users = store.users().await.map_err(storage)?.len();
    say(&format!("users: {users}"))?;
    if valid == 0 && users == 0 && !config.listen.ip().is_loopback() {
        problems += 1;
        say(&format!(
            "listen: {} is reachable from outside, and there is neither token nor user",
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
