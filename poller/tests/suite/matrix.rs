//! X3: every operation of the OpenAPI document, asked by everybody there can be. An operation
//! that this table does not have fails the test, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use pm2_poller::access::Role;
use serde_json::{Value, json};
use service::openapi::Document;
use wire::Time;

use crate::support::{Exporter, Poller};

static DOCUMENT: Document =
    Document::new(&[wire::OPENAPI, include_str!("../../openapi.yaml")], "0");

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Everybody, known or not.
    Open,
    /// Who may read.
    Read,
    /// Who may read the server vm1.
    ReadServer,
    /// Who may command vm1, and that action.
    Command(&'static str),
    /// Whoever has a credential.
    Known,
    /// Who may command something: an operator, whatever their servers.
    Operate,
    /// Admins.
    Admin,
    /// Admins who are limited to nothing.
    Unlimited,
    /// Users who signed in with a password: no token at all.
    User,
}

fn table() -> BTreeMap<&'static str, May> {
    BTreeMap::from([
        ("metrics", May::Read),
        ("alive", May::Open),
        ("ready", May::Open),
        ("discovery", May::Read),
        ("openapi", May::Open),
        ("docs", May::Open),
        ("me", May::Read),
        ("own_password", May::User),
        ("sessions", May::Known),
        ("end_session", May::Known),
        ("tokens", May::Unlimited),
        ("create_token", May::Unlimited),
        ("revoke_token", May::Unlimited),
        ("users", May::Unlimited),
        ("create_user", May::Unlimited),
        ("change_user", May::Unlimited),
        ("remove_user", May::Unlimited),
        ("servers", May::Read),
        ("add_server", May::Unlimited),
        ("server", May::ReadServer),
        ("change_server", May::Unlimited),
        ("remove_server", May::Unlimited),
        ("slots", May::ReadServer),
        ("slot", May::ReadServer),
        ("deployments", May::ReadServer),
        ("deployment", May::ReadServer),
        ("deployment_log", May::ReadServer),
        ("apps", May::ReadServer),
        ("app", May::ReadServer),
        ("app_logs", May::ReadServer),
        ("history", May::ReadServer),
        ("host_history", May::ReadServer),
        ("alerts", May::Read),
        ("events", May::Read),
        ("stream", May::Read),
        ("commands", May::Read),
        ("command", May::Read),
        ("cancel_command", May::Operate),
        ("act", May::Command("restart")),
        ("act_on_slot", May::Command("stop")),
        ("event", May::Read),
        ("act_on_selection", May::Operate),
        ("selections", May::Read),
        ("audit", May::Admin),
    ])
}

/// One who asks.
struct Asker {
    name: &'static str,
    token: Option<String>,
    role: Option<Role>,
    sees_vm1: bool,
    actions: Option<&'static [&'static str]>,
    limited: bool,
}

/// What is answered to whom: let in, or the status of a refusal.
fn expected(may: May, asker: &Asker) -> Option<u16> {
    let Some(role) = asker.role else {
        return (may != May::Open).then_some(401);
    };
    let enough = |least: Role| (role < least).then_some(403);
    match may {
        May::Open | May::Read | May::Known => None,
        May::ReadServer => (!asker.sees_vm1).then_some(404),
        May::Command(_) if !asker.sees_vm1 => Some(404),
        May::Command(action) => enough(Role::Operator).or_else(|| {
            let other = asker.actions.is_some_and(|actions| !actions.contains(&action));
            other.then_some(403)
        }),
        May::Operate => enough(Role::Operator),
        May::Admin => enough(Role::Admin),
        May::Unlimited => enough(Role::Admin).or(asker.limited.then_some(403)),
        May::User => Some(403),
    }
}

async fn askers(poller: &Poller) -> Vec<Asker> {
    let admin = poller.token("root", Role::Admin, &[]).await;
    let make = async |name: &str, role: &str, limits: Value| {
        let mut body = json!({"name": name, "role": role});
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let made = poller.post_json(&admin, "/api/tokens", &body, None).await;
        Some(made.json()["token"].as_str().unwrap().to_owned())
    };
    let expired = poller.token_until("expired", Role::Admin, &[], Some(Time::now())).await;
    let asker = |name, token, role, sees_vm1, actions, limited| Asker {
        name,
        token,
        role,
        sees_vm1,
        actions,
        limited,
    };
    let (viewer, operator, root) = (Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin));
    let restart: Option<&'static [&'static str]> = Some(&["restart"]);
    vec![
        asker("nobody", None, None, false, None, false),
        asker("a guess", Some("pm2p_guess".into()), None, false, None, false),
        asker("an expired one", Some(expired), None, false, None, false),
        asker("a viewer", make("v", "viewer", json!({})).await, viewer, true, None, false),
        asker(
            "a viewer of vm2",
            make("v2", "viewer", json!({"servers": ["vm2"]})).await,
            viewer,
            false,
            None,
            true,
        ),
        asker("an operator", make("o", "operator", json!({})).await, operator, true, None, false),
        asker(
            "an operator of another group",
            make("og", "operator", json!({"groups": ["us"]})).await,
            operator,
            false,
            None,
            true,
        ),
        asker(
            "an operator of the tag",
            make("ot", "operator", json!({"tags": ["prod"]})).await,
            operator,
            true,
            None,
            true,
        ),
        asker(
            "one who may restart",
            make("or", "operator", json!({"actions": ["restart"]})).await,
            operator,
            true,
            restart,
            true,
        ),
        asker(
            "an admin of vm2",
            make("a2", "admin", json!({"servers": ["vm2"]})).await,
            root,
            false,
            None,
            true,
        ),
        asker("an admin", Some(admin), root, true, None, false),
    ]
}

#[tokio::test]
async fn every_operation_lets_in_whom_it_should_and_nobody_else() {
    let exporter = Exporter::start().await;
    let mut other = exporter.target("vm2");
    (other.group, other.tags) = ("asia".into(), Vec::new());
    let poller = Poller::start(vec![exporter.target("vm1"), other]).await;
    let askers = askers(&poller).await;
    let admin = askers.last().and_then(|it| it.token.clone()).unwrap();
    poller.until_status_as(&admin, "vm1", "online").await;
    poller.until_status_as(&admin, "vm2", "online").await;
    let mut left: BTreeSet<&str> = table().into_keys().collect();
    let (table, document) = (table(), DOCUMENT.value().unwrap());
    let mut wrong = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let Some(may) = table.get(id) else {
                wrong.push(format!("{id}: this table does not say who may"));
                continue;
            };
            left.remove(id);
            let mut path = path.replace("{server}", "vm1").replace("{app}", "api");
            path = path.replace("{slot}", "a").replace("{name}", "nobody");
            let id_of = if path.contains("/deployments/") { "d1" } else { "0123456789abcdef" };
            path = path.replace("{id}", id_of);
            if let May::Command(action) = may {
                path = path.replace("{action}", action);
            }
            // Nothing is to be taken away that others still look at.
            if id == "remove_server" || id == "change_server" {
                path = path.replace("vm1", "vm9");
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            for asker in &askers {
                let bearer = format!("Bearer {}", asker.token.as_deref().unwrap_or_default());
                let headers = [("authorization", bearer.as_str())];
                let headers = if asker.token.is_some() { &headers[..] } else { &[] };
                let is_stream = id == "stream";
                let status = if is_stream {
                    poller.status_of(&path, headers).await
                } else {
                    let body = if method == Method::GET || method == Method::DELETE {
                        Value::Null
                    } else if id == "add_server" {
                        json!({"id": "new", "url": "http://127.0.0.1:1"})
                    } else if id == "act_on_selection" {
                        json!({"select": {"app": "api"}, "action": "restart", "dry_run": true})
                    } else {
                        json!({})
                    };
                    poller.send_json(method.clone(), &path, &body, headers).await.status.as_u16()
                };
                let expected = expected(*may, asker);
                // What is not there for anybody is no refusal.
                let refused = match status {
                    401 | 403 => Some(status),
                    404 if *may == May::ReadServer || matches!(may, May::Command(_)) => Some(404),
                    _ => None,
                };
                // The exporter's stand-in has no logs to pass on.
                let failed = status >= 500 && id != "app_logs";
                if refused != expected || failed {
                    wrong.push(format!(
                        "{method} {path} by {}: {status}, expected {expected:?}",
                        asker.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(left.is_empty(), "the document has no {left:?} any more");
}

/// X9: no page of another site changes anything, whatever its visitor's credential.
#[tokio::test]
async fn no_operation_is_changed_from_another_site() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let here = [("sec-fetch-site", "same-origin")];
    let signed_in = poller.form("/login", &format!("token={admin}"), &here).await;
    let cookie = signed_in.header("set-cookie").split(';').next().unwrap().to_owned();
    let bearer = format!("Bearer {admin}");
    let mut tried = 0;
    for (path, operations) in DOCUMENT.value().unwrap()["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if method == "get" || operation["operationId"].as_str().is_none() {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.replace("{server}", "vm1").replace("{app}", "api");
            let path = path.replace("{slot}", "a").replace("{action}", "restart");
            let path = path.replace("{name}", "root").replace("{id}", "0123456789abcdef");
            for credential in [("authorization", bearer.as_str()), ("cookie", cookie.as_str())] {
                for from in [
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-site", "same-site"),
                    ("origin", "http://evil.example"),
                    ("origin", "null"),
                ] {
                    let headers = [credential, from];
                    let answer =
                        poller.send_json(method.clone(), &path, &json!({}), &headers).await;
                    assert_eq!(answer.problem(), "forbidden", "{method} {path} {headers:?}");
                    tried += 1;
                }
            }
            // A cookie alone, without a word of where it comes from, is not enough either.
            let alone = [("cookie", cookie.as_str())];
            let answer = poller.send_json(method.clone(), &path, &json!({}), &alone).await;
            assert_eq!(answer.problem(), "forbidden", "{method} {path}");
        }
    }
    assert!(tried > 80, "{tried}");
    assert!(exporter.lock().ran.is_empty());
    assert_eq!(poller.get_as(&admin, "/api/me").await.status, 200);
}
