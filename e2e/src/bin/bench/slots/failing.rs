//! Deployments that fail, of each kind, while requests come in all the time.

use anyhow::ensure;
use e2e::bench::Bench;
use serde_json::{Value, json};

use super::load::Load;
use super::stage::{PACKAGE, Repo, Stage, server};

pub(super) async fn run(bench: &Bench, stage: &Stage) -> anyhow::Result<()> {
    bench.progress("deployments that fail under load");
    stage.deployed(&Repo::app("runs on")?).await?;
    let repo =
        |package: &str, text: &str| Repo::new(&[("package.json", package), ("server.js", text)]);
    let scripts =
        |more: &str| format!(r#"{{"name":"x","scripts":{{"start":"node server.js",{more}}}}}"#);
    let port = stage.port();
    let never = "require('http').createServer((q, r) => { r.statusCode = 500; r.end() }).listen(process.env.PORT)";
    let later = format!(
        "if (process.env.PORT === '{port}') setTimeout(() => process.exit(5), 300); {}",
        server("late")
    );
    let cases = [
        ("clone", None),
        ("install", Some(repo(&scripts(r#""postinstall":"node -e 'process.exit(7)'""#), "")?)),
        ("build", Some(repo(&scripts(r#""build":"node -e 'process.exit(7)'""#), "")?)),
        ("start", Some(repo(PACKAGE, "process.exit(9)")?)),
        ("never healthy", Some(repo(PACKAGE, never)?)),
        ("crash after the switch", Some(repo(PACKAGE, &later)?)),
    ];
    bench.print(format_args!(
        "\n{:<26}{:>10}{:>10}{:>14}{:>12}",
        "a deployment that fails", "requests", "failed", "no answer, ms", "took, s"
    ));
    let mut before_switch = 0;
    for (what, repo) in &cases {
        let url = repo.as_ref().map_or_else(|| "file:///nowhere/at-all".to_owned(), Repo::url);
        let load = Load::start(port);
        let began = std::time::Instant::now();
        let ended: Value = stage.deploy(json!({"repository": url})).await?;
        let took = began.elapsed().as_secs_f64();
        let outcome = load.end()?;
        ensure!(ended["status"] == "failed", "{what}: {ended:#}");
        bench.print(format_args!(
            "{what:<26}{:>10}{:>10}{:>14.1}{took:>12.1}",
            outcome.asked,
            outcome.failed,
            outcome.gap.as_secs_f64() * 1000.0
        ));
        if *what == "crash after the switch" {
            let recovered = outcome.gap.as_secs_f64();
            bench.target("recovered after a crash after the switch, s", recovered, 10.0);
        } else {
            before_switch += outcome.failed;
        }
    }
    bench.target("requests failed by other failing deployments", f64::from(before_switch), 0.0);
    Ok(())
}
