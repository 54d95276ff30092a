use super::*;

const LIST: &[u8] = include_bytes!("../../tests/captures/pm2-7.0.4-list.json");
const BUS: &str = include_str!("../../tests/captures/pm2-7.0.4-bus.txt");

fn bus(topic: &str) -> Vec<&'static [u8]> {
    BUS.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(found, _)| *found == topic)
        .map(|(_, body)| body.strip_prefix("j:").unwrap().as_bytes())
        .collect()
}

#[test]
fn a_real_list_is_read() {
    let (list, odd) = list(LIST).unwrap();
    assert_eq!(odd, 0);
    let told: Vec<_> = list
        .iter()
        .map(|p| (p.name.as_str(), p.pm_id, p.status, p.pid.is_some(), p.exec_mode))
        .collect();
    assert_eq!(
        told,
        [
            ("api", 0, Status::Online, true, "fork"),
            ("clus", 1, Status::Online, true, "cluster"),
            ("clus", 2, Status::Online, true, "cluster"),
            ("crash", 3, Status::Errored, false, "fork"),
        ]
    );
    assert_eq!((&*list[0].node_version, &*list[0].interpreter), ("20.20.2", "node"));
    assert!(list[0].metrics.node.contains_key("heap_used"), "{:?}", list[0].metrics);
}

#[test]
fn an_exceptions_message_keeps_its_lines_apart() {
    let json = br#"{"at":1,"process":{"pm_id":3},"data":{"stack":"Error: x\n    at y",
        "message":"Cannot find module '@pm2/io'\nRequire stack:\r\n- /srv/app.js\n"}}"#;
    let found = exception(json).unwrap().unwrap();
    assert_eq!(&*found.message, "Cannot find module '@pm2/io' Require stack: - /srv/app.js");
    assert_eq!(&*found.stack, "Error: x\n    at y");
}

#[test]
fn what_pm2_leaves_ended_is_known() {
    for (fields, autorestart, ended_as_told) in [
        ("\"exit_code\":0", true, false),
        ("\"autorestart\":true,\"stop_exit_codes\":[],\"exit_code\":0", true, false),
        ("\"autorestart\":false,\"stop_exit_codes\":null", false, false),
        ("\"autorestart\":\"false\",\"stop_exit_codes\":[0,\"3\"]", false, false),
        ("\"stop_exit_codes\":[0,\"3\"],\"exit_code\":3", true, true),
        ("\"stop_exit_codes\":0,\"exit_code\":0", true, true),
    ] {
        let json =
            format!("{{\"event\":\"exit\",\"process\":{{\"name\":\"a\",\"pm_id\":0,{fields}}}}}");
        let process = process_event(json.as_bytes()).unwrap().unwrap().process;
        let found = (process.autorestart, process.ended_as_told);
        assert_eq!(found, (autorestart, ended_as_told), "{fields}");
    }
}

#[test]
fn no_environment_value_is_kept() {
    assert!(std::str::from_utf8(LIST).unwrap().contains("canary123"));
    let (list, _) = list(LIST).unwrap();
    assert!(!format!("{list:?}").contains("canary123"));
    for json in bus("s:process:event") {
        assert!(!format!("{:?}", process_event(json)).contains("canary123"));
    }
}

#[test]
fn one_odd_process_does_not_hide_the_others() {
    let json = br#"{"args":[[
        {"pid":7,"name":"ok","pm_id":0,"pm2_env":{"status":"online","args":["x"],"version":5,"pm_uptime":"12"}},
        {"pid":8,"name":"bad\u0007name","pm_id":1,"pm2_env":{}},
        {"pid":9,"pm_id":2,"name":"no env"},
        {"name":"strings","pm_id":"3","pid":null,"pm2_env":{"status":null,"restart_time":"4","axm_monitor":{}}}
    ]]}"#;
    let (list, odd) = list(json).unwrap();
    assert_eq!(odd, 2);
    assert_eq!((list[0].started_at, &*list[0].version), (Some(Time::from_millis(12)), ""));
    assert_eq!((list[1].pm_id, list[1].pid, list[1].restart_time), (3, None, 4));
    assert!(super::list(b"{}").is_err() && super::list(b"[]").is_err());
}

#[test]
fn a_placeholder_is_known_by_program_and_argument() {
    let with = |path: &str, args: &str| {
        let json = format!(
            r#"{{"args":[[{{"name":"slot-a","pm_id":0,"pm2_env":{{"pm_exec_path":"{path}","args":{args}}}}}]]}}"#
        );
        list(json.as_bytes()).unwrap().0[0].is_placeholder
    };
    assert!(with("/usr/bin/pm2-exporter", r#"["placeholder"]"#));
    assert!(with("/usr/bin/pm2-exporter", r#""placeholder""#));
    assert!(!with("/usr/bin/pm2-exporter", r#"["serve"]"#));
    assert!(!with("/srv/app.js", r#"["placeholder"]"#));
}

#[test]
fn real_bus_messages_are_read() {
    let events: Vec<_> = bus("s:process:event")
        .into_iter()
        .map(|json| process_event(json).unwrap().unwrap())
        .map(|event| (event.event.to_string(), event.manually, event.process.pm_id, event.outgoing))
        .collect();
    let outgoing: Vec<_> = events.iter().filter(|event| event.3).collect();
    assert_eq!(outgoing.len(), 2, "{events:?}");
    assert!(outgoing.iter().all(|event| event.0 == "exit" && event.2 == 1));
    let exception = exception(bus("s:process:exception")[0]).unwrap().unwrap();
    assert_eq!(exception.pm_id, 2);
    assert!(exception.stack.contains("crash.js") && !exception.stack.contains("setTimeout(("));
    let lines: Vec<_> = bus("s:log:PM2").into_iter().filter_map(daemon_line).collect();
    let killed = DaemonLine::Exited { pm_id: 0, code: 0, signal: "SIGKILL".into() };
    assert!(lines.contains(&killed), "{lines:?}");
    assert!(lines.contains(&DaemonLine::MayChange), "{lines:?}");
}

#[test]
fn names_with_brackets_do_not_confuse_the_exit_line() {
    let line = |data: &str| daemon_line(serde_json::json!({ "data": data }).to_string().as_bytes());
    let told = line(
        "App [a] exited with code [9] via signal [X:7] exited with code [3] via signal [SIGTERM]",
    );
    // The whole of what looks like an earlier exit is the app's name.
    let expected = Some(DaemonLine::Exited { pm_id: 7, code: 3, signal: "SIGTERM".into() });
    assert_eq!(told, expected);
    let told = line("App [we[i]rd:x:7] exited with code [3] via signal [SIGTERM]\n");
    assert_eq!(told, expected);
}

#[test]
fn memory_limits_are_told_by_the_daemons_line() {
    let data = "[PM2][WORKER] Process 4 restarted because it exceeds --max-memory-restart value \
                (current_memory=50 max_memory_limit=40 [octets])";
    let line = serde_json::json!({ "data": data }).to_string();
    assert_eq!(daemon_line(line.as_bytes()), Some(DaemonLine::OverMemory { pm_id: 4 }));
}

#[test]
fn logged_bytes_are_counted_from_the_ends_of_a_message() {
    for (topic, json) in [("fork", bus("s:log:out")[0]), ("cluster", bus("s:log:out")[1])] {
        let body = [b"j:", json].concat();
        let (head, rest) = body.split_at(body.len().min(crate::pm2::frame::PEEK));
        // `hello from 12314` and a line break.
        assert_eq!(logged(head, rest, body.len()).map(|(_, bytes)| bytes), Some(17), "{topic}");
    }
    let long = serde_json::json!({"process": {"pm_id": 12}, "at": 1, "data": "x".repeat(5000)});
    let body = format!("j:{{\"process\":{},\"at\":1,\"data\":{}}}", long["process"], long["data"]);
    let (head, tail) = (&body.as_bytes()[..320], &body.as_bytes()[body.len() - 320..]);
    assert_eq!(logged(head, tail, body.len()), Some((12, 5000)));
    assert_eq!(logged(b"j:{}", b"", 4), None);
    assert_eq!(logged(b"\"data\":\"\"process\":{\"pm_id\":5", b"", 9), None);
}
