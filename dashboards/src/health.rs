//! What is not all right, worst first, and the one line that says so. Most of it shows in what a
//! server said last, at once; what takes a look back comes as alerts, and so nothing is told to
//! receivers of alerts that the page calls all right.

use std::collections::BTreeMap;

use wire::{AppName, Process, ServerId, Severity, Slot, Status, Time};

use crate::format::{age, count, counted, cut, span};
use crate::marks::{Badge, Mark};
use crate::rows::AppLink;
use crate::{AlertRow, Server, ServerStatus};

/// Kinds of trouble, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ServerOffline,
    Pm2Down,
    ProcessErrored,
    CrashLoop,
    PortTaken,
    SlotNotServing,
    PollerFailing,
    Critical,
    RestartStorm,
    MemoryGrowth,
    SlowLoop,
    DiskFilling,
    DeployFailed,
    HistoryLost,
    ClockOff,
    CertificateExpiring,
    TokenExpiring,
    NotSaved,
    Poller,
    Warning,
    OnlineWithoutPid,
    ServerStale,
    NotAsked,
}

/// What was stopped for so long was stopped by somebody: as the alert has it.
const STOPPED_MILLIS: i64 = 60_000;

impl Kind {
    const ALL: [Self; 23] = [
        Self::ServerOffline,
        Self::Pm2Down,
        Self::ProcessErrored,
        Self::CrashLoop,
        Self::PortTaken,
        Self::SlotNotServing,
        Self::PollerFailing,
        Self::Critical,
        Self::RestartStorm,
        Self::MemoryGrowth,
        Self::SlowLoop,
        Self::DiskFilling,
        Self::DeployFailed,
        Self::HistoryLost,
        Self::ClockOff,
        Self::CertificateExpiring,
        Self::TokenExpiring,
        Self::NotSaved,
        Self::Poller,
        Self::Warning,
        Self::OnlineWithoutPid,
        Self::ServerStale,
        Self::NotAsked,
    ];

    /// What an alert is called here; `None` for those that show in what is known now, and are
    /// told by that, sooner.
    fn of_alert(alert: &AlertRow) -> Option<Self> {
        Some(match alert.name.as_str() {
            "Pm2ServerDown" | "Pm2DaemonDown" | "Pm2ProcessErrored" | "Pm2SlotNotServing"
            | "Pm2SlotPortTaken" => return None,
            "Pm2CrashLoop" => Self::CrashLoop,
            "Pm2PollerHistoryFailing" | "Pm2PollerNotifyFailing" => Self::PollerFailing,
            "Pm2RestartStorm" => Self::RestartStorm,
            "Pm2MemoryGrowth" => Self::MemoryGrowth,
            "Pm2EventLoopSlow" => Self::SlowLoop,
            "Pm2LogDiskFilling" => Self::DiskFilling,
            "Pm2SlotDeployFailed" => Self::DeployFailed,
            "Pm2JournalEntriesLost" => Self::HistoryLost,
            "Pm2ServerClockOff" => Self::ClockOff,
            "Pm2CertificateExpiring" => Self::CertificateExpiring,
            "Pm2TokenExpiring" => Self::TokenExpiring,
            "Pm2DumpDrift" => Self::NotSaved,
            name if name.starts_with("Pm2Poller") => Self::Poller,
            _ if alert.severity >= Severity::Error => Self::Critical,
            _ => Self::Warning,
        })
    }

    pub(crate) fn badge(self) -> Badge {
        match self {
            Self::ServerOffline => Badge::new(Mark::Bad, "offline"),
            Self::Pm2Down => Badge::new(Mark::Bad, "PM2 down"),
            Self::ProcessErrored => Badge::new(Mark::Bad, "errored"),
            Self::CrashLoop => Badge::new(Mark::Bad, "crash loop"),
            Self::PortTaken => Badge::new(Mark::Bad, "port taken"),
            Self::SlotNotServing => Badge::new(Mark::Bad, "not serving"),
            Self::PollerFailing => Badge::new(Mark::Bad, "poller failing"),
            Self::Critical => Badge::new(Mark::Bad, "critical"),
            Self::RestartStorm => Badge::new(Mark::Warn, "restart storm"),
            Self::MemoryGrowth => Badge::new(Mark::Warn, "memory grows"),
            Self::SlowLoop => Badge::new(Mark::Warn, "slow"),
            Self::DiskFilling => Badge::new(Mark::Warn, "disk filling"),
            Self::DeployFailed => Badge::new(Mark::Warn, "deploy failed"),
            Self::HistoryLost => Badge::new(Mark::Warn, "history lost"),
            Self::ClockOff => Badge::new(Mark::Warn, "clock off"),
            Self::CertificateExpiring => Badge::new(Mark::Warn, "certificate"),
            Self::TokenExpiring => Badge::new(Mark::Warn, "token"),
            Self::NotSaved => Badge::new(Mark::Warn, "not saved"),
            Self::Poller => Badge::new(Mark::Warn, "poller"),
            Self::Warning => Badge::new(Mark::Warn, "warning"),
            Self::OnlineWithoutPid => Badge::new(Mark::Warn, "no process"),
            Self::ServerStale => Badge::new(Mark::Warn, "stale"),
            Self::NotAsked => Badge::new(Mark::Wait, "not asked yet"),
        }
    }

    fn summary(self, number: u64) -> String {
        match self {
            Self::ServerOffline => format!("{} offline", counted(number, "server")),
            Self::Pm2Down => format!("PM2 down on {}", counted(number, "server")),
            Self::ProcessErrored => format!("{} errored", counted(number, "process")),
            Self::CrashLoop => counted(number, "crash loop"),
            Self::PortTaken => format!("{} taken", counted(number, "port")),
            Self::SlotNotServing => format!("{} not serving", counted(number, "slot")),
            Self::PollerFailing => "the poller is failing".to_owned(),
            Self::Critical => format!("{} critical", counted(number, "alert")),
            Self::RestartStorm => counted(number, "restart storm"),
            Self::MemoryGrowth => format!("memory of {} grows", counted(number, "process")),
            Self::SlowLoop => counted(number, "slow event loop"),
            Self::DiskFilling => format!("{} filling", counted(number, "disk")),
            Self::DeployFailed => counted(number, "failed deployment"),
            Self::HistoryLost => format!("history lost of {}", counted(number, "server")),
            Self::ClockOff => format!("clock off on {}", counted(number, "server")),
            Self::CertificateExpiring => format!("{} expiring", counted(number, "certificate")),
            Self::TokenExpiring => format!("{} expiring", counted(number, "token")),
            Self::NotSaved => format!("PM2's list not saved on {}", counted(number, "server")),
            Self::Poller => "the poller wants a look".to_owned(),
            Self::Warning => counted(number, "warning"),
            Self::OnlineWithoutPid => {
                format!("{} called online without a pid", counted(number, "process"))
            }
            Self::ServerStale => format!("{} stale", counted(number, "server")),
            Self::NotAsked => format!("{} not asked yet", counted(number, "server")),
        }
    }
}

/// One thing that is not all right.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    /// Where; nowhere when it is the poller itself.
    pub(crate) server: Option<ServerId>,
    /// The app, where it is one.
    pub(crate) app: Option<AppName>,
    /// What about it, one line.
    pub(crate) text: String,
    /// How many servers, processes or slots it is.
    number: u64,
}

impl Trouble {
    pub(crate) fn badge(&self) -> Badge {
        self.kind.badge()
    }
}

/// One trouble as a row.
pub(crate) struct TroubleLine<'a> {
    pub(crate) badge: Badge,
    pub(crate) server: Option<&'a ServerId>,
    pub(crate) app: Option<AppLink<'a>>,
    pub(crate) text: &'a str,
}

impl<'a> TroubleLine<'a> {
    /// The first `most` of them.
    pub(crate) fn some(troubles: &'a [Trouble], most: usize) -> Vec<Self> {
        troubles.iter().take(most).map(Self::new).collect()
    }

    fn new(trouble: &'a Trouble) -> Self {
        Self {
            badge: trouble.badge(),
            server: trouble.server.as_ref(),
            app: trouble
                .server
                .as_ref()
                .zip(trouble.app.as_ref())
                .map(|(server, app)| AppLink::new(server, app)),
            text: &trouble.text,
        }
    }
}

/// The answer to "is everything all right?"
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) mark: Mark,
    pub(crate) lead: &'static str,
    /// The reasons, worst first.
    pub(crate) parts: Vec<String>,
}

/// Everything that is not all right with these servers, and with the poller itself, worst first.
pub(crate) fn troubles<'a>(
    servers: impl IntoIterator<Item = &'a Server>,
    own: &[AlertRow],
    now: Time,
) -> Vec<Trouble> {
    let mut found: Vec<Trouble> = own.iter().filter_map(|alert| told(None, alert)).collect();
    for server in servers {
        of_server(server, now, &mut found);
    }
    found.sort_by(|a, b| (a.kind, &a.server, &a.app).cmp(&(b.kind, &b.server, &b.app)));
    found
}

/// What is not all right within a server; that it does not answer is told otherwise.
pub(crate) fn within(server: &Server, now: Time) -> Vec<Trouble> {
    let mut found = troubles([server], &[], now);
    found.retain(|trouble| {
        !matches!(trouble.kind, Kind::ServerOffline | Kind::ServerStale | Kind::NotAsked)
    });
    found
}

fn told(server: Option<&ServerId>, alert: &AlertRow) -> Option<Trouble> {
    Some(Trouble {
        kind: Kind::of_alert(alert)?,
        server: server.cloned(),
        app: alert.app.clone(),
        text: cut(&alert.description, 300),
        number: 1,
    })
}

fn of_server(server: &Server, now: Time, found: &mut Vec<Trouble>) {
    let alerts = server.alerts.iter().filter_map(|alert| told(Some(&server.id), alert));
    let (loops, others): (Vec<_>, Vec<_>) = alerts.partition(|it| it.kind == Kind::CrashLoop);
    found.extend(others);
    let mut tell = |kind, app: Option<&AppName>, number, text| {
        let server = Some(server.id.clone());
        found.push(Trouble { kind, server, app: app.cloned(), text, number });
    };
    let contact = &server.contact;
    let reason = contact.error.as_deref().map(|error| cut(error, 300));
    match (contact.status, contact.last_success) {
        (ServerStatus::Online, _) => {}
        (_, None) => {
            match reason {
                None => tell(Kind::NotAsked, None, 1, "waiting for its first poll".into()),
                Some(why) => {
                    tell(Kind::ServerOffline, None, 1, format!("never answered: {why}"));
                }
            }
            return;
        }
        (status, Some(last)) => {
            let why = reason.unwrap_or_else(|| "no answer".into());
            let text = format!("{why}; last answer {}", age(now, last));
            if status == ServerStatus::Offline {
                // What it last said is too old to be called trouble of today.
                tell(Kind::ServerOffline, None, 1, text);
                return;
            }
            tell(Kind::ServerStale, None, 1, text);
        }
    }
    let Some(state) = &server.state else { return };
    for pm2 in state.pm2_homes().iter().filter(|pm2| !pm2.up) {
        let why = pm2.error.as_deref().unwrap_or("the daemon does not answer");
        let text = match state.homes.len() {
            0 => why.to_owned(),
            _ => format!("{}: {why}", pm2.home),
        };
        tell(Kind::Pm2Down, None, 1, cut(&text, 300));
    }
    let apps = by_app(&state.processes);
    for (app, processes) in &apps {
        let errored = number_of(processes, |process| process.status == Status::Errored);
        let crashes = server.crashes.iter().filter(|((of, _), _)| of == *app);
        let crashes = crashes.map(|(_, count)| *count).max().unwrap_or(0);
        let within = || {
            let of = if processes.len() > 1 { " of one instance" } else { "" };
            let window = span(Server::CRASH_WINDOW_MILLIS);
            format!("{}{of} in {window}", counted(crashes.into(), "crash"))
        };
        // A quick loop is stopped at every other look, and nobody stopped it.
        let is_over = processes.iter().all(|process| {
            let exit = process.last_exit.as_ref();
            let ended = exit.is_none_or(|exit| now.millis_since(exit.at) >= STOPPED_MILLIS);
            process.status == Status::Stopped && ended
        });
        let alert = loops.iter().find(|alert| alert.app.as_ref() == Some(*app));
        if errored > 0 {
            let mut text = match processes.len() {
                1 => "PM2 gave up restarting it".to_owned(),
                all => format!("PM2 gave up restarting {errored} of {all} instances"),
            };
            if let Some(how) = processes.iter().filter_map(|process| last_exit(process, now)).next()
            {
                text = format!("{text}; {how}");
            }
            tell(Kind::ProcessErrored, Some(*app), errored, text);
        } else if is_over {
            // Somebody stopped it.
        } else if crashes >= Server::CRASH_LOOP {
            tell(Kind::CrashLoop, Some(*app), 1, within());
        } else if let Some(alert) = alert {
            // Events may be missing: a full disk takes none.
            tell(Kind::CrashLoop, Some(*app), 1, alert.text.clone());
        }
        let ghosts = number_of(processes, |process| process.online_without_pid);
        if ghosts > 0 {
            let text = "PM2 calls it online, and no such process runs".to_owned();
            tell(Kind::OnlineWithoutPid, Some(*app), ghosts, text);
        }
    }
    for slot in &state.slots {
        if let Some(owner) = &slot.foreign_owner {
            let text =
                format!("slot {}: port {} belongs to {}", slot.slot, slot.port, cut(owner, 100));
            tell(Kind::PortTaken, Some(&slot.process), 1, text);
        } else if !slot.serving && slot.status != Some(Status::Stopped) {
            // Stopped by somebody: no trouble, and not hidden.
            tell(Kind::SlotNotServing, Some(&slot.process), 1, why_not_serving(slot));
        }
    }
}

fn why_not_serving(slot: &Slot) -> String {
    let place = format!("slot {}: nothing listens on port {}", slot.slot, slot.port);
    match slot.status {
        None => format!("{place}; it has no process"),
        Some(Status::Online) => place,
        Some(status) => format!("{place}; the process is {}", status.as_str().replace('_', " ")),
    }
}

/// How a process ended last: `exit code 1, 3 min ago`.
pub(crate) fn last_exit(process: &Process, now: Time) -> Option<String> {
    let exit = process.last_exit.as_ref()?;
    let how = match (&exit.signal, exit.code) {
        (Some(signal), _) => format!("ended by {}", cut(signal, 40)),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "ended".to_owned(),
    };
    Some(format!("{how}, {}", age(now, exit.at)))
}

fn by_app(processes: &[Process]) -> BTreeMap<&AppName, Vec<&Process>> {
    let mut apps: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for process in processes {
        apps.entry(&process.instance.name).or_default().push(process);
    }
    apps
}

fn number_of(processes: &[&Process], is: impl Fn(&Process) -> bool) -> u64 {
    processes.iter().filter(|process| is(process)).count() as u64
}

/// The one line. `troubles` are those of `servers`.
pub(crate) fn verdict(servers: &[Server], troubles: &[Trouble]) -> Verdict {
    let mark = troubles.iter().map(|trouble| trouble.badge().mark).max().unwrap_or(Mark::Ok);
    let lead = match mark {
        Mark::Ok | Mark::Off => "Everything is all right",
        Mark::Wait => "Waiting",
        Mark::Warn => "Worth a look",
        Mark::Bad => "Not all right",
    };
    if mark == Mark::Ok {
        return Verdict { mark, lead, parts: all_well(servers) };
    }
    let summary = |kind: Kind| {
        let of_kind = troubles.iter().filter(|trouble| trouble.kind == kind);
        let number: u64 = of_kind.map(|trouble| trouble.number).sum();
        (number > 0).then(|| kind.summary(number))
    };
    Verdict { mark, lead, parts: Kind::ALL.into_iter().filter_map(summary).collect() }
}

fn all_well(servers: &[Server]) -> Vec<String> {
    let states = || servers.iter().filter_map(|server| server.state.as_deref());
    let processes = || states().flat_map(|state| &state.processes);
    let all = processes().count() as u64;
    let online = processes().filter(|process| process.status == Status::Online).count() as u64;
    let mut parts = vec![format!("{} online", counted(servers.len() as u64, "server"))];
    parts.push(match online {
        _ if all == 0 => "no processes".to_owned(),
        _ if online == all => format!("{} online", counted(all, "process")),
        // Stopped by somebody: no trouble, and not hidden.
        _ => format!("{} of {} online", count(online), counted(all, "process")),
    });
    let slots = || states().flat_map(|state| &state.slots);
    let (all, serving) =
        (slots().count() as u64, slots().filter(|slot| slot.serving).count() as u64);
    if all > 0 {
        parts.push(match serving {
            _ if serving == all => format!("{} serving", counted(all, "slot")),
            _ => format!("{} of {} serving", count(serving), counted(all, "slot")),
        });
    }
    parts
}
