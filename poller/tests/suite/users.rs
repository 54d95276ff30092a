//! Users, tokens and sessions: over HTTP, at the page, and their limits.

use std::time::Instant;

use axum::http::Method;
use pm2_poller::access::{Limits, Role, hash};
use pm2_poller::store::{NewAudit, NewUser};
use serde_json::{Value, json};

use crate::support::{Answer, Exporter, Poller, config, until};

const HERE: (&str, &str) = ("sec-fetch-site", "same-origin");
const PASSWORD: &str = "correct horse battery";

async fn user(poller: &Poller, name: &str, role: Role) {
    let user = NewUser {
        name: name.into(),
        role,
        password: hash(PASSWORD).unwrap(),
        limits: Limits::default(),
        expires_at: None,
    };
    let audit = NewAudit { who: "test".into(), act: "user create", ..NewAudit::default() };
    poller.app.store.create_user(user, audit).await.unwrap();
}

async fn sign_in(poller: &Poller, name: &str, password: &str) -> Answer {
    let form = format!("name={name}&password={}", password.replace(' ', "+"));
    poller.form("/login", &form, &[HERE]).await
}

/// The cookie of a session that was begun.
fn cookie(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.body);
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn get(poller: &Poller, cookie: &str, path: &str) -> Answer {
    poller.ask(Method::GET, path, &[("cookie", cookie)]).await
}

#[tokio::test]
async fn a_user_signs_in_with_a_password_and_is_on_record_by_name() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    user(&poller, "alice", Role::Operator).await;
    // The page is closed from then on, and the user is known at once.
    let wrong = sign_in(&poller, "alice", "correct horse batterz").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("set-cookie")), (401, ""));
    assert!(wrong.body.contains("The name or the password is wrong"), "{}", wrong.body);
    let nobody = sign_in(&poller, "mallory", PASSWORD).await;
    assert_eq!(nobody.status, 401);
    assert!(nobody.body.contains("The name or the password is wrong"), "{}", nobody.body);
    let alice = cookie(&sign_in(&poller, "alice", PASSWORD).await);
    let me = get(&poller, &alice, "/api/me").await.json();
    assert_eq!(me, json!({"name": "alice", "role": "operator", "via": "session of a user"}));
    let path = "/api/commands/vm1/apps/api/restart";
    let elsewhere = poller.ask(Method::POST, path, &[("cookie", &alice)]).await;
    assert_eq!(elsewhere.problem(), "forbidden");
    assert_eq!(poller.ask(Method::POST, path, &[("cookie", &alice), HERE]).await.status, 200);
    assert_eq!(exporter.lock().ran.len(), 1);
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let rows = poller.get_as(&admin, "/api/audit?who=alice").await.json();
    let rows: Vec<(&str, &str, &str)> = rows["audit"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            (text("act"), text("outcome"), text("via"))
        })
        .collect();
    let via = "session of a user";
    assert_eq!(
        rows,
        [
            ("sign in", "succeeded", "password"),
            ("request", "refused", via),
            ("command", "requested", via),
            ("command", "succeeded", ""),
        ]
    );
    let users = poller.get_as(&admin, "/api/users").await;
    assert!(users.json()["users"][0]["last_used"].is_string(), "{}", users.body);
    assert!(!users.body.contains("argon2"), "{}", users.body);
}

#[tokio::test]
async fn ten_wrong_logins_a_minute_and_others_are_let_in() {
    let poller = Poller::with(config(Vec::new())).await;
    user(&poller, "alice", Role::Viewer).await;
    let known = cookie(&sign_in(&poller, "alice", PASSWORD).await);
    let (begun, mut taken) = (Instant::now(), 0);
    let over = loop {
        let form = format!("token=pm2p_wrong{taken}");
        let wrong = poller.form("/login", &form, &[HERE]).await.status;
        if wrong == 401 {
            taken += 1;
            continue;
        }
        assert_eq!(wrong, 429, "{taken} taken");
        // Even with the right password, unless one came back just now.
        let right = sign_in(&poller, "alice", PASSWORD).await;
        if right.status == 429 {
            break right;
        }
        cookie(&right);
    };
    // One comes back every six seconds.
    let most = 10 + begun.elapsed().as_secs() / 6 + 1;
    assert!((10..=most).contains(&taken), "{taken} in {:?}", begun.elapsed());
    let wait: u64 = over.header("retry-after").parse().unwrap();
    assert!((1..=7).contains(&wait), "{wait}");
    // Who is signed in goes on, from the same address, and so does who shows a token.
    assert_eq!(get(&poller, &known, "/api/me").await.status, 200);
    let token = poller.token("t", Role::Viewer, &[]).await;
    assert_eq!(poller.get_as(&token, "/api/me").await.status, 200);
    assert_eq!(get(&poller, "", "/login").await.status, 200);
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let poller = Poller::with(config(Vec::new())).await;
    user(&poller, "alice", Role::Viewer).await;
    user(&poller, "root", Role::Admin).await;
    let alice = cookie(&sign_in(&poller, "alice", PASSWORD).await);
    let again = cookie(&sign_in(&poller, "alice", PASSWORD).await);
    let root = cookie(&sign_in(&poller, "root", PASSWORD).await);
    let list = get(&poller, &alice, "/api/sessions").await.json();
    let seen = list["sessions"].as_array().unwrap();
    assert_eq!(seen.len(), 2, "only one's own: {list}");
    assert_eq!((&seen[0]["current"], &seen[1]["current"]), (&false.into(), &true.into()));
    let all = get(&poller, &root, "/api/sessions").await.json();
    assert_eq!(all["sessions"].as_array().unwrap().len(), 3);
    let others = all["sessions"][0]["id"].as_str().unwrap();
    let path = format!("/api/sessions/{others}");
    let headers = [("cookie", alice.as_str()), HERE];
    assert_eq!(poller.ask(Method::DELETE, &path, &headers).await.problem(), "unknown_session");
    let page = get(&poller, &root, "/sessions").await;
    assert!(page.body.contains("alice") && page.body.contains("this one"), "{}", page.body);
    let path = format!("/sessions/{}/end", seen[0]["id"].as_str().unwrap());
    let ended = poller.form(&path, "", &[("cookie", &root), HERE]).await;
    assert_eq!((ended.status.as_u16(), ended.header("location")), (303, "/sessions"));
    assert_eq!(get(&poller, &again, "/api/me").await.status, 401);
    assert_eq!(get(&poller, &alice, "/api/me").await.status, 200);
    // Nothing of a session outlives the poller.
    let poller = poller.restart(None).await;
    assert_eq!(get(&poller, &alice, "/api/me").await.status, 401);
}

#[tokio::test]
async fn a_new_password_ends_the_sessions_of_the_old_one() {
    let poller = Poller::with(config(Vec::new())).await;
    user(&poller, "alice", Role::Viewer).await;
    let session = cookie(&sign_in(&poller, "alice", PASSWORD).await);
    let ask = async |old: &str, new: &str| {
        let body = json!({"old": old, "new": new});
        poller.put_json_with("/api/me/password", &body, &[("cookie", &session), HERE]).await
    };
    assert_eq!(ask("wrong wrong wrong", "another good one").await.problem(), "forbidden");
    let short = ask(PASSWORD, "short").await;
    assert!(short.body.contains("new: 12 to 256 bytes") && short.status == 400, "{}", short.body);
    assert_eq!(ask(PASSWORD, "another good one").await.status, 204);
    assert_eq!(get(&poller, &session, "/api/me").await.status, 401);
    assert_eq!(sign_in(&poller, "alice", PASSWORD).await.status, 401);
    cookie(&sign_in(&poller, "alice", "another good one").await);
    let token = poller.token("t", Role::Admin, &[]).await;
    let body = json!({"old": "x", "new": "y"});
    let bearer = format!("Bearer {token}");
    let with = poller.put_json_with("/api/me/password", &body, &[("authorization", &bearer)]).await;
    assert_eq!(with.problem(), "forbidden");
}

#[tokio::test]
async fn users_and_tokens_are_made_changed_and_taken_away() {
    let poller = Poller::with(config(Vec::new())).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let limited = poller.token("limited", Role::Admin, &["vm1"]).await;
    let bearer = format!("Bearer {admin}");
    let send = async |method: Method, path: &str, body: Value| {
        poller.send_json(method, path, &body, &[("authorization", &bearer)]).await
    };
    let new = json!({"name": "ci", "role": "operator", "groups": ["eu"], "actions": ["restart"],
                     "expires": "90d"});
    let denied = poller.post_json(&limited, "/api/tokens", &new, None).await;
    assert_eq!(denied.problem(), "forbidden", "who is limited makes nobody who is not");
    let made = send(Method::POST, "/api/tokens", new.clone()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(send(Method::POST, "/api/tokens", new).await.problem(), "exists");
    let me = poller.get_as(&token, "/api/me").await.json();
    assert_eq!(me["limits"], json!({"groups": ["eu"], "actions": ["restart"]}));
    let list = poller.get_as(&admin, "/api/tokens").await;
    assert!(!list.body.contains(&token[5..]), "{}", list.body);
    assert!(list.json()["tokens"][1]["last_used"].is_string(), "{}", list.body);
    assert_eq!(send(Method::DELETE, "/api/tokens/ci", Value::Null).await.status, 204);
    assert_eq!(poller.get_as(&token, "/api/me").await.status, 401, "at once");
    let again = send(Method::DELETE, "/api/tokens/ci", Value::Null).await;
    assert_eq!(again.problem(), "unknown_token");
    let all = poller.get_as(&admin, "/api/tokens?all=true").await.json();
    assert_eq!(all["tokens"].as_array().unwrap().len(), 3);

    for (body, word) in [
        (json!({"name": "a,b", "role": "viewer", "password": PASSWORD}), "name"),
        (json!({"name": "a", "role": "king", "password": PASSWORD}), "role"),
        (json!({"name": "a", "role": "viewer", "password": "canary"}), "password"),
        (json!({"name": "a", "role": "viewer", "password": PASSWORD, "expires": "0s"}), "expires"),
        (json!({"name": "a", "role": "viewer", "password": PASSWORD, "tags": [""]}), "tags"),
        (json!({"name": "a", "role": "viewer", "password": PASSWORD, "server": "x"}), "body"),
    ] {
        let wrong = send(Method::POST, "/api/users", body).await;
        assert_eq!(wrong.problem(), "bad_request");
        assert!(wrong.body.contains(word) && !wrong.body.contains("canary"), "{}", wrong.body);
    }
    // As many as are written count, though they are the same.
    for what in ["servers", "groups", "tags"] {
        let mut body = json!({"name": "a", "role": "viewer"});
        body[what] = vec!["a"; 1001].into();
        let token = send(Method::POST, "/api/tokens", body.clone()).await;
        body["password"] = PASSWORD.into();
        let user = send(Method::POST, "/api/users", body).await;
        for wrong in [token, user] {
            assert!(wrong.body.contains(&format!("{what}: at most 1000")), "{}", wrong.body);
        }
    }
    let new = json!({"name": "bob", "role": "viewer", "password": PASSWORD, "servers": ["vm1"]});
    let made = send(Method::POST, "/api/users", new).await;
    assert_eq!((made.status.as_u16(), &made.json()["servers"]), (201, &json!(["vm1"])));
    let bob = cookie(&sign_in(&poller, "bob", PASSWORD).await);
    let change = json!({"role": "admin", "servers": null, "tags": ["prod"], "expires": "1h"});
    let changed = send(Method::PATCH, "/api/users/bob", change).await.json();
    assert_eq!((&changed["role"], &changed["tags"]), (&"admin".into(), &json!(["prod"])));
    assert_eq!((&changed["servers"], changed["expires_at"].is_string()), (&Value::Null, true));
    let many = json!({"servers": vec!["vm1"; 1001]});
    let wrong = send(Method::PATCH, "/api/users/bob", many).await;
    assert!(wrong.body.contains("servers: at most 1000"), "{}", wrong.body);
    assert_eq!(get(&poller, &bob, "/api/me").await.json()["role"], "admin");
    assert_eq!(get(&poller, &bob, "/api/users").await.problem(), "forbidden", "limited to tags");
    assert_eq!(send(Method::DELETE, "/api/users/bob", Value::Null).await.status, 204);
    assert_eq!(get(&poller, &bob, "/api/me").await.status, 401);
    let gone = send(Method::PATCH, "/api/users/bob", json!({})).await;
    assert_eq!(gone.problem(), "unknown_user");
}

#[tokio::test]
async fn the_last_admin_stays() {
    let poller = Poller::with(config(Vec::new())).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.token("limited", Role::Admin, &["vm1"]).await;
    let bearer = format!("Bearer {admin}");
    let send = async |method: Method, path: &str, body: Value| {
        poller.send_json(method, path, &body, &[("authorization", &bearer)]).await
    };
    let last = send(Method::DELETE, "/api/tokens/admin", Value::Null).await;
    assert_eq!((last.status.as_u16(), last.problem()), (409, "last_admin".into()));
    user(&poller, "root", Role::Admin).await;
    assert_eq!(send(Method::DELETE, "/api/tokens/admin", Value::Null).await.status, 204);
    let root = cookie(&sign_in(&poller, "root", PASSWORD).await);
    let headers = [("cookie", root.as_str()), HERE];
    for body in [json!({"role": "viewer"}), json!({"actions": ["restart"]})] {
        let last = poller.send_json(Method::PATCH, "/api/users/root", &body, &headers).await;
        assert_eq!(last.problem(), "last_admin", "{body}");
    }
    let last = poller.ask(Method::DELETE, "/api/users/root", &headers).await;
    assert_eq!(last.problem(), "last_admin");
    assert_eq!(get(&poller, &root, "/api/users").await.status, 200);
}

#[tokio::test]
async fn limits_to_groups_tags_and_actions_hold() {
    let exporter = Exporter::start().await;
    let mut other = exporter.target("vm2");
    (other.group, other.tags) = ("us".into(), vec!["db".into()]);
    let poller = Poller::start(vec![exporter.target("vm1"), other]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    poller.until_status_as(&admin, "vm2", "online").await;
    let token = async |limits: Value| {
        let mut body = json!({"name": limits.to_string().replace(',', ";"), "role": "operator"});
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let made = poller.post_json(&admin, "/api/tokens", &body, None).await.json();
        made["token"].as_str().unwrap().to_owned()
    };
    for (limits, one, two) in [
        (json!({}), true, true),
        (json!({"groups": ["us"]}), false, true),
        (json!({"tags": ["prod"]}), true, false),
        (json!({"servers": ["vm1"], "tags": ["db"]}), true, true),
        (json!({"servers": []}), false, false),
        (json!({"groups": ["asia"]}), false, false),
    ] {
        let token = token(limits.clone()).await;
        for (server, seen) in [("vm1", one), ("vm2", two)] {
            let status = if seen { 200 } else { 404 };
            let path = format!("/api/servers/{server}/apps");
            assert_eq!(poller.get_as(&token, &path).await.status, status, "{limits} {server}");
            let path = format!("/api/commands/{server}/apps/api/restart");
            assert_eq!(poller.post_as(&token, &path).await.status, status, "{limits} {server}");
        }
        let page = poller.get_as(&token, "/metrics").await.body;
        assert_eq!(page.contains("server=\"vm2\""), two, "{limits}");
    }
    let token = token(json!({"actions": ["restart", "deploy"]})).await;
    let before = exporter.lock().ran.len();
    for (action, status) in [("restart", 200), ("stop", 403), ("delete", 403)] {
        let path = format!("/api/commands/vm1/apps/api/{action}");
        assert_eq!(poller.post_as(&token, &path).await.status, status, "{action}");
    }
    assert_eq!(exporter.lock().ran.len(), before + 1);
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (*a, b.as_str())).collect();
    let page = poller.ask(Method::GET, "/servers/vm1/apps/api", &headers).await.body;
    assert!(page.contains("/restart") && !page.contains("/delete"), "{page}");
}

#[tokio::test]
async fn the_first_admin_comes_by_a_link_that_is_good_once() {
    let poller = Poller::with(config(Vec::new())).await;
    // Once it serves, it has printed a link; this is another.
    assert_eq!(poller.get("/healthz").await.status, 200);
    let key = poller.app.access.open_first().unwrap();
    let guess = poller.get("/login/first?key=guess").await;
    assert_eq!(guess.status, 403);
    assert_eq!(poller.get(&format!("/login/first?key={key}")).await.status, 200);
    let form = |password: &str| format!("key={key}&name=root&password={password}");
    let short = poller.form("/login/first", &form("short"), &[HERE]).await;
    assert_eq!(short.status, 400, "{}", short.body);
    let made = poller.form("/login/first", &form("correct+horse+battery"), &[HERE]).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (303, "/login"), "{}", made.body);
    let root = cookie(&sign_in(&poller, "root", PASSWORD).await);
    assert_eq!(get(&poller, &root, "/api/users").await.status, 200);
    let again = poller.form("/login/first", &form("correct+horse+battery"), &[HERE]).await;
    assert_eq!(again.status, 403);
    assert_eq!(poller.app.access.open_first(), None);
    until("it is closed", async || poller.get("/api/servers").await.status == 401).await;
}
