//! X3, the exporter: every operation of its OpenAPI document, asked with every scope and none. An
//! operation that this table does not have fails the test, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use e2e::{FakePm2, pm2_process, scene};
use reqwest::Method;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Open,
    Read,
    Control,
    Deploy,
    /// Control or deploy.
    Either,
}

fn table() -> BTreeMap<&'static str, Scope> {
    BTreeMap::from([
        ("landing", Scope::Read),
        ("metrics", Scope::Read),
        ("alive", Scope::Open),
        ("ready", Scope::Open),
        ("openapi", Scope::Open),
        ("docs", Scope::Open),
        ("state", Scope::Read),
        ("journal", Scope::Read),
        ("processes", Scope::Read),
        ("app", Scope::Read),
        ("logs", Scope::Read),
        ("old_status", Scope::Read),
        ("act", Scope::Control),
        ("old_restart", Scope::Either),
        ("slots", Scope::Read),
        ("slot", Scope::Read),
        ("act_on_slot", Scope::Deploy),
        ("set_env", Scope::Deploy),
        ("deployments", Scope::Read),
        ("deployment", Scope::Read),
        ("deployment_log", Scope::Read),
        ("command", Scope::Read),
        ("put_command", Scope::Control),
    ])
}

#[tokio::test]
async fn every_operation_asks_for_its_scope() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let mut more = String::new();
    let mut tokens = Vec::new();
    for scope in ["read", "control", "deploy"] {
        let token = service::token::Token::new(service::token::Issuer::Exporter)?;
        more.push_str(&format!(
            "[[tokens]]\nname = \"only-{scope}\"\nsha256 = \"{}\"\nscopes = [\"{scope}\"]\n",
            token.hash()
        ));
        tokens.push((scope, token.reveal().to_owned()));
    }
    let exporter = scene::guarded_exporter(fake.home(), &more).await?;
    let nobody = exporter.program.client();
    let document: Value = nobody.json("/api/openapi.json").await?;
    let table = table();
    let mut left: BTreeSet<&str> = table.keys().copied().collect();
    let mut wrong = Vec::new();
    for (path, operations) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in operations.as_object().context("no operations")? {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let Some(needed) = table.get(id) else {
                wrong.push(format!("{id}: this table does not say who may"));
                continue;
            };
            left.remove(id);
            // Nothing there has such a name, so that who is let in changes nothing.
            let path = path.replace("{name}", "nobody").replace("{slot}", "zz");
            let action = match id {
                "old_status" => "status",
                "act_on_slot" => "deploy",
                _ => "restart",
            };
            let path = path.replace("{id}", "one").replace("{action}", action);
            let method: Method = method.to_uppercase().parse()?;
            let mut askers = vec![("nothing", nobody.clone()), ("a guess", nobody.with_token("x"))];
            askers.extend(tokens.iter().map(|(scope, token)| (*scope, nobody.with_token(token))));
            for (shown, client) in askers {
                let mut request = client.request(method.clone(), &path);
                if method != Method::GET {
                    let body = match id {
                        "put_command" => json!({"target": {"app": "nobody"}, "action": "restart"}),
                        "set_env" => json!({"env": {}}),
                        _ => json!({}),
                    };
                    request = request.json(&body);
                }
                let status = client.send(request).await?.status;
                let expected = match (*needed, shown) {
                    (Scope::Open, _) => None,
                    (_, "nothing" | "a guess") => Some(401),
                    (Scope::Read, "read") | (Scope::Control, "control") => None,
                    (Scope::Deploy, "deploy") | (Scope::Either, "control" | "deploy") => None,
                    _ => Some(403),
                };
                let refused = matches!(status, 401 | 403).then_some(status);
                if refused != expected {
                    wrong.push(format!("{method} {path} with {shown}: {status}, not {expected:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(left.is_empty(), "the document has no {left:?} any more");
    Ok(())
}

#[tokio::test]
async fn a_page_on_the_web_reads_nothing_by_its_own_name() -> Result<()> {
    // Without tokens, whoever reaches loopback may read; by DNS rebinding, so could any page.
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let exporter = scene::exporter(fake.home()).await?;
    let servers = [scene::Server::open("vm1", exporter.launch().base())];
    let open = scene::poller_launch(&servers, "allowed_hosts = [\"fleet.example.org\"]")?;
    let open = open.start().await?;
    for (client, paths) in [
        (exporter.client(), &["/metrics", "/api/state", "/api/processes"][..]),
        (open.client(), &["/metrics", "/api/servers", "/api/events"]),
    ] {
        for path in paths {
            let ask = async |host: &str| {
                client.send(client.request(Method::GET, path).header("host", host)).await
            };
            ask("evil.example").await?.problem(403, "forbidden")?;
            ask("127.0.0.1.evil.example:10209").await?.problem(403, "forbidden")?;
            ask("localhost").await?.ok()?;
            ask("[::1]:1").await?.ok()?;
        }
    }
    let request = open.client().request(Method::GET, "/api/servers");
    open.client().send(request.header("host", "fleet.example.org")).await?.ok()?;
    // Pages lead to the login, which tells nothing.
    let page = open.client().request(Method::GET, "/").header("host", "evil.example");
    assert_eq!(open.client().send(page).await?.status, 303);
    Ok(())
}
