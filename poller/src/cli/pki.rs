//! A small authority of one's own, for a fleet that has none.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use service::{Exit, Failure};

use super::{say, usage};
use crate::pki::{Authority, PkiError, Written};

pub(super) fn command() -> Command {
    let folder = || {
        Arg::new("dir")
            .long("dir")
            .value_name("DIR")
            .value_parser(value_parser!(PathBuf))
            .default_value("pki")
            .help("Where the authority's files are")
    };
    let days = |default: &'static str| {
        Arg::new("days")
            .long("days")
            .value_name("DAYS")
            .value_parser(value_parser!(u16).range(1..=3650))
            .default_value(default)
            .help("How long the certificate is good")
    };
    let init = Command::new("init").about("Make an authority: ca.pem and ca-key.pem").args([
        folder(),
        days("3650"),
        Arg::new("name")
            .long("name")
            .value_name("NAME")
            .default_value("pm2-fleet")
            .help("What the authority is called"),
    ]);
    let issue = Command::new("issue")
        .about("Make a certificate for a program, good for serving and for asking")
        .args([
            Arg::new("name").value_name("NAME").required(true).help(
                "What the files are called; a host name of the certificate unless --san is given",
            ),
            Arg::new("san")
                .long("san")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("A host name or IP address it is for; may be given several times"),
            folder(),
            days("365"),
        ]);
    Command::new("pki")
        .about("Certificates for a fleet that has no authority of its own")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(init)
        .subcommand(issue)
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("init", matches)) => init(matches),
        Some(("issue", matches)) => issue(matches),
        _ => Err(usage("pki: init or issue")),
    }
}

fn folder(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("dir").map_or(Path::new("pki"), PathBuf::as_path)
}

fn days(matches: &ArgMatches) -> u16 {
    matches.get_one::<u16>("days").copied().unwrap_or(365)
}

fn failed(error: PkiError) -> Failure {
    let exit = match error {
        PkiError::Usage(_) => Exit::Configuration,
        PkiError::File(_) => Exit::Storage,
    };
    Failure::new(exit, error)
}

fn init(matches: &ArgMatches) -> Result<(), Failure> {
    let name = matches.get_one::<String>("name").map_or("pm2-fleet", String::as_str);
    let Written { cert, key } =
        Authority::create(folder(matches), name, days(matches)).map_err(failed)?;
    say(&format!("authority: {}", cert.display()))?;
    say(&format!("its key: {} (keep it offline; whoever has it can be anybody)", key.display()))?;
    say("next: pm2-poller pki issue vm1.example --san 10.0.0.5")
}

fn issue(matches: &ArgMatches) -> Result<(), Failure> {
    let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    let names: Vec<String> = matches.get_many("san").into_iter().flatten().cloned().collect();
    let folder = folder(matches);
    let authority = Authority::open(folder).map_err(failed)?;
    let Written { cert, key } = authority.issue(name, &names, days(matches)).map_err(failed)?;
    say(&format!(
        "# For exporter.toml or poller.toml, beside which the files are to lie:\n\
         [tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = \"ca.pem\" # to ask for \
         certificates in turn\n\n# For poller.toml, to ask https:// exporters:\n\
         [exporter_tls]\nca_file = \"ca.pem\"\ncert_file = {:?}\nkey_file = {:?}",
        file_name(&cert),
        file_name(&key),
        file_name(&cert),
        file_name(&key)
    ))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
