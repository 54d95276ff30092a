//! What is wrong with a page for those who do not see or point as most do.

use anyhow::Context;
use serde_json::Value;

use super::Browser;
use crate::setup;

/// What axe-core has against a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its rule: `color-contrast`.
    pub rule: String,
    /// `minor`, `moderate`, `serious` or `critical`.
    pub impact: String,
    /// What the rule asks for, and where the page does not do so.
    pub what: String,
}

impl Browser {
    /// What axe-core has against the page, by all its rules for WCAG 2.2 A and AA and its best
    /// practices.
    ///
    /// # Errors
    /// It is not installed, or cannot run.
    pub async fn faults(&self) -> anyhow::Result<Vec<Fault>> {
        let path = setup::here().join("npm/node_modules/axe-core/axe.min.js");
        let source = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: run e2e/setup/node", path.display()))?;
        self.run(&source).await?;
        let script = "const done = arguments[arguments.length - 1]; \
             axe.run(document, {resultTypes: ['violations']}) \
                .then((it) => done(it.violations), (error) => done(String(error)));";
        let found = self.run_async(script).await?;
        let found = found.as_array().with_context(|| format!("axe: {found}"))?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(found
            .iter()
            .map(|fault| {
                let places = fault["nodes"].as_array().into_iter().flatten().take(3);
                let places: Vec<String> = places.map(|node| word(&node["html"])).collect();
                Fault {
                    rule: word(&fault["id"]),
                    impact: word(&fault["impact"]),
                    what: format!("{}: {}", word(&fault["help"]), places.join(" | ")),
                }
            })
            .collect())
    }
}
