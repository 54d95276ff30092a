//! What pages offer is what the API would let their visitor do, and what they show is what it would
//! tell.

use axum::http::Method;
use pm2_poller::access::Role;
use serde_json::{Value, json};

use crate::support::{Exporter, Poller, until};

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
