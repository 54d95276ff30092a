use serde_json::json;

use crate::stage::{PACKAGE, Repo, Stage, server};

#[tokio::test]
async fn hostile_requests_have_no_effect() {
    let stage = Stage::new().await;
    let trap = stage.pm2.folder().join("trap");
    let touch = trap.display().to_string();
    let good = Repo::app("good");
    let file = |text: &str| json!({"repository": text});
    let with = |name: &str, value: &str| json!({"repository": good.url(), name: value});
    let mut refused = vec![
        json!({}),
        json!([]),
        json!({"repository": 5}),
        json!({"repository": good.url(), "unknown": 1}),
        json!({"repository": good.url(), "env": {"LD_PRELOAD": "/x"}}),
        json!({"repository": good.url(), "env": {"pm_exec_path": "/bin/sh"}}),
        json!({"repository": good.url(), "env": {"PORT": "1"}}),
        json!({"repository": good.url(), "env": {"A=B": "1"}}),
        json!({"repository": good.url(), "env": {"A": "x\0y"}}),
        with("timeout", "1d"),
        with("health_path", "x y"),
        with("health_path", "/\r\nHost: evil"),
        with("start", "node server.js; touch trap"),
        with("start", "node $(touch trap)"),
        with("build", "a && b"),
        with("install", "npm ci | sh"),
        with("subdir", ".."),
        with("subdir", "/etc"),
        with("subdir", "a/../../b"),
        with("branch", "--upload-pack=touch"),
        with("branch", "-u"),
        with("branch", "a:b"),
        with("branch", "+main"),
        with("branch", "a..b"),
        with("commit", "HEAD"),
        with("commit", "--help"),
    ];
    for url in [
        &format!("--upload-pack=touch {touch}"),
        &format!("ext::touch {touch}"),
        &format!("ext::sh -c touch% {touch}"),
        "-oProxyCommand=touch",
        "ssh://-oProxyCommand=touch/x",
        "ssh://git:secret@host/x",
        "git@-oProxyCommand=x:y",
        "http://127.0.0.1/x.git",
        "git://127.0.0.1/x.git",
        "ftp://127.0.0.1/x.git",
        "/etc",
        "../x",
        "fd::0",
        "https://",
        "https://host",
    ] {
        refused.push(file(url));
    }
    assert!(refused.len() > 30);
    for body in refused {
        let answer = stage.post("/api/slots/a/deploy?wait=20s", &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
    // Refused only once the repository is here.
    let script = format!("#!/bin/sh\ntouch {touch}\n");
    for (what, files) in [
        ("link", vec![("server.js", "-> /etc/passwd")]),
        ("link up", vec![("x", "-> ../../../state/a.json")]),
        ("link dir", vec![("public", "-> ..")]),
        ("dangling", vec![("x", "-> /nowhere/x")]),
        ("link chain", vec![("d/y", ""), ("in", "-> d"), ("x", "-> in/../../z")]),
        ("start out", vec![("package.json", r#"{"main":"../../../x.js"}"#)]),
    ] {
        let mut all = vec![("package.json", PACKAGE), ("server.js", "process.exit(1)")];
        all.retain(|(name, _)| !files.iter().any(|(other, _)| other == name));
        all.extend(files);
        let repo = Repo::new(&all);
        let failed = stage.fails("a", json!({"repository": repo.url()})).await;
        let error = failed["error"].as_str().unwrap();
        let told = ["leads out", "ended with code 1", "nothing", "not there"];
        assert!(told.iter().any(|word| error.contains(word)), "{what}: {error}");
    }
    let repo = Repo::new(&[
        ("package.json", PACKAGE),
        ("real/server.js", &server("x")),
        ("linked", "-> real"),
    ]);
    let failed = stage
        .fails(
            "a",
            json!({"repository": repo.url(), "subdir": "linked", "start": "node ../../../x"}),
        )
        .await;
    assert!(failed["error"].as_str().unwrap().contains("start"), "{failed:#}");
    // Hooks, filters and submodules of a repository do nothing here.
    let armed = Repo::new(&[
        ("package.json", PACKAGE),
        ("server.js", &server("armed")),
        (".gitattributes", "* filter=evil\n"),
        (".gitmodules", &format!("[submodule \"x\"]\n\tpath = x\n\turl = ext::touch {touch}\n")),
        ("hook", &script),
    ]);
    std::fs::write(armed.path().join(".git/hooks/post-checkout"), &script).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(armed.path().join(".git/hooks/post-checkout"), mode.clone()).unwrap();
    // Nor does what the user's own git would run. First what that does.
    let home = stage.pm2.folder().path().to_owned();
    let (hook, filter) = (home.join("hook-ran"), home.join("filter-ran"));
    std::fs::create_dir(home.join("hooks")).unwrap();
    let script = format!("#!/bin/sh\ntouch {}\n", hook.display());
    std::fs::write(home.join("hooks/post-checkout"), script).unwrap();
    std::fs::set_permissions(home.join("hooks/post-checkout"), mode).unwrap();
    let config = format!(
        "[core]\n\thooksPath = {}\n[filter \"evil\"]\n\tsmudge = touch {} && cat\n",
        home.join("hooks").display(),
        filter.display()
    );
    std::fs::write(home.join(".gitconfig"), config).unwrap();
    let cloned = std::process::Command::new("git")
        .args(["clone", "-q"])
        .args([armed.path(), &home.join("cloned")])
        .env("HOME", &home)
        .env_remove("XDG_CONFIG_HOME")
        .status();
    assert!(cloned.unwrap().success() && hook.exists() && filter.exists());
    std::fs::remove_file(&hook).unwrap();
    std::fs::remove_file(&filter).unwrap();
    stage.deployed("a", &armed).await;
    assert!(!trap.exists() && !hook.exists() && !filter.exists());
    for path in [
        "/api/slots/..%2fa",
        "/api/slots/a%00",
        "/api/slots/a/deployments/..%2f..%2fstate%2fa.json/log",
    ] {
        assert_eq!(stage.client.get(path).await.unwrap().status, 404, "{path}");
    }
}

#[tokio::test]
async fn only_listed_hosts_are_fetched_from() {
    let stage = Stage::with("allowed_hosts = [\"github.com\"]\n").await;
    let answer = stage
        .post("/api/slots/a/deploy", &json!({"repository": "https://user:canary@evil.example/x"}))
        .await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text.contains("evil.example") && !answer.text.contains("canary"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_password_in_an_address_is_nowhere_to_be_seen() {
    let stage = Stage::new().await;
    let address = "https://user:canary-password@127.0.0.1:9/x.git";
    let failed = stage.fails("a", json!({"repository": address})).await;
    assert_eq!(failed["repository"], "https://127.0.0.1:9/x.git");
    let id = failed["id"].as_str().unwrap();
    let mut shown = failed.to_string() + &stage.log();
    for path in [
        format!("/api/slots/a/deployments/{id}/log"),
        "/api/journal".to_owned(),
        format!("/api/commands/{id}"),
    ] {
        shown += &stage.client.get(&path).await.unwrap().text;
    }
    shown += &std::fs::read_to_string(stage.root().join("state/a.json")).unwrap();
    assert!(!shown.contains("canary"), "{shown}");
    // Nor in its other form.
    assert!(!shown.contains("dXNlcjpjYW5hcnk"), "{shown}");
}
