//! `/sd/prometheus`: the exporters, in the form that Prometheus' `http_sd_configs` asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use reqwest::Url;
use serde::Serialize;

use crate::app::App;
use crate::http::Reader;

#[derive(Serialize)]
pub(crate) struct Group {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

pub(crate) async fn prometheus(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
) -> Json<Vec<Group>> {
    let groups = app.fleet.all().into_iter().filter_map(|member| {
        let target = member.target;
        if !caller.may_see(&target.id) {
            return None;
        }
        let url = Url::parse(&target.url).ok()?;
        let address = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        let path = format!("{}/metrics", url.path().trim_end_matches('/'));
        let mut labels = BTreeMap::from([
            ("__metrics_path__", path),
            ("__scheme__", url.scheme().to_owned()),
            ("server", target.id.to_string()),
        ]);
        if !target.group.is_empty() {
            labels.insert("group", target.group.clone());
        }
        if !target.tags.is_empty() {
            labels.insert("tags", format!(",{},", target.tags.join(",")));
        }
        Some(Group { targets: [address], labels })
    });
    Json(groups.collect())
}
