use e2e::{Client, Port, SOON, wait_until};
use serde_json::{Value, json};

use crate::stage::{Repo, Stage};

#[tokio::test]
async fn a_workspace_comes_up_again_after_everything_was_killed() {
    let mut stage = Stage::new().await;
    stage.deployed("a", &Repo::app("kept")).await;
    let pid = stage.pm2.pid_of("slot-a").unwrap();
    // What is right is left alone.
    let (out, well) = stage.slots(&["up"]);
    assert!(well, "{out}");
    assert_eq!(stage.pm2.pid_of("slot-a").unwrap(), pid);
    // As after a power cut.
    stage.pm2.kill_daemon().unwrap();
    wait_until("the port is free", SOON, async || {
        stage.get("a", "/").await.is_none().then_some(())
    })
    .await
    .unwrap();
    let (out, well) = stage.slots(&["up"]);
    assert!(well, "{out}");
    assert_eq!(stage.get("a", "/").await.unwrap(), "kept");
    assert!(stage.get("b", "/health").await.unwrap().contains("placeholder"));
    // What is missing, stopped or twice there is put right; other applications stay.
    stage.pm2.start_apps(vec![json!({"name": "mine", "script": "web.js"})]).await.unwrap();
    let mine = stage.pm2.pid_of("mine").unwrap();
    stage.pm2.cli(&["delete", "slot-a"]).await.unwrap();
    stage.pm2.cli(&["stop", "slot-b"]).await.unwrap();
    let (out, well) = stage.slots(&["up"]);
    assert!(well, "{out}");
    assert_eq!(stage.get("a", "/").await.unwrap(), "kept");
    assert_eq!(stage.pm2.pid_of("mine").unwrap(), mine);
    let (out, well) = stage.slots(&["status"]);
    assert!(well && out.contains("slot-a") && out.contains("placeholder"), "{out}");
    let (out, well) = stage.slots(&["down"]);
    assert!(well, "{out}");
    assert_eq!(stage.pm2.pid_of("mine").unwrap(), mine);
    assert!(stage.get("a", "/").await.is_none());
    let (out, well) = stage.slots(&["up"]);
    assert!(well, "{out}");
    stage.at_rest("a").await;
    // The file gives the same by hand, where nobody else gives the slots their processes back.
    stage.kill();
    let file = stage.root().join("ecosystem.config.js");
    stage.pm2.cli(&["delete", "slot-a", "slot-b"]).await.unwrap();
    stage.pm2.cli(&["start", &file.display().to_string()]).await.unwrap();
    wait_until("it answers", SOON, async || (stage.get("a", "/").await? == "kept").then_some(()))
        .await
        .unwrap();
    assert!(stage.get("b", "/health").await.unwrap().contains("placeholder"));
    let (out, well) = stage.slots(&["status"]);
    assert!(well, "{out}");
}

#[tokio::test]
async fn the_admin_server_watches_the_workspace_and_a_free_slot_links_to_it() {
    let mut stage = Stage::new().await;
    stage.kill();
    stage.pm2.cli(&["delete", "slot-b"]).await.unwrap();
    let port = Port::free().unwrap();
    stage.configure("enabled = false", &format!("port = {}", port.number()));
    let (out, _, _) = stage.run(&["check"]);
    assert!(out.contains("set token_file in [slots.admin]"), "{out}");
    let file = stage.pm2.folder().write("admin.token", stage.token()).unwrap();
    let key = format!("[slots.admin]\ntoken_file = \"{}\"", file.display());
    stage.configure("[slots.admin]", &key);
    let (out, well) = stage.slots(&["up"]);
    assert!(well && out.contains("admin-server"), "{out}");
    stage.serve().await;
    let admin = Client::new(format!("http://{}", port.address())).unwrap();
    wait_until("the admin server sees the exporter", SOON, async || {
        let servers: Value = admin.json("/api/servers").await.ok()?;
        (servers["servers"][0]["status"] == "online").then_some(())
    })
    .await
    .unwrap();
    let (out, _, _) = stage.run(&["check"]);
    assert!(!out.contains("token_file"), "{out}");
    let page = stage.get("b", "/").await.unwrap();
    assert!(page.contains(&format!("href=\"http://localhost:{}\"", port.number())), "{page}");
    let file = std::fs::read_to_string(stage.root().join("ecosystem.config.js")).unwrap();
    assert!(!file.contains(stage.token()), "{file}");
}

#[tokio::test]
async fn an_admin_server_with_other_settings_is_replaced_and_nothing_else_is() {
    let stage = Stage::new().await;
    let (port, next) = (Port::free().unwrap(), Port::free().unwrap());
    let script = e2e::setup::app("web.js");
    let command = format!("port = {}\ncommand = [\"node\", {script:?}]", port.number());
    stage.configure("enabled = false", &command);
    let (out, well) = stage.slots(&["up"]);
    assert!(well, "{out}");
    let pids = || ["admin-server", "slot-a"].map(|name| stage.pm2.pid_of(name).unwrap());
    let first = pids();
    let is_replaced = |what: &str| {
        let before = pids();
        let (checked, _, _) = stage.run(&["check"]);
        assert!(checked.contains("admin-server runs with other settings"), "{what}: {checked}");
        let (out, well) = stage.slots(&["status"]);
        assert!(!well && out.contains("'slots up' starts it anew"), "{what}: {out}");
        let (out, well) = stage.slots(&["up"]);
        assert!(well && out.contains("its settings differed"), "{what}: {out}");
        let after = pids();
        assert!(after[0] != before[0] && after[1] == before[1], "{what}");
        let (out, well) = stage.slots(&["up"]);
        assert!(well && pids() == after && !out.contains("differed"), "{what}: {out}");
        let (checked, _, _) = stage.run(&["check"]);
        assert!(checked.contains("admin-server is online and answers"), "{what}: {checked}");
    };
    let (out, well) = stage.slots(&["up"]);
    assert!(well && pids() == first, "{out}");
    stage.configure(&format!("port = {}", port.number()), &format!("port = {}", next.number()));
    is_replaced("the port");
    stage.configure("web.js\"]", "web.js\", \"more\"]");
    is_replaced("an argument");
    stage.configure(&format!("command = [\"node\", {script:?}, \"more\"]"), "");
    is_replaced("the program");
    let file = stage.pm2.folder().write("admin.token", "canary-one").unwrap();
    stage.configure("[slots.admin]", &format!("[slots.admin]\ntoken_file = {file:?}"));
    is_replaced("the token's file");
    stage.pm2.folder().write("admin.token", "canary-two").unwrap();
    is_replaced("what is in it");
    // After a restart by hand and by the file it is still known.
    stage.pm2.cli(&["restart", "admin-server"]).await.unwrap();
    let by_hand = pids();
    let (out, well) = stage.slots(&["up"]);
    assert!(well && pids() == by_hand, "{out}");
    let file = stage.root().join("ecosystem.config.js").display().to_string();
    stage.pm2.cli(&["delete", "admin-server"]).await.unwrap();
    stage.pm2.cli(&["start", &file, "--only", "admin-server"]).await.unwrap();
    let by_file = pids();
    let (out, well) = stage.slots(&["up"]);
    assert!(well && pids() == by_file, "{out}");
    // Where somebody else has the port, what runs goes on.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let held = taken.local_addr().unwrap().port();
    stage.configure(&format!("port = {}", next.number()), &format!("port = {held}"));
    let (out, well) = stage.slots(&["up"]);
    assert!(!well && out.contains(&format!("port {held} is held by")), "{out}");
    assert_eq!(pids(), by_file);
    // One of somebody's own is theirs.
    stage.pm2.cli(&["delete", "admin-server"]).await.unwrap();
    let own = e2e::setup::app("stubborn.js").display().to_string();
    stage.pm2.cli(&["start", &own, "--name", "admin-server"]).await.unwrap();
    let theirs = pids();
    let (out, _) = stage.slots(&["up"]);
    assert!(out.contains("was not started here") && pids() == theirs, "{out}");
}

#[tokio::test]
async fn an_old_workspace_is_taken_over_without_a_restart() {
    taken_over(false).await;
}

#[tokio::test]
async fn an_old_workspace_is_taken_over_beside_an_exporter_that_knows_nothing_of_it() {
    taken_over(true).await;
}

async fn taken_over(serves: bool) {
    let mut stage = Stage::new().await;
    // Before it was taken over, nobody looked after it.
    stage.kill();
    let folder = stage.pm2.folder();
    let (a, b) = (stage.ports["a"], stage.ports["b"]);
    stage.pm2.cli(&["delete", "slot-a", "slot-b"]).await.unwrap();
    std::fs::create_dir_all(folder.join("app")).unwrap();
    folder.write("app/server.js", &crate::stage::server("old app")).unwrap();
    folder.write("slot-placeholder.js", &crate::stage::server("old placeholder")).unwrap();
    let app = folder.join("app");
    let ecosystem = format!(
        "module.exports = {{apps: [{{name: 'slot-a', script: 'server.js', cwd: {app:?}, \
         env: {{PORT: '{a}', SLOT_NAME: 'a', KEY: 'canary'}}}}, \
         {{name: 'slot-b', script: {:?}, env: {{PORT: '{b}', SLOT_NAME: 'b'}}}}]}};",
        folder.join("slot-placeholder.js")
    );
    let ecosystem = folder.write("ecosystem.config.js", &ecosystem).unwrap();
    let slots = json!({"slots": {
        "a": {"repository": "https://user:canary@github.com/acme/shop", "branch": "main",
              "status": "deployed", "environment": {"KEY": "canary"}},
        "b": {"status": "empty"}}});
    let slots = folder.write("slots.json", &slots.to_string()).unwrap();
    stage.pm2.cli(&["start", &ecosystem.display().to_string()]).await.unwrap();
    wait_until("the old ones answer", SOON, async || {
        stage.get("b", "/").await?;
        stage.get("a", "/").await
    })
    .await
    .unwrap();
    let pids = (stage.pm2.pid_of("slot-a").unwrap(), stage.pm2.pid_of("slot-b").unwrap());
    if serves {
        stage.serve().await;
    }
    let (out, well) =
        stage.slots(&["import", slots.to_str().unwrap(), ecosystem.to_str().unwrap()]);
    assert!(well, "{out}");
    assert!(!out.contains("canary"), "{out}");
    if !serves {
        stage.serve().await;
    }
    assert_eq!((stage.pm2.pid_of("slot-a").unwrap(), stage.pm2.pid_of("slot-b").unwrap()), pids);
    let (out, well) = stage.slots(&["up"]);
    assert!(well, "{out}");
    assert_eq!(stage.pm2.pid_of("slot-a").unwrap(), pids.0);
    if !serves {
        let slot = stage.slot("a").await;
        assert_eq!(slot["repository"], "https://github.com/acme/shop");
        assert_eq!(stage.slot("b").await["type"], "placeholder");
    }
    // From now on it is a slot like any other.
    stage.deployed("a", &Repo::app("new")).await;
    assert_eq!(stage.get("a", "/").await.unwrap(), "new");
    let back = stage.post("/api/slots/a/rollback?wait=150s", &json!({})).await;
    let record: Value = back.json().unwrap();
    assert_eq!(record["status"], "succeeded", "{record:#}");
    assert_eq!(stage.get("a", "/").await.unwrap(), "old app");
    let stop = stage.post("/api/slots/b/stop?wait=150s", &json!({})).await;
    assert!(stop.text.contains("succeeded"), "{}", stop.text);
    assert!(stage.get("b", "/health").await.unwrap().contains("\"placeholder\""));
}

#[tokio::test]
async fn beside_another_pm2_events_of_slots_say_which_has_them() {
    let mut stage = Stage::new().await;
    let home = stage.pm2.home().display().to_string();
    let other = stage.pm2.folder().join("other");
    stage.configure(&format!("[\"{home}\"]"), &format!("[\"{home}\", \"{}\"]", other.display()));
    assert_eq!(stage.terminate(), Some(0));
    stage.serve().await;
    let restarted = stage.post("/api/slots/a/restart?wait=150s", &json!({})).await;
    assert!(restarted.text.contains("succeeded"), "{}", restarted.text);
    let page: Value = stage.client.json("/api/journal?limit=1000").await.unwrap();
    let events = page["entries"].as_array().unwrap().iter().map(|it| &it["record"]["event"]);
    let of_slot: Vec<&Value> = events.filter(|event| event["app"] == "slot-a").collect();
    assert!(of_slot.iter().any(|event| event["kind"] == "slot_restarted"), "{of_slot:?}");
    assert!(of_slot.iter().all(|event| event["pm2_home"] == home.as_str()), "{of_slot:?}");
}
