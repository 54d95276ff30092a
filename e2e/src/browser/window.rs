//! What only Chromium's own protocol does: the window's size and look, pictures of it.

use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Browser;

impl Browser {
    /// Makes the page this large, in CSS pixels.
    ///
    /// # Errors
    /// The browser does not do so.
    pub async fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        let mobile = width < 700;
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await
    }

    /// As for people who asked their system for dark, or for light.
    ///
    /// # Errors
    /// The browser does not do so.
    pub async fn dark(&self, dark: bool) -> anyhow::Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", features).await
    }

    /// Whether pages loaded from now on may run scripts.
    ///
    /// # Errors
    /// The browser does not do so.
    pub async fn javascript(&self, on: bool) -> anyhow::Result<()> {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({"value": !on})).await
    }

    /// A picture of the window, or of the whole page, as PNG.
    ///
    /// # Errors
    /// It cannot be taken or written.
    pub async fn picture(&self, path: &Path, whole: bool) -> anyhow::Result<()> {
        let options = json!({"format": "png", "captureBeyondViewport": whole});
        let command = json!({"cmd": "Page.captureScreenshot", "params": options});
        let mut answer = self.post("/goog/cdp/execute", command).await?;
        let text = answer["data"].take();
        let png = STANDARD.decode(text.as_str().context("no picture")?).context("no base64")?;
        std::fs::write(path, png).with_context(|| path.display().to_string())
    }

    /// A method of Chromium's own protocol.
    async fn devtools(&self, method: &str, params: Value) -> anyhow::Result<()> {
        let command = json!({"cmd": method, "params": params});
        self.post("/goog/cdp/execute", command).await.map(drop)
    }
}
