//! Every PM2 that is watched. Each has its own connection, table and turn: one that hangs, is away
//! or may not be read takes nothing from the others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use wire::{AppName, Pm2State, Process, Readings};

use super::home::{Home, Shared};
use crate::config::HomePaths;

/// Why there is no PM2 that is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHome {
    /// None has the app.
    #[error("PM2 has no app named {0:?}")]
    UnknownApp(AppName),
    /// Several have it.
    #[error("{name:?} stands in several PM2s: choose one by pm2_home, of {}", homes.join(", "))]
    Several {
        /// The app.
        name: AppName,
        /// Those that have it.
        homes: Vec<String>,
    },
    /// It is not one that is watched.
    #[error("pm2_home: {named:?} is not watched; watched are {}", watched.join(", "))]
    NotWatched {
        /// As it was named.
        named: String,
        /// Those that are.
        watched: Vec<String>,
    },
    /// It is not there to be asked.
    #[error("{0}")]
    Unavailable(String),
}

/// See the module.
#[derive(Debug)]
pub struct Homes {
    first: Arc<Home>,
    more: Vec<Arc<Home>>,
}

impl Homes {
    /// Watches all of them from now on.
    ///
    /// # Errors
    /// See [`Home::watch`].
    pub fn watch(paths: &HomePaths, shared: &Shared<'_>) -> io::Result<Self> {
        let watch = |path: &std::path::Path| {
            let label = paths.are_several().then(|| path.display().to_string().into());
            Home::watch(path.to_owned(), label, shared)
        };
        let first = watch(&paths.first)?;
        let more = paths.more.iter().map(|path| watch(path)).collect::<io::Result<_>>()?;
        Ok(Self { first, more })
    }

    /// The first, which has the slots.
    pub fn first(&self) -> &Arc<Home> {
        &self.first
    }

    /// All, in the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Home>> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        !self.more.is_empty()
    }

    /// See [`Home::confirm`]: all at once, so that several that hang cost no more than one.
    pub async fn confirm(&self, max_age: Duration) {
        if self.more.is_empty() {
            return self.first.confirm(max_age).await;
        }
        join_all(self.all().map(|home| home.confirm(max_age))).await;
    }

    /// What each is.
    pub fn states(&self) -> Vec<Pm2State> {
        self.all().map(|home| home.state()).collect()
    }

    /// Every process of all, by name, namespace, instance and home.
    pub fn processes(&self, mut read: impl FnMut(u32) -> Readings) -> Vec<Process> {
        let mut all = self.first.processes(&mut read);
        if !self.more.is_empty() {
            for home in &self.more {
                all.extend(home.processes(&mut read));
            }
            all.sort_by(|a, b| a.instance.cmp(&b.instance));
        }
        all
    }

    /// The one of this directory.
    ///
    /// # Errors
    /// It is not watched.
    pub fn named(&self, path: &str) -> Result<&Arc<Home>, NoHome> {
        let wanted = std::path::Path::new(path);
        self.all().find(|home| home.path() == wanted).ok_or_else(|| NoHome::NotWatched {
            named: path.chars().take(200).collect(),
            watched: self.all().map(|home| home.path().display().to_string()).collect(),
        })
    }

    /// The one that has an app; `wanted` is the directory of the one that is meant, where the name
    /// alone does not say.
    ///
    /// # Errors
    /// See [`NoHome`].
    pub fn of_app(&self, name: &AppName, wanted: Option<&str>) -> Result<&Arc<Home>, NoHome> {
        let has = |home: &&Arc<Home>| !home.table(|table| table.pm_ids(name)).is_empty();
        if let Some(path) = wanted {
            let home = self.named(path)?;
            return if has(&home) { Ok(home) } else { Err(missing(name, [home])) };
        }
        let found: Vec<&Arc<Home>> = self.all().filter(has).collect();
        match found[..] {
            [home] => Ok(home),
            [] => Err(missing(name, self.all())),
            _ => Err(NoHome::Several {
                name: name.clone(),
                homes: found.iter().map(|home| home.path().display().to_string()).collect(),
            }),
        }
    }
}

/// No app of this name in these: unknown, unless one of them cannot be asked.
fn missing<'a>(name: &AppName, homes: impl IntoIterator<Item = &'a Arc<Home>>) -> NoHome {
    let mut away = homes.into_iter().filter_map(|home| {
        let state = home.state();
        let error = state.error.filter(|_| !state.up)?;
        Some(match home.label() {
            Some(label) => format!("{label}: {error}"),
            None => error,
        })
    });
    match away.next() {
        Some(first) => NoHome::Unavailable(away.fold(first, |all, more| format!("{all}; {more}"))),
        None => NoHome::UnknownApp(name.clone()),
    }
}
