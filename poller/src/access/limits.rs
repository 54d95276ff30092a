use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::{Action, ServerId};

use crate::config::Target;
use crate::fleet::Fleet;

/// What a token or user is limited to, beside their role. Of servers, groups and tags, what any
/// of them names is theirs; where none of the three is given, every server is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// These servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<BTreeSet<ServerId>>,
    /// The servers of these groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
    /// The servers with one of these tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeSet<String>>,
    /// These actions, of those that the role allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<BTreeSet<Action>>,
}

impl Limits {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn names(&self, target: &Target) -> bool {
        let tagged = |tags: &BTreeSet<String>| target.tags.iter().any(|tag| tags.contains(tag));
        self.servers.as_ref().is_some_and(|servers| servers.contains(&target.id))
            || self.groups.as_ref().is_some_and(|groups| groups.contains(&target.group))
            || self.tags.as_ref().is_some_and(tagged)
    }

    /// The servers that they name now; `None` for all. Those that are gone stay: what is kept of
    /// them can still be asked for.
    pub(super) fn servers_of(&self, fleet: &Fleet) -> Option<Arc<BTreeSet<ServerId>>> {
        if self.servers.is_none() && self.groups.is_none() && self.tags.is_none() {
            return None;
        }
        let mut all = self.servers.clone().unwrap_or_default();
        if self.groups.is_some() || self.tags.is_some() {
            all.extend(fleet.ids_where(|target| self.names(target)));
        }
        Some(Arc::new(all))
    }

    /// In words, for people and the audit.
    pub fn words(&self) -> String {
        fn list<T: ToString>(what: &str, items: &Option<BTreeSet<T>>) -> Option<String> {
            let items: Vec<String> = items.as_ref()?.iter().map(T::to_string).collect();
            Some(format!(
                "{what} {}",
                if items.is_empty() { "-".to_owned() } else { items.join(",") }
            ))
        }
        let parts = [
            list("servers", &self.servers),
            list("groups", &self.groups),
            list("tags", &self.tags),
            list("actions", &self.actions),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "all servers".to_owned() } else { parts.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{About, Origin};

    #[test]
    fn what_any_of_them_names_is_theirs() {
        let fleet = Fleet::default();
        for (id, group, tags) in [("a", "eu", &["web"][..]), ("b", "us", &["db"]), ("c", "us", &[])]
        {
            let target = Target {
                id: id.parse().unwrap(),
                url: "http://a".into(),
                group: group.into(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                credential: Ok(None),
                tls: None,
            };
            let about = About { origin: Origin::Database, also: Vec::new(), note: String::new() };
            fleet.put(Arc::new(target), Arc::new(about), Default::default);
        }
        let seen = |json: &str| -> Option<Vec<String>> {
            let limits: Limits = serde_json::from_str(json).unwrap();
            Some(limits.servers_of(&fleet)?.iter().map(ToString::to_string).collect())
        };
        assert_eq!(seen("{}"), None);
        assert_eq!(seen(r#"{"actions":["restart"]}"#), None);
        assert_eq!(seen(r#"{"servers":[]}"#), Some(vec![]));
        assert_eq!(seen(r#"{"groups":["us"]}"#), Some(vec!["b".into(), "c".into()]));
        assert_eq!(seen(r#"{"groups":["eu"],"tags":["db"]}"#), Some(vec!["a".into(), "b".into()]));
        assert_eq!(seen(r#"{"servers":["gone"],"tags":["x"]}"#), Some(vec!["gone".into()]));
        assert!(serde_json::from_str::<Limits>(r#"{"actions":["explode"]}"#).is_err());
        assert!(serde_json::from_str::<Limits>(r#"{"server":["a"]}"#).is_err());
    }
}
