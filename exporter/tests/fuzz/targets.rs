//! What is tried with any bytes at all: by cargo-fuzz for long, by the suite for a moment. Each takes
//! bytes and fails where a promise is broken.

use std::io::Write;
use std::path::Path;

use pm2_exporter::logs::Tail;
use pm2_exporter::pm2::frame::{Decoder, FrameError, Message};
use pm2_exporter::pm2::{Table, model};
use wire::Time;

/// PM2's framing: the same messages come out whatever pieces the bytes came in, and no more is held than
/// was put in.
pub(crate) fn frame(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, usize::from(size).max(1));
    assert_eq!(whole, pieces, "in pieces of {size}");
}

fn decode(bytes: &[u8], size: usize) -> (Vec<Message>, Option<FrameError>) {
    let mut decoder = Decoder::new(|topic| topic.starts_with(b"s:p"));
    let mut all = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.push(piece);
        loop {
            match decoder.message() {
                Ok(Some(message)) => all.push(message),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
        assert!(decoder.held() <= bytes.len() + 4096, "holds {} bytes", decoder.held());
    }
    (all, None)
}

/// PM2's JSON, line by line as its kind says, into a table: what the table shows is always JSON with
/// finite numbers, within bounds, and tells nothing twice.
pub(crate) fn model(data: &[u8]) {
    let mut table = Table::default();
    let now = Time::from_millis(1_700_000_000_000);
    for line in data.split(|byte| *byte == b'\n') {
        let Some((&kind, json)) = line.split_first() else { continue };
        match kind {
            b'l' => {
                if let Ok((list, _)) = model::list(json) {
                    let heard = table.heard();
                    table.list(list, heard, now);
                }
            }
            b'e' => {
                if let Ok(Some(event)) = model::process_event(json) {
                    table.process_event(event);
                }
            }
            b'x' => {
                if let Ok(Some(exception)) = model::exception(json) {
                    table.exception(exception);
                }
            }
            b'd' => {
                if let Some(line) = model::daemon_line(json) {
                    table.daemon_line(line);
                }
            }
            b'r' => drop(model::reply(json)),
            b'o' => {
                let (head, tail) = json.split_at(json.len().min(320));
                if let Some((pm_id, bytes)) = model::logged(head, tail, json.len()) {
                    table.logged(pm_id, false, bytes);
                }
            }
            _ => {}
        }
        shown(&mut table);
    }
}

fn shown(table: &mut Table) {
    let processes = table.processes(|_| Default::default());
    for pair in processes.windows(2) {
        assert!(pair[0].instance < pair[1].instance, "twice: {}", pair[0].instance);
    }
    for process in &processes {
        assert!(process.readings.node.values().all(|value| value.is_finite()));
        assert!(process.readings.custom.iter().all(|custom| custom.value.is_finite()));
        let json = serde_json::to_string(process).expect("a process is JSON");
        let back: wire::Process = serde_json::from_str(&json).expect("and a process again");
        assert_eq!(back.instance, process.instance);
    }
    if let Some(counters) = table.counters() {
        Table::default().restore(&counters).expect("counters are what they were");
    }
}

/// The log reader, while its file grows, is cut and is exchanged: no line has a break or what steers a
/// terminal, and what was written whole into one file comes out in order.
pub(crate) fn logs(data: &[u8]) {
    let Some((&lines, mut rest)) = data.split_first() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let opened = Tail::open(&path, usize::from(lines));
    let (mut tail, last) = opened.expect("a file that is not there is an empty one");
    assert!(last.is_empty());
    while let Some((&what, more)) = rest.split_first() {
        let (bytes, after) = more.split_at(more.len().min(usize::from(what >> 2)));
        rest = after;
        match what & 3 {
            0 | 1 => append(&path, bytes),
            2 => drop(std::fs::File::create(&path)),
            _ => drop(std::fs::rename(&path, folder.path().join("log.1"))),
        }
        loop {
            let (read, more) = tail.read().expect("the file can be read");
            assert!(read.iter().all(|line| is_plain(line)), "{read:?}");
            if !more {
                break;
            }
        }
    }
    // Read from its end, it is what its last lines are.
    let text = std::fs::read(&path).unwrap_or_default();
    let (mut again, last) = Tail::open(&path, usize::from(lines)).expect("the file can be read");
    let whole = text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(last.len(), whole.min(usize::from(lines)));
    assert!(last.iter().all(|line| is_plain(line)));
    assert!(again.rest().is_none_or(|rest| is_plain(&rest)));
}

fn append(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::options().create(true).append(true).open(path);
    file.expect("a file").write_all(bytes).expect("it can be written");
}

fn is_plain(line: &str) -> bool {
    line.chars().all(|letter| letter == '\t' || !letter.is_control())
}

/// A page of an application: what is relayed of it can be read again, by the same rules.
pub(crate) fn relay(data: &[u8]) {
    use exposition::relay::{Page, parse, write};
    use exposition::{Format, Labels, Writer};
    let Ok(page) = std::str::from_utf8(data) else { return };
    let Ok(families) = parse(page, 1_000) else { return };
    let labels = Labels::new([("name", "api"), ("instance_id", "0")]);
    for format in [Format::Text, Format::OpenMetrics] {
        let mut writer = Writer::new(format);
        let page = Page { labels: &labels, families: &families };
        let relayed = write(&mut writer, &[page, page]);
        let text = writer.finish();
        let again = parse(&text, 2_000);
        assert!(again.is_ok(), "{again:?}: {text}");
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(relayed[0].series, lines);
        // The same labels a second time are doubles, all of them.
        assert_eq!(relayed[1].series, 0);
    }
}
