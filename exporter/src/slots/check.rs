//! What `pm2-exporter check` says of slots.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use wire::{Process, Status};

use super::config::Settings;
use super::store::Store;
use super::up::ADMIN;
use super::{accepts, port};
use crate::check::{Finding, Level};

/// Everything that can be said of the slots: whether the workspace's processes are there and
/// online, their ports serve and are theirs, their states and the ecosystem file make sense,
/// and logs are rotated. `root` is [`Settings::root`]; `open` says whether everybody may read,
/// `other_admin` whether the admin server runs with other settings. Nothing where there are no slots.
pub async fn findings(
    settings: &Settings,
    root: PathBuf,
    processes: &[Process],
    open: bool,
    other_admin: bool,
) -> Vec<Finding> {
    let named = |name: &str| -> Vec<&Process> {
        processes.iter().filter(|process| process.instance.name.as_str() == name).collect()
    };
    let any =
        settings.places.iter().any(|place| !named(&format!("slot-{}", place.slot)).is_empty());
    if !settings.configured && !any {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut expected: Vec<(String, u16)> = Vec::new();
    if settings.admin.enabled && settings.configured {
        expected.push((ADMIN.to_owned(), settings.admin.port));
    }
    expected
        .extend(settings.places.iter().map(|place| (format!("slot-{}", place.slot), place.port)));
    for (name, number) in expected {
        all.push(match other_admin && name == ADMIN {
            true => Finding::new(
                Level::Problem,
                "slot",
                format!("{ADMIN} runs with other settings than [slots.admin]: run 'pm2-exporter slots up'"),
            ),
            false => one(&name, number, &named(&name)).await,
        });
    }
    let store = Store::new(root.clone());
    for place in &settings.places {
        match store.load(&place.slot) {
            Err(error) => all.push(Finding::new(Level::Problem, "slot", error.to_string())),
            Ok(state) if state.standing.change.is_some() => all.push(Finding::new(
                Level::Warning,
                "slot",
                format!("a change of slot {} is under way or was cut off", place.slot),
            )),
            Ok(_) => {}
        }
    }
    let admin = &settings.admin;
    let runs = admin.enabled && settings.configured && admin.command.is_none();
    if runs && !open && admin.token_file.is_none() {
        all.push(Finding::new(
            Level::Warning,
            "slot",
            format!(
                "{ADMIN} has no token and cannot see this exporter: set token_file in [slots.admin]"
            ),
        ));
    }
    all.push(ecosystem(root).await);
    all.push(rotation(settings, processes));
    all
}

async fn one(name: &str, number: u16, found: &[&Process]) -> Finding {
    let problem = |message: String| Finding::new(Level::Problem, "slot", message);
    match found {
        [] => problem(format!("{name} is not in PM2's list: run 'pm2-exporter slots up'")),
        [one] if one.status != Status::Online => {
            problem(format!("{name} is {}: run 'pm2-exporter slots up'", one.status.as_str()))
        }
        [one] => {
            let owner = port::owners(&[(number, one.pid)]).remove(&number);
            match owner.filter(|owner| !owner.own) {
                Some(owner) => problem(format!(
                    "port {number} of {name} is held by {}",
                    port::in_words(&owner)
                )),
                None if !accepts(number).await => {
                    problem(format!("{name} is online, and {}", refuses(name, number)))
                }
                None => Finding::new(
                    Level::Ok,
                    "slot",
                    format!("{name} is online and answers on port {number}"),
                ),
            }
        }
        several => problem(format!("PM2 has {} processes named {name}", several.len())),
    }
}

/// That nobody answers, and what to do about it.
pub(super) fn refuses(name: &str, port: u16) -> String {
    let slot = name.strip_prefix("slot-").map(|slot| {
        format!(
            "; if its port was changed in [slots], restart 'pm2-exporter serve' and then the slot: \
             POST /api/slots/{slot}/restart"
        )
    });
    format!("port {port} refuses connections{}", slot.unwrap_or_default())
}

async fn ecosystem(root: PathBuf) -> Finding {
    let file = root.join("ecosystem.config.js");
    let shown = file.display().to_string();
    if !file.is_file() {
        let message = format!("{shown} is not there: run 'pm2-exporter slots up'");
        return Finding::new(Level::Warning, "ecosystem", message);
    }
    let program = "if (!Array.isArray(require(process.argv[1]).apps)) process.exit(1)";
    let status = Command::new("node")
        .args(["-e", program, "--"])
        .arg(&file)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .status();
    match timeout(Duration::from_secs(10), status).await {
        Ok(Ok(status)) if status.success() => {
            Finding::new(Level::Ok, "ecosystem", format!("{shown} loads"))
        }
        Ok(Err(error)) => {
            Finding::new(Level::Warning, "ecosystem", format!("node cannot be run: {error}"))
        }
        _ => Finding::new(Level::Problem, "ecosystem", format!("{shown} does not load")),
    }
}

fn rotation(settings: &Settings, processes: &[Process]) -> Finding {
    let module = processes.iter().any(|process| process.instance.name.as_str() == "pm2-logrotate");
    let (level, message) = match (module, settings.configured && settings.log_rotate_size > 0) {
        (true, _) => (Level::Ok, "pm2-logrotate rotates the logs".to_owned()),
        (false, true) => (
            Level::Ok,
            format!(
                "'pm2-exporter serve' rotates logs of {} bytes and keeps {}",
                settings.log_rotate_size, settings.log_rotate_keep
            ),
        ),
        (false, false) => (Level::Warning, "nobody rotates the logs: configure [slots]".to_owned()),
    };
    Finding::new(level, "rotation", message)
}
