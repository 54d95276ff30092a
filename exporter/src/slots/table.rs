//! What the `slots` commands print.

/// A line of what was found, and of what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// PM2's name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// What it runs.
    pub runs: String,
    /// PM2's word.
    pub status: String,
    /// What was done, or what is wrong.
    pub note: String,
    /// It is as it should be.
    pub well: bool,
}

/// The lines as a table.
pub fn table(lines: &[Line]) -> String {
    let head = Line {
        name: "NAME".to_owned(),
        port: 0,
        runs: "RUNS".to_owned(),
        status: "STATUS".to_owned(),
        note: "NOTE".to_owned(),
        well: true,
    };
    let port = |line: &Line| match (line.port, line.name.as_str()) {
        (_, "NAME") => "PORT".to_owned(),
        (0, _) => "-".to_owned(),
        (port, _) => port.to_string(),
    };
    let all: Vec<&Line> = std::iter::once(&head).chain(lines).collect();
    let wide = |text: &dyn Fn(&Line) -> usize| all.iter().map(|line| text(line)).max().unwrap_or(0);
    let (a, b, c) = (
        wide(&|line| line.name.chars().count()),
        wide(&|line| line.status.chars().count()),
        wide(&|line| line.runs.chars().count()),
    );
    let mut out = String::new();
    for line in all {
        let row = format!(
            "{:a$}  {:5}  {:b$}  {:c$}  {}",
            line.name,
            port(line),
            line.status,
            line.runs,
            line.note
        );
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}
