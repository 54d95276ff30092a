//! Which apps are watched at all.

use wire::AppName;

/// Patterns of names: `*` stands for any characters, everything else for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these, unless there are none.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Whether PM2's modules are watched as well.
    pub modules: bool,
}

impl Filter {
    /// Whether an app is watched.
    pub fn takes(&self, name: &AppName, is_module: bool) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        (self.modules || !is_module)
            && (self.include.is_empty() || any(&self.include))
            && !any(&self.exclude)
    }
}

/// Whether a text is what a pattern means: `*` stands for any characters. Greedy from the left:
/// where the rest does not fit, the last star takes one more.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut on) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while on < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, on));
                at += 1;
            }
            Some(letter) if *letter == text[on] => {
                at += 1;
                on += 1;
            }
            _ => match &mut star {
                Some((star_at, taken)) => {
                    *taken += 1;
                    (at, on) = (*star_at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_matched_whole() {
        for (pattern, text, expected) in [
            ("api", "api", true),
            ("api", "api-2", false),
            ("api*", "api-2", true),
            ("*-worker", "mail-worker", true),
            ("*a*b", "xaxab", true),
            ("*a*b", "xaxba", false),
            ("*", "", true),
            ("", "x", false),
            ("ü*", "ünï", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn an_excluded_name_is_not_watched_though_it_is_included() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let filter = Filter { include: list(&["api*"]), exclude: list(&["*-old"]), modules: false };
        let takes = |name: &str, module| filter.takes(&name.parse().unwrap(), module);
        assert!(takes("api-1", false));
        assert!(!takes("api-old", false) && !takes("web", false) && !takes("api-1", true));
    }

    proptest! {
        #[test]
        fn a_star_between_takes_anything(a in "[a-c]{0,4}", b in "[a-c]{0,4}", x in ".{0,6}") {
            let (pattern, text) = (format!("{a}*{b}"), format!("{a}{x}{b}"));
            prop_assert!(matches(&pattern, &text));
        }
    }
}
