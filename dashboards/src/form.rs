//! Choices of the filter forms.

use crate::format::cut;

/// One option of a `select`.
pub(crate) struct Choice {
    /// What stands in the address; empty for no filter.
    pub(crate) value: String,
    /// What people read.
    pub(crate) text: String,
    pub(crate) selected: bool,
}

/// `any` first, then every `(value, text)`. A chosen value that is none of them stays a choice
/// of its own: the form always tells what the address says.
pub(crate) fn choices<'a>(
    any: &str,
    others: impl IntoIterator<Item = (&'a str, String)>,
    chosen: &str,
) -> Vec<Choice> {
    let others = others.into_iter();
    let mut all: Vec<_> = std::iter::once(("", any.to_owned()))
        .chain(others)
        .map(|(value, text)| Choice {
            value: value.to_owned(),
            text: cut(&text, 80),
            selected: value == chosen,
        })
        .collect();
    if !all.iter().any(|choice| choice.selected) {
        let text = cut(chosen, 80);
        all.push(Choice { value: chosen.to_owned(), text, selected: true });
    }
    all
}

/// Words that are read as they are written.
pub(crate) fn same(word: &str) -> (&str, String) {
    (word, word.to_owned())
}
