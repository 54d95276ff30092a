use std::time::Instant;

use serde_json::json;

use crate::failures::Load;
use crate::stage::{Repo, Stage, server};

#[tokio::test]
async fn a_switch_and_a_deployment_are_quick() {
    let stage = Stage::with("settle = \"0s\"\n").await;
    let repo = Repo::app("one");
    let began = Instant::now();
    stage.deployed("a", &repo).await;
    let took = began.elapsed();
    repo.commit(&[("server.js", &server("two"))]);
    let load = Load::start(stage.ports["a"]);
    let answer = stage.deploy("a", json!({"repository": repo.url()})).await;
    assert_eq!(answer["status"], "healthy");
    let (asked, lost, gap) = load.end();
    println!("deployment {took:?}; switch: {gap:?} without an answer, {lost} of {asked} lost");
    // Generous: other tests run beside this one.
    assert!(took.as_secs() < 5 && gap.as_millis() < 2000, "{took:?} {gap:?}");
}
