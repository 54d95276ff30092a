//! One command for many servers: one after another or in batches, each watched, one record.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use pm2_poller::access::Role;
use pm2_poller::store::AuditFilter;
use serde_json::{Value, json};
use wire::{CommandStatus, Severity};

use crate::support::exporter::{Manner, Obedience};
use crate::support::{Answer, Exporter, Poller, target, until};

/// As many servers, and the order in which commands came to them.
async fn start(count: usize) -> (Vec<Exporter>, Poller, String, Arc<Mutex<Vec<usize>>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut exporters = Vec::new();
    for n in 0..count {
        let exporter = Exporter::start().await;
        let seen = Arc::clone(&order);
        exporter.lock().on_command = Some(Box::new(move |_| seen.lock().unwrap().push(n)));
        exporters.push(exporter);
    }
    let servers = exporters.iter().enumerate();
    let servers = servers.map(|(n, it)| target(&format!("vm{n}"), &it.url())).collect();
    let poller = Poller::start(servers).await;
    for n in 0..count {
        poller.until_status(&format!("vm{n}"), "online").await;
    }
    let token = poller.token("ci", Role::Operator, &[]).await;
    (exporters, poller, token, order)
}

fn restart(more: Value) -> Value {
    let mut body = json!({"select": {"app": "api"}, "action": "restart", "settle": "100ms"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn ask(poller: &Poller, token: &str, body: &Value) -> Answer {
    poller.post_json(token, "/api/commands?wait=60s", body, None).await
}

/// Status of each part, in order.
fn parts(selection: &Value) -> Vec<String> {
    let Some(parts) = selection["parts"].as_array() else { return Vec::new() };
    let parts = parts.iter();
    parts.map(|part| part["status"].as_str().unwrap().to_owned()).collect()
}

async fn audit(poller: &Poller) -> Vec<(String, String)> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let rows = poller.app.store.audit(&filter).await.unwrap().into_iter().rev();
    rows.filter(|row| row.act == "command").map(|row| (row.subject, row.outcome)).collect()
}

#[tokio::test]
async fn one_after_another_and_one_record() {
    let (exporters, poller, token, order) = start(3).await;
    let answer = ask(&poller, &token, &restart(json!({}))).await;
    let selection = answer.json();
    assert_eq!((answer.status.as_u16(), &selection["status"]), (200, &json!("succeeded")));
    assert_eq!(parts(&selection), ["succeeded"; 3]);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    assert_eq!(selection["select"], json!({"app": "api"}));
    assert_eq!(
        answer.header("location"),
        format!("/api/commands/{}", selection["id"].as_str().unwrap())
    );
    let again = poller.get_as(&token, answer.header("location")).await.json();
    assert_eq!(again, selection);
    assert!(exporters.iter().all(|it| it.lock().looks >= 2), "each was watched");
    let list = poller.get_as(&token, "/api/selections").await.json();
    assert_eq!(list["selections"], json!([selection]));
    // Each part is a command like any other.
    let part = selection["parts"][1]["id"].as_str().unwrap();
    let part = poller.get_as(&token, &format!("/api/commands/{part}")).await.json();
    assert_eq!((&part["server"], &part["part_of"]), (&json!("vm1"), &selection["id"]));
    let path = format!("/api/commands?part_of={}", selection["id"].as_str().unwrap());
    assert_eq!(poller.get_as(&token, &path).await.json()["commands"].as_array().unwrap().len(), 3);
    let of_part = ("restart app api".to_owned(), "succeeded".to_owned());
    let all = audit(&poller).await;
    assert_eq!(all[0], ("restart app api on 3 servers".into(), "requested".into()));
    assert_eq!(all.iter().filter(|row| **row == of_part).count(), 4, "{all:?}");
    // On the page as well.
    let page = poller.get_as(&token, answer.header("location").trim_start_matches("/api")).await;
    assert_eq!(page.status, 303, "{page:?}");
    let page = poller.get_as(&token, page.header("location")).await.body;
    assert!(page.contains("3 of 3 servers") && page.contains("vm2"), "{page}");
}

#[tokio::test]
async fn in_batches_and_no_more_than_may_be_away() {
    let (exporters, poller, token, _) = start(5).await;
    let (now, most) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    for exporter in &exporters {
        exporter.lock().obedience = Obedience::Slow(Duration::from_secs(1));
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        let begin = now.clone();
        exporter.lock().on_command = Some(Box::new(move |_| {
            let mut count = begin.lock().unwrap();
            *count += 1;
            let mut most = most.lock().unwrap();
            *most = (*most).max(*count);
        }));
        // It is over when somebody looks whether it is well.
        exporter.lock().on_look = Some(Box::new(move |look| {
            if look == 1 {
                *now.lock().unwrap() -= 1;
            }
            ("online", 0)
        }));
    }
    let answer = ask(&poller, &token, &restart(json!({"batch": 2}))).await.json();
    assert_eq!(parts(&answer), ["succeeded"; 5]);
    assert_eq!(*most.lock().unwrap(), 2);

    exporters[4].set(Manner::Hang);
    until("one is away", async || {
        let server = poller.get_as(&token, "/api/servers/vm4").await.json();
        server["status"].as_str().is_some_and(|status| status != "online")
    })
    .await;
    let dry = ask(&poller, &token, &restart(json!({"dry_run": true, "max_unavailable": 1}))).await;
    let dry = dry.json();
    assert_eq!((&dry["total"], &dry["unavailable"]), (&json!(5), &json!(1)), "{dry}");
    assert_eq!(
        (&dry["parts"][4]["server"], &dry["parts"][4]["available"]),
        (&json!("vm4"), &json!(false))
    );
    let refused = ask(&poller, &token, &restart(json!({"max_unavailable": 1}))).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (409, "unavailable"));
    let body = json!({"max_unavailable": 2, "batch": 4});
    let mut body = restart(body);
    body["select"]["server"] = json!(["vm0", "vm1", "vm4"]);
    *most.lock().unwrap() = 0;
    for exporter in &exporters {
        exporter.lock().looks = 0;
    }
    let answer = ask(&poller, &token, &body).await.json();
    assert_eq!(*most.lock().unwrap(), 1, "one is away already: {answer}");
    let last = audit(&poller).await.into_iter().find(|row| row.1 == "refused");
    assert_eq!(last.unwrap().0, "restart app api of a selection");
}

#[tokio::test]
async fn the_first_that_is_not_well_ends_it() {
    for (look, word) in [
        // Gives up; comes and goes; is started anew.
        ((|_| ("errored", 0)) as fn(usize) -> (&'static str, u64), "gave up"),
        (|look| if look < 3 { ("online", 0) } else { ("stopped", 0) }, "and then not"),
        (|look| if look < 3 { ("online", 0) } else { ("online", 1) }, "started anew"),
        (|_| ("launching", 0), "did not become well"),
    ] {
        let (exporters, poller, token, order) = start(3).await;
        exporters[1].lock().on_look = Some(Box::new(look));
        let body = restart(json!({"settle": "5s", "health_timeout": "300ms"}));
        let mut body = body;
        body["select"]["server"] = json!(["vm1", "vm2"]);
        let selection = ask(&poller, &token, &body).await.json();
        assert_eq!(
            (&selection["status"], &selection["reason"]),
            (&json!("failed"), &json!("part_failed"))
        );
        assert_eq!(parts(&selection), ["failed", "cancelled"], "{selection}");
        let part = &selection["parts"][0];
        assert_eq!(part["reason"], "unhealthy");
        assert!(part["error"].as_str().unwrap().contains(word), "{part}");
        assert_eq!(*order.lock().unwrap(), [1], "nothing more was sent");
    }
}

#[tokio::test]
async fn a_part_that_nobody_answered_for_ends_it_and_was_not_watched_though_it_was_done() {
    let (exporters, poller, token, order) = start(2).await;
    exporters[0].lock().obedience = Obedience::Forget;
    let selection = ask(&poller, &token, &restart(json!({}))).await.json();
    assert_eq!(parts(&selection), ["unknown", "cancelled"], "{selection}");
    assert_eq!(selection["status"], "failed");
    let id = selection["parts"][0]["id"].as_str().unwrap();
    let done = (CommandStatus::Succeeded, "restart of app api by ci succeeded");
    exporters[0].tell_end(id, Severity::Info, done);
    let path = format!("/api/commands/{}", selection["id"].as_str().unwrap());
    until("it is known", async || {
        parts(&poller.get_as(&token, &path).await.json()) == ["succeeded", "cancelled"]
    })
    .await;
    let now = poller.get_as(&token, &path).await.json();
    assert_eq!(
        (&now["status"], &now["parts"][0]["reason"]),
        (&json!("failed"), &json!("not_watched"))
    );
    assert_eq!(*order.lock().unwrap(), [0]);
}

#[tokio::test]
async fn what_a_selection_means_is_limited_to_what_one_may_see() {
    let (exporters, poller, token, _) = start(3).await;
    exporters[0].lock().apps.push("other".into());
    exporters[0].lock().revision += 1;
    let limited = poller.token("limited", Role::Operator, &["vm1"]).await;
    let viewer = poller.token("viewer", Role::Viewer, &[]).await;
    let dry = async |token: &str, select: Value| {
        let body = json!({"select": select, "action": "restart", "dry_run": true});
        let answer = poller.send(Method::POST, token, "/api/commands", &body).await;
        if answer.status != 200 {
            return vec![answer.problem()];
        }
        let json = answer.json();
        let parts = json["parts"].as_array().unwrap().iter();
        parts.map(|part| part["server"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let other = async || dry(&token, json!({"app": "other"})).await == ["vm0"];
    until("it is seen", other).await;
    assert_eq!(dry(&token, json!({"app": "api", "group": "eu", "tag": "prod"})).await.len(), 3);
    assert!(dry(&token, json!({"app": "api", "group": "us"})).await.is_empty());
    assert_eq!(dry(&token, json!({"slot": "a", "server": "vm2"})).await, ["vm2"]);
    assert_eq!(dry(&limited, json!({"app": "api"})).await, ["vm1"]);
    assert_eq!(dry(&limited, json!({"app": "api", "server": ["vm2"]})).await, ["unknown_server"]);
    assert_eq!(dry(&viewer, json!({"app": "api"})).await, ["forbidden"]);
    assert!(exporters.iter().all(|it| it.lock().asked.is_empty()), "nothing was done");

    let done = ask(&poller, &limited, &restart(json!({}))).await.json();
    assert_eq!(done["parts"].as_array().unwrap().len(), 1);
    let path = format!("/api/commands/{}", done["id"].as_str().unwrap());
    assert_eq!(poller.get_as(&limited, &path).await.status, 200);
    let all = ask(&poller, &token, &restart(json!({}))).await.json();
    let hidden = format!("/api/commands/{}", all["id"].as_str().unwrap());
    assert_eq!(poller.get_as(&limited, &hidden).await.problem(), "unknown_command");
    let list = poller.get_as(&limited, "/api/selections").await.json();
    assert_eq!(list["selections"].as_array().unwrap().len(), 1);

    for (body, status, kind) in [
        (json!({"select": {}, "action": "restart"}), 400, "bad_request"),
        (json!({"select": {"app": "api", "slot": "a"}, "action": "restart"}), 400, "bad_request"),
        (json!({"select": {"app": "api"}, "action": "deploy"}), 400, "bad_request"),
        (json!({"select": {"app": "api", "canary": 1}, "action": "stop"}), 400, "bad_request"),
        (restart(json!({"batch": 0})), 400, "bad_request"),
        (restart(json!({"settle": "2h"})), 400, "bad_request"),
        (restart(json!({"body": {"canary": 1}})), 400, "bad_request"),
        (json!({"select": {"app": "nope"}, "action": "restart"}), 404, "nothing_selected"),
    ] {
        let answer = ask(&poller, &token, &body).await;
        let seen = (answer.status.as_u16(), answer.problem());
        assert_eq!(seen, (status, kind.to_owned()), "{body}");
        assert!(!answer.body.contains("canary"), "{answer:?}");
    }
}

#[tokio::test]
async fn of_several_pm2s_one_is_selected_watched_and_on_record() {
    let homes = ["/home/app/.pm2", "/home/web & co/.pm2"];
    let (exporters, poller, token, order) = start(3).await;
    exporters[0].watch_two(homes);
    exporters[1].watch_two([homes[1], "/home/other/.pm2"]);
    // The third watches one, by the first's name.
    let select = |more: Value| {
        let mut body = restart(json!({}));
        body["select"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let dry = async |home: &str| {
        let mut body = select(json!({"pm2_home": home}));
        body["dry_run"] = json!(true);
        let parts = ask(&poller, &token, &body).await.json()["parts"].take();
        let parts = parts.as_array().cloned().unwrap_or_default();
        let of =
            |part: &Value| (part["server"].as_str().unwrap().to_owned(), part["processes"].clone());
        parts.iter().map(of).collect::<Vec<_>>()
    };
    let one = |server: &str| (server.to_owned(), json!(1));
    until("it is seen", async || dry(homes[1]).await == [one("vm0"), one("vm1")]).await;
    assert_eq!(dry(homes[0]).await, [one("vm0"), one("vm2")]);
    assert_eq!(dry("/home/other//.pm2/").await, [one("vm1")], "as the exporter takes it");
    assert!(exporters.iter().all(|it| it.lock().asked.is_empty()));

    let body = select(json!({"pm2_home": homes[1]}));
    let answer = ask(&poller, &token, &body).await;
    let selection = answer.json();
    assert_eq!(selection["select"], json!({"app": "api", "pm2_home": homes[1]}), "{selection}");
    assert_eq!(parts(&selection), ["succeeded"; 2], "{selection}");
    assert_eq!(*order.lock().unwrap(), [0, 1]);
    for exporter in &exporters[..2] {
        let exporter = exporter.lock();
        assert_eq!(exporter.asked[0]["pm2_home"], homes[1]);
        let looks = &exporter.looked_in;
        assert!(looks.len() >= 2 && looks.iter().all(|it| it.as_deref() == Some(homes[1])));
    }
    let again = poller.get_as(&token, answer.header("location")).await.json();
    assert_eq!(again, selection);
    let part = selection["parts"][0]["id"].as_str().unwrap();
    let part = poller.get_as(&token, &format!("/api/commands/{part}")).await.json();
    assert!(part["summary"].as_str().unwrap().contains(homes[1]), "{part}");

    // Unsaid it is refused; of slots there is nothing to say.
    for (select, status, kind) in [
        (json!({"app": "api", "server": "vm0"}), 409, "conflict"),
        (json!({"slot": "a", "pm2_home": homes[0]}), 400, "bad_request"),
        (json!({"app": "api", "pm2_home": 1}), 400, "bad_request"),
        (json!({"app": "api", "pm2_home": "/nowhere"}), 404, "nothing_selected"),
        (json!({"app": "api", "pm2_home": ""}), 404, "nothing_selected"),
    ] {
        let answer = ask(&poller, &token, &json!({"select": select, "action": "restart"})).await;
        let seen = (answer.status.as_u16(), answer.problem());
        assert_eq!(seen, (status, kind.to_owned()), "{answer:?}");
        assert!(status != 404 || answer.body.contains("in \\\""), "{answer:?}");
    }
}

#[tokio::test]
async fn what_a_selection_does_not_take_is_refused_by_field() {
    let (exporters, poller, token, _) = start(1).await;
    for (body, told) in [
        (json!({"select": {"slot": "a"}, "save": true}), "save: goes with app"),
        (
            json!({"select": {"app": "api", "server": "a b"}}),
            "select.server: is not what is allowed there: a server's id, or a list",
        ),
        (
            json!({"select": {"app": "api", "server": 5}}),
            "select.server: is not what is allowed there: a server's id, or a list",
        ),
        (json!({"select": {"app": ""}}), "select.app: is not a valid app name: "),
        (
            json!({"select": {"app": "api"}, "body": {"x": 1}}),
            "body: body: has a field that is not known",
        ),
        (
            json!({"select": {"app": "api"}, "batch": -1}),
            "batch: is out of range: a whole number, 0 or more is expected",
        ),
    ] {
        let mut body = body;
        body["action"] = "restart".into();
        let answer = ask(&poller, &token, &body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "bad_request"));
        assert!(
            answer.json()["detail"].as_str().unwrap().contains(told),
            "{told}: {}",
            answer.body
        );
    }
    assert!(exporters[0].lock().ran.is_empty());
}

#[tokio::test]
async fn a_key_gives_what_came_of_it_though_it_would_be_refused_now() {
    let (exporters, poller, token, _) = start(2).await;
    let path = "/api/commands?wait=60s";
    let body = restart(json!({"max_unavailable": 1}));
    let first = poller.post_json(&token, path, &body, Some("k")).await;
    assert_eq!((first.status.as_u16(), first.json()["status"].as_str()), (200, Some("succeeded")));
    exporters[0].set(Manner::Say(axum::http::StatusCode::BAD_GATEWAY, String::new()));
    poller.until_status_as(&token, "vm0", "offline").await;
    let refused = poller.post_json(&token, path, &body, Some("new")).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (409, "unavailable"));
    let again = poller.post_json(&token, path, &body, Some("k")).await;
    assert_eq!((again.status, again.json()), (first.status, first.json()));
    let other = restart(json!({"max_unavailable": 1, "batch": 2}));
    let other = poller.post_json(&token, path, &other, Some("k")).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
    assert_eq!(exporters[1].lock().ran.len(), 1);
}

#[tokio::test]
async fn a_key_names_one_selection() {
    let (exporters, poller, token, _) = start(2).await;
    let path = "/api/commands?wait=60s";
    let body = restart(json!({}));
    let first = poller.post_json(&token, path, &body, Some("k")).await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = poller.post_json(&token, path, &body, Some("k")).await;
    assert_eq!((again.status, again.json()), (first.status, first.json()));
    let other = poller.post_json(&token, path, &restart(json!({"batch": 2})), Some("k")).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
    let single = "/api/commands/vm0/apps/api/restart";
    let other = poller.post_json(&token, single, &json!({}), Some("k")).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
    assert_eq!(poller.post_json(&token, single, &json!({}), Some("j")).await.status, 200);
    let other = poller.post_json(&token, path, &body, Some("j")).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
    assert_eq!(exporters[1].lock().ran.len(), 1);

    exporters[0].lock().obedience = Obedience::Later(Duration::from_secs(2));
    let slow = poller.post_json(&token, "/api/commands?wait=0", &body, Some("l")).await;
    assert_eq!((slow.status.as_u16(), &slow.json()["status"]), (202, &json!("running")));
    let meanwhile = poller.post_json(&token, "/api/commands?wait=0", &body, Some("l")).await;
    assert_eq!((meanwhile.status.as_u16(), meanwhile.problem().as_str()), (409, "in_progress"));
}

#[tokio::test]
async fn a_selection_can_be_taken_back_and_is_not_gone_on_with_after_a_restart() {
    let (exporters, poller, token, order) = start(3).await;
    for exporter in &exporters {
        exporter.lock().obedience = Obedience::Later(Duration::from_secs(2));
    }
    let begin = async |poller: &Poller| {
        let body = restart(json!({}));
        let answer = poller.post_json(&token, "/api/commands?wait=0", &body, None).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").to_owned()
    };
    let ended = async |poller: &Poller, path: &str| {
        let mut last = Value::Null;
        until("it ends", async || {
            last = poller.get_as(&token, path).await.json();
            let parts = parts(&last);
            last["finished_at"].is_string() && !parts.iter().any(|it| it == "running")
        })
        .await;
        last
    };
    let path = begin(&poller).await;
    until("one is sent", async || order.lock().unwrap().len() == 1).await;
    let answer = poller.send(Method::DELETE, &token, &path, &Value::Null).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let selection = ended(&poller, &path).await;
    assert_eq!(selection["status"], "cancelled");
    assert_eq!(parts(&selection), ["succeeded", "cancelled", "cancelled"], "what was sent goes on");
    let again = poller.send(Method::DELETE, &token, &path, &Value::Null).await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (409, "conflict"));

    order.lock().unwrap().clear();
    let path = begin(&poller).await;
    until("one is sent", async || order.lock().unwrap().len() == 1).await;
    let poller = poller.restart(None).await;
    let selection = ended(&poller, &path).await;
    assert_eq!(
        (&selection["status"], &selection["reason"]),
        (&json!("failed"), &json!("interrupted"))
    );
    assert_eq!(parts(&selection), ["succeeded", "cancelled", "cancelled"], "{selection}");
    let words = selection["error"].as_str().unwrap();
    assert!(words.ends_with("2 parts were not run, 1 part was not seen to be well"), "{words}");
    // What was done and not watched is told from what was found well.
    let part = &selection["parts"][0];
    assert_eq!(part["reason"], "not_watched", "{part}");
    assert_eq!(*order.lock().unwrap(), [0], "nothing more was sent");
}

/// What somebody names is done, or refused as a whole.
#[tokio::test]
async fn a_server_that_is_named_and_does_not_have_it_is_not_left_out_in_silence() {
    let (exporters, poller, token, order) = start(2).await;
    exporters[1].pm2(true, &["other"]);
    until("it is gone there", async || {
        let path = "/api/servers/vm1/apps/api";
        poller.get_as(&token, path).await.status == 404
    })
    .await;
    for server in [json!(["vm0", "vm1"]), json!("vm1")] {
        for dry_run in [true, false] {
            let body = json!({
                "select": {"app": "api", "server": server}, "action": "restart", "dry_run": dry_run,
            });
            let refused = ask(&poller, &token, &body).await;
            let (status, kind) = (refused.status.as_u16(), refused.problem());
            assert_eq!((status, kind.as_str()), (404, "nothing_selected"), "{refused:?}");
            assert!(refused.body.contains("app api of vm1: not there"), "{refused:?}");
        }
    }
    assert!(order.lock().unwrap().is_empty());
    // Of all servers those that have it are meant.
    let answer = ask(&poller, &token, &restart(json!({}))).await.json();
    assert_eq!(parts(&answer), ["succeeded"]);
}

#[tokio::test]
async fn a_server_whose_pm2_does_not_answer_is_away_with_what_it_had() {
    let (exporters, poller, token, order) = start(3).await;
    // The second had it lately, the third never; the list of what hangs stays as it was.
    exporters[1].sample(1.0);
    until("it is stored", async || {
        let path = "/api/servers/vm1/apps/api/metrics?metric=memory";
        !poller.get_as(&token, path).await.json()["series"].as_array().unwrap().is_empty()
    })
    .await;
    for apps in [&[][..], &["api"]] {
        exporters[1].pm2(false, apps);
        exporters[2].pm2(false, &[]);
        until("it is known", async || {
            let down = async |id: &str| {
                let server = poller.get_as(&token, &format!("/api/servers/{id}")).await.json();
                server["pm2"]["up"] == false
                    && (id != "vm1"
                        || server["state"]["processes"].as_array().unwrap().len() == apps.len())
            };
            down("vm1").await && down("vm2").await
        })
        .await;
        let dry = restart(json!({"dry_run": true, "max_unavailable": 1}));
        let dry = ask(&poller, &token, &dry).await.json();
        assert_eq!((&dry["total"], &dry["unavailable"]), (&json!(2), &json!(1)), "{dry}");
        assert_eq!(dry["parts"][1]["server"], "vm1");
        assert_eq!(dry["refusal"], "max_unavailable: 1 of 2 are away already, and 1 may be");
        let refused = ask(&poller, &token, &restart(json!({"max_unavailable": 1}))).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (409, "unavailable"));
    }
    assert!(order.lock().unwrap().is_empty(), "nothing was touched");
}

#[tokio::test]
async fn one_of_several_pm2s_is_chosen_before_anything_is_begun() {
    let (exporters, poller, token, order) = start(2).await;
    exporters[1].watch_two(["/a/.pm2", "/b/.pm2"]);
    until("both are known", async || {
        let server = poller.get_as(&token, "/api/servers/vm1").await.json();
        server["homes"].as_array().is_some_and(|homes| homes.len() == 2)
    })
    .await;
    let dry = ask(&poller, &token, &restart(json!({"dry_run": true}))).await.json();
    let words = "select: several PM2s of vm1 have it: choose by pm2_home";
    assert_eq!((&dry["refusal"], &dry["parts"][1]["ambiguous"]), (&json!(words), &json!(true)));
    let refused = ask(&poller, &token, &restart(json!({}))).await;
    assert_eq!((refused.status.as_u16(), refused.json()["detail"].as_str()), (409, Some(words)));
    assert!(order.lock().unwrap().is_empty());
}
