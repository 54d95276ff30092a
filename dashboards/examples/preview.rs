//! Writes every page with sample data to `target/preview/`, to look at in a browser:
//! `cargo run -p dashboards --example preview`.
#![allow(clippy::print_stdout)]

#[path = "../tests/sample/mod.rs"]
mod sample;

use std::error::Error;
use std::path::Path;

use dashboards::{
    ASSETS, ErrorPage, EventFilter, FleetFilter, FleetPage, Page, ServerStatus, Viewer,
};
use sample::*;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/preview");
    std::fs::create_dir_all(&root)?;
    for asset in &ASSETS {
        std::fs::write(root.join(asset.name), asset.body)?;
    }
    let anyone = Page { viewer: Viewer::ReadOnly, ..page() };
    let nothing = FleetPage { page: anyone.clone(), servers: vec![], registered: 0, ..fleet(0) };
    let filtered = FleetPage {
        filter: FleetFilter { group: "eu".into(), q: "nosuch".into(), ..FleetFilter::default() },
        servers: vec![],
        ..mixed_fleet()
    };
    let problem = dashboards::EventsPage {
        filter: EventFilter { since: "yesterday".into(), ..EventFilter::default() },
        problem: Some("since: \"yesterday\" is not 1h, 24h, 7d, 30d or a time in RFC 3339".into()),
        events: vec![],
        older: None,
        ..events_page()
    };
    let stale = failed(troubled_server(), ServerStatus::Stale, 180, "timed out after 5 s");
    let pages = [
        ("fleet", mixed_fleet().render()?),
        ("fleet-well", fleet(6).render()?),
        ("fleet-50", fleet(50).render()?),
        ("fleet-1000", fleet(1000).render()?),
        ("fleet-empty", nothing.render()?),
        ("fleet-filtered", filtered.render()?),
        ("server", server_page(troubled_server()).render()?),
        ("server-stale", server_page(stale).render()?),
        ("server-hostile", server_page(hostile_server()).render()?),
        ("app", app_page("api", 4).render()?),
        ("app-one", app_page("slot-a", 1).render()?),
        ("app-gone", app_page("gone", 1).render()?),
        ("app-homes", app_page_in("api", None).render()?),
        ("app-home", app_page_in("api", Some(HOMES[1])).render()?),
        ("logs-homes", logs_page_in(None).render()?),
        ("logs-home", logs_page_in(Some(HOMES[1])).render()?),
        ("action-homes", action_page_in(None).render()?),
        ("action-home", action_page_in(Some(HOMES[1])).render()?),
        ("events", events_page().render()?),
        ("events-wrong", problem.render()?),
        ("event", event_page().render()?),
        ("audit", audit_page().render()?),
        ("commands", commands_page().render()?),
        ("login", login_page(None).render()?),
        (
            "login-refused",
            login_page(Some("That token is not valid, or it has expired.")).render()?,
        ),
        ("not-found", ErrorPage::not_found(anyone, "No server is called vm9.").render()?),
    ];
    for (name, html) in &pages {
        let file = root.join(format!("{name}.html"));
        // From a file there is no `/static/`.
        std::fs::write(&file, html.replace("/static/", ""))?;
        println!("{:>8} bytes  {}", html.len(), file.display());
    }
    Ok(())
}
