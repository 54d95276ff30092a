//! Users. A password comes from standard input or is asked for, and is never an argument, which
//! everybody on the machine could read.

use std::io::{BufRead, IsTerminal, Write};

use clap::{Arg, ArgMatches, Command};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use service::{Exit, Failure};
use wire::Time;

use super::limits::{args, expires_at, limits, role};
use super::{config, done, present_store, say, storage, store, usage, with_settings};
use crate::access::{acceptable, described, hash};
use crate::config::word;
use crate::store::{NewAudit, NewUser, UserChange};

pub(super) fn command() -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true).help("Their name");
    let add = Command::new("add")
        .about("Make a user; the password is asked for, or read from standard input")
        .arg(name())
        .args(args());
    let passwd = Command::new("passwd")
        .about("Set a user's password, which ends their sessions")
        .arg(name());
    let remove = Command::new("remove").about("Remove a user, and end their sessions").arg(name());
    Command::new("user")
        .about("Users: add, passwd, list, remove")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(add))
        .subcommand(with_settings(passwd))
        .subcommand(with_settings(Command::new("list").about("List the users")))
        .subcommand(with_settings(remove))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("add", matches)) => add(matches).await,
        Some(("passwd", matches)) => passwd(matches).await,
        Some(("list", matches)) => list(matches).await,
        Some(("remove", matches)) => remove(matches).await,
        _ => Err(usage("user: add, passwd, list or remove")),
    }
}

fn audit(act: &'static str, name: &str, detail: Option<String>) -> NewAudit {
    done(act, format!("user {name}"), detail)
}

fn name(matches: &ArgMatches) -> Result<String, Failure> {
    let text = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    word(text).map_err(|message| usage(format!("NAME: {message}")))
}

async fn add(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let (name, role) = (name(matches)?, role(matches)?);
    let (limits, expires_at) = (limits(matches)?, expires_at(matches)?);
    let password = new_password(&name)?;
    let described = described(role, &limits, expires_at);
    let audit = audit("user create", &name, Some(described.clone()));
    let user = NewUser { name: name.clone(), role, password, limits, expires_at };
    let store = store(&config).await?;
    let created = store.create_user(user, audit).await;
    store.close().await;
    created.map_err(storage)?;
    say(&format!("user {name:?} may sign in: {described}"))
}

async fn passwd(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let name = name(matches)?;
    let password = Some(new_password(&name)?);
    let change = UserChange { password, ..UserChange::default() };
    let store = present_store(&config).await?;
    let audit = audit("user password", &name, None);
    let changed = store.change_user(name.clone(), change, audit, true).await;
    store.close().await;
    if !changed.map_err(storage)? {
        return Err(usage(format!("no user is called {name:?}")));
    }
    say(&format!("user {name:?} has a new password; their sessions end within a second"))
}

async fn list(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let store = present_store(&config).await?;
    let users = store.users().await;
    store.close().await;
    let now = Time::now();
    for user in users.map_err(storage)? {
        let state = match user.expires_at {
            Some(end) if end <= now => format!("expired {end}"),
            Some(end) => format!("expires {end}"),
            None => "does not expire".to_owned(),
        };
        let used = user.last_used.map_or("never seen".to_owned(), |time| format!("seen {time}"));
        let (name, role, limits) = (user.name, user.role, user.limits.words());
        say(&format!("{name}\t{role}\t{limits}\tmade {}\t{state}\t{used}", user.created_at))?;
    }
    Ok(())
}

async fn remove(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let name = name(matches)?;
    let store = present_store(&config).await?;
    // Who sits here can always make another admin.
    let removed = store.remove_user(name.clone(), audit("user remove", &name, None), true).await;
    store.close().await;
    if !removed.map_err(storage)? {
        return Err(usage(format!("no user is called {name:?}")));
    }
    say(&format!("user {name:?} is removed; their sessions end within a second"))
}

/// Asks for a new password, twice at a terminal, and gives its hash.
fn new_password(name: &str) -> Result<String, Failure> {
    let at_terminal = std::io::stdin().is_terminal();
    let password = ask("Password: ", at_terminal)?;
    acceptable(name, &password).map_err(|wrong| usage(format!("password: {wrong}")))?;
    if at_terminal && ask("Again: ", true)? != password {
        return Err(usage("password: the two are not the same"));
    }
    hash(&password).map_err(|error| Failure::new(Exit::Failure, anyhow::anyhow!(error)))
}

/// A line of standard input; at a terminal, after a prompt and without showing it.
fn ask(prompt: &str, at_terminal: bool) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let shown = match at_terminal {
        false => None,
        true => {
            eprint!("{prompt}");
            std::io::stderr().flush()?;
            let shown = tcgetattr(&stdin)?;
            let mut hidden = shown.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
            Some(shown)
        }
    };
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = shown {
        tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
