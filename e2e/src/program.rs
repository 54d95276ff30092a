//! The two programs, started as people start them.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use crate::client::{Client, Tls};
use crate::contract;
use crate::folder::Folder;
use crate::port::Port;
use crate::process;
use crate::wait::{SOON, wait_blocking, wait_until};

/// A program about to be started; a clone starts it again in the same folder, on the same
/// port.
#[derive(Clone, Debug)]
pub struct Launch {
    name: &'static str,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    folder: Arc<Folder>,
    port: Arc<Port>,
    mark: String,
    log: Option<PathBuf>,
    user: Option<u32>,
    tls: Option<Tls>,
    around: Vec<String>,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Launch {
    /// `pm2-exporter serve`, on a port of its own.
    ///
    /// # Errors
    /// There is no port or folder for it.
    pub fn exporter() -> anyhow::Result<Self> {
        Self::new("pm2-exporter", Port::free()?)
    }

    /// `pm2-poller serve`, on a port of its own.
    ///
    /// # Errors
    /// There is no port or folder for it.
    pub fn poller() -> anyhow::Result<Self> {
        Self::new("pm2-poller", Port::free()?)
    }

    fn new(name: &'static str, port: Port) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            arguments: vec!["serve".to_owned()],
            variables: vec![(listen_variable(name), port.address())],
            folder: Arc::new(Folder::new()?),
            port: Arc::new(port),
            mark: process::new_mark(),
            log: None,
            user: None,
            tls: None,
            around: Vec::new(),
        })
    }

    /// On this port instead.
    #[must_use]
    pub fn on(self, port: Port) -> Self {
        let name = listen_variable(self.name);
        let mut this = self.without(&name).variable(&name, port.address());
        this.port = Arc::new(port);
        this
    }

    /// With what it writes in a file instead of in memory, for a long life.
    #[must_use]
    pub fn log_to(self, path: PathBuf) -> Self {
        Self { log: Some(path), ..self }
    }

    /// With this value of [`process::MARK`].
    #[must_use]
    pub fn marked(self, mark: &str) -> Self {
        Self { mark: mark.to_owned(), ..self }
    }

    /// Other arguments than `serve`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// One more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Without this environment variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(key, _)| key != name);
        self
    }

    /// Looks at this PM2_HOME.
    #[must_use]
    pub fn pm2_home(self, home: &Path) -> Self {
        self.variable("PM2_HOME", home.display().to_string())
    }

    /// With a configuration file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configuration(self, text: &str) -> anyhow::Result<Self> {
        let path = self.folder.write("configuration.toml", text)?;
        Ok(self.argument("--config").argument(path.display().to_string()))
    }

    /// As the user `nobody`, which only root can do: `None` for others.
    ///
    /// # Errors
    /// Its folder cannot be given to that user.
    pub fn as_nobody(self) -> anyhow::Result<Option<Self>> {
        const NOBODY: u32 = 65534;
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        std::os::unix::fs::chown(self.folder.path(), Some(NOBODY), Some(NOBODY))?;
        Ok(Some(Self { user: Some(NOBODY), ..self }))
    }

    /// Started by another program, which gets it and its arguments as its last ones.
    #[must_use]
    pub fn within(self, around: &[&str]) -> Self {
        Self { around: around.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// It serves TLS, and is asked so.
    #[must_use]
    pub fn over_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The folder it runs in, which is its home as well.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The address it will listen on.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// `http://…`, or `https://…` where it serves TLS.
    pub fn base(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    fn spawn(&self) -> anyhow::Result<Running> {
        let path = binary(self.name)?;
        let mut command = match self.around.split_first() {
            None => Command::new(&path),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&path);
                command
            }
        };
        command
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("RUST_BACKTRACE", "1")
            .env(process::MARK, &self.mark)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            // Ctrl-C is for the harness alone, which then ends its children in order.
            .process_group(0)
            .stdin(Stdio::null());
        match &self.log {
            None => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            Some(path) => {
                let log = File::options().create(true).append(true).open(path)?;
                command.stdout(log.try_clone()?).stderr(log)
            }
        };
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().with_context(|| path.display().to_string())?;
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        Ok(Running { child, stdout, stderr })
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer within 20 s; the error has what it wrote.
    pub async fn start(self) -> anyhow::Result<Program> {
        let client = match &self.tls {
            None => Client::new(self.base())?,
            Some(tls) => Client::over_tls(self.base(), tls)?,
        }
        .held_to(contract::of(self.name));
        let program = Program { running: Mutex::new(self.spawn()?), launch: self, client };
        let answers = wait_until("the program answers", SOON, async || {
            (program.has_ended() || program.client.is_healthy().await).then_some(())
        });
        let answered = answers.await;
        if answered.is_err() || program.has_ended() {
            let what = if answered.is_err() { "does not answer" } else { "ended at once" };
            anyhow::bail!("{} {what}: {}", program.launch.name, program.stderr());
        }
        Ok(program)
    }

    /// Runs it to its end, which must come by itself.
    ///
    /// # Errors
    /// It cannot be started, or runs on for 20 s.
    pub async fn run(self) -> anyhow::Result<Ended> {
        let mut running = self.spawn()?;
        let status = running.wait(SOON).await.with_context(|| self.name)?;
        Ok(Ended {
            code: status.code(),
            stdout: running.stdout.finish(),
            stderr: running.stderr.finish(),
        })
    }
}

/// A program that runs; it is killed on drop.
#[derive(Debug)]
pub struct Program {
    running: Mutex<Running>,
    launch: Launch,
    client: Client,
}

impl Program {
    /// Asks it, without a token.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How it was started, to start it again.
    pub fn launch(&self) -> Launch {
        self.launch.clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.lock().child.id()
    }

    /// Everything that it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        match &self.launch.log {
            None => self.lock().stderr.text(),
            Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
        }
    }

    /// Everything that it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.lock().stdout.text()
    }

    /// Whether it ended by itself.
    pub fn has_ended(&self) -> bool {
        !matches!(self.lock().child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// It did not end within `deadline`.
    pub async fn stop(self, deadline: Duration) -> anyhow::Result<Ended> {
        self.signal(Signal::TERM);
        wait_until("the program ends after SIGTERM", deadline, async || {
            self.has_ended().then_some(())
        })
        .await
        .with_context(|| self.stderr())?;
        let mut running = self.lock();
        let status = running.child.wait()?;
        let (stdout, stderr) = (running.stdout.finish(), running.stderr.finish());
        Ok(Ended { code: status.code(), stdout, stderr })
    }

    /// SIGKILL, as a machine that loses power would.
    pub fn kill(self) {}

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                anyhow::bail!("does not end within {deadline:?}: {}", self.stderr.text());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait_blocking(SOON, || !matches!(self.child.try_wait(), Ok(None)));
    }
}

/// What a program writes, as it comes.
#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = stream.map(|mut stream| {
            std::thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
                    text.extend_from_slice(&buffer[..read]);
                }
            })
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All of it, once the program has ended.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// The environment variable for the address to listen on.
fn listen_variable(program: &str) -> String {
    format!("{}_LISTEN", program.to_ascii_uppercase().replace('-', "_"))
}

/// Where the programs are: `PM2_FLEET_BIN`, or beside the test that runs.
///
/// # Errors
/// It is not there; the error says how to build it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("PM2_FLEET_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            let folder = own.parent().context("a program without a folder")?;
            // Tests stand in `deps`, one below the programs.
            if folder.ends_with("deps") { folder.join("..") } else { folder.to_owned() }
        }
    };
    let path = folder.join(name);
    std::path::absolute(&path)
        .ok()
        .filter(|path| path.is_file())
        .with_context(|| format!("{} is not built: cargo build --workspace --bins", path.display()))
}
