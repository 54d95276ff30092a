use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use service::{Exit, Failure};
use wire::ServerId;

use super::{config, operator, say, storage, store, usage, with_settings};
use crate::config::{exporter_url, read_token_file, word};
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
    ]);
    Command::new("server")
        .about("Servers: list them, add one")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("list").about("List every server")))
        .subcommand(with_settings(add))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("list", matches)) => list(matches).await,
        Some(("add", matches)) => add(matches).await,
        _ => Err(usage("server: list or add")),
    }
}

async fn list(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let store = store(&config).await?;
    let targets = registry::read(&config, &store).await;
    store.close().await;
    for target in targets.map_err(storage)? {
        let origin = match config.servers.iter().any(|it| it.id == target.id) {
            true => "configuration",
            false => "database",
        };
        let mut line = format!("{}\t{}\t{origin}", target.id, target.url);
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

async fn add(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let id: ServerId = text("id").parse().map_err(usage)?;
    let url = exporter_url(text("url")).map_err(|message| usage(format!("--url: {message}")))?;
    let group = match text("group") {
        "" => String::new(),
        group => word(group).map_err(|message| usage(format!("--group: {message}")))?,
    };
    let mut tags = matches
        .get_many::<String>("tag")
        .unwrap_or_default()
        .map(|tag| word(tag).map_err(|message| usage(format!("--tag: {message}"))))
        .collect::<Result<Vec<_>, _>>()?;
    tags.sort();
    tags.dedup();
    let token_file = match matches.get_one::<PathBuf>("token-file") {
        None => None,
        Some(path) => {
            read_token_file(path).map_err(|message| usage(format!("--token-file: {message}")))?;
            // The program that polls may be started in another folder.
            Some(std::path::absolute(path).map_err(|error| Failure::new(Exit::Failure, error))?)
        }
    };
    let clash = config.servers.iter().any(|target| target.id == id);
    let audit = NewAudit {
        who: operator(),
        address: "command line".to_owned(),
        act: "server add",
        outcome: "succeeded".to_owned(),
        server: Some(id.to_string()),
        subject: format!("server {id}"),
        detail: Some(url.clone()),
        command: None,
    };
    let store = store(&config).await?;
    let server = StoredServer { id: id.clone(), url, token_file, group, tags };
    let added = store.add_server(server, audit).await;
    store.close().await;
    added.map_err(storage)?;
    if clash {
        eprintln!("pm2-poller: the configuration names {id} too, and wins");
    }
    say(&format!("{id} is added; a running poller takes it up within a second"))
}
