//! Commands in any order, against a model of the slot. The invariant: at rest a slot has exactly
//! one PM2 process, and it is what the model says.

use e2e::wait_until;
use serde_json::{Value, json};

use crate::stage::{PACKAGE, Repo, Stage, server};
use e2e::SOON;

/// Numbers that come out the same for the same seed, so that a failure can be seen again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

/// What a slot is to run: the placeholder, or a deployment by its id with what it says.
#[derive(Clone, Debug, PartialEq)]
enum Runs {
    Placeholder,
    App(String, String),
}

#[derive(Debug)]
struct Model {
    current: Runs,
    former: Option<Runs>,
    /// Kept deployments, the one used last at the end.
    kept: Vec<(String, String)>,
}

impl Model {
    fn to(&mut self, next: Runs) {
        if next != self.current {
            self.former = Some(std::mem::replace(&mut self.current, next));
        }
        if let Runs::App(id, text) = &self.current {
            self.kept.retain(|(kept, _)| kept != id);
            self.kept.push((id.clone(), text.clone()));
        }
        let needed = |id: &str, runs: Option<&Runs>| matches!(runs, Some(Runs::App(other, _)) if other == id);
        while self.kept.len() > 2 {
            let old = self.kept.iter().position(|(id, _)| {
                !needed(id, Some(&self.current)) && !needed(id, self.former.as_ref())
            });
            let Some(old) = old else { break };
            self.kept.remove(old);
        }
    }
}

const KEPT: &str = "probe_attempts = 60\nprobe_interval = \"500ms\"\nsettle = \"100ms\"\nkill_timeout = \"400ms\"\nkeep = 2\n";

#[tokio::test]
async fn commands_in_any_order_leave_what_the_model_says() {
    let rounds: u64 =
        std::env::var("PM2_FLEET_LONG").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seed = std::env::var("PM2_FLEET_SEED").ok().and_then(|text| text.parse().ok());
    for round in 0..rounds {
        let seed = seed.unwrap_or(4) + round;
        let steps = if rounds == 1 { 14 } else { 20 };
        sequence(seed, steps).await;
    }
}

async fn sequence(seed: u64, steps: u64) {
    let mut stage = Stage::with(KEPT).await;
    let mut dice = Dice(seed);
    let good = Repo::app("v0");
    let bad = Repo::new(&[("package.json", PACKAGE), ("server.js", "process.exit(3)")]);
    let port = stage.ports["a"];
    let late = format!("if (process.env.PORT === '{port}') process.exit(5); {}", server("late"));
    let late = Repo::new(&[("package.json", PACKAGE), ("server.js", &late)]);
    let mut model = Model { current: Runs::Placeholder, former: None, kept: Vec::new() };
    let mut told = Vec::new();
    for step in 0..steps {
        let what = dice.roll(10);
        told.push(what);
        let context = format!("seed {seed}, step {step} of {told:?}, {model:?}");
        match what {
            0..=2 => {
                let text = format!("v{step}");
                good.commit(&[("server.js", &server(&text)), ("step", &text)]);
                let done = stage.deployed("a", &good).await;
                model.to(Runs::App(done["id"].as_str().unwrap().to_owned(), text));
            }
            3 => {
                let failing = if dice.roll(2) == 0 { &bad } else { &late };
                let done = stage.deploy("a", json!({"repository": failing.url()})).await;
                assert_eq!(done["status"], "failed", "{context}: {done:#}");
            }
            4 => {
                let done = act(&stage, "stop", json!({})).await;
                assert_eq!(done["status"], "succeeded", "{context}: {done:#}");
                model.to(Runs::Placeholder);
            }
            5 => {
                let done = act(&stage, "restart", json!({})).await;
                assert_eq!(done["status"], "succeeded", "{context}: {done:#}");
            }
            6 | 7 => {
                let done = act(&stage, "rollback", json!({})).await;
                match model.former.clone() {
                    Some(former) if former != model.current => {
                        assert_eq!(done["status"], "succeeded", "{context}: {done:#}");
                        model.to(former);
                    }
                    _ => assert_eq!(done["status"], "failed", "{context}: {done:#}"),
                }
            }
            8 => {
                let body = json!({"env": {"STEP": step.to_string()}});
                let done = stage.client.put("/api/slots/a/env?wait=150s", &body).await.unwrap();
                let done: Value = done.json().unwrap();
                assert_eq!(done["status"], "succeeded", "{context}: {done:#}");
            }
            _ => {
                stage.kill();
                stage.serve().await;
            }
        }
        stage.at_rest("a").await;
        let what = format!("{context}: it answers");
        let runs = wait_until(&what, SOON, async || {
            let text = stage.get("a", "/").await?;
            let right = match &model.current {
                Runs::App(_, wanted) => text == *wanted,
                Runs::Placeholder => text.contains("ready"),
            };
            right.then_some(())
        });
        runs.await.unwrap();
        let list: Value = stage.client.json("/api/slots/a/deployments").await.unwrap();
        let list = list["deployments"].as_array().unwrap();
        let current: Vec<&str> = list
            .iter()
            .filter(|it| it["current"] == true)
            .map(|it| it["id"].as_str().unwrap())
            .collect();
        let wanted: Vec<&str> = match &model.current {
            Runs::App(id, _) => vec![id],
            Runs::Placeholder => Vec::new(),
        };
        assert_eq!(current, wanted, "{context}");
        let mut kept: Vec<&str> = list
            .iter()
            .filter(|it| it["kept"] == true)
            .map(|it| it["id"].as_str().unwrap())
            .collect();
        let mut wanted: Vec<&str> = model.kept.iter().map(|(id, _)| id.as_str()).collect();
        kept.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(kept, wanted, "{context}");
    }
    stage.leaves_nothing_behind().await;
}

async fn act(stage: &Stage, action: &str, body: Value) -> Value {
    let answer = stage.post(&format!("/api/slots/a/{action}?wait=150s"), &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json().unwrap()
}
