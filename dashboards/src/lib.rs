//! The poller's status pages: view models in, HTML out. No I/O, no HTTP, no SQL.
//!
//! # How the poller uses it
//! Every page is a struct whose fields are public: fill them and call `render`.
//!
//! ```
//! use dashboards::{ErrorPage, Page, Viewer};
//! use wire::Time;
//!
//! let page = Page {
//!     version: "0.1.0".into(),
//!     now: Time::now(),
//!     base: "http://127.0.0.1:10210".into(),
//!     viewer: Viewer::ReadOnly,
//! };
//! let html: String = ErrorPage::not_found(page, "No server is called vm9.").render()?;
//! assert!(html.contains("No server is called vm9."));
//! # Ok::<(), dashboards::Error>(())
//! ```
//!
//! | address | struct |
//! | --- | --- |
//! | `/?group=&tag=&status=&q=` | [`FleetPage`] |
//! | `/servers/{id}?range=` | [`ServerPage`] |
//! | `/servers/{id}/apps/{app}?range=&pm2_home=` | [`AppPage`] |
//! | `/servers/{id}/apps/{app}/logs?stream=&lines=&q=&pm2_home=` | [`LogsPage`] |
//! | `/servers/{id}/slots/{slot}` | [`SlotPage`] |
//! | `/events?server=&app=&pm2_home=&kind=&severity=&since=&cursor=` | [`EventsPage`] |
//! | `/events/{id}` | [`EventPage`] |
//! | `/audit?server=&who=&act=&outcome=&since=&cursor=` | [`AuditPage`] |
//! | `/commands?server=&app=&pm2_home=&status=&cursor=` | [`CommandsPage`] |
//! | `/commands/{id}` | [`CommandPage`] |
//! | `/servers/{id}/apps/{app}/{action}?pm2_home=`, `/servers/{id}/slots/{slot}/{action}` | [`ActionPage`] |
//! | `/login`, `/login/first` | [`LoginPage`], [`FirstPage`] |
//! | `/sessions` | [`SessionsPage`] |
//! | whatever went wrong | [`ErrorPage`] |
//! | `/static/{name}` | [`asset`] |
//!
//! What the pages expect of the poller:
//! - Answer with `text/html; charset=utf-8`, `Cache-Control: no-store` and the header
//!   `Content-Security-Policy:` [`CONTENT_SECURITY_POLICY`].
//! - A query field that is empty (`?group=&q=`) means the same as one that is absent: forms
//!   send every field.
//! - Two forms are sent by `POST`, as `application/x-www-form-urlencoded`, from the same
//!   origin: `/login` (fields `token`, or `name` and
//!   `password`, and `next`) and `/logout` (no fields). `next` is text
//!   from the address: check it with [`local_path`] before redirecting to it.
//! - Filtering and paging is the poller's work; a page shows what it is given, in the order
//!   given where the field says so, and puts the filter back into form and links.
//! - CPU is given in cores used (1.0 is one core busy), host CPU as a fraction of all cores;
//!   both are rates that the poller works out from two samples.
//!
//! Everything that comes from a server is escaped, isolated from the direction of the text
//! around it, and cut where it has no bound of its own. That is so for every text of every
//! template, without a word in the template.

mod act;
mod action;
mod app;
mod assets;
mod audit;
pub mod chart;
mod command;
mod commands;
mod error;
mod escape;
mod event;
mod events;
mod facts;
mod fleet;
mod form;
pub mod format;
mod health;
mod homes;
mod links;
mod login;
mod logs;
mod marks;
mod over_time;
mod page;
mod readings;
mod rows;
mod server;
mod slot;
mod trend;

pub use action::{ActionPage, outcome_path};
pub use app::AppPage;
pub use askama::Error;
pub use assets::{ASSETS, Asset, CONTENT_SECURITY_POLICY, asset};
pub use audit::{AuditFilter, AuditPage, AuditRow};
pub use command::CommandPage;
pub use commands::{CommandFilter, CommandsPage};
pub use error::ErrorPage;
pub use event::EventPage;
pub use events::{EventFilter, EventsPage};
pub use facts::{AlertRow, CommandRow, Contact, EventRow, Server, ServerStatus};
pub use fleet::{FleetFilter, FleetPage};
pub use homes::Homes;
pub use links::{local_path, page_of};
pub use login::{FirstPage, LoginPage, SessionRow, SessionsPage};
pub use logs::{LogLine, LogsPage};
pub use over_time::OverTime;
pub use page::{Page, Viewer};
pub use server::ServerPage;
pub use slot::SlotPage;
