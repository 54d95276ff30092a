use clap::{Arg, ArgMatches, Command};
use service::token::{Issuer, Token};
use service::{Exit, Failure};
use wire::Time;

use super::limits::{args, expires_at, limits, role};
use super::{config, done, present_store, say, storage, store, usage, with_settings};
use crate::access::described;
use crate::config::word;
use crate::store::{NewAudit, NewToken};

pub(super) fn command() -> Command {
    let create =
        Command::new("create").about("Make a token and show it, once").args([Arg::new("name")
            .long("name")
            .value_name("NAME")
            .required(true)
            .help("Its name, which the audit gives as who")]);
    let create = create.args(args());
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
    done(act, format!("token {name}"), detail)
}

async fn create(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let name = word(text("name")).map_err(|message| usage(format!("--name: {message}")))?;
    let (role, limits) = (role(matches)?, limits(matches)?);
    let expires_at = expires_at(matches)?;
    let token = Token::new(Issuer::Poller).map_err(|error| Failure::new(Exit::Failure, error))?;
    let described = described(role, &limits, expires_at);
    let audit = audit("token create", &name, Some(described.clone()));
    let new = NewToken { name: name.clone(), role, hash: token.hash(), limits, expires_at };
    let store = store(&config).await?;
    let created = store.create_token(new, audit).await;
    store.close().await;
    created.map_err(storage)?;
    eprintln!("Token {name:?}: {described}.");
    eprintln!(
        "It is shown this once; only its SHA-256 is kept. Send it as 'Authorization: Bearer …'."
    );
    say(token.reveal())
}

async fn list(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let store = present_store(&config).await?;
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
        let used = token.last_used.map_or("never used".to_owned(), |it| format!("used {it}"));
        let words = token.limits.words();
        say(&format!(
            "{}\t{}\t{words}\tmade {}\t{state}\t{used}",
            token.name, token.role, token.created_at
        ))?;
    }
    Ok(())
}

async fn revoke(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
    let store = present_store(&config).await?;
    let revoked = store.revoke_token(name.clone(), audit("token revoke", &name, None), true).await;
    store.close().await;
    if !revoked.map_err(storage)? {
        return Err(usage(format!("no token in use has the name {name:?}")));
    }
    say(&format!("token {name:?} is revoked; a running poller refuses it within a second"))
}
