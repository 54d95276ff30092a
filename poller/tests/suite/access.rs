//! Who may do what, page and API.

use crate::support::{Exporter, Poller, config, target, until};
use axum::http::Method;
use pm2_poller::access::Role;
use wire::Time;

const READS: [&str; 17] = [
    "/api/servers",
    "/api/servers/vm1",
    "/api/servers/vm1/slots",
    "/api/servers/vm1/slots/a",
    "/api/servers/vm1/slots/a/deployments",
    "/api/servers/vm1/slots/a/deployments/d1",
    "/api/servers/vm1/slots/a/deployments/d1/log",
    "/api/servers/vm1/apps",
    "/api/servers/vm1/apps/api",
    "/api/servers/vm1/apps/api/metrics",
    "/api/events",
    "/api/commands",
    "/api/me",
    "/metrics",
    "/sd/prometheus",
    "/servers/vm1",
    "/events",
];
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/login", "/static/style.css"];
const RESTART: &str = "/api/commands/vm1/apps/api/restart";

#[tokio::test]
async fn a_fresh_one_is_open_to_read_and_closed_to_change() {
    let (exporter, poller) = Poller::of_two().await;
    for path in READS.iter().chain(&OPEN) {
        assert_eq!(poller.get(path).await.status, 200, "{path}");
    }
    assert_eq!(poller.get("/api/audit").await.problem(), "unauthorized");
    let answer = poller.ask(Method::POST, RESTART, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"));
    assert!(exporter.lock().ran.is_empty());
}

#[tokio::test]
async fn every_role_may_what_it_may_and_no_more() {
    let (_exporter, poller) = Poller::of_two().await;
    let viewer = poller.token("viewer", Role::Viewer, &[]).await;
    let operator = poller.token("operator", Role::Operator, &[]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let expired = poller.token_until("expired", Role::Admin, &[], Some(Time::now())).await;
    let revoked = poller.token("revoked", Role::Admin, &[]).await;
    assert_eq!(poller.get_as(&revoked, "/api/me").await.json()["name"], "revoked");
    poller.app.store.revoke_token("revoked".into(), Default::default(), true).await.unwrap();
    until("revoked", async || poller.get_as(&revoked, "/api/me").await.status == 401).await;
    until("closed", async || poller.get("/api/servers").await.status == 401).await;

    for path in OPEN {
        assert_eq!(poller.get(path).await.status, 200, "{path}");
    }
    for path in READS {
        let nobody = poller.get(path).await;
        if path.starts_with("/servers") || path == "/events" {
            assert_eq!(nobody.status, 303, "{path}");
            assert!(nobody.header("location").starts_with("/login?next=/"), "{nobody:?}");
        } else {
            assert_eq!(nobody.problem(), "unauthorized", "{path}");
        }
        for token in [&viewer, &operator, &admin] {
            assert_eq!(poller.get_as(token, path).await.status, 200, "{path}");
        }
        let other = viewer.replace("pm2p_", "pm2x_");
        let two = [("authorization", format!("Bearer {admin}")), ("authorization", "x".to_owned())];
        for two in [[&two[0], &two[1]], [&two[1], &two[0]]] {
            let headers = two.map(|(name, value)| (*name, value.as_str()));
            let answer = poller.ask(Method::GET, path, &headers).await;
            assert!(matches!(answer.status.as_u16(), 401 | 303), "{path}: {answer:?}");
        }
        for token in [&expired, &revoked, &other, "", "x"] {
            assert_eq!(poller.get_as(token, path).await.problem(), "unauthorized", "{path}");
        }
    }
    for (token, status) in [(&viewer, 403), (&operator, 200), (&admin, 200), (&expired, 401)] {
        assert_eq!(poller.post_as(token, RESTART).await.status, status);
    }
    for (token, status) in [(&viewer, 403), (&operator, 403), (&admin, 200)] {
        assert_eq!(poller.get_as(token, "/api/audit").await.status, status);
        assert_eq!(poller.get_as(token, "/api/tokens").await.status, status);
        assert_eq!(poller.get_as(token, "/api/users").await.status, status);
    }
}

#[tokio::test]
async fn a_limited_token_knows_its_servers_only() {
    let (exporter, poller) = Poller::of_two().await;
    let token = poller.token("limited", Role::Operator, &["vm2"]).await;
    let servers = poller.get_as(&token, "/api/servers").await.json();
    assert_eq!((&servers["total"], &servers["servers"][0]["id"]), (&1.into(), &"vm2".into()));
    for path in READS.iter().filter(|path| path.contains("vm1")) {
        assert_eq!(poller.get_as(&token, path).await.status, 404, "{path}");
    }
    for path in ["/api/events", "/metrics", "/sd/prometheus", "/", "/events", "/commands"] {
        let answer = poller.get_as(&token, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.contains("vm1"), "{path}: {}", answer.body);
    }
    assert_eq!(poller.post_as(&token, RESTART).await.status, 404);
    let answer = poller.post_as(&token, "/api/commands/vm2/apps/api/restart").await;
    assert_eq!(answer.status, 200);
    assert_eq!(exporter.lock().ran.len(), 1);
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let refused = poller.get_as(&admin, "/api/commands?server=vm1").await.json();
    let path = format!("/api/commands/{}", refused["commands"][0]["id"].as_str().unwrap());
    assert_eq!(poller.get_as(&token, &path).await.problem(), "unknown_command");
}

#[tokio::test]
async fn anonymous_reading_is_a_setting() {
    let exporter = Exporter::start().await;
    let mut config = config(vec![exporter.target("vm1")]);
    config.anonymous_read = true;
    let poller = Poller::with(config).await;
    poller.token("admin", Role::Admin, &[]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(poller.get("/api/servers").await.status, 200);
    assert_eq!(poller.ask(Method::POST, RESTART, &[]).await.status, 401);
}

#[tokio::test]
async fn a_session_lasts_until_signing_out_and_is_used_from_here_only() {
    let (exporter, poller) = Poller::of_two().await;
    let token = poller.token("me", Role::Operator, &[]).await;
    let wrong = poller.form("/login", "token=pm2p_wrong", &[]).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.body.contains("unknown, expired or revoked"), "{}", wrong.body);
    let elsewhere = [("sec-fetch-site", "cross-site")];
    let form = format!("token={token}&next=https://evil.example");
    assert_eq!(poller.form("/login", &form, &elsewhere).await.problem(), "forbidden");
    let long = format!("token={}", "x".repeat(9000));
    assert_eq!(poller.form("/login", &long, &[]).await.status, 413);

    let answer = poller.form("/login", &form, &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/"));
    let cookie = answer.header("set-cookie").to_owned();
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert!(!cookie.contains(&token), "{cookie}");
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, String)> {
        let mut all = vec![("cookie", cookie.clone())];
        all.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all
    };
    let ask = async |method: Method, path: &str, headers: Vec<(&'static str, String)>| {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        poller.ask(method, path, &headers).await
    };
    let me = ask(Method::GET, "/api/me", with(&[])).await;
    assert_eq!(me.json()["name"], "me");
    for from in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "http://evil.example")],
    ] {
        assert_eq!(ask(Method::POST, RESTART, with(from)).await.problem(), "forbidden", "{from:?}");
    }
    assert!(exporter.lock().ran.is_empty());
    let here = &[("sec-fetch-site", "same-origin")];
    assert_eq!(ask(Method::POST, RESTART, with(here)).await.status, 200);
    assert_eq!(ask(Method::POST, "/logout", with(&[])).await.problem(), "forbidden");
    let out = ask(Method::POST, "/logout", with(here)).await;
    assert_eq!((out.status.as_u16(), out.header("location")), (303, "/login"));
    assert_eq!(ask(Method::GET, "/api/me", with(&[])).await.status, 401);
}

#[tokio::test]
async fn every_answer_carries_the_headers() {
    let (_exporter, poller) = Poller::of_two().await;
    for path in ["/", "/api/servers", "/nope", "/api/nope", "/metrics", "/static/style.css"] {
        let answer = poller.get(path).await;
        assert!(
            answer.header("content-security-policy").starts_with("default-src 'none'"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        let private = !path.starts_with("/static");
        assert_eq!(answer.header("cache-control") == "no-store", private, "{path}");
    }
}

#[tokio::test]
async fn wrong_requests_are_problems() {
    let (_exporter, poller) = Poller::of_two().await;
    for (method, path, status, kind) in [
        (Method::GET, "/api/nope", 404, "unknown_path"),
        (Method::GET, "/nope", 404, "unknown_path"),
        (Method::DELETE, "/api/servers", 405, "unknown_method"),
        (Method::GET, "/api/servers/nope", 404, "unknown_server"),
        (Method::GET, "/api/servers/%20", 404, "unknown_server"),
        (Method::GET, "/api/servers/%ff", 400, "bad_request"),
        (Method::GET, "/api/servers/vm1/apps/nope", 404, "unknown_app"),
        (Method::GET, "/api/servers?status=well", 400, "bad_request"),
        (Method::GET, "/api/servers?grop=a", 400, "bad_request"),
        (Method::GET, "/api/events?severity=bad", 400, "bad_request"),
        (Method::GET, "/api/events?limit=10001", 400, "bad_request"),
        (Method::GET, "/api/events?cursor=x", 400, "bad_request"),
        (Method::GET, "/api/events?kind=A", 400, "bad_request"),
        (Method::GET, "/api/commands?status=done", 400, "bad_request"),
        (Method::GET, "/api/commands/nope", 404, "unknown_command"),
    ] {
        let answer = poller.ask(method, path, &[]).await;
        let seen = (answer.status.as_u16(), answer.problem());
        assert_eq!(seen, (status, kind.to_owned()), "{path}");
        if status == 405 {
            assert_eq!(answer.header("allow"), "GET,HEAD,POST");
            assert!(answer.body.contains("/api/servers"), "{}", answer.body);
        }
    }
    // In a browser it is a page, but for the API.
    let browser = [("accept", "text/html,*/*;q=0.8")];
    let page = poller.ask(Method::GET, "/nope", &browser).await;
    assert_eq!(page.status, 404);
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    assert!(page.body.contains("There is no page at this address."), "{}", page.body);
    assert_eq!(poller.ask(Method::GET, "/api/nope", &browser).await.problem(), "unknown_path");
}

#[tokio::test]
async fn ends_of_tokens_are_told_to_those_who_see_everything() {
    let poller = Poller::start(vec![target("vm1", "http://127.0.0.1:1")]).await;
    let days = |days: i64| Some(Time::now().plus_millis(days * 86_400_000));
    let all = poller.token_until("quarter", Role::Viewer, &[], days(90)).await;
    let limited = poller.token_until("limited", Role::Viewer, &["vm1"], days(30)).await;
    poller.token_until("brief", Role::Viewer, &[], days(14)).await;
    poller.token("ever", Role::Viewer, &[]).await;
    until("both are told, the soonest first", async || {
        let page = poller.get_as(&all, "/metrics").await.body;
        let told: Vec<&str> = page
            .lines()
            .filter_map(|line| line.split_once("pm2_poller_token_expiry_timestamp_seconds{token="))
            .filter_map(|(_, rest)| rest.split('}').next())
            .collect();
        told == ["\"limited\"", "\"quarter\""]
    })
    .await;
    let page = poller.get_as(&limited, "/metrics").await.body;
    assert!(!page.contains("token_expiry"), "{page}");
}
