//! Sections, and which of them somebody asked for.

use std::pin::Pin;

use e2e::bench::Bench;

/// The future of a section.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// One subject that is measured.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    /// What it is picked by.
    pub(crate) name: &'static str,
    /// What is measured, in a few words.
    pub(crate) about: &'static str,
    /// Measures and prints.
    pub(crate) run: for<'a> fn(&'a Bench) -> Running<'a>,
}

/// Those with the asked names, in the order of `all`; all of them when nothing is asked.
///
/// # Errors
/// A name is none of them.
pub(crate) fn chosen<'a>(all: &'a [Section], asked: &[String]) -> Result<Vec<&'a Section>, String> {
    let unknown: Vec<&str> = asked
        .iter()
        .map(String::as_str)
        .filter(|name| all.iter().all(|section| section.name != *name))
        .collect();
    if !unknown.is_empty() {
        let known: Vec<String> =
            all.iter().map(|section| format!("  {:<10} {}", section.name, section.about)).collect();
        return Err(format!(
            "no such section: {}; the sections are\n{}",
            unknown.join(", "),
            known.join("\n")
        ));
    }
    let is_asked =
        |section: &&Section| asked.is_empty() || asked.iter().any(|name| name == section.name);
    Ok(all.iter().filter(is_asked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &'static str) -> Section {
        Section { name, about: "nothing", run: |_| Box::pin(async { Ok(()) }) }
    }

    #[test]
    fn nothing_asked_is_everything_and_a_wrong_name_tells_the_right_ones() {
        let all = [section("one"), section("two"), section("three")];
        let names = |asked: &[&str]| -> Result<Vec<&str>, String> {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            Ok(chosen(&all, &asked)?.iter().map(|section| section.name).collect())
        };
        assert_eq!(names(&[]).unwrap(), ["one", "two", "three"]);
        assert_eq!(names(&["three", "one"]).unwrap(), ["one", "three"]);
        let error = names(&["one", "for", "six"]).unwrap_err();
        assert!(error.starts_with("no such section: for, six; the sections are\n"), "{error}");
        assert!(error.contains("two"), "{error}");
    }
}
