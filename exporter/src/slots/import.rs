//! Takes over a workspace of the old kind, `slots.json` with `ecosystem.config.js`, as it runs:
//! nothing is restarted, and a stop, restart or rollback is possible from then on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;
use wire::{Deployment, DeploymentStatus, Time};

use super::ask::new_id;
use super::env::{Env, name_is_allowed};
use super::place::SlotPlace;
use super::plan::Occupant;
use super::repository::Repository;
use super::start::{Finder, Start};
use super::store::Deployed;
use super::table::Line;
use super::up::Workspace;

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldSlots {
    slots: BTreeMap<String, OldSlot>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldSlot {
    repository: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    status: Option<String>,
    last_deploy: Option<String>,
    environment: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Ecosystem {
    apps: Vec<OldApp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldApp {
    name: String,
    script: String,
    cwd: Option<PathBuf>,
    args: Value,
    env: BTreeMap<String, Value>,
}

/// Reads both files and writes down what every slot runs.
///
/// # Errors
/// A file cannot be read or makes no sense; a port or slot is not as configured.
pub async fn run(
    workspace: Workspace,
    slots_json: &Path,
    ecosystem: &Path,
) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read(slots_json).with_context(|| slots_json.display().to_string())?;
    // Neither file's content may be quoted: both hold environments.
    let old: OldSlots = serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        anyhow::anyhow!("{}: makes no sense at line {line}, column {column}", slots_json.display())
    })?;
    let apps = evaluate(&workspace, ecosystem).await?.apps;
    let workshop = &workspace.workshop;
    for name in old.slots.keys() {
        if !workshop.settings.places.iter().any(|place| place.slot.as_str() == name) {
            bail!("{}: slot {name:?} is not configured in [slots]", slots_json.display());
        }
    }
    for place in &workshop.settings.places {
        let name = format!("slot-{}", place.slot);
        let app = apps.iter().find(|app| app.name == name);
        let known = old.slots.get(place.slot.as_str());
        take(&workspace, place, app, known, ecosystem)?;
    }
    workspace.workshop.write_ecosystem()?;
    workspace.status().await
}

/// Has Node.js read the file, as PM2 does: it is a program.
async fn evaluate(workspace: &Workspace, file: &Path) -> anyhow::Result<Ecosystem> {
    let file = file.canonicalize().with_context(|| file.display().to_string())?;
    let program = "process.stdout.write(JSON.stringify(require(process.argv[1])))";
    let output = Command::new(&workspace.workshop.node)
        .args(["-e", program, "--"])
        .arg(&file)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(20), output)
        .await
        .with_context(|| format!("{} takes over 20 s to read", file.display()))?
        .with_context(|| format!("{} cannot be run", workspace.workshop.node.display()))?;
    if !output.status.success() {
        bail!("{} cannot be read by Node.js", file.display());
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|_| anyhow::anyhow!("{} has no list of apps", file.display()))
}

fn take(
    workspace: &Workspace,
    place: &SlotPlace,
    app: Option<&OldApp>,
    known: Option<&OldSlot>,
    ecosystem: &Path,
) -> anyhow::Result<()> {
    let workshop = &workspace.workshop;
    let Some(_lock) = workshop.store.lock(&place.slot)? else {
        bail!("slot {} is being changed by pm2-exporter serve", place.slot);
    };
    let mut state = workshop.store.load(&place.slot)?;
    if !state.deployments.is_empty() || state.standing.change.is_some() {
        // It was taken over before, or deployed by us since: that is newer.
        return Ok(());
    }
    if let Some(app) = app
        && let Some(port) = app.env.get("PORT").map(text_of)
        && port != place.port.to_string()
    {
        bail!("slot {} is on port {port} there, and on {} in [slots]", place.slot, place.port);
    }
    let values = |env: &BTreeMap<String, Value>| -> Env {
        env.iter()
            .filter(|(name, _)| name_is_allowed(name).is_ok())
            .map(|(name, value)| (name.clone(), text_of(value)))
            .collect()
    };
    if let Some(known) = known {
        state.env = values(&known.environment);
    }
    let is_deployed = known.is_some_and(|known| {
        known.status.as_deref() == Some("deployed")
            || (known.repository.is_some() && known.status.as_deref() != Some("empty"))
    });
    let is_placeholder = app.is_none_or(|app| app.script.contains("placeholder"));
    match app {
        Some(app) if is_deployed && !is_placeholder => {
            let folder = ecosystem.parent().unwrap_or(Path::new("/"));
            let cwd = folder.join(app.cwd.clone().unwrap_or_default());
            let cwd = std::path::absolute(cwd)?;
            let id = new_id().map_err(anyhow::Error::msg)?;
            let start = start_of(app, &cwd, &workshop.path());
            let repository =
                known.and_then(|known| known.repository.as_deref()).unwrap_or_default();
            // Never with credentials, whatever the old file holds.
            let shown = Repository::parse(repository, &workshop.settings)
                .map_or_else(|_| "imported".to_owned(), |repository| repository.to_string());
            let when = known
                .and_then(|known| known.last_deploy.as_deref())
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(Time::now);
            state.deployments.push(Deployed {
                shown: Deployment {
                    id: id.clone(),
                    slot: place.slot.clone(),
                    status: DeploymentStatus::Healthy,
                    repository: shown,
                    branch: known.and_then(|known| known.branch.clone()),
                    commit: known.and_then(|known| known.commit.clone()),
                    subdir: None,
                    requested_by: "import".to_owned(),
                    requested_at: when,
                    finished_at: Some(when),
                    start: start.as_ref().map(Start::shown),
                    env_names: Vec::new(),
                    error: None,
                    last_lines: Vec::new(),
                    current: true,
                    kept: true,
                },
                env: values(&app.env)
                    .into_iter()
                    .filter(|(name, _)| !state.env.contains_key(name))
                    .collect(),
                start,
                health_path: None,
                imported: true,
            });
            state.standing.kept.push(id.clone());
            state.standing.current = Occupant::Release(id);
        }
        _ => state.foreign_placeholder = true,
    }
    workshop.store.save(&place.slot, &state)?;
    Ok(())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What runs the old application: the script with its arguments, or a command as a text.
fn start_of(app: &OldApp, cwd: &Path, path: &str) -> Option<Start> {
    let script = cwd.join(&app.script);
    let args = match &app.args {
        Value::String(text) => super::words::split(text).unwrap_or_default(),
        Value::Array(words) => words.iter().map(text_of).collect(),
        _ => Vec::new(),
    };
    if script.is_file() {
        let node = script
            .extension()
            .is_some_and(|end| ["js", "cjs", "mjs"].iter().any(|known| end == *known));
        let node = node.then(Vec::new);
        return Some(Start { script, node, args, env: Env::new(), cwd: cwd.to_owned() });
    }
    let words = super::words::split(&app.script).ok()?;
    let finder = Finder { release: cwd, folder: cwd, path };
    match words.first().map(String::as_str) {
        Some("npm") => finder.find(None).ok(),
        _ => finder.find(Some(&words)).ok(),
    }
}
