use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use service::{Exit, Failure};
use wire::ServerId;

use super::{config, done, say, storage, store, usage, with_settings};
use crate::config::{Config, exporter_url, read_token_file};
use crate::registry;
use crate::store::{NewAudit, StoredServer};

pub(super) fn command() -> Command {
    let add = Command::new("add").about("Add a server to the database").args([
        Arg::new("id").value_name("ID").required(true).help("Its id, such as vm1-prod"),
        Arg::new("url").long("url").value_name("URL").required(true).help("Where its exporter is"),
        Arg::new("group").long("group").value_name("GROUP").help("Its group"),
        Arg::new("tag")
            .long("tag")
            .value_name("TAG")
            .action(ArgAction::Append)
            .help("A tag; may be given several times"),
        Arg::new("token-file")
            .long("token-file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("File with the token that its exporter issued"),
        Arg::new("no-token")
            .long("no-token")
            .action(ArgAction::SetTrue)
            .conflicts_with("token-file")
            .help("Its exporter asks for none; otherwise one is made unless --token-file is given"),
        Arg::new("scope")
            .long("scope")
            .value_name("SCOPE")
            .action(ArgAction::Append)
            .value_parser(["read", "control", "deploy"])
            .default_values(["read", "control", "deploy"])
            .help("What the token that is made may do there; may be given several times"),
        Arg::new("note").long("note").value_name("TEXT").help("For people"),
    ]);
    let remove = Command::new("remove")
        .about("Take a server that was added away; its history stays")
        .arg(Arg::new("id").value_name("ID").required(true).help("Its id"));
    Command::new("server")
        .about("Servers: list them, add one, remove one")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("list").about("List every server")))
        .subcommand(with_settings(add))
        .subcommand(with_settings(remove))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("list", matches)) => list(matches).await,
        Some(("add", matches)) => add(matches).await,
        Some(("remove", matches)) => remove(matches).await,
        _ => Err(usage("server: list, add or remove")),
    }
}

async fn list(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let store = store(&config).await?;
    let mut files = registry::Files::default();
    let all = registry::read(&config, &store, &mut files).await;
    store.close().await;
    for (file, error) in files.all() {
        for line in error.unwrap_or_default().lines() {
            eprintln!("pm2-poller: {}: {line}", file.display());
        }
    }
    for registry::Registered { target, about } in all.map_err(storage)?.values() {
        let mut line = format!("{}\t{}\t{}", target.id, target.url, about.origin.as_str());
        if !target.group.is_empty() {
            line.push_str(&format!("\tgroup={}", target.group));
        }
        if !target.tags.is_empty() {
            line.push_str(&format!("\ttags={}", target.tags.join(",")));
        }
        if let Err(problem) = &target.credential {
            line.push_str(&format!("\tproblem: {problem}"));
        }
        say(&line)?;
    }
    Ok(())
}

/// Adds one. Unless a token is given, one is made: its exporter needs the block that is printed,
/// and the token itself stands alone on the last line.
async fn add(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let wrong = |name: &'static str| move |message: String| usage(format!("{name}: {message}"));
    let id = registry::checked_id(text("id")).map_err(usage)?;
    let all = |name: &str| matches.get_many::<String>(name).unwrap_or_default().map(String::as_str);
    let mut server = StoredServer {
        id: id.clone(),
        url: exporter_url(text("url")).map_err(wrong("--url"))?,
        group: registry::group(text("group")).map_err(wrong("--group"))?,
        tags: registry::tags(all("tag")).map_err(wrong("--tag"))?,
        note: registry::note(text("note")).map_err(wrong("--note"))?,
        token_file: None,
    };
    if let Some(place) = elsewhere(&config, &id) {
        return Err(usage(format!("{place} has {id} already, and wins: change it there")));
    }
    let mut made = None;
    if let Some(path) = matches.get_one::<PathBuf>("token-file") {
        read_token_file(path).map_err(wrong("--token-file"))?;
        // The program that polls may be started in another folder.
        let path = std::path::absolute(path).map_err(|error| Failure::new(Exit::Failure, error))?;
        server.token_file = Some(path);
    } else if !matches.get_flag("no-token") {
        let token = registry::make().map_err(|error| Failure::new(Exit::Failure, error))?;
        let kept = registry::keep(&config.token_dir, &id, token.reveal());
        server.token_file = Some(kept.map_err(|error| {
            let folder = config.token_dir.display();
            Failure::new(Exit::Storage, anyhow::anyhow!("{folder}: {error}"))
        })?);
        made = Some(token);
    }
    let file = server.token_file.clone();
    let audit = audit("server add", &id, Some(server.url.clone()));
    let store = store(&config).await?;
    let added = store.add_server(server, audit).await;
    store.close().await;
    if let (Err(_), Some(file), Some(_)) = (&added, &file, &made) {
        registry::forget(&config.token_dir, file);
    }
    added.map_err(storage)?;
    let Some(token) = made else {
        return say(&format!("{id} is added; a running poller takes it up within a second"));
    };
    let scopes: Vec<&str> = all("scope").collect();
    eprintln!(
        "{id} is added; a running poller takes it up within a second, and sends the token from {}.",
        file.unwrap_or_default().display()
    );
    say(&format!(
        "# For exporter.toml of {id}. The token itself is on the last line: it is shown only this \
         once.\n{}",
        registry::block(&token, &scopes)
    ))?;
    say(token.reveal())
}

async fn remove(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let id = matches.get_one::<String>("id").map(String::as_str).unwrap_or_default();
    let id: ServerId = id.parse().map_err(usage)?;
    let store = store(&config).await?;
    let removed = store.remove_server(id.clone(), audit("server remove", &id, None)).await;
    store.close().await;
    let Some(removed) = removed.map_err(storage)? else {
        let mut words = format!("no server with the id {:?} was added", id.as_str());
        if let Some(place) = elsewhere(&config, &id) {
            words.push_str(&format!("; {place} has it: take it away there"));
        }
        return Err(usage(words));
    };
    if let Some(file) = &removed.token_file {
        registry::forget(&config.token_dir, file);
    }
    if let Some(place) = elsewhere(&config, &id) {
        return say(&format!("{id} is removed from the database; {place} has it, and it stays"));
    }
    say(&format!("{id} is removed; its history stays until it is old enough to go"))
}

/// Where a server stands that was not added, or not only.
fn elsewhere(config: &Config, id: &ServerId) -> Option<&'static str> {
    let all = registry::read_with(config, &[], &mut registry::Files::default());
    all.get(id).map(|it| match it.about.origin {
        registry::Origin::File => "a file of server_files",
        _ => "the configuration",
    })
}

fn audit(act: &'static str, id: &ServerId, detail: Option<String>) -> NewAudit {
    NewAudit { server: Some(id.to_string()), ..done(act, format!("server {id}"), detail) }
}
