//! What pages offer is what the API would let their visitor do, and what they show is what it would
//! tell.

use axum::http::Method;
use pm2_poller::access::Role;
use serde_json::{Value, json};
use wire::EventKind;

use crate::support::{Exporter, Poller, target, until};

/// Actions of the buttons on a page, by the addresses that they lead to.
fn offered(html: &str, place: &str) -> Vec<String> {
    let address = format!("action=\"{place}/");
    let link = format!("href=\"{place}/");
    let mut found: Vec<String> = html
        .split(&address)
        .skip(1)
        .chain(html.split(&link).skip(1))
        .filter_map(|rest| rest.split(['"', '?']).next())
        .filter(|action| *action != "logs")
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

async fn limited(poller: &Poller, admin: &str, name: &str, role: &str, limits: Value) -> String {
    let mut body = json!({"name": name, "role": role});
    body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    let made = poller.post_json(admin, "/api/tokens", &body, None).await;
    made.json()["token"].as_str().unwrap_or_else(|| panic!("{}", made.body)).to_owned()
}

/// Five hundred open pages are made once: for all who may the same, whoever they are.
#[tokio::test]
async fn a_live_page_names_nobody_and_is_the_same_for_all_who_may_the_same() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let anna = poller.token("anna", Role::Viewer, &[]).await;
    let ben = poller.token("ben", Role::Viewer, &[]).await;
    let clara = poller.token("clara", Role::Viewer, &["vm2"]).await;
    let live = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("x-live", "0")];
        poller.ask(Method::GET, "/", &headers).await.body
    };
    assert!(
        poller.get_as(&anna, "/").await.body.contains("anna"),
        "a page of one's own has one's name"
    );
    let page = live(&anna).await;
    assert!(page.contains("/servers/vm1\"") && !page.contains("anna"), "{page}");
    let others = live(&clara).await;
    assert!(others.contains("/servers/vm2\"") && !others.contains("vm1"), "{others}");
    assert!(live(&admin).await.contains("/audit") && !page.contains("/audit"));
    // The time that it was made stands on it.
    until("two asked within a second", async || live(&anna).await == live(&ben).await).await;
}

#[tokio::test]
async fn a_slots_page_tells_of_commands_to_the_slot_and_to_its_process() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let mut ids = Vec::new();
    for what in ["slots/a", "apps/slot-a", "apps/api"] {
        let answer = poller.post_as(&admin, &format!("/api/commands/vm1/{what}/restart")).await;
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    let page = poller.get_as(&admin, "/servers/vm1/slots/a").await.body;
    let told: Vec<bool> = ids.iter().map(|id| page.contains(id.as_str())).collect();
    assert_eq!(told, [true, true, false], "{page}");
}

#[tokio::test]
async fn buttons_are_those_that_the_api_would_not_refuse() {
    let exporter = Exporter::start().await;
    let mut other = exporter.target("vm2");
    (other.group, other.tags) = ("us".into(), vec!["test".into()]);
    let poller = Poller::start(vec![exporter.target("vm1"), other]).await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    poller.until_status_as(&admin, "vm2", "online").await;

    let all = offered(
        &poller.get_as(&admin, "/servers/vm1/apps/api").await.body,
        "/servers/vm1/apps/api",
    );
    assert!(all.len() > 4 && all.contains(&"stop".to_owned()), "{all:?}");
    let slot =
        offered(&poller.get_as(&admin, "/servers/vm1/slots/a").await.body, "/servers/vm1/slots/a");
    assert!(slot.contains(&"deploy".to_owned()), "{slot:?}");

    let askers = [
        ("viewer", json!({}), true, Some(&[][..])),
        (
            "operator",
            json!({"actions": ["restart", "flush"]}),
            true,
            Some(&["restart", "flush"][..]),
        ),
        ("operator", json!({"actions": ["deploy"]}), true, Some(&["deploy"][..])),
        ("operator", json!({"groups": ["us"]}), false, None),
        ("operator", json!({"tags": ["prod"], "actions": ["stop"]}), true, Some(&["stop"][..])),
        ("operator", json!({"servers": ["vm2"]}), false, None),
        ("admin", json!({"tags": ["prod"]}), true, None),
    ];
    for (number, (role, limits, sees_vm1, actions)) in askers.into_iter().enumerate() {
        let who = format!("{role} {limits}");
        let token = limited(&poller, &admin, &format!("t{number}"), role, limits).await;
        for (place, everything) in
            [("/servers/vm1/apps/api", &all), ("/servers/vm1/slots/a", &slot)]
        {
            let page = poller.get_as(&token, place).await;
            assert_eq!(page.status.as_u16(), if sees_vm1 { 200 } else { 404 }, "{who}: {place}");
            let expected: Vec<&String> = everything
                .iter()
                .filter(|_| sees_vm1)
                .filter(|it| actions.is_none_or(|actions| actions.contains(&it.as_str())))
                .collect();
            let found = offered(&page.body, place);
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{who}: {place}");
            // The same from a shell is no way around.
            for action in everything.iter().filter(|it| !found.contains(it)) {
                let line = format!("{place}/{action}").replace("/servers/", "/api/commands/");
                assert!(!page.body.contains(&line), "{who}: {line}");
            }
            // Who types the address gets what the API says, and so does who sends the form.
            for action in everything {
                let path = format!("{place}/{action}");
                let api = format!("/api/commands{}", path.trim_start_matches("/servers"));
                let page = poller.get_as(&token, &path).await.status.as_u16();
                let may = found.contains(action);
                let expected = match (may, sees_vm1) {
                    (true, _) => 200,
                    (false, true) => 403,
                    (false, false) => 404,
                };
                assert_eq!(page, expected, "{who}: {path}");
                if !may {
                    let sent = poller.post_as(&token, &path).await.status.as_u16();
                    assert_eq!(sent, page, "{who}: {path}");
                    // What wants a body is told so first.
                    let answered = poller.post_as(&token, &api).await.status.as_u16();
                    assert!(answered == page || answered == 400, "{who}: {api}: {answered}");
                }
            }
        }
        // What belongs to a server that they may not see is not there for them.
        let fleet = poller.get_as(&token, "/").await.body;
        assert_eq!(fleet.contains("/servers/vm1\""), sees_vm1, "{who}");
        for path in ["/servers/vm1", "/servers/vm1?range=24h", "/servers/vm1/apps/api/logs"] {
            let status = poller.get_as(&token, path).await.status.as_u16();
            assert_eq!(status == 404, !sees_vm1, "{who}: {path}: {status}");
        }
        for path in ["/events", "/commands"] {
            let page = poller.get_as(&token, path).await.body;
            assert!(sees_vm1 || !page.contains("/servers/vm1"), "{who}: {path}: {page}");
        }
        let audit = poller.get_as(&token, "/audit").await.status.as_u16();
        assert_eq!(audit, if role == "admin" { 200 } else { 403 }, "{who}");
        assert_eq!(fleet.contains("href=\"/audit\""), role == "admin", "{who}");
    }
    assert!(exporter.lock().asked.is_empty(), "nothing was sent: {:?}", exporter.lock().asked);
}

const HOMES: [&str; 2] = ["/home/app/.pm2", "/home/web & co/.pm2"];
const IN_FIRST: &str = "?pm2_home=%2Fhome%2Fapp%2F.pm2";
const IN_SECOND: &str = "?pm2_home=%2Fhome%2Fweb%20%26%20co%2F.pm2";

/// An exporter of two PM2s that both have `api`; an operator.
async fn of_two_homes() -> (Exporter, Poller, String) {
    let exporter = Exporter::start().await;
    exporter.watch_two(HOMES);
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let token = poller.token("anna", Role::Operator, &[]).await;
    (exporter, poller, token)
}

#[tokio::test]
async fn an_app_of_several_pm2s_is_acted_on_in_the_one_that_is_chosen() {
    let (exporter, poller, token) = of_two_homes().await;
    let bearer = format!("Bearer {token}");
    let place = "/servers/vm1/apps/api";
    let page = poller.get_as(&token, place).await.body;
    assert!(offered(&page, place).is_empty(), "a button that is sure to be refused: {page}");
    for home in [IN_FIRST, IN_SECOND] {
        assert!(page.contains(&format!("href=\"{place}{home}\"")), "{page}");
    }
    let page = poller.get_as(&token, &format!("{place}{IN_SECOND}")).await.body;
    assert!(offered(&page, place).contains(&"restart".to_owned()), "{page}");
    assert!(page.contains("instance 0") && !page.contains("instances online"), "{page}");
    let form = poller.get_as(&token, &format!("{place}/restart{IN_SECOND}")).await;
    let action = format!("action=\"{place}/restart{IN_SECOND}\"");
    assert!(form.status == 200 && form.body.contains(&action), "{form:?}");
    assert!(exporter.lock().asked.is_empty());

    // What is sent says which; what is shown afterwards stays there.
    let send =
        async |path: &str, body: &str| poller.form(path, body, &[("authorization", &bearer)]).await;
    let sent = send(&format!("{place}/restart{IN_SECOND}"), "save=true").await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let shown = sent.header("location");
    assert!(shown.starts_with(&format!("{place}{IN_SECOND}&done=")), "{shown}");
    assert_eq!(exporter.lock().asked[0]["pm2_home"], HOMES[1]);
    let shown = poller.get_as(&token, shown).await.body;
    assert!(shown.contains("succeeded") && shown.contains("id=\"done\""), "{shown}");
    let direct = send(&format!("{place}/reset{IN_FIRST}"), "").await;
    assert_eq!(direct.status, 303, "{direct:?}");
    assert_eq!(exporter.lock().asked[1]["pm2_home"], HOMES[0]);

    // A form from before there were two is not sent on, and neither is what nobody has.
    let asks = poller.get_as(&token, &format!("{place}/restart")).await;
    assert!(asks.status == 200 && !asks.body.contains("action=\"/servers"), "{asks:?}");
    let unsaid = send(&format!("{place}/restart"), "").await;
    assert!(unsaid.status == 409 && unsaid.body.contains(IN_FIRST), "{unsaid:?}");
    for path in ["", "/logs", "/restart"] {
        let page = poller.get_as(&token, &format!("{place}{path}?pm2_home=/no%3Cwhere")).await;
        assert_eq!(page.status, 404, "{page:?}");
        assert!(page.body.contains("vm1 has no PM2 in &#34;/no&#60;where&#34;."), "{page:?}");
        let page = format!("{place}{path}{IN_FIRST}{}", IN_SECOND.replace('?', "&"));
        assert_eq!(poller.get_as(&token, &page).await.status, 400, "{page}");
    }
    assert_eq!(send(&format!("{place}/restart?pm2_home=/nowhere"), "").await.status, 404);
    assert_eq!(exporter.lock().asked.len(), 2);

    // In one of them only, it needs no choice.
    let only = "/servers/vm1/apps/only";
    let page = poller.get_as(&token, only).await.body;
    assert!(offered(&page, only).contains(&"restart".to_owned()), "{page}");
    assert!(!page.contains("pm2_home") && !page.contains("aria-label=\"PM2\""), "{page}");
    assert_eq!(send(&format!("{only}/restart"), "").await.status, 303);
    assert!(exporter.lock().asked[2].get("pm2_home").is_none());
}

#[tokio::test]
async fn with_one_pm2_no_address_has_to_say_so() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let token = poller.token("anna", Role::Operator, &[]).await;
    let (place, home) = ("/servers/vm1/apps/api", "?pm2_home=/home/app/.pm2");
    for path in ["", "/logs", "/restart"] {
        for more in ["", home] {
            let page = poller.get_as(&token, &format!("{place}{path}{more}")).await;
            assert!(page.status == 200 && !page.body.contains("pm2_home"), "{path}: {page:?}");
        }
        let page = poller.get_as(&token, &format!("{place}{path}?pm2_home=/x")).await;
        assert_eq!(page.status, 404, "{page:?}");
    }
}

#[tokio::test]
async fn a_log_is_that_of_the_pm2_that_is_chosen() {
    let (_exporter, poller, token) = of_two_homes().await;
    let place = "/servers/vm1/apps/api/logs";
    let page = poller.get_as(&token, place).await;
    assert!(page.status == 200 && !page.body.contains("cannot be read"), "{page:?}");
    assert!(page.body.contains(&format!("href=\"{place}{IN_FIRST}\"")), "{page:?}");
    let page = poller.get_as(&token, &format!("{place}{IN_SECOND}&stream=out")).await.body;
    assert!(page.contains("written in /home/web &#38; co/.pm2"), "{page}");
    let others = format!("href=\"{place}{IN_FIRST}&#38;stream=out\"");
    assert!(page.contains(&others), "what was asked for stays: {page}");
    // Where a script goes on.
    let follow = page.split("data-follow=\"").nth(1).unwrap().split('"').next().unwrap();
    let follow = follow.replace("&#38;", "&").replace("follow=true", "follow=false");
    let lines = poller.get_as(&token, &follow).await;
    assert!(lines.status == 200 && lines.body.contains("written in /home/web & co"), "{lines:?}");
    let only = poller.get_as(&token, "/servers/vm1/apps/only/logs").await.body;
    assert!(only.contains("written in /home/web") && !only.contains("pm2_home"), "{only}");
}

#[tokio::test]
async fn a_page_about_one_pm2_shows_nothing_of_another() {
    let (exporter, poller, token) = of_two_homes().await;
    for (home, more, word) in [(HOMES[0], IN_FIRST, "first"), (HOMES[1], IN_SECOND, "second")] {
        for kind in [EventKind::EXCEPTION, EventKind::ERRORED] {
            exporter.event_in(Some(home), kind, &format!("in the {word}"));
        }
        exporter.sample_in(Some(home), 1.0);
        let flush = format!("/api/commands/vm1/apps/api/flush{more}");
        assert_eq!(poller.post_as(&token, &flush).await.status, 200);
    }
    for _ in 0..3 {
        exporter.crash_in(Some(HOMES[0]));
    }
    let place = "/servers/vm1/apps/api";
    let page = async |more: &str| poller.get_as(&token, &format!("{place}{more}")).await.body;
    let count = |page: &str, text: &str| page.matches(text).count();
    let charted = |page: &str| {
        HOMES
            .iter()
            .all(|home| page.contains(&format!("instance 0 in {}", home.replace('&', "&#38;"))))
    };
    until("both are charted", async || {
        let page = page("").await;
        charted(&page) && page.contains("3 crashes")
    })
    .await;
    let both = page("").await;
    assert!(both.contains("in the first") && both.contains("in the second"), "{both}");
    assert_eq!(count(&both, "id=\"c-"), 2, "{both}");
    assert!(both.contains("3 crashes of one instance in 10 min"), "{both}");
    for (more, own, other) in [(IN_FIRST, "first", "second"), (IN_SECOND, "second", "first")] {
        let page = page(more).await;
        assert!(page.contains(&format!("in the {own}")), "{page}");
        assert!(!page.contains(&format!("in the {other}")), "{page}");
        // As a flag on the charts and in words below them, too.
        assert!(page.contains(&format!("errored: in the {own}")), "{page}");
        assert_eq!(count(&page, "id=\"c-"), 1, "{page}");
        assert_eq!(page.contains("3 crashes in 10 min"), own == "first", "{page}");
        assert!(page.contains("class=\"plot\"") && !page.contains("instance 0 in "), "{page}");
        // Its links to all of them stay there, the lists do, and programs are told the same.
        let narrowed = more.replace('?', "");
        let all = format!("?server=vm1&#38;app=api&#38;{narrowed}");
        for list in ["/events", "/commands"] {
            assert!(page.contains(&format!("href=\"{list}{all}\"")), "{page}");
        }
        let events = poller.get_as(&token, &format!("/events{more}")).await.body;
        assert!(events.contains(&format!("in the {own}")), "{events}");
        assert!(!events.contains(&format!("in the {other}")), "{events}");
        assert!(events.contains("name=\"pm2_home\" value=\"/home/"), "{events}");
        let home = HOMES[usize::from(own == "second")];
        let csv = format!("/api{place}/metrics?from=1h&format=csv&{narrowed}");
        assert!(page.contains(&format!("href=\"{}\"", csv.replace('&', "&#38;"))), "{page}");
        let csv = poller.get_as(&token, &csv).await.body;
        assert!(csv.lines().count() > 1, "{csv}");
        assert!(csv.lines().skip(1).all(|line| line.contains(home)), "{csv}");
        for (list, least) in [("events", 2), ("commands", 1)] {
            let told = poller.get_as(&token, &format!("/api/{list}{more}")).await.json();
            let told = told[list].as_array().unwrap().clone();
            assert!(
                told.len() >= least && told.iter().all(|it| it["pm2_home"] == home),
                "{told:?}"
            );
        }
    }
    let none = poller.get_as(&token, "/api/events?pm2_home=/nowhere").await.json();
    assert_eq!(none["events"], json!([]));
}

#[tokio::test]
async fn an_app_that_is_not_there_has_no_page() {
    let exporter = Exporter::start().await;
    let poller =
        Poller::start(vec![exporter.target("vm1"), target("away", "http://127.0.0.1:9")]).await;
    poller.until_status("vm1", "online").await;
    for server in ["vm1", "away"] {
        let page = poller.get(&format!("/servers/{server}/apps/nope")).await;
        assert_eq!(page.status, 404, "{}", page.body);
        assert!(page.body.contains(&format!("{server} has no app named &#34;nope&#34;.")));
    }
}
