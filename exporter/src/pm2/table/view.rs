//! What the table shows.

use std::collections::{BTreeMap, BTreeSet};

use exposition::compat::PeerProcess;
use wire::{AppName, Instance, Process, Readings, Status};

use super::{Row, Table};
use crate::filter::Filter;
use crate::pm2::dump::Counts;

/// Where PM2 keeps what an instance prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The instance, or the first that shares the file.
    pub instance_id: u32,
    /// stderr; stdout otherwise.
    pub is_error: bool,
    /// The file.
    pub path: Box<str>,
}

impl Table {
    /// Numbers of the processes of one name, in the order of instances; empty when there is none.
    pub fn pm_ids(&self, name: &AppName) -> Vec<u32> {
        let mut rows: Vec<&Row> =
            self.rows.values().filter(|row| row.instance.name == *name).collect();
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        rows.into_iter().map(|row| row.listed.pm_id).collect()
    }

    /// Whether an app of this name runs our placeholder page; `None` when there is no such app.
    pub fn is_placeholder(&self, name: &str) -> Option<bool> {
        let mut rows = self.rows.values().filter(|row| row.instance.name.as_str() == name);
        rows.next().map(|row| row.listed.is_placeholder)
    }

    /// Rows by name, namespace and instance: one that may be gone is not shown beside the one that
    /// has its number now.
    fn shown(&self) -> impl Iterator<Item = &Row> {
        let mut rows: BTreeMap<&Instance, &Row> = BTreeMap::new();
        for row in self.rows.values() {
            let other = rows.get(&row.instance);
            if !row.may_be_gone() || other.is_none_or(|other| other.may_be_gone()) {
                rows.insert(&row.instance, row);
            }
        }
        rows.into_values()
    }

    /// Every process, by name, namespace and instance; `read` gives the readings of a running
    /// one by its process number.
    pub fn processes(&self, mut read: impl FnMut(u32) -> Readings) -> Vec<Process> {
        self.shown()
            .map(|row| {
                let listed = &row.listed;
                let runs = listed.status.has_process();
                let ledger = self.ledgers.get(&row.instance);
                let pid = listed.pid.filter(|_| runs);
                let mut readings = pid.map(&mut read).unwrap_or_default();
                if pid.is_some() {
                    readings.node = listed.metrics.node.clone();
                    readings.custom = listed.metrics.custom.clone();
                }
                readings.log_out_bytes = ledger.map(|ledger| ledger.log_out_bytes);
                readings.log_err_bytes = ledger.map(|ledger| ledger.log_err_bytes);
                Process {
                    instance: row.instance.clone(),
                    pm_id: listed.pm_id,
                    pid,
                    status: listed.status,
                    exec_mode: listed.exec_mode.to_owned(),
                    interpreter: listed.interpreter.to_string(),
                    node_version: listed.node_version.to_string(),
                    version: listed.version.to_string(),
                    started_at: listed.started_at.filter(|_| runs && pid.is_some()),
                    restarts: ledger.map(|ledger| ledger.restarts).unwrap_or_default(),
                    exceptions: ledger.map_or(0, |ledger| ledger.exceptions),
                    last_exit: ledger.and_then(|ledger| ledger.last_exit.clone()),
                    slot: None,
                    online_without_pid: listed.status == Status::Online && pid.is_none(),
                    readings,
                }
            })
            .collect()
    }

    /// The log files of every instance of an app, each with the instance's number; each file
    /// once, though instances may share it.
    pub fn log_files(&self, name: &AppName) -> Vec<LogFile> {
        let mut rows: Vec<&Row> =
            self.rows.values().filter(|row| row.instance.name == *name).collect();
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        let mut files: Vec<LogFile> = Vec::new();
        for row in rows {
            for (is_error, path) in [(false, &row.listed.out_log), (true, &row.listed.err_log)] {
                let kept = !matches!(&**path, "" | "/dev/null" | "NULL");
                if kept && !files.iter().any(|file| file.path == *path) {
                    let instance_id = row.instance.instance_id;
                    files.push(LogFile { instance_id, is_error, path: path.clone() });
                }
            }
        }
        files
    }

    /// Names of all apps.
    pub fn names(&self) -> BTreeSet<String> {
        self.rows.values().map(|row| row.instance.name.to_string()).collect()
    }

    /// How many processes of each app PM2's saved list is to have; it starts its modules anyway.
    pub fn to_be_saved(&self) -> Counts {
        let mut counts = Counts::new();
        for row in self.shown().filter(|row| !row.listed.is_module) {
            *counts.entry(row.instance.name.to_string()).or_default() += 1;
        }
        counts
    }

    /// What is watched.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Where PM2 keeps what a process writes to stderr, and how long that file was when the run
    /// before ended.
    pub fn err_log(&self, pm_id: u32) -> Option<(Box<str>, u64)> {
        let row = self.rows.get(&pm_id)?;
        let before = self.ledgers.get(&row.instance).map_or(0, |ledger| ledger.err_log_before);
        Some((row.listed.err_log.clone(), before))
    }

    /// Every process as PM2 itself lists it, for other exporters' pages.
    pub fn peers(&self) -> Vec<PeerProcess> {
        self.rows
            .values()
            .map(|row| {
                let listed = &row.listed;
                PeerProcess {
                    name: listed.name.to_string(),
                    pm2_home: row.instance.pm2_home.clone(),
                    pm_id: listed.pm_id,
                    instance: row.instance.instance_id,
                    status: listed.status,
                    has_pid: listed.pid.is_some() && listed.status.has_process(),
                    cpu_percent: listed.kept.cpu_percent,
                    memory_bytes: listed.kept.memory_bytes,
                    started_at: listed.started_at,
                    restarts: listed.restart_time,
                    prev_restart_delay: listed.kept.prev_restart_delay,
                    instances: listed.kept.instances,
                    version: listed.version.to_string(),
                    interpreter: listed.interpreter.to_string(),
                    node_version: listed.node_version.to_string(),
                    reported: listed.metrics.reported.clone(),
                }
            })
            .collect()
    }

    /// The files that tell the process number of processes that run and whose number is not
    /// known yet, with their `pm_id`.
    pub fn pid_files(&self) -> Vec<(u32, Box<str>)> {
        self.rows
            .values()
            .filter(|row| row.listed.pid.is_none() && row.listed.status.has_process())
            .filter(|row| !row.listed.pid_file.is_empty())
            .map(|row| (row.listed.pm_id, row.listed.pid_file.clone()))
            .collect()
    }
}
