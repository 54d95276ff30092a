use clap::{Arg, ArgMatches, Command};
use service::{Exit, Failure};

use super::{config, say, usage, with_settings};
use crate::client::Client;
use crate::notify::{send, test_message};

pub(super) fn command() -> Command {
    let test = Command::new("test").about("Send one message that says that it is a test").arg(
        Arg::new("name").value_name("NAME").help("To this one of [[notify]] (default: to each)"),
    );
    Command::new("notify")
        .about("Receivers of alerts: try them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(test))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("test", matches)) => test(matches).await,
        _ => Err(usage("notify: test")),
    }
}

async fn test(matches: &ArgMatches) -> Result<(), Failure> {
    let config = config(matches)?;
    let name = matches.get_one::<String>("name");
    let wanted = |wanted: &&std::sync::Arc<crate::notify::receiver::Receiver>| {
        name.is_none_or(|name| *name == wanted.name)
    };
    let receivers: Vec<_> = config.notify.iter().filter(wanted).collect();
    if receivers.is_empty() {
        let known: Vec<&str> = config.notify.iter().map(|it| it.name.as_str()).collect();
        return Err(match name.filter(|_| !known.is_empty()) {
            Some(name) => usage(format!("no [[notify]] is called {name:?}: {}", known.join(", "))),
            None => usage("there is no [[notify]] in the configuration"),
        });
    }
    let client = Client::new(std::time::Duration::ZERO)?;
    let mut failed = 0;
    for receiver in receivers {
        let (name, kind) = (&receiver.name, receiver.kind.as_str());
        match send(&client, receiver, &test_message()).await {
            Ok(took) => say(&format!(
                "{name}: {kind} at {} took it in {} ms",
                receiver.address,
                took.as_millis()
            ))?,
            Err(error) => {
                failed += 1;
                say(&format!("{name}: {kind} at {} did not take it: {error}", receiver.address))?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Failure, anyhow::anyhow!("{failed} failed, see above"))),
    }
}
