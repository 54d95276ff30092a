//! How large, and for how long.

use std::time::Duration;

use anyhow::Context;

/// From the environment.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// For how long each size is measured: `BENCH_FLEET_SECONDS` (20).
    pub(super) window: Duration,
    /// Sizes for the table of growth: `BENCH_FLEET_SIZES` (10,100,1000,10000,15000).
    pub(super) sizes: Vec<u32>,
}

impl Settings {
    pub(super) fn from_environment() -> anyhow::Result<Self> {
        let text = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let seconds = text("BENCH_FLEET_SECONDS", "20");
        let seconds: u64 = seconds.parse().context("BENCH_FLEET_SECONDS is no number")?;
        let sizes = text("BENCH_FLEET_SIZES", "10,100,1000,10000,15000");
        let sizes = sizes.split(',').map(|size| size.trim().parse()).collect::<Result<_, _>>();
        Ok(Self {
            window: Duration::from_secs(seconds.clamp(10, 3600)),
            sizes: sizes.context("BENCH_FLEET_SIZES are no numbers")?,
        })
    }
}
