//! The environment of a slot's process, in layers.

use std::collections::BTreeMap;

use super::config::Settings;
use super::place::SlotPlace;

/// Values by name.
pub type Env = BTreeMap<String, String>;

/// What programs need to work at all, taken from the exporter's own environment.
const BASE: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Most variables that one layer may have, and bytes that one value may have.
const MOST: (usize, usize) = (256, 32 * 1024);

/// PM2 keeps a process' settings and its environment in one record, so that a variable of one
/// of these names would change what is run.
const PM2S_OWN: [&str; 44] = [
    "name",
    "namespace",
    "args",
    "node_args",
    "script",
    "cwd",
    "env",
    "status",
    "instances",
    "instance_var",
    "exec_mode",
    "exec_interpreter",
    "autorestart",
    "watch",
    "treekill",
    "pmx",
    "vizion",
    "vizion_running",
    "automation",
    "km_link",
    "merge_logs",
    "kill_timeout",
    "max_restarts",
    "min_uptime",
    "max_memory_restart",
    "restart_delay",
    "cron_restart",
    "listen_timeout",
    "wait_ready",
    "shutdown_with_message",
    "windowsHide",
    "username",
    "uid",
    "gid",
    "user",
    "unique_id",
    "filter_env",
    "versioning",
    "version",
    "node_version",
    "unstable_restarts",
    "restart_time",
    "created_at",
    "time",
];

/// Whether a variable may be called so.
///
/// # Errors
/// Why not.
pub fn name_is_allowed(name: &str) -> Result<(), String> {
    let shown: String = name.chars().take(64).collect();
    let mut bytes = name.bytes();
    let plain = name.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain {
        return Err(format!(
            "{shown:?} is not a variable's name: letters, digits and '_', no digit first, at most 128"
        ));
    }
    let taken = PM2S_OWN.contains(&name)
        || ["pm_", "axm_", "PM2_EXPORTER_", "PM2_HOME", "LD_", "_pm2", "exit_", "prev_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || matches!(name, "PORT" | "SLOT_NAME");
    if taken {
        return Err(format!("{shown:?} is not to be set: the slot, PM2 or the loader gives it"));
    }
    Ok(())
}

/// Whether a layer may be used.
///
/// # Errors
/// Why not; no value is shown.
pub fn check<'a>(layer: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<(), String> {
    let mut count = 0;
    for (name, value) in layer {
        count += 1;
        name_is_allowed(name)?;
        if value.len() > MOST.1 || value.contains('\0') {
            return Err(format!("{name}: its value is longer than {} bytes or has a NUL", MOST.1));
        }
    }
    if count > MOST.0 {
        return Err(format!("{count} variables are too many: at most {}", MOST.0));
    }
    Ok(())
}

/// What every process of a slot gets, from `own` (the exporter's environment).
fn base(settings: &Settings, own: &dyn Fn(&str) -> Option<String>) -> Env {
    BASE.into_iter()
        .map(str::to_owned)
        .chain(settings.inherit.iter().cloned())
        .filter_map(|name| own(&name).map(|value| (name, value)))
        .collect()
}

/// What a deployed application gets: workspace defaults under the slot's own under the
/// deployment's, which has none that the slot was given since; `port` is the slot's, or a spare one.
pub fn of_application(
    settings: &Settings,
    place: &SlotPlace,
    port: u16,
    slot: &Env,
    deployment: &Env,
    own: &dyn Fn(&str) -> Option<String>,
) -> Env {
    let mut env = base(settings, own);
    env.insert("NODE_ENV".to_owned(), "production".to_owned());
    env.extend(settings.env.iter().cloned());
    for layer in [slot, deployment] {
        env.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    env.insert("PORT".to_owned(), port.to_string());
    env.insert("SLOT_NAME".to_owned(), place.slot.to_string());
    env
}

/// What the placeholder gets: no secret is needed to say that a slot is free.
pub fn of_placeholder(
    settings: &Settings,
    place: &SlotPlace,
    own: &dyn Fn(&str) -> Option<String>,
) -> Env {
    let configured = |name: &str| {
        settings.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let mut env = Env::new();
    // The workspace's own admin server is this machine's, as far as is known here.
    if settings.admin.enabled {
        env.insert("ADMIN_URL".to_owned(), format!("http://localhost:{}", settings.admin.port));
    }
    for name in ["ADMIN_URL".to_owned(), url_name(place)] {
        if let Some(value) = configured(&name).or_else(|| own(&name)) {
            env.insert(name, value);
        }
    }
    env.insert("PORT".to_owned(), place.port.to_string());
    env.insert("SLOT_NAME".to_owned(), place.slot.to_string());
    env
}

/// What installing and building get: the application's environment without its port.
pub fn of_build(mut application: Env) -> Env {
    application.remove("PORT");
    // Development packages are needed to build; npm leaves them out in production.
    application.remove("NODE_ENV");
    application.insert("CI".to_owned(), "true".to_owned());
    application
}

/// The variable that holds a slot's address: `SLOT_A_URL`.
pub fn url_name(place: &SlotPlace) -> String {
    format!("SLOT_{}_URL", place.slot.to_ascii_uppercase().replace('-', "_"))
}

/// The slot's address.
pub fn url(settings: &Settings, place: &SlotPlace, own: &dyn Fn(&str) -> Option<String>) -> String {
    let name = url_name(place);
    let configured = settings.env.iter().find(|(known, _)| *known == name);
    configured
        .map(|(_, value)| value.clone())
        .or_else(|| own(&name))
        .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
        .unwrap_or_else(|| format!("http://localhost:{}", place.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployments_beats_the_slots_beats_the_workspaces_and_the_port_is_fixed() {
        let one = |name: &str, value: &str| Env::from([(name.to_owned(), value.to_owned())]);
        let settings = Settings {
            env: vec![("A".into(), "1".into()), ("NODE_ENV".into(), "test".into())],
            ..Settings::default()
        };
        let place = &settings.places[0];
        let own = |name: &str| (name == "PATH").then(|| "/bin".to_owned());
        let env = of_application(&settings, place, 5, &one("A", "2"), &one("B", "3"), &own);
        let get = |name: &str| env.get(name).map(String::as_str);
        assert_eq!(get("A"), Some("2"));
        assert_eq!(get("B"), Some("3"));
        assert_eq!(get("PORT"), Some("5"));
        assert_eq!(get("SLOT_NAME"), Some("a"));
        assert_eq!(get("NODE_ENV"), Some("test"));
        assert_eq!(get("PATH"), Some("/bin"));
    }

    #[test]
    fn no_variable_can_change_what_pm2_runs() {
        for wrong in ["pm_exec_path", "args", "name", "PORT", "LD_PRELOAD", "1A", "a-b", "", "A=B"]
        {
            assert!(name_is_allowed(wrong).is_err(), "{wrong}");
        }
        for right in ["DATABASE_URL", "_x", "NODE_ENV", "node_env"] {
            assert!(name_is_allowed(right).is_ok(), "{right}");
        }
    }
}
