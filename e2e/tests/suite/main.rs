//! The programs from outside, as people use them: over HTTP, by their command lines, in files.
//! One program for all, so that slow tests wait beside each other.
#![allow(missing_docs)]

mod alerts;
mod api;
mod broken_pm2;
mod browser;
mod busy_pm2;
mod commands;
mod dashboards;
mod data_endures;
mod events;
mod fleet_changes;
mod hostile_exporter;
mod hostile_words;
mod hung_pm2;
mod make_run;
mod matrix;
mod metrics_pages;
mod migration;
mod names;
mod odd_logs;
mod only_looks;
mod openapi;
mod other_sites;
mod pages;
mod planted;
mod polling_endures;
mod prometheus;
mod readings;
mod refusals;
mod relayed_pages;
mod restarts;
mod secrets;
mod several_homes;
mod shows_processes;
mod simulated_fleet;
mod slow_headers;
mod slow_servers;
mod starting;
mod stopping;
mod tls;
mod token_limits;
