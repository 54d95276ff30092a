//! Both programs' APIs are as their OpenAPI documents say, whatever is asked: no failure of their own,
//! no answer that is not documented. `make test-api` is the long form; API_EXAMPLES and API_SEED set it.

use anyhow::Result;
use e2e::scene::{self, Server};
use e2e::schemathesis::{Extent, holds};
use e2e::{Launch, Pm2, Port};
use serde_json::json;

/// Anonymous askers are refused most, so that little is to be tried.
fn extents() -> (Extent, Extent) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("API_EXAMPLES") {
        None => {
            let short = Extent { phases: "fuzzing", examples: 6, seed: None };
            (short, Extent { examples: 2, ..short })
        }
        Some(examples) => {
            let seed = Some(number("API_SEED").unwrap_or(1));
            let phases = "examples,coverage,fuzzing,stateful";
            let long = Extent { phases, examples: examples as u32, seed };
            (long, Extent { phases: "coverage,fuzzing", ..long })
        }
    }
}

/// An exporter of some apps and slots whose deployments reach nobody; and a token for all of it.
async fn exporter(pm2: &Pm2, slots: &[Port]) -> Result<(e2e::Program, String)> {
    let (token, block) = scene::exporter_token("poller", &["read", "control", "deploy"])?;
    let launch = Launch::exporter()?.pm2_home(pm2.home());
    let mut settings = format!(
        "{block}[slots]\nroot = {:?}\nallowed_hosts = [\"nobody.invalid\"]\n\
         probe_interval = \"500ms\"\nsettle = \"600ms\"\n[slots.admin]\nenabled = false\n",
        // With it ends what the slots leave behind.
        pm2.folder().join("slots"),
    );
    for (name, slot) in ["a", "b"].into_iter().zip(slots) {
        settings += &format!("[[slots.slot]]\nname = \"{name}\"\nport = {}\n", slot.number());
    }
    Ok((launch.configuration(&settings)?.start().await?, token))
}

fn no_panic(program: &e2e::Program) {
    let log = program.stderr();
    assert!(!program.has_ended() && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn the_exporters_api_is_as_its_document_says() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let (exporter, token) = exporter(&pm2, &[Port::free()?, Port::free()?]).await?;
    let (known, unknown) = extents();
    let base = exporter.launch().base();
    holds(base.clone(), None, &[], unknown).await?;
    holds(base, Some(&token), &[], known).await?;
    no_panic(&exporter);
    Ok(())
}

#[tokio::test]
async fn the_pollers_api_is_as_its_document_says() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let (exporter, token) = exporter(&pm2, &[Port::free()?, Port::free()?]).await?;
    let base = exporter.launch().base();
    let servers = [
        Server { id: "vm1".to_owned(), url: base, token: Some(token) },
        Server::open("away", "http://127.0.0.1:1"),
    ];
    let poller = scene::poller(&servers, "").await?;
    poller.wait_for("vm1", "online").await?;
    let (known, unknown) = extents();
    let base = poller.program.launch().base();
    // Its answer has no end.
    holds(base.clone(), None, &["stream"], unknown).await?;
    // It finds out what the token that it asks with is called, and takes it away.
    holds(base, Some(&poller.token), &["stream", "revoke_token"], known).await?;
    assert_eq!(poller.admin.get("/api/me").await?.status, 200, "the token was lost on the way");
    for program in [&exporter, &poller.program] {
        no_panic(program);
    }
    Ok(())
}
