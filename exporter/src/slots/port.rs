//! Who listens on a port, and which process it is, from `/proc` (proc(5)).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wire::PortOwner;

use super::listeners;

/// Numbers of all processes.
pub fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn sockets(pid: u32) -> Vec<u64> {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    fds.flatten()
        .filter_map(|fd| {
            let target = fs::read_link(fd.path()).ok()?;
            let target = target.to_str()?;
            target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A process and all that descend from it.
pub fn family(pid: u32) -> HashSet<u32> {
    let parents: Vec<(u32, u32)> =
        all_pids().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = HashSet::from([pid]);
    loop {
        let before = family.len();
        for (pid, parent) in &parents {
            if family.contains(parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

/// Whether a process was started with a variable of this value, as far as that may be seen.
pub fn has_variable(pid: u32, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}

/// Name of a process: of its file where that may be seen, for its title may say anything.
pub fn command(pid: u32) -> String {
    let file = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let name = file.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
    });
    name.chars().filter(|letter| !letter.is_control()).take(32).collect()
}

/// Ports that these processes listen on.
pub fn listened_by(pids: &HashSet<u32>) -> Vec<u16> {
    let listeners = listeners::all();
    let inodes: HashSet<u64> = pids.iter().flat_map(|pid| sockets(*pid)).collect();
    let mut ports: Vec<u16> = listeners
        .into_iter()
        .filter(|listener| inodes.contains(&listener.inode))
        .map(|listener| listener.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Who listens on these ports; `own` gives the process that should, by port. A port that
/// somebody else's user listens on has an owner without a number.
pub fn owners(own: &[(u16, Option<u32>)]) -> HashMap<u16, PortOwner> {
    let listeners = listeners::all();
    let mut found = HashMap::new();
    for (port, pid) in own {
        let mut open: HashSet<u64> =
            listeners.iter().filter(|found| found.port == *port).map(|found| found.inode).collect();
        if open.is_empty() {
            continue;
        }
        // Nearly always it is the process itself: nobody else is looked at then.
        if let Some(pid) = pid.filter(|pid| *pid > 0) {
            let holds = |pid: u32| sockets(pid).iter().any(|inode| open.contains(inode));
            let holder = if holds(pid) {
                Some(pid)
            } else {
                family(pid).into_iter().find(|pid| holds(*pid))
            };
            if let Some(holder) = holder {
                let mine: HashSet<u64> = sockets(holder).into_iter().collect();
                open.retain(|inode| !mine.contains(inode));
                let owner = PortOwner { pid: holder, command: command(holder), own: true };
                found.insert(*port, owner);
                continue;
            }
        }
        let holder = all_pids()
            .into_iter()
            .find(|pid| sockets(*pid).iter().any(|inode| open.contains(inode)));
        let owner = match holder {
            Some(pid) => PortOwner { pid, command: command(pid), own: false },
            None => PortOwner { pid: 0, command: "another user's".to_owned(), own: false },
        };
        found.insert(*port, owner);
    }
    found
}

/// For people: `pid 4711 (python3)`.
pub fn in_words(owner: &PortOwner) -> String {
    if owner.pid == 0 {
        return "a process of another user".to_owned();
    }
    format!("pid {} ({})", owner.pid, owner.command)
}

/// Ends a process: SIGTERM, then SIGKILL after `grace`.
///
/// # Errors
/// It is still there.
pub async fn end(pid: u32, grace: Duration) -> Result<(), String> {
    let id = Pid::from_raw(pid.cast_signed()).ok_or("there is no such process")?;
    let is_there = || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| {
            text.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        })
    };
    for signal in [Signal::TERM, Signal::KILL] {
        if let Err(error) = kill_process(id, signal)
            && is_there()
        {
            return Err(format!("{} cannot be ended: {error}", command(pid)));
        }
        let until = tokio::time::Instant::now() + grace;
        while is_there() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !is_there() {
            return Ok(());
        }
    }
    Err(format!("pid {pid} does not end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_with_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = std::process::id();
        let owner = &owners(&[(port, Some(own))])[&port];
        assert!(owner.own && owner.pid == own, "{owner:?}");
        let owner = &owners(&[(port, None)])[&port];
        assert!(!owner.own && owner.pid == own, "{owner:?}");
        assert!(listened_by(&family(own)).contains(&port));
        drop(listener);
        assert!(owners(&[(port, None)]).is_empty());
    }
}
