//! The whole main job: a PM2 with the six default processes, the exporter beside it, and a
//! poller that watches it. `make run` is this and a Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::client::Client;
use crate::folder::SOCKET_PATH_MAX;
use crate::pm2::Pm2;
use crate::port::Port;
use crate::program::{self, Launch, Program};
use crate::{Folder, process};

/// The one server that the poller knows.
pub const SERVER: &str = "vm1-prod";
/// The slots, on 3001 to 3005 where these ports are free.
const SLOTS: [(&str, u16); 5] = [("a", 3001), ("b", 3002), ("c", 3003), ("d", 3004), ("e", 3005)];
/// What ends by itself within this time needs no killing.
const GRACE: Duration = Duration::from_secs(6);

/// All of it, running. Drop kills; [`Fleet::stop`] asks first.
#[derive(Debug)]
pub struct Fleet {
    // In the order in which they end.
    poller: Program,
    exporter: Program,
    pm2: Pm2,
    daemon: u32,
    /// For the exporter: `read` and `control`.
    pub exporter_token: String,
    /// For the poller: `admin`.
    pub admin_token: String,
    _reserved: Vec<Port>,
    _home: Option<Folder>,
}

impl Fleet {
    /// Starts all of it, with its files in `folder` and `mark` on its processes.
    ///
    /// # Errors
    /// Something does not start; what had started is ended again.
    pub async fn start(folder: &Path, mark: &str) -> anyhow::Result<Self> {
        let ports = SLOTS
            .iter()
            .map(|(_, port)| Port::preferably(*port))
            .collect::<anyhow::Result<Vec<Port>>>()?;
        let admin = Port::preferably(9000)?;
        let exporter = Launch::exporter()?
            .on(Port::preferably(10209)?)
            .log_to(folder.join("exporter.log"))
            .marked(mark);
        let poller = Launch::poller()?
            .on(Port::preferably(10210)?)
            .log_to(folder.join("poller.log"))
            .marked(mark);

        // The default home's path can be too long for a socket.
        let mut home = folder.join("pm2");
        let mut short = None;
        if home.join("rpc.sock").as_os_str().len() > SOCKET_PATH_MAX {
            home = short.insert(Folder::new()?).join("pm2");
        }

        let (exporter_token, for_poller) = new_exporter_token("poller").await?;
        let (admin_exporter_token, for_admin) = new_exporter_token("admin-server").await?;
        let path = folder.join("exporter.toml");
        std::fs::write(
            &path,
            exporter_configuration(&home, folder, &exporter.address(), &ports)
                + &for_poller
                + &for_admin,
        )?;
        let exporter = exporter.argument("--config").argument(text(&path));

        let url = exporter.base();
        let admin_path = folder.join("admin.toml");
        write_secret(&folder.join("vm1.token"), &exporter_token)?;
        write_secret(&folder.join("admin.token"), &admin_exporter_token)?;
        std::fs::write(
            folder.join("poller.toml"),
            poller_configuration(&poller.address(), "poller.db", &url, "vm1.token"),
        )?;
        std::fs::write(
            &admin_path,
            poller_configuration(&admin.address(), "admin.db", &url, "admin.token"),
        )?;

        let pm2 = Pm2::start_at(&home, mark).await?;
        pm2.start_apps(default_processes(&ports, &admin, &admin_path)?).await?;
        let daemon = pm2.daemon()?;
        let exporter = exporter.start().await?;
        let path = text(&folder.join("poller.toml"));
        let admin_token = new_poller_token(&path, "admin", "admin").await?;
        let poller = poller.argument("--config").argument(path).start().await?;
        let mut reserved = ports;
        reserved.push(admin);
        Ok(Self {
            poller,
            exporter,
            pm2,
            daemon,
            exporter_token,
            admin_token,
            _reserved: reserved,
            _home: short,
        })
    }

    /// The PM2.
    pub fn pm2(&self) -> &Pm2 {
        &self.pm2
    }

    /// The exporter, asked with its token.
    pub fn exporter(&self) -> Client {
        self.exporter.client().with_token(&self.exporter_token)
    }

    /// The poller, asked as admin.
    pub fn poller(&self) -> Client {
        self.poller.client().with_token(&self.admin_token)
    }

    /// What of it has ended by itself, if anything.
    pub fn ended(&self) -> Option<String> {
        for (name, program) in [("pm2-poller", &self.poller), ("pm2-exporter", &self.exporter)] {
            if program.has_ended() {
                return Some(format!("{name} has ended: {}", program.stderr()));
            }
        }
        (!process::is_alive(self.daemon)).then(|| "the PM2 daemon has ended".to_owned())
    }

    /// Ends all of it, politely first.
    ///
    /// # Errors
    /// Something would not die.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { poller, exporter, pm2, .. } = self;
        // One that does not end in time is killed as it is dropped.
        let _ = poller.stop(GRACE).await;
        let _ = exporter.stop(GRACE).await;
        pm2.stop().await
    }
}

/// The six processes of a workspace, as an ecosystem file has them.
fn default_processes(
    ports: &[Port],
    admin: &Port,
    admin_configuration: &Path,
) -> anyhow::Result<Vec<Value>> {
    let (exporter, poller) = (program::binary("pm2-exporter")?, program::binary("pm2-poller")?);
    let mut apps = vec![json!({
        "name": "admin-server",
        "script": text(&poller),
        "interpreter": "none",
        "args": ["serve", "--config", text(admin_configuration)],
        "env": {"PORT": admin.number().to_string()},
    })];
    for ((slot, _), port) in SLOTS.iter().zip(ports) {
        apps.push(json!({
            "name": format!("slot-{slot}"),
            "script": text(&exporter),
            "interpreter": "none",
            "args": ["placeholder"],
            "env": {
                "PORT": port.number().to_string(),
                "SLOT_NAME": slot,
                "ADMIN_URL": format!("http://{}/", admin.address()),
            },
        }));
    }
    Ok(apps)
}

fn exporter_configuration(home: &Path, folder: &Path, listen: &str, ports: &[Port]) -> String {
    let mut toml = format!(
        "listen = {listen:?}\npm2_homes = [{:?}]\nstate_dir = {:?}\nanonymous_read = true\n\n\
         [slots]\nroot = {:?}\n",
        text(home),
        text(&folder.join("exporter-state")),
        text(&folder.join("slots")),
    );
    for ((slot, _), port) in SLOTS.iter().zip(ports) {
        toml += &format!("[[slots.slot]]\nname = {slot:?}\nport = {}\n", port.number());
    }
    toml + "\n"
}

fn poller_configuration(listen: &str, database: &str, url: &str, token_file: &str) -> String {
    format!(
        "listen = {listen:?}\ndatabase = {database:?}\nanonymous_read = true\n\n[[servers]]\n\
         id = {SERVER:?}\nurl = {url:?}\ntoken_file = {token_file:?}\ngroup = \"local\"\n\
         tags = [\"prod\"]\n"
    )
}

/// A token as `pm2-exporter token create` makes it, and the block for its configuration.
///
/// # Errors
/// The program does not do so.
pub async fn new_exporter_token(name: &str) -> anyhow::Result<(String, String)> {
    let arguments = ["token", "create", "--name", name, "--scope", "read", "--scope", "control"];
    let ended = Launch::exporter()?.with(&arguments).run().await?;
    anyhow::ensure!(ended.code == Some(0), "pm2-exporter {arguments:?}: {}", ended.stderr);
    let token = last_line(&ended.stdout)?;
    let block: Vec<&str> = ended
        .stdout
        .lines()
        .skip_while(|line| line.trim() != "[[tokens]]")
        .take_while(|line| line.trim() == "[[tokens]]" || line.contains('='))
        .collect();
    anyhow::ensure!(!block.is_empty(), "no [[tokens]] block: {}", ended.stdout);
    Ok((token, block.join("\n") + "\n"))
}

/// A token as `pm2-poller token create` makes it, in the database of a configuration.
///
/// # Errors
/// The program does not do so.
pub async fn new_poller_token(
    configuration: &str,
    name: &str,
    role: &str,
) -> anyhow::Result<String> {
    let arguments = ["token", "create", "--config", configuration, "--name", name, "--role", role];
    let ended = Launch::poller()?.with(&arguments).run().await?;
    anyhow::ensure!(ended.code == Some(0), "pm2-poller {arguments:?}: {}", ended.stderr);
    last_line(&ended.stdout)
}

fn last_line(stdout: &str) -> anyhow::Result<String> {
    let line = stdout.lines().last().context("nothing on stdout")?;
    anyhow::ensure!(
        line.len() > 20 && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
        "the last line is no token: {line:?}"
    );
    Ok(line.to_owned())
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// It cannot be written.
pub fn write_secret(path: &PathBuf, secret: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")?;
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
