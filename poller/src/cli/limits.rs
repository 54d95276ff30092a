//! Flags that tokens and users share: role, limits, expiry.

use std::collections::BTreeSet;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches};
use service::Failure;
use wire::Time;

use super::usage;
use crate::access::{Limits, Role, end_of};
use crate::config::word;

pub(super) fn args() -> [Arg; 6] {
    let several = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
    };
    [
        Arg::new("role")
            .long("role")
            .value_name("ROLE")
            .required(true)
            .help("viewer, operator or admin"),
        several("server", "ID", "Limits to this server; may be given several times"),
        several("group", "GROUP", "Limits to the servers of this group; several add up"),
        several("tag", "TAG", "Limits to the servers with this tag; several add up"),
        several("action", "ACTION", "Limits to this action, such as restart; several add up"),
        Arg::new("expires")
            .long("expires")
            .value_name("DURATION")
            .help("How long it is good for, such as 90d (default: for ever)"),
    ]
}

pub(super) fn role(matches: &ArgMatches) -> Result<Role, Failure> {
    let text = matches.get_one::<String>("role").map(String::as_str).unwrap_or_default();
    text.parse().map_err(|error| usage(format!("--role: {error}")))
}

pub(super) fn limits(matches: &ArgMatches) -> Result<Limits, Failure> {
    Ok(Limits {
        servers: several(matches, "server", parsed)?,
        groups: several(matches, "group", word)?,
        tags: several(matches, "tag", word)?,
        actions: several(matches, "action", parsed)?,
    })
}

fn parsed<T: FromStr<Err = wire::InvalidId>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: wire::InvalidId| error.to_string())
}

fn several<T: Ord>(
    matches: &ArgMatches,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<BTreeSet<T>>, Failure> {
    let Some(given) = matches.get_many::<String>(name) else { return Ok(None) };
    let all = given.map(|text| parse(text)).collect::<Result<_, _>>();
    all.map(Some).map_err(|message| usage(format!("--{name}: {message}")))
}

pub(super) fn expires_at(matches: &ArgMatches) -> Result<Option<Time>, Failure> {
    let life = matches.get_one::<String>("expires");
    life.map(|life| end_of(life).map_err(|error| usage(format!("--expires: {error}")))).transpose()
}
