//! What an action takes, checked before anything is done.

use std::collections::BTreeMap;

use wire::{Action, CommandRequest};

/// Signals that may be sent, as signal(7) names them.
const SIGNALS: &[&str] = &[
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGKILL", "SIGSTOP",
    "SIGCONT", "SIGALRM", "SIGWINCH", "SIGABRT", "SIGPIPE",
];

/// Most instances that an app may be scaled to.
const MAX_INSTANCES: u32 = 256;
/// Most environment variables in one command, and the most bytes of a value: well below what
/// execve(2) takes.
const MAX_VARIABLES: usize = 256;
const MAX_VALUE: usize = 32 * 1024;

/// An action with what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// One of the actions that take nothing.
    Plain(Action),
    /// Set these, then restart.
    Env(BTreeMap<String, String>),
    /// Send this.
    Signal(&'static str),
    /// Run this custom action.
    Trigger { action: String, params: Option<String> },
    /// Have this many instances.
    Scale(u32),
}

/// Checks a request's arguments. Values are not shown: they may be secrets.
///
/// # Errors
/// A sentence that names the argument and what is allowed.
pub(super) fn task(request: &CommandRequest) -> Result<Task, String> {
    let arguments = &request.arguments;
    let only = |known: &[&str]| match arguments.keys().find(|name| !known.contains(&name.as_str()))
    {
        Some(name) if known.is_empty() => {
            Err(format!("arguments: {} takes none, and {name:?} was given", request.action))
        }
        Some(name) => Err(format!(
            "arguments: {} does not take {name:?}; it takes {}",
            request.action,
            known.join(", ")
        )),
        None => Ok(()),
    };
    let needed = |name: &str| {
        arguments.get(name).ok_or_else(|| format!("{name}: is missing for {}", request.action))
    };
    match request.action {
        Action::Env => {
            check_variables(arguments)?;
            Ok(Task::Env(arguments.clone()))
        }
        Action::Signal => {
            only(&["signal"])?;
            let name = needed("signal")?;
            SIGNALS
                .iter()
                .find(|known| *known == name)
                .map(|name| Task::Signal(name))
                .ok_or_else(|| format!("signal: {name:?} is not one of {}", SIGNALS.join(", ")))
        }
        Action::Trigger => {
            only(&["action", "params"])?;
            let action = needed("action")?;
            if action.is_empty() || action.len() > 200 || action.chars().any(char::is_control) {
                return Err("action: is not 1 to 200 bytes without control characters".to_owned());
            }
            Ok(Task::Trigger { action: action.clone(), params: arguments.get("params").cloned() })
        }
        Action::Scale => {
            only(&["instances"])?;
            let text = needed("instances")?;
            let count = text.parse().ok().filter(|count| (1..=MAX_INSTANCES).contains(count));
            count.map(Task::Scale).ok_or_else(|| {
                format!("instances: {text:?} is not a whole number from 1 to {MAX_INSTANCES}")
            })
        }
        action => {
            only(&[])?;
            Ok(Task::Plain(action))
        }
    }
}

/// Whether these may be set as environment variables.
///
/// # Errors
/// A sentence that names the variable and what is allowed.
pub fn check_variables(variables: &BTreeMap<String, String>) -> Result<(), String> {
    if variables.is_empty() || variables.len() > MAX_VARIABLES {
        return Err(format!("env: {} variables, expected 1 to {MAX_VARIABLES}", variables.len()));
    }
    for (name, value) in variables {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !first || !name.bytes().all(plain) || name.len() > 128 {
            let shown: String = name.chars().take(128).collect();
            return Err(format!(
                "env: {shown:?} is not a name: 1 to 128 letters, digits and '_', the first no digit"
            ));
        }
        // PM2 keeps variables in one record with its own settings of the process, and merges
        // what it is sent into both.
        if PM2_OWN.contains(&name.as_str()) {
            return Err(format!("env: {name:?} is a setting of PM2's own for the process"));
        }
        if value.contains('\0') || value.len() > MAX_VALUE {
            return Err(format!("env: {name}: the value is over {MAX_VALUE} bytes or holds a NUL"));
        }
    }
    Ok(())
}

/// Names in PM2's record of a process that no variable may overwrite.
const PM2_OWN: &[&str] = &[
    "name",
    "pm_id",
    "pm_exec_path",
    "pm_cwd",
    "exec_interpreter",
    "exec_mode",
    "node_args",
    "args",
    "script",
    "cwd",
    "interpreter",
    "instances",
    "instance_var",
    "namespace",
    "env",
    "status",
    "pm_uptime",
    "restart_time",
    "unstable_restarts",
    "created_at",
    "pm_out_log_path",
    "version",
    "pm_err_log_path",
    "pm_log_path",
    "pm_pid_path",
    "autorestart",
    "watch",
    "uid",
    "gid",
    "username",
    "unique_id",
    "axm_monitor",
    "axm_actions",
    "axm_options",
    "axm_dynamic",
    "merge_logs",
    "vizion",
    "kill_timeout",
    "max_restarts",
    "min_uptime",
    "exit_code",
    "node_version",
    "treekill",
    "filter_env",
    "wait_ready",
    "cron_restart",
    "max_memory_restart",
    "restart_delay",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(action: Action, arguments: &[(&str, &str)]) -> Result<Task, String> {
        let target = wire::Target::App("api".parse().unwrap());
        let arguments = arguments.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        task(&CommandRequest {
            target,
            action,
            arguments,
            pm2_home: None,
            save: false,
            deploy: None,
            env: None,
        })
    }

    #[test]
    fn what_an_action_takes_is_checked_by_name() {
        assert_eq!(check(Action::Restart, &[]), Ok(Task::Plain(Action::Restart)));
        assert_eq!(check(Action::Signal, &[("signal", "SIGUSR2")]), Ok(Task::Signal("SIGUSR2")));
        assert_eq!(check(Action::Scale, &[("instances", "4")]), Ok(Task::Scale(4)));
        for (action, arguments, word) in [
            (Action::Restart, &[("env", "x")][..], "takes none"),
            (Action::Signal, &[], "is missing"),
            (Action::Signal, &[("signal", "9")], "SIGTERM"),
            (Action::Signal, &[("signal", "SIGTERM"), ("x", "")], "does not take \"x\""),
            (Action::Scale, &[("instances", "0")], "from 1 to 256"),
            (Action::Trigger, &[("action", "")], "action"),
            (Action::Env, &[], "0 variables"),
            (Action::Env, &[("A=B", "x")], "A=B"),
            (Action::Env, &[("pm_exec_path", "/bin/sh")], "PM2's own"),
        ] {
            let error = check(action, arguments);
            assert!(error.as_ref().is_err_and(|error| error.contains(word)), "{error:?}");
        }
    }

    #[test]
    fn a_value_is_never_shown() {
        let long = "canary".repeat(10_000);
        let error = check(Action::Env, &[("SECRET", &long)]).unwrap_err();
        assert!(!error.contains("canary") && error.contains("SECRET"), "{error}");
    }
}
