//! A real Chromium, driven over the W3C's WebDriver protocol: a few requests in JSON, for which
//! no crate is needed. Each has a profile of its own, and all its processes end with it.

mod axe;
mod window;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::port::Port;
use crate::process;
use crate::wait::{SOON, wait_blocking, wait_until};

pub use axe::Fault;

/// Longest that one request to the driver may take: a page that loads slowly, at most.
const REQUEST: Duration = Duration::from_secs(180);
/// The name that the protocol gives to the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window; killed on drop.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    mark: String,
    http: reqwest::Client,
    base: String,
    session: String,
    _profile: Folder,
    _port: Port,
}

impl Browser {
    /// A browser with an empty profile, at an empty page of 1280 by 900.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let (profile, port, mark) = (Folder::new()?, Port::free()?, process::new_mark());
        let scratch = profile.join("tmp");
        std::fs::create_dir(&scratch)?;
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", port.number()))
            .current_dir(profile.path())
            .env(process::MARK, &mark)
            // Nothing of the user's is read or written.
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.join("config"))
            .env("XDG_CACHE_HOME", profile.join("cache"))
            // It leaves directories behind when it is killed.
            .env("TMPDIR", scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(profile.join("log"))?)
            .spawn()
            .context("chromedriver is not installed: e2e/setup/debian chromium chromium-driver")?;
        service::tls::install();
        let http = reqwest::Client::builder().timeout(REQUEST).no_proxy().build()?;
        let base = format!("http://{}", port.address());
        // From here on its drop ends what was started.
        let mut browser = Self {
            driver,
            mark,
            http,
            base,
            session: String::new(),
            _profile: profile,
            _port: port,
        };
        wait_until("chromedriver is ready", SOON, async || {
            let status = browser.send(Method::GET, "/status", None).await.ok()?;
            status["ready"].as_bool()?.then_some(())
        })
        .await?;
        let folder = browser._profile.join("profile");
        let answer = browser
            .send(Method::POST, "/session", Some(capabilities(&folder)))
            .await
            .context("chromium does not start: e2e/setup/debian chromium")?;
        let id = answer["sessionId"].as_str().context("no session")?;
        browser.session = format!("/session/{id}");
        Ok(browser)
    }

    /// Goes to an address and waits until it is loaded.
    ///
    /// # Errors
    /// The browser does not go there.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("/url", json!({"url": url})).await.map(drop)
    }

    /// Signs in at a poller's login with a token, and waits for the page behind it.
    ///
    /// # Errors
    /// The login is not there, or does not let in.
    pub async fn sign_in(&self, base: &str, token: &str) -> anyhow::Result<()> {
        self.open(&format!("{base}/login")).await?;
        self.fill("input[name=token]", token).await?;
        self.click("#with-token button").await?;
        self.find("header form[action='/logout']").await.map(drop)
    }

    /// Signs out by the button that every page has, and waits for the login.
    ///
    /// # Errors
    /// Nobody is signed in.
    pub async fn sign_out(&self) -> anyhow::Result<()> {
        self.click("form[action='/logout'] button").await?;
        self.find("input[name=token]").await.map(drop)
    }

    /// The address of the page. A click is over before the page that it leads to is there: see
    /// [`Self::wait_for_address`].
    ///
    /// # Errors
    /// The browser does not say.
    pub async fn address(&self) -> anyhow::Result<String> {
        let url = self.get("/url").await?;
        Ok(url.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the address of the page has a text in it, and gives all of it.
    ///
    /// # Errors
    /// It does not get it in time.
    pub async fn wait_for_address(&self, part: &str) -> anyhow::Result<String> {
        let what = format!("the address has {part:?}");
        let found = wait_until(&what, SOON, async || {
            self.address().await.ok().filter(|address| address.contains(part))
        });
        self.explained(found.await).await
    }

    /// Waits for the first element that a CSS selector names, and gives its id.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn find(&self, css: &str) -> anyhow::Result<String> {
        let what = format!("the page has {css:?}");
        let found = wait_until(&what, SOON, async || self.ids(css).await.ok()?.into_iter().next());
        self.explained(found.await).await
    }

    /// How many elements a CSS selector names now.
    ///
    /// # Errors
    /// It is no selector.
    pub async fn count(&self, css: &str) -> anyhow::Result<usize> {
        Ok(self.ids(css).await?.len())
    }

    /// Clicks on the first element of a selector, once it can be clicked on.
    ///
    /// # Errors
    /// It cannot be in time: it is not there, hidden, or behind something else.
    pub async fn click(&self, css: &str) -> anyhow::Result<()> {
        self.try_on(css, "/click", json!({})).await
    }

    /// Moves the mouse onto the first element of a selector, scrolled to, this many CSS pixels before its
    /// right edge, and leaves it there: the browser tells a page again where it is whenever something
    /// moves under it.
    ///
    /// # Errors
    /// It is not there in time.
    pub async fn point(&self, css: &str, before_the_end: f64) -> anyhow::Result<()> {
        self.find(css).await?;
        let scroll = format!(
            "const it = document.querySelector({css:?}); it.scrollIntoView({{block: 'center'}}); \
             return it.getBoundingClientRect().width"
        );
        let width = self.run(&scroll).await?.as_f64().context("no width")?;
        // From its middle.
        let x = (width / 2.0 - before_the_end).floor();
        let what = format!("pointing at {css:?}");
        let pointed = wait_until(&what, SOON, async || {
            let id = self.ids(css).await.ok()?.into_iter().next()?;
            let to = json!({"type": "pointerMove", "origin": {ELEMENT: id}, "x": x, "y": 0});
            let mouse = json!({"type": "pointer", "id": "mouse", "actions": [to]});
            self.post("/actions", json!({"actions": [mouse]})).await.ok().map(drop)
        });
        self.explained(pointed.await).await
    }

    /// Types into the first field of a selector, after what is in it. `\u{E007}` is Enter.
    ///
    /// # Errors
    /// There is no field to type into in time.
    pub async fn type_into(&self, css: &str, text: &str) -> anyhow::Result<()> {
        self.try_on(css, "/value", json!({"text": text})).await
    }

    /// Types into the first field of a selector, in place of what is in it.
    ///
    /// # Errors
    /// There is no field to type into in time.
    pub async fn fill(&self, css: &str, text: &str) -> anyhow::Result<()> {
        self.try_on(css, "/clear", json!({})).await?;
        self.type_into(css, text).await
    }

    /// Presses a key wherever the focus is: `\u{E004}` is Tab.
    ///
    /// # Errors
    /// The browser does not take it.
    pub async fn press(&self, key: &str) -> anyhow::Result<()> {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.post("/actions", actions).await.map(drop)
    }

    /// The text of the first element of a selector, as people see it.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn text(&self, css: &str) -> anyhow::Result<String> {
        let what = format!("the text of {css:?}");
        let found = wait_until(&what, SOON, async || {
            let id = self.ids(css).await.ok()?.into_iter().next()?;
            let text = self.get(&format!("/element/{id}/text")).await.ok()?;
            Some(text.as_str()?.to_owned())
        });
        self.explained(found.await).await
    }

    /// Waits until the first element of a selector has a text in it, and gives all of its text.
    ///
    /// # Errors
    /// It does not get it in time; the error has what it had last.
    pub async fn wait_for_text(&self, css: &str, part: &str) -> anyhow::Result<String> {
        let what = format!("{css:?} says {part:?}");
        let found = wait_until(&what, SOON, async || {
            let id = self.ids(css).await.ok()?.into_iter().next()?;
            let text = self.get(&format!("/element/{id}/text")).await.ok()?;
            text.as_str().filter(|text| text.contains(part)).map(str::to_owned)
        });
        self.explained(found.await).await
    }

    /// Runs a script in the page, as the body of a function; gives what it returns. The page's
    /// content policy does not bind it.
    ///
    /// # Errors
    /// It throws.
    pub async fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// The same for a script that calls back: its last argument is a function to give the
    /// result to.
    ///
    /// # Errors
    /// It throws, or does not call back.
    pub async fn run_async(&self, script: &str) -> anyhow::Result<Value> {
        self.post("/execute/async", json!({"script": script, "args": []})).await
    }

    /// What pages wrote to the console since the last look, worse than a remark: errors of
    /// scripts, what the content policy blocked, what could not be loaded.
    ///
    /// # Errors
    /// The browser does not say.
    pub async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let log = self.post("/se/log", json!({"type": "browser"})).await?;
        let entries = log.as_array().context("no log")?;
        let bad = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        Ok(bad.filter_map(|entry| Some(entry["message"].as_str()?.to_owned())).collect())
    }

    async fn ids(&self, css: &str) -> anyhow::Result<Vec<String>> {
        let found = self.post("/elements", json!({"using": "css selector", "value": css})).await?;
        let found = found.as_array().context("no elements")?;
        Ok(found.iter().filter_map(|it| Some(it[ELEMENT].as_str()?.to_owned())).collect())
    }

    /// Does something to an element until it is done: a live page may put another in its place
    /// in between.
    async fn try_on(&self, css: &str, what: &str, body: Value) -> anyhow::Result<()> {
        let last = std::sync::Mutex::new(None);
        let whole = format!("{what} on {css:?}");
        let done = wait_until(&whole, SOON, async || {
            let id = self.ids(css).await.ok()?.into_iter().next()?;
            let done = self.post(&format!("/element/{id}{what}"), body.clone()).await;
            done.map_err(|error| last.lock().map(|mut last| *last = Some(error))).ok().map(drop)
        });
        let done = done.await.with_context(|| format!("last: {last:?}"));
        self.explained(done).await
    }

    /// With where the browser was and what it showed, where that went wrong.
    async fn explained<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let Err(error) = result else { return result };
        let address = self.address().await.unwrap_or_default();
        let text = self.run("return document.body.innerText").await.unwrap_or_default();
        let text: String = text.as_str().unwrap_or_default().chars().take(4000).collect();
        Err(error.context(format!("at {address}, which shows: {text}")))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, &format!("{}{path}", self.session), None).await
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.send(Method::POST, &format!("{}{path}", self.session), Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut answer: Value = request.send().await?.json().await?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            None => Ok(value),
            Some(error) => {
                let message = value["message"].as_str().unwrap_or_default();
                anyhow::bail!("{path}: {error}: {}", message.lines().next().unwrap_or_default())
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium's processes have the driver for an ancestor; some lose the mark when they
        // give themselves a title.
        let all = process::descendants(self.driver.id());
        for pid in &all {
            process::signal(*pid, rustix::process::Signal::KILL);
        }
        let _ = self.driver.kill();
        wait_blocking(SOON, || !matches!(self.driver.try_wait(), Ok(None)));
        process::end_all(|| {
            let marked = process::marked(&self.mark);
            all.iter().copied().filter(|pid| process::is_alive(*pid)).chain(marked).collect()
        });
    }
}

fn capabilities(profile: &Path) -> Value {
    let arguments = [
        "--headless",
        // Root may not have the sandbox; what is looked at is our own.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        "--hide-scrollbars",
        // A name that is not this machine's own, for what browsers hold against plain HTTP.
        "--host-resolver-rules=MAP *.example 127.0.0.1",
        "--window-size=1280,900",
    ];
    let arguments = arguments.map(str::to_owned).into_iter();
    let arguments: Vec<String> =
        arguments.chain([format!("--user-data-dir={}", profile.display())]).collect();
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": 120_000, "pageLoad": 120_000},
    }}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_browser_looks_types_and_leaves_nothing_behind() {
        let browser = Browser::start().await.unwrap();
        let page = "data:text/html,<title>t</title><input id=a><button onclick=\
                    \"b.textContent=a.value\">Go</button><p id=b>";
        browser.open(page).await.unwrap();
        browser.fill("#a", "hello").await.unwrap();
        browser.click("button").await.unwrap();
        browser.wait_for_text("#b", "hello").await.unwrap();
        // Without scripts the button does nothing, and the page is looked at all the same.
        browser.javascript(false).await.unwrap();
        browser.open(page).await.unwrap();
        browser.fill("#a", "hello").await.unwrap();
        browser.click("button").await.unwrap();
        assert_eq!(browser.text("#b").await.unwrap(), "");
        let pid = browser.driver.id();
        let all = process::descendants(pid);
        assert!(!all.is_empty());
        let (folder, mut left) = (browser._profile.path().to_owned(), Vec::new());
        for entry in std::fs::read_dir(folder.join("tmp")).unwrap() {
            left.push(entry.unwrap().file_name());
        }
        assert!(!left.is_empty(), "what it leaves in a directory for that is elsewhere");
        drop(browser);
        assert!(!folder.exists());
        assert!(!all.iter().chain([&pid]).any(|pid| process::is_alive(*pid)), "{all:?}");
    }
}
