use clap::ArgMatches;
use service::{Exit, Failure};
use wire::Time;

use super::{config, say, storage};
use crate::config::Config;
use crate::registry::{self, Files};
use crate::store::{self, Look, Store};

/// Says what is in order and what is not. Nothing is changed; a missing database is not made.
pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    say(&format!("configuration: in order, {} servers", config.servers.len()))?;
    for receiver in &config.notify {
        let (name, kind, address) = (&receiver.name, receiver.kind.as_str(), &receiver.address);
        say(&format!("notify: {name}, {kind} at {address}"))?;
    }
    let file = config.database.display();
    let mut files = Files::default();
    if !config.database.exists() {
        let folder = config.database.parent().filter(|it| !it.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|it| !it.is_dir()) {
            let error = anyhow::anyhow!("database: {} is no folder: make it", folder.display());
            return Err(Failure::new(Exit::Storage, error));
        }
        say(&format!("database: {file} is not there yet; 'serve' makes it"))?;
        return judge(&config, &registry::read_with(&config, &[], &mut files), &files, (0, 0));
    }
    let store = match Store::look(&config.database).await.map_err(storage)? {
        Look::Ready(store) => store,
        Look::Empty => {
            say(&format!("database: {file} is empty; 'serve' begins with it"))?;
            return judge(&config, &registry::read_with(&config, &[], &mut files), &files, (0, 0));
        }
        Look::Older => {
            sound(&config).await?;
            let why = "is of an earlier version; 'serve' brings it up to date";
            return say(&format!("database: {file} {why}, and the rest can be looked at then"));
        }
    };
    let looked = look(&config, &store, &mut files).await;
    store.close().await;
    looked
}

/// Whether the database is whole.
async fn sound(config: &Config) -> Result<(), Failure> {
    let file = config.database.display();
    let found = store::integrity(&config.database).await.map_err(storage)?;
    for line in &found {
        say(&format!("database: {line}"))?;
    }
    if !found.is_empty() {
        let error = anyhow::anyhow!("{file} is damaged: {} faults", found.len());
        return Err(Failure::new(Exit::Storage, error));
    }
    let size = std::fs::metadata(&config.database).map_or(0, |file| file.len());
    say(&format!("database: {file} is in order, {size} bytes"))
}

async fn look(config: &Config, store: &Store, files: &mut Files) -> Result<(), Failure> {
    sound(config).await?;
    let audit = store.check_audit().await.map_err(storage)?;
    let (last, hash) = &audit.last;
    if let Some(fault) = audit.fault {
        say(&format!("audit: {fault}; the {} rows before are as they were written", audit.sound))?;
        let error = anyhow::anyhow!("the audit was changed: {fault}");
        return Err(Failure::new(Exit::Storage, error));
    }
    say(&format!("audit: {} rows, unchanged; the newest is {last}, {hash}", audit.sound))?;
    let all = registry::read(config, store, files).await.map_err(storage)?;
    let now = Time::now();
    let tokens = store.tokens().await.map_err(storage)?;
    let valid = tokens.iter().filter(|token| token.is_valid(now)).count();
    let users = store.users().await.map_err(storage)?.len();
    judge(config, &all, files, (valid, users))
}

/// What needs no database: the servers, and who can be let in, given how many tokens and users there
/// are.
fn judge(
    config: &Config,
    all: &registry::All,
    files: &Files,
    (tokens, users): (usize, usize),
) -> Result<(), Failure> {
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
    say(&format!("tokens: {tokens} in use"))?;
    say(&format!("users: {users}"))?;
    if tokens == 0 && users == 0 && !config.listen.ip().is_loopback() {
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
