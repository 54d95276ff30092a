use std::io::Read;
use std::time::Duration;

use e2e::wait_until;

use crate::stage::{PACKAGE, Repo, Stage};

#[tokio::test]
async fn logs_are_rotated_without_losing_a_line() {
    let settings = "settle = \"0s\"\nlog_rotate_size = \"64KiB\"\nlog_rotate_keep = 50\n";
    let stage = Stage::with(settings).await;
    let text = "let n = 0; setInterval(() => { for (let i = 0; i < 20; i++) console.log('line ' + n++ + ' end') }, 5);\
                require('http').createServer((q, r) => r.end('x')).listen(process.env.PORT)";
    let repo = Repo::new(&[("package.json", PACKAGE), ("server.js", text)]);
    stage.deployed("a", &repo).await;
    let packed = || {
        let mut files: Vec<_> = std::fs::read_dir(stage.root().join("logs"))
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains("slot-a-out__"))
            .collect();
        files.sort();
        files
    };
    let log = stage.root().join("logs/slot-a-out.log");
    let all_are_packed = || {
        let all = packed();
        let done = all.iter().all(|path| path.extension().is_some_and(|end| end == "gz"));
        (done && all.len() >= 2).then_some(())
    };
    let wait = Duration::from_secs(30);
    wait_until("two logs are packed", wait, async || all_are_packed()).await.unwrap();
    stage.pm2.cli(&["stop", "slot-a"]).await.unwrap();
    // The last lines may be the ones that make it rotate once more; nobody makes a new file then.
    wait_until("nothing is left to be rotated", wait, async || {
        let small = !std::fs::metadata(&log).is_ok_and(|log| log.len() >= 64 << 10);
        small.then_some(()).and_then(|()| all_are_packed())
    })
    .await
    .unwrap();
    let mut text = String::new();
    for file in packed() {
        let file = std::fs::File::open(&file).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    }
    let last = std::fs::read_to_string(&log).unwrap_or_default();
    text.push_str(&last);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line")).collect();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {number} end"));
    }
    assert!(lines.len() > 5_000, "{}", lines.len());
}
