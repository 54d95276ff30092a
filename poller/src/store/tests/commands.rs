use super::*;

pub(super) fn command(id: &str, key: Option<&str>) -> NewCommand {
    NewCommand {
        id: id.parse().unwrap(),
        server: server(),
        target: Target::App("api".parse::<AppName>().unwrap()),
        action: Action::Restart,
        pm2_home: None,
        status: CommandStatus::Running,
        requested_by: "ci".into(),
        token: Some(1),
        requested_from: "127.0.0.1".into(),
        requested_via: Some("token"),
        requested_at: at(0),
        refusal: None,
        idempotency_key: key.map(str::to_owned),
        summary: None,
        body_hash: None,
        follow_until: None,
        queued_until: None,
        body: None,
        part_of: None,
    }
}

#[tokio::test]
async fn commands_of_a_slot_are_those_on_it_and_on_its_process() {
    let (_folder, store) = fresh().await;
    let slot = |name: &str| Target::Slot(name.parse().unwrap());
    let app = |name: &str| Target::App(name.parse().unwrap());
    let targets = [slot("a"), app("slot-a"), slot("b"), app("a"), app("slot-b")];
    for (target, id) in targets.iter().zip(["1", "2", "3", "4", "5"]) {
        let new = NewCommand { target: target.clone(), ..command(id, None) };
        store.insert_command(new).await.unwrap();
    }
    let filter = CommandFilter {
        server: Some(server()),
        slot: Some(("a".parse().unwrap(), "slot-a".parse().unwrap())),
        limit: 10,
        ..CommandFilter::default()
    };
    let found = store.commands(&filter).await.unwrap();
    let found: Vec<_> = found.iter().map(|it| it.record.id.as_str()).collect();
    assert_eq!(found, ["2", "1"]);
    let other = CommandFilter { server: Some("vm2".parse().unwrap()), ..filter };
    assert_eq!(store.commands(&other).await.unwrap(), []);
}

/// What is on record of a command, ended in that way.
pub(super) async fn ended(store: &Store, id: &str, status: CommandStatus) -> Arc<StoredCommand> {
    let mut command = store.command(&id.parse().unwrap()).await.unwrap().unwrap();
    command.record.status = status;
    command.record.finished_at = Some(at(1));
    command.record.error = Some("words".to_owned());
    Arc::new(command)
}

#[tokio::test]
async fn a_command_is_on_record_once_and_closed_once() {
    let (_folder, store) = fresh().await;
    assert!(matches!(store.insert_command(command("a", Some("k"))).await, Ok(Inserted::New)));
    match store.insert_command(command("b", Some("k"))).await.unwrap() {
        Inserted::Before(Keyed::Command(before)) => assert_eq!(before.record.id.as_str(), "a"),
        other => panic!("the key was used before: {other:?}"),
    }
    assert!(matches!(store.insert_command(command("c", None)).await, Ok(Inserted::New)));
    assert_eq!(store.open_commands().await.unwrap().len(), 2);
    let id: CommandId = "a".parse().unwrap();
    for status in [CommandStatus::Succeeded, CommandStatus::Unknown] {
        store.finish_command(ended(&store, "a", status).await).await.unwrap();
    }
    let stored = store.command(&id).await.unwrap().unwrap();
    assert_eq!(stored.record.status, CommandStatus::Succeeded);
    assert_eq!(stored.record.error.as_deref(), Some("words"));
    let rows = store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap();
    let told: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(told, ["succeeded", "requested", "requested"]);
}
