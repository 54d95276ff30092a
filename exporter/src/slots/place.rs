use wire::{AppName, SlotId};

/// A slot's name and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPlace {
    /// `a`
    pub slot: SlotId,
    /// `3001`
    pub port: u16,
}

impl SlotPlace {
    /// `a` to `e` on 3001 to 3005.
    pub fn defaults() -> Vec<Self> {
        ["a", "b", "c", "d", "e"]
            .into_iter()
            .zip(3001..)
            .filter_map(|(name, port)| Some(Self { slot: name.parse().ok()?, port }))
            .collect()
    }

    /// Name of the PM2 process that serves it.
    pub fn process(&self) -> Option<AppName> {
        format!("slot-{}", self.slot).parse().ok()
    }
}
