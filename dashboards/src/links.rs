//! Addresses: everything that goes into one is percent-encoded here, and only here.

use std::fmt::Write;

use wire::{Action, AppName, ServerId, Target};

use crate::homes;

/// The path to go to after signing in: `text` when it is a path of this site, `/` otherwise
/// (another site, `//host`, a backslash, control characters).
pub fn local_path(text: &str) -> &str {
    let local = text.starts_with('/')
        && !text.starts_with("//")
        && !text.contains('\\')
        && !text.chars().any(char::is_control);
    if local { text } else { "/" }
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Address of an app's page; `None` for the names `.` and `..`, which no browser keeps in a
/// path, however they are written.
pub(crate) fn app(server: &ServerId, app: &AppName) -> Option<String> {
    let name = segment(app)?;
    Some(format!("/servers/{server}/apps/{name}"))
}

/// Path of the page about an app or slot of a server; of the server without either, of the fleet
/// without a server.
pub fn page_of(server: Option<&ServerId>, name: Option<&AppName>, slot_id: Option<&str>) -> String {
    match (server, name, slot_id) {
        (Some(server), Some(name), _) => app(server, name),
        (Some(server), None, Some(id)) => Some(slot(server, id)),
        _ => None,
    }
    .or_else(|| server.map(|server| format!("/servers/{server}")))
    .unwrap_or_else(|| "/".to_owned())
}

fn segment(app: &str) -> Option<String> {
    match app {
        "." | ".." => None,
        name => Some(encode(name)),
    }
}

/// `path` with the fields that are not empty.
pub(crate) fn query(path: &str, fields: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(out, "{separator}{name}={}", encode(value));
        separator = '&';
    }
    out
}

/// Address of a slot's page.
pub(crate) fn slot(server: &ServerId, slot: &str) -> String {
    format!("/servers/{server}/slots/{}", encode(slot))
}

/// Address of the page of an app or a slot; `None` where [`app`] is.
pub(crate) fn place(server: &ServerId, target: &Target) -> Option<String> {
    match target {
        Target::App(name) => app(server, name),
        Target::Slot(name) => Some(slot(server, name.as_str())),
    }
}

/// Address of the page that asks before an action is done; `None` where [`app`] is. `home` is the
/// PM2 that is meant, where the address has to say so.
pub(crate) fn act(
    server: &ServerId,
    target: &Target,
    action: Action,
    home: Option<&str>,
) -> Option<String> {
    let place = place(server, target)?;
    Some(query(&format!("{place}/{action}"), &[homes::field(home)]))
}

/// Address of a command's record.
pub(crate) fn command(id: &str) -> String {
    format!("/commands/{}", encode(id))
}

/// The line that does something from a shell; `None` where [`app`] is.
pub(crate) fn shell_line(
    base: &str,
    server: &ServerId,
    target: &Target,
    action: Action,
    home: Option<&str>,
    body: Option<&str>,
) -> Option<String> {
    let place = match target {
        Target::App(name) => format!("apps/{}", segment(name)?),
        Target::Slot(name) => format!("slots/{}", encode(name)),
    };
    let path = format!("/api/commands/{server}/{place}/{action}");
    let address = format!("{base}{}", query(&path, &[("wait", "30s"), homes::field(home)]));
    let mut line = "curl -X POST -H \"Authorization: Bearer $TOKEN\" ".to_owned();
    if let Some(body) = body {
        let _ = write!(line, "-d {} ", shell_quote(body));
    }
    line.push_str(&shell_quote(&address));
    Some(line)
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_followed() {
        for good in ["/", "/servers/vm1?x=//y", "/events"] {
            assert_eq!(local_path(good), good);
        }
        for bad in ["", "https://evil.example", "//evil.example", "/\\evil", "evil", "/a\r\nb"] {
            assert_eq!(local_path(bad), "/", "{bad:?}");
        }
    }

    #[test]
    fn names_stay_one_segment() {
        let server: ServerId = "vm1".parse().unwrap();
        let name: AppName = "a/b?c#ü'\"<".parse().unwrap();
        assert_eq!(app(&server, &name).unwrap(), "/servers/vm1/apps/a%2Fb%3Fc%23%C3%BC%27%22%3C");
        assert_eq!(app(&server, &"..".parse().unwrap()), None);
        assert_eq!(
            shell_line(
                "http://h'h",
                &server,
                &Target::App("a b".parse().unwrap()),
                Action::Restart,
                None,
                None
            )
            .unwrap(),
            "curl -X POST -H \"Authorization: Bearer $TOKEN\" \
             'http://h'\\''h/api/commands/vm1/apps/a%20b/restart?wait=30s'"
        );
        let slot = Target::Slot("a".parse().unwrap());
        assert_eq!(act(&server, &slot, Action::Stop, None).unwrap(), "/servers/vm1/slots/a/stop");
        let (name, home) = (Target::App("a b".parse().unwrap()), Some("/x y/&'.pm2"));
        assert_eq!(
            act(&server, &name, Action::Stop, home).unwrap(),
            "/servers/vm1/apps/a%20b/stop?pm2_home=%2Fx%20y%2F%26%27.pm2"
        );
        assert_eq!(
            shell_line("http://h", &server, &name, Action::Stop, home, None).unwrap(),
            "curl -X POST -H \"Authorization: Bearer $TOKEN\" 'http://h/api/commands/vm1/apps/\
             a%20b/stop?wait=30s&pm2_home=%2Fx%20y%2F%26%27.pm2'"
        );
    }

    #[test]
    fn empty_fields_are_left_out() {
        assert_eq!(query("/events", &[("a", ""), ("b", "1&2"), ("c", "x")]), "/events?b=1%262&c=x");
        assert_eq!(query("/events", &[("a", "")]), "/events");
    }
}
