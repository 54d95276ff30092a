//! Where applications come from, and that no shell is ever run to fetch one.

use serde_json::{Value, json};

use crate::git_server::GitServer;
use crate::stage::{QUICK, Repo, Stage, server};

#[tokio::test]
async fn an_application_comes_from_a_server_over_https() {
    let mut stage = Stage::new().await;
    let repo = Repo::app("over https");
    let commit = repo.commit(&[("more", "x")]);
    // A server gives the folder's name as the repository's.
    let name = repo.path().file_name().unwrap().to_string_lossy().into_owned();
    let certificate = stage.pm2.folder().join("git.pem");
    let git = GitServer::start(repo.path().parent().unwrap(), &certificate).await;
    let place = format!("127.0.0.1:{}/{name}/.git", git.port);
    let with_password = format!("https://user:canary-password@{place}");
    // Nobody vouches for the server.
    let failed = stage.fails("a", json!({"repository": with_password})).await;
    assert!(failed["last_lines"].to_string().contains("certificate"), "{failed:#}");
    stage.variable("GIT_SSL_CAINFO", &certificate.display().to_string());
    stage.kill();
    stage.serve().await;
    for (what, address) in [
        ("no password", format!("https://{place}")),
        ("a wrong one", format!("https://user:canary-wrong@{place}")),
        // Where it leads, the repository is.
        (
            "elsewhere",
            format!("https://user:canary-password@127.0.0.1:{}/moved/{name}/.git", git.port),
        ),
    ] {
        let failed = stage.fails("a", json!({"repository": address})).await;
        assert!(!failed.to_string().contains("canary"), "{what}: {failed:#}");
    }
    for body in [
        json!({"repository": with_password}),
        json!({"repository": with_password, "branch": "main"}),
        json!({"repository": with_password, "commit": commit}),
    ] {
        let done = stage.deploy("a", body).await;
        assert_eq!(done["status"], "healthy", "{done:#}");
        assert_eq!(done["commit"], commit);
        assert_eq!(done["repository"], format!("https://{place}"));
    }
    assert_eq!(stage.get("a", "/").await.unwrap(), "over https");
    let env: Value = serde_json::from_str(&stage.get("a", "/env").await.unwrap()).unwrap();
    assert!(!env.to_string().contains("canary-password"), "{env:#}");
    assert!(!stage.log().contains("canary-password"));
}

#[tokio::test]
async fn an_application_comes_over_ssh_and_ssh_asks_nothing() {
    let stage = Stage::new().await;
    let repo = Repo::app("over ssh");
    // Tells how it was called, and serves the repository as the other side would.
    let called = stage.pm2.folder().join("called");
    stage.program(
        "ssh",
        &format!(
            "#!/usr/bin/env node\nconst {{spawnSync}} = require('child_process');\n\
             require('fs').writeFileSync({:?}, JSON.stringify({{args: process.argv.slice(2), env: Object.keys(process.env)}}));\n\
             const line = process.argv[process.argv.length - 1];\n\
             const folder = line.match(/^git-upload-pack '(.*)'$/)[1];\n\
             const done = spawnSync('git', ['upload-pack', folder], {{stdio: 'inherit'}});\n\
             process.exit(done.status ?? 1);\n",
            called.display().to_string()
        ),
    );
    let path = repo.path().display();
    for address in
        [format!("ssh://git@example.test:2222{path}"), format!("git@example.test:{path}")]
    {
        let done = stage.deploy("a", json!({"repository": address, "branch": "main"})).await;
        assert_eq!(done["status"], "healthy", "{done:#}");
        let called: Value =
            serde_json::from_str(&std::fs::read_to_string(&called).unwrap()).unwrap();
        let args: Vec<&str> =
            called["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(args[0], "-oBatchMode=yes", "{args:?}");
        assert!(args.contains(&"git@example.test"), "{args:?}");
        assert!(!called["env"].to_string().contains("WORKSPACE"), "{called:#}");
    }
    assert_eq!(stage.get("a", "/").await.unwrap(), "over ssh");
}

/// What the exporter and everything below it ran, as strace saw it.
fn executed(trace: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines()
        .filter(|line| line.contains("execve("))
        // One that another process cut in on ends on a line of its own.
        .filter(|line| line.contains(" = 0") || line.contains("<unfinished"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn no_shell_is_run_for_a_deployment() {
    let mut stage = Stage::with(QUICK).await;
    stage.kill();
    let trace = stage.pm2.folder().join("trace");
    let certificate = stage.pm2.folder().join("git.pem");
    stage.variable("GIT_SSL_CAINFO", &certificate.display().to_string());
    let strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", "trace=execve", "-o"];
    stage.serve_under(&[&strace[..], &[trace.to_str().unwrap()]].concat()).await;
    // A lock file without packages, so that npm runs; scripts that are in a package npm gives to
    // a shell of its own, so there are none.
    let lock = r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{"":{"name":"x","version":"1.0.0"}}}"#;
    let package = r#"{"name":"x","version":"1.0.0","scripts":{"start":"MODE=x node server.js"}}"#;
    let repo = Repo::new(&[
        ("package.json", package),
        ("package-lock.json", lock),
        ("server.js", &server("plain")),
    ]);
    // Not from file://, for there git gives a shell the path, in quotation marks of its own.
    let git = GitServer::start(repo.path().parent().unwrap(), &certificate).await;
    let name = repo.path().file_name().unwrap().to_string_lossy().into_owned();
    let address = format!("https://user:canary-password@127.0.0.1:{}/{name}/.git", git.port);
    let body = json!({"repository": address, "branch": "main",
        "build": "node -e \"console.log('a;b | c && d')\" 'two words' a\\;b",
        "env": {"X": "$(touch x); `id`"}});
    let done = stage.deploy("a", body).await;
    assert_eq!(done["status"], "healthy", "{done:#}");
    for action in ["restart", "stop", "rollback"] {
        let answer = stage.post(&format!("/api/slots/a/{action}?wait=150s"), &json!({})).await;
        assert!(answer.text.contains("succeeded"), "{}", answer.text);
    }
    assert_eq!(stage.terminate(), Some(0));
    let all = executed(&trace);
    assert!(all.iter().any(|line| line.contains("\"fetch\"")), "{all:#?}");
    assert!(all.iter().any(|line| line.contains("\"ci\"")), "{all:#?}");
    assert!(all.iter().any(|line| line.contains("two words") && line.contains("a;b")), "{all:#?}");
    for line in &all {
        let program = line.split('"').nth(1).unwrap();
        let name = program.rsplit('/').next().unwrap();
        assert!(!["sh", "dash", "bash", "ash", "zsh", "busybox"].contains(&name), "{line}");
    }
}
