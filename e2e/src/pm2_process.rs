//! Processes as PM2's `getMonitorData` tells them, made up for the fake PM2.

use serde_json::{Value, json};

/// A process in the shape of PM2 7.0.4, with the fields that readers look at. Change it with
/// `process["pm2_env"]["status"] = "stopped".into()` and the like.
pub fn process(pm_id: u32, name: &str, pid: u32) -> Value {
    let now = wire::Time::now().as_millis();
    json!({
        "pid": pid,
        "name": name,
        "pm_id": pm_id,
        "monit": {"memory": 50_000_000, "cpu": 1.5},
        "pm2_env": {
            "name": name,
            "namespace": "default",
            "pm_id": pm_id,
            "status": "online",
            "exec_mode": "fork_mode",
            "exec_interpreter": "node",
            "node_version": "20.20.2",
            "version": "1.0.0",
            "instances": 1,
            "NODE_APP_INSTANCE": 0,
            "autorestart": true,
            "restart_time": 0,
            "unstable_restarts": 0,
            "created_at": now,
            "pm_uptime": now,
            "pm_cwd": "/srv",
            "pm_exec_path": "/srv/app.js",
            "pm_out_log_path": "/srv/out.log",
            "pm_err_log_path": "/srv/err.log",
            "node_args": [],
            "axm_actions": [],
            "axm_dynamic": {},
            "axm_options": {},
            "axm_monitor": {
                "Heap Size": {"unit": "MiB", "type": "internal/v8/heap/total", "value": "7.23"},
                "Used Heap Size": {"unit": "MiB", "type": "internal/v8/heap/used", "value": "5.35"},
                "Active handles": {"type": "internal/libuv/handles", "value": 4},
                "Event Loop Latency": {"unit": "ms", "type": "internal/libuv/latency/p50", "value": "0.39"}
            },
            "env": {"NODE_ENV": "production"},
            "_pm2_version": "7.0.4"
        }
    })
}

/// Many of them: `app-0`, `app-1`, …, all with the pid of this process, so that there is
/// something to read in `/proc`.
pub fn processes(count: u32) -> Vec<Value> {
    (0..count).map(|id| process(id, &format!("app-{id}"), std::process::id())).collect()
}

/// The body of a `process:event` about a process.
pub fn event(word: &str, process: &Value) -> Value {
    json!({
        "event": word,
        "manually": false,
        "at": wire::Time::now().as_millis(),
        "process": process["pm2_env"],
    })
}
