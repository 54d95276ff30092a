//! TLS between all three: the exporter, the poller, Prometheus.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::prometheus::Target;
use e2e::scene;
use e2e::{
    Client, FakePm2, Folder, Launch, Metrics, Program, Prometheus, SOON, Tls, pm2_process,
    wait_until,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// An authority and certificates made by `pm2-poller pki`.
struct Pki(Folder);

impl Pki {
    async fn new() -> Result<Self> {
        let this = Self(Folder::new()?);
        this.run(&["init"]).await?;
        Ok(this)
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let folder = self.0.path().display().to_string();
        let all = [&["pki"], arguments, &["--dir", &folder]].concat();
        let ended = Launch::poller()?.with(&all).run().await?;
        anyhow::ensure!(ended.code == Some(0), "{all:?}: {}", ended.stderr);
        Ok(ended.stdout)
    }

    async fn issue(&self, name: &str, san: &str) -> Result<()> {
        self.run(&["issue", name, "--san", san]).await.map(drop)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn tls(&self, own: Option<&str>) -> Tls {
        let own =
            own.map(|it| (self.file(&format!("{it}.pem")), self.file(&format!("{it}-key.pem"))));
        Tls { authority: self.file("ca.pem"), own, name: None }
    }

    /// Lines of a `[tls]` table.
    fn lines(&self, name: &str) -> String {
        format!(
            "cert_file = {:?}\nkey_file = {:?}\n",
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}-key.pem"))
        )
    }
}

async fn exporter(fake: &FakePm2, text: &str, tls: Tls) -> Result<Program> {
    Launch::exporter()?.pm2_home(fake.home()).configuration(text)?.over_tls(tls).start().await
}

/// A poller of one exporter, told `more` of how to know it, and what it says of the server once
/// that has one of some statuses.
async fn seen(url: &str, token: &str, more: &str, status: &str) -> Result<Value> {
    let launch = scene::poller_launch(&[], "")?;
    let folder = launch.folder().path().to_owned();
    std::fs::write(folder.join("token"), token)?;
    let mut text = std::fs::read_to_string(folder.join("configuration.toml"))?;
    text += &format!("[[servers]]\nid = \"vm1\"\nurl = {url:?}\ntoken_file = \"token\"\n{more}");
    std::fs::write(folder.join("configuration.toml"), text)?;
    let program = launch.variable("PM2_POLLER_ANONYMOUS_READ", "true").start().await?;
    wait_until(&format!("vm1 is {status}"), SOON, async || {
        let found: Value = program.client().json("/api/servers/vm1").await.ok()?;
        let polled = found["status"] == "online" || found["reason"].is_string();
        (polled && found["status"] == status).then_some(found)
    })
    .await
    .with_context(|| program.stderr())
}

fn fingerprint(path: &Path) -> Result<String> {
    let chain = service::tls::files::certificates(path).map_err(anyhow::Error::msg)?;
    // As openssl writes it.
    let bytes = Sha256::digest(&chain[0]);
    Ok(bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

#[tokio::test]
async fn the_poller_takes_an_exporter_for_the_right_one_by_authority_or_fingerprint() -> Result<()>
{
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let (pki, foreign) = (Pki::new().await?, Pki::new().await?);
    pki.issue("vm1", "127.0.0.1").await?;
    pki.issue("elsewhere", "vm1.example").await?;
    pki.issue("poller", "poller.example").await?;
    pki.issue("stranger", "stranger.example").await?;
    let (token, block) = scene::exporter_token("poller", &["read"])?;
    let asks = |name: &str, more: &str| format!("[tls]\n{}{more}\n{block}", pki.lines(name));
    let (authority, foreign) = (pki.file("ca.pem"), foreign.file("ca.pem"));

    let good = exporter(&fake, &asks("vm1", ""), pki.tls(None)).await?;
    let url = good.launch().base();
    let by = |line: String| format!("[servers.tls]\n{line}\n");
    let known = seen(&url, &token, &by(format!("ca_file = {authority:?}")), "online").await?;
    assert_eq!(known["processes"]["total"], 2);
    let print = fingerprint(&pki.file("vm1.pem"))?;
    seen(&url, &token, &by(format!("fingerprint = {print:?}")), "online").await?;
    for (wrong, reason) in [
        (format!("ca_file = {foreign:?}"), "invalid peer certificate"),
        (format!("ca_file = {authority:?}\nserver_name = \"vm2.example\""), "not valid for name"),
        (format!("fingerprint = \"{}\"", "00".repeat(32)), "fingerprint"),
    ] {
        let down = seen(&url, &token, &by(wrong), "offline").await?;
        let told = down["detail"].as_str().or(down["error"].as_str()).unwrap_or_default();
        assert!(down.to_string().contains(reason), "{reason}: {told} {down}");
    }

    // The other of http:// and https:// than is spoken there.
    let down = seen(&url.replace("https", "http"), &token, "", "offline").await?;
    assert!(down["error"].to_string().contains("is its address https://?"), "{down}");
    let plain = Launch::exporter()?.pm2_home(fake.home()).configuration(&block)?.start().await?;
    let wrong = plain.launch().base().replace("http", "https");
    let down = seen(&wrong, &token, &by(format!("ca_file = {authority:?}")), "offline").await?;
    assert!(down["error"].to_string().contains("is its address http://?"), "{down}");

    let named = exporter(&fake, &asks("elsewhere", ""), {
        // The test's own look at it would stumble over the name as well.
        let mut tls = pki.tls(None);
        tls.name = Some("vm1.example".to_owned());
        tls
    })
    .await?;
    let by_name = by(format!("ca_file = {authority:?}\nserver_name = \"vm1.example\""));
    seen(&named.launch().base(), &token, &by_name, "online").await?;

    let clients =
        format!("client_ca_file = {authority:?}\nclient_allowed_sans = [\"poller.example\"]");
    let mutual = exporter(&fake, &asks("vm1", &clients), pki.tls(Some("poller"))).await?;
    let url = mutual.launch().base();
    let by = |own: &str| {
        by(format!(
            "ca_file = {authority:?}\n{}",
            if own.is_empty() { String::new() } else { pki.lines(own) }
        ))
    };
    seen(&url, &token, &by("poller"), "online").await?;
    seen(&url, &token, &by("stranger"), "offline").await?;
    seen(&url, &token, &by(""), "offline").await?;
    Ok(())
}

#[tokio::test]
async fn each_exporter_of_a_host_has_its_own_certificates_end() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let pki = Pki::new().await?;
    pki.run(&["issue", "short", "--san", "127.0.0.1", "--days", "3"]).await?;
    pki.issue("long", "127.0.0.1").await?;
    let (token, block) = scene::exporter_token("poller", &["read"])?;
    let mut exporters = Vec::new();
    let mut servers = String::new();
    for name in ["short", "long"] {
        let text = format!("[tls]\n{}{block}", pki.lines(name));
        let exporter = exporter(&fake, &text, pki.tls(None)).await?;
        servers += &format!(
            "[[servers]]\nid = {name:?}\nurl = {:?}\ntoken_file = \"token\"\n",
            exporter.launch().base()
        );
        exporters.push(exporter);
    }
    let more =
        format!("anonymous_read = true\n[exporter_tls]\nca_file = {:?}\n", pki.file("ca.pem"));
    let launch = scene::poller_launch(&[], &more)?;
    std::fs::write(launch.folder().join("token"), token)?;
    let file = launch.folder().join("configuration.toml");
    std::fs::write(&file, std::fs::read_to_string(&file)? + &servers)?;
    let poller = launch.start().await?;
    let days = wait_until("both have shown theirs", SOON, async || {
        let page = Metrics::parse(&poller.client().get("/metrics").await.ok()?.text).ok()?;
        let end = |server| {
            let name = "pm2_server_certificate_expiry_timestamp_seconds";
            page.value(name, &[("server", server)]).ok()
        };
        let now = wire::Time::now().as_seconds();
        Some([end("short")?, end("long")?].map(|end| (end - now) / 86_400.0))
    })
    .await
    .with_context(|| poller.stderr())?;
    assert!((1.0..5.0).contains(&days[0]) && (360.0..370.0).contains(&days[1]), "{days:?}");
    Ok(())
}

#[tokio::test]
async fn prometheus_scrapes_with_its_own_settings_of_tls_and_a_user() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let pki = Pki::new().await?;
    pki.issue("vm1", "127.0.0.1").await?;
    let launch = Launch::exporter()?.pm2_home(fake.home());
    // The password is "rosebud", hashed with cost 4.
    let web = format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  min_version: TLS13\n\
         basic_auth_users:\n  prometheus: {}\n",
        pki.file("vm1.pem").display(),
        pki.file("vm1-key.pem").display(),
        bcrypt::hash("rosebud", 4)?
    );
    let file = launch.folder().write("web.yml", &web)?;
    let exporter = launch
        .argument("--web-config-file")
        .argument(file.display().to_string())
        .over_tls(pki.tls(None))
        .start()
        .await?;
    let target = |job: &str, password: &str| Target {
        more: vec![
            "scheme: https".to_owned(),
            format!("tls_config: {{ca_file: '{}'}}", pki.file("ca.pem").display()),
            format!("basic_auth: {{username: prometheus, password: {password}}}"),
        ],
        ..Target::new(job, exporter.launch().address())
    };
    let prometheus =
        Prometheus::start(&[target("right", "rosebud"), target("wrong", "bud")]).await?;
    prometheus.wait_for("up{job='right'} == 1", |found| found.len() == 1).await?;
    prometheus.wait_for("up{job='wrong'} == 0", |found| found.len() == 1).await?;
    let expiry = "pm2_exporter_certificate_expiry_timestamp_seconds{job='right'} - time()";
    let left = prometheus.wait_for(expiry, |found| found.len() == 1).await?;
    let days = left[0].value / 86_400.0;
    assert!((364.0..=367.0).contains(&days), "{days}");

    // Reading is what the user may; a token is needed for more; without either there is nothing.
    let client = exporter.client();
    client.get("/api/state").await?.problem(401, "unauthorized")?;
    let ask =
        |method, path: &str| client.request(method, path).basic_auth("prometheus", Some("rosebud"));
    assert_eq!(client.send(ask(reqwest::Method::GET, "/api/state")).await?.status, 200);
    let refused = client.send(ask(reqwest::Method::POST, "/api/processes/app-0/restart")).await?;
    refused.problem(403, "forbidden")?;
    let wrong =
        client.request(reqwest::Method::GET, "/metrics").basic_auth("prometheus", Some("x"));
    let wrong = client.send(wrong).await?;
    assert!(wrong.problem(401, "unauthorized")?.detail.contains("password"));
    let asked: Vec<_> = wrong.headers.get_all("www-authenticate").iter().collect();
    assert!(asked.iter().any(|it| it.as_bytes().starts_with(b"Basic")), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn the_pollers_page_is_served_over_tls_and_its_certificate_can_be_changed() -> Result<()> {
    let pki = Pki::new().await?;
    pki.issue("old", "127.0.0.1").await?;
    pki.issue("new", "127.0.0.2").await?;
    let launch =
        scene::poller_launch(&[], &format!("anonymous_read = true\n[tls]\n{}", pki.lines("old")))?;
    let poller = launch.over_tls(pki.tls(None)).start().await?;
    let base = poller.launch().base();
    assert_eq!(poller.client().get("/").await?.status, 200);
    let plain = Client::new(base.replace("https", "http"))?.get("/").await?;
    assert!(plain.status == 400 && plain.text.contains("https://"), "{}", plain.text);
    for part in ["", "-key"] {
        std::fs::copy(pki.file(&format!("new{part}.pem")), pki.file(&format!("old{part}.pem")))?;
    }
    // It is for another address now, which is how one sees that it is used.
    wait_until("the new certificate is served", SOON, async || {
        let fresh = Client::over_tls(&base, &pki.tls(None)).ok()?;
        fresh.get("/").await.is_err().then_some(())
    })
    .await?;
    let stopped = poller.stop(SOON).await?;
    assert_eq!(stopped.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_told_before_anything_is_bound() -> Result<()> {
    let pki = Pki::new().await?;
    pki.issue("vm1", "127.0.0.1").await?;
    let again = pki.issue("vm1", "127.0.0.1").await.err().context("made twice")?;
    assert!(again.to_string().contains("is there already"), "{again}");
    for name in ["../vm2", "ca", ""] {
        assert!(pki.issue(name, "127.0.0.1").await.is_err(), "{name:?}");
    }
    let text = format!(
        "[tls]\ncert_file = {:?}\nkey_file = \"nowhere.pem\"\n[exporter_tls]\nca_file = {:?}\n\
         fingerprint = \"12\"\n[[servers]]\nid = \"a\"\nurl = \"http://a\"\ntls = {{}}\n",
        pki.file("vm1.pem"),
        pki.file("vm1-key.pem"),
    );
    let ended = Launch::poller()?.configuration(&text)?.run().await?;
    assert_eq!(ended.code, Some(2));
    for part in [
        "tls.key_file",
        "nowhere.pem",
        "exporter_tls.ca_file",
        "no certificate",
        "exporter_tls.fingerprint",
        "servers[0].tls",
    ] {
        assert!(ended.stderr.contains(part), "{part} is not in\n{}", ended.stderr);
    }
    Ok(())
}
