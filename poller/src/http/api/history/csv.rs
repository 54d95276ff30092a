//! History as CSV (RFC 4180): a line a point. Names come from applications, so that a spreadsheet
//! must not take them for formulas.

use std::fmt::Write;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use wire::ServerId;

use crate::http::csv::field;
use crate::store::Series;

const HEAD: &str = "time,server,app,namespace,instance_id,pm2_home,metric,unit,min,mean,max\r\n";

pub(super) fn response(server: &ServerId, app: &str, series: &[Series]) -> Response {
    let file: String = format!("{server}-{app}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{file}.csv\"")),
    ];
    (headers, table(server, app, series)).into_response()
}

fn table(server: &ServerId, app: &str, series: &[Series]) -> String {
    let mut out = HEAD.to_owned();
    for one in series {
        let instance = one.instance.as_ref();
        let namespace = instance.map_or("", |instance| &instance.namespace);
        let number = instance.map(|it| it.instance_id.to_string()).unwrap_or_default();
        let home = instance.and_then(|it| it.pm2_home.as_deref()).unwrap_or_default();
        let [server, app, namespace, home, metric, unit] =
            [server.as_str(), app, namespace, home, &one.metric, &one.unit].map(field);
        for point in &one.points {
            let (time, min, mean, max) = (point.time, point.min, point.mean, point.max);
            // Writing to a text does not fail.
            let _ = write!(out, "{time},{server},{app},{namespace},{number},{home},");
            let _ = write!(out, "{metric},{unit},{min},{mean},{max}\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Point;
    use wire::{Instance, Time};

    #[test]
    fn names_are_no_formulas_and_break_no_line() {
        let instance = Instance {
            name: "api".parse().unwrap(),
            namespace: "a,\"b\"\nc".into(),
            instance_id: 3,
            pm2_home: None,
        };
        let point = Point { time: Time::from_millis(0), min: -1.5, mean: 0.0, max: 2e9 };
        let series = Series {
            instance: Some(instance),
            metric: "=cmd|' /C calc'!A0".to_owned(),
            unit: "@SUM".to_owned(),
            points: vec![point],
        };
        let text = table(&"vm1".parse().unwrap(), "api", &[series]);
        let expected = "1970-01-01T00:00:00.000Z,vm1,api,\"a,\"\"b\"\"\nc\",3,,\
                        \"'=cmd|' /C calc'!A0\",\"'@SUM\",-1.5,0,2000000000\r\n";
        assert_eq!(text.strip_prefix(HEAD), Some(expected));
    }
}
