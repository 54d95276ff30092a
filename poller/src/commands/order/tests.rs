use super::*;

fn app() -> Target {
    Target::App("api".parse().unwrap())
}

fn slot() -> Target {
    Target::Slot("a".parse().unwrap())
}

fn read(action: Action, target: &Target, body: &str) -> Order {
    Order::read(action, target, body.as_bytes(), false).unwrap()
}

#[test]
fn bodies_become_what_the_exporter_reads() {
    for (action, target, body, sent) in [
        (Action::Env, app(), r#"{"env":{"B":"2","A":"1"}}"#, r#","arguments":{"A":"1","B":"2"}"#),
        (Action::Signal, app(), r#"{"signal":"SIGUSR2"}"#, r#","arguments":{"signal":"SIGUSR2"}"#),
        (
            Action::Trigger,
            app(),
            r#"{"action":"x","params":{"b":1,"a":2}}"#,
            r#","arguments":{"action":"x","params":"{\"a\":2,\"b\":1}"}"#,
        ),
        (Action::Scale, app(), r#"{"instances":4}"#, r#","arguments":{"instances":"4"}"#),
        (Action::Flush, app(), "", ""),
        (Action::Restart, slot(), "{}", ""),
        (Action::Stop, slot(), r#"{"reclaim":true}"#, r#","arguments":{"reclaim":"true"}"#),
        (Action::Rollback, slot(), r#"{"deployment":"d1"}"#, r#","arguments":{"deployment":"d1"}"#),
        (
            Action::Deploy,
            slot(),
            r#"{"repository":"https://h/r.git","env":{"K":"v"}}"#,
            r#","deploy":{"repository":"https://h/r.git","env":{"K":"v"}}"#,
        ),
    ] {
        let order = read(action, &target, body);
        let text = String::from_utf8(order.body(&target, action).unwrap()).unwrap();
        let head = serde_json::to_string(&target).unwrap();
        assert_eq!(text, format!("{{\"target\":{head},\"action\":\"{action}\"{sent}}}"));
        assert!(serde_json::from_str::<CommandRequest>(&text).is_ok());
    }
}

#[test]
fn what_is_wrong_is_told_without_its_values() {
    for (action, target, body) in [
        (Action::Env, app(), r#"{"env":{"A":{"canary":1}}}"#),
        (Action::Env, app(), r#"{"env":"canary"}"#),
        (Action::Env, app(), "canary"),
        (Action::Env, app(), ""),
        (Action::Signal, app(), r#"{"signal":"SIGHUP","canary":1}"#),
        (Action::Scale, app(), r#"{"instances":-1}"#),
        (Action::Restart, app(), r#"{"canary":1}"#),
        (Action::Deploy, slot(), r#"{"env":{"A":"canary"}}"#),
        (Action::Deploy, slot(), r#"{"repository":"r","env":{"A":["canary"]}}"#),
        (Action::Stop, slot(), r#"{"deployment":"canary"}"#),
    ] {
        let error = Order::read(action, &target, body.as_bytes(), false).unwrap_err();
        let detail = &error.problem().detail;
        assert!(detail.starts_with("body: ") && !detail.contains("canary"), "{detail}");
    }
}

#[test]
fn names_are_kept_and_values_are_not() {
    let deploy = r#"{"repository":"https://user:canary@h/r.git?t=canary","branch":"main",
        "env":{"KEY":"canary"},"timeout":"5m"}"#;
    for (action, target, body, kept) in [
        (Action::Env, app(), r#"{"env":{"A":"canary","B":"canary"}}"#, Some("env: A, B")),
        (Action::Trigger, app(), r#"{"action":"x","params":"canary"}"#, Some("action: x")),
        (Action::Scale, app(), r#"{"instances":4}"#, Some("instances: 4")),
        (Action::Restart, app(), "", None),
        (
            Action::Deploy,
            slot(),
            deploy,
            Some("repository: https://h/r.git; branch: main; env: KEY"),
        ),
    ] {
        let order = read(action, &target, body);
        assert_eq!(order.summary(action).as_deref(), kept);
        assert!(!format!("{order:?}").contains("canary"), "{order:?}");
    }
    let saved = Order::read(Action::Restart, &app(), b"", true).unwrap();
    assert_eq!(saved.summary(Action::Restart).as_deref(), Some("save: true"));
    assert_eq!(without_credentials("canary@h:r.git").as_deref(), Some("h:r.git"));
    assert_eq!(without_credentials("canary"), None);
}

#[test]
fn what_a_server_repeats_is_scrubbed() {
    let said = r#"{"action":"canary\"1 and canary"2, canary 3 of https://u:pass@h/r"#;
    let order = read(
        Action::Env,
        &app(),
        r#"{"env":{"action":"canary\"1","B":"canary\"2","C":"canary\n3","D":"on"}}"#,
    );
    let left = order.scrub(Action::Env, said);
    assert_eq!(left, r#"{"action":"… and …, … of https://u:pass@h/r"#);
    let order = read(Action::Trigger, &app(), r#"{"action":"action","params":"canary 3"}"#);
    assert!(!order.scrub(Action::Trigger, said).contains("canary 3"));
    let order = read(Action::Deploy, &slot(), r#"{"repository":"https://u:pass@h/r"}"#);
    assert!(!order.scrub(Action::Deploy, "no https://u:pass@h/r and pass").contains("pass"));
    assert_eq!(Order::default().scrub(Action::Restart, said), said);
}

#[test]
fn a_deployment_is_followed_for_its_own_time() {
    let minute = Duration::from_secs(60);
    let order = read(Action::Deploy, &slot(), r#"{"repository":"r","timeout":"5m"}"#);
    assert_eq!(order.timeout(Action::Deploy, minute), 5 * minute + BESIDE);
    let order = read(Action::Deploy, &slot(), r#"{"repository":"r"}"#);
    assert_eq!(order.timeout(Action::Deploy, minute), MOST + BESIDE);
    assert_eq!(Order::default().timeout(Action::Restart, minute), minute);
}
