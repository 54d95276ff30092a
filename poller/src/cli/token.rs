use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Command};
use service::token::{Issuer, Token};
use service::{Exit, Failure};
use wire::{ServerId, Time};

use super::{config, operator, say, storage, store, usage, with_settings};
use crate::access::Role;
use crate::config::word;
use crate::store::{NewAudit, NewToken};

pub(super) fn command() -> Command {
    let create = Command::new("create").about("Make a token and show it, once").args([
        Arg::new("name")
            .long("name")
            .value_name("NAME")
            .required(true)
            .help("Its name, which the audit gives as who"),
        Arg::new("role")
            .long("role")
            .value_name("ROLE")
            .required(true)
            .help("viewer, operator or admin"),
        Arg::new("server")
            .long("server")
            .value_name("ID")
            .action(ArgAction::Append)
            .help("Limits it to this server; may be given several times"),
        Arg::new("expires")
            .long("expires")
            .value_name("DURATION")
            .help("How long it is good for, such as 90d (default: for ever)"),
    ]);
    let revoke = Command::new("revoke")
        .about("Make a token worthless")
        .arg(Arg::new("name").value_name("NAME").required(true).help("Its name"));
    Command::new("token")
        .about("Tokens: make, list, revoke")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(create))
        .subcommand(with_settings(
            Command::new("list").about("List the tokens, without the secret"),
        ))
        .subcommand(with_settings(revoke))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("create", matches)) => create(matches).await,
        Some(("list", matches)) => list(matches).await,
        Some(("revoke", matches)) => revoke(matches).await,
        _ => Err(usage("token: create, list or revoke")),
    }
}

fn audit(act: &'static str, name: &str, detail: Option<String>) -> NewAudit {
    NewAudit {
        who: operator(),
        address: "command line".to_owned(),
        act,
        outcome: "succeeded".to_owned(),
        server: None,
        subject: format!("token {name}"),
        detail,
        command: None,
    }
}

async fn create(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let name = word(text("name")).map_err(|message| usage(format!("--name: {message}")))?;
    let role: Role = text("role").parse().map_err(|error| usage(format!("--role: {error}")))?;
    let servers = matches
        .get_many::<String>("server")
        .map(|ids| {
            ids.map(|id| id.parse::<ServerId>())
                .collect::<Result<BTreeSet<_>, _>>()
                .map_err(|error| usage(format!("--server: {error}")))
        })
        .transpose()?;
    let expires_at = match text("expires") {
        "" => None,
        text => {
            let life = service::quantity::duration(text)
                .map_err(|message| usage(format!("--expires: {message}")))?;
            if life.is_zero() {
                return Err(usage("--expires: 0 makes a token that is worth nothing"));
            }
            Some(Time::now().plus_millis(life.as_millis() as i64))
        }
    };
    let token = Token::new(Issuer::Poller).map_err(|error| Failure::new(Exit::Failure, error))?;
    let limits = match &servers {
        None => "all servers".to_owned(),
        Some(ids) => ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", "),
    };
    let until = expires_at.map_or("until it is revoked".to_owned(), |end| format!("until {end}"));
    let audit = audit("token create", &name, Some(format!("{role}, {limits}, {until}")));
    let new = NewToken { name: name.clone(), role, hash: token.hash(), servers, expires_at };
    let store = store(&config).await?;
    let created = store.create_token(new, audit).await;
    store.close().await;
    created.map_err(storage)?;
    eprintln!("Token {name:?}: {role} of {limits}, {until}.");
    eprintln!(
        "It is shown this once; only its SHA-256 is kept. Send it as 'Authorization: Bearer …'."
    );
    say(token.reveal())
}

async fn list(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let store = store(&config).await?;
    let tokens = store.tokens().await;
    store.close().await;
    let now = Time::now();
    for token in tokens.map_err(storage)? {
        let state = match (token.revoked_at, token.expires_at) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(end)) if end <= now => format!("expired {end}"),
            (None, Some(end)) => format!("expires {end}"),
            (None, None) => "does not expire".to_owned(),
        };
        let servers = token.servers.map_or("all servers".to_owned(), |ids| {
            ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(",")
        });
        say(&format!(
            "{}\t{}\t{servers}\tmade {}\t{state}",
            token.name, token.role, token.created_at
        ))?;
    }
    Ok(())
}

async fn revoke(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
    let store = store(&config).await?;
    let revoked = store.revoke_token(name.clone(), audit("token revoke", &name, None)).await;
    store.close().await;
    if !revoked.map_err(storage)? {
        return Err(usage(format!("no token in use has the name {name:?}")));
    }
    say(&format!("token {name:?} is revoked; a running poller refuses it within a second"))
}
