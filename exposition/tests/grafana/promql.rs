//! As much of PromQL as is needed to see which metrics and labels an expression speaks of. It
//! is no parser: what is no PromQL at all, promtool finds.

/// A metric that is asked for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Selector {
    /// Its name.
    pub(crate) metric: String,
    /// Labels within its braces.
    pub(crate) labels: Vec<String>,
    /// The function that it stands in directly.
    pub(crate) function: String,
    /// What its brackets hold.
    pub(crate) range: String,
}

/// What an expression speaks of.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Metrics.
    pub(crate) selectors: Vec<Selector>,
    /// Labels that are grouped by or matched on.
    pub(crate) grouping: Vec<String>,
    /// Texts in the expression, if it makes labels: their names are among them.
    pub(crate) made_labels: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Range(String),
    Sign(char),
}

/// Reads an expression, Grafana's variables included.
pub(crate) fn read(expression: &str) -> Read {
    let tokens = tokens(expression);
    let mut read = Read::default();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map(|at| &tokens[at]);
        let next = tokens.get(at + 1);
        match &tokens[at] {
            Token::Word(word) if is_grouping(word) => {
                let close = find(&tokens, at, ')');
                // `group_left` and `group_right` may stand without a list.
                if next == Some(&Token::Sign('(')) {
                    read.grouping.extend(words(&tokens[at + 1..close]));
                    at = close;
                }
            }
            Token::Word(word) if is_operator(word) || opens(next) => {}
            Token::Word(_) | Token::Sign('{') => {
                let mut selector = Selector::default();
                if let Token::Word(word) = &tokens[at] {
                    selector.metric.clone_from(word);
                    at += 1;
                }
                if let (Some(Token::Sign('(')), Some(Token::Word(function))) =
                    (before, at.checked_sub(3).map(|at| &tokens[at]))
                {
                    selector.function.clone_from(function);
                }
                let mut names = Vec::new();
                if tokens.get(at) == Some(&Token::Sign('{')) {
                    let close = find(&tokens, at, '}');
                    let matchers = &tokens[at..close];
                    selector.labels = words(matchers);
                    names = names_of(matchers);
                    at = close + 1;
                }
                if let Some(Token::Range(range)) = tokens.get(at) {
                    selector.range.clone_from(range);
                    at += 1;
                }
                if names.is_empty() {
                    read.selectors.push(selector);
                }
                for metric in names {
                    read.selectors.push(Selector { metric, ..Selector::default() });
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if tokens.contains(&Token::Word("label_replace".to_owned())) {
        let texts = tokens.iter().filter_map(|token| match token {
            Token::Text(text) => Some(text.clone()),
            _ => None,
        });
        read.made_labels = texts.collect();
    }
    read
}

fn is_grouping(word: &str) -> bool {
    matches!(word, "by" | "without" | "on" | "ignoring" | "group_left" | "group_right")
}

/// What follows makes the word before it a function or an aggregation.
fn opens(next: Option<&Token>) -> bool {
    match next {
        Some(Token::Word(word)) => matches!(word.as_str(), "by" | "without"),
        other => other == Some(&Token::Sign('(')),
    }
}

fn is_operator(word: &str) -> bool {
    matches!(word, "and" | "or" | "unless" | "offset" | "bool")
        || word.starts_with(|letter: char| letter.is_ascii_digit())
}

fn find(tokens: &[Token], from: usize, sign: char) -> usize {
    let found = tokens[from..].iter().position(|token| *token == Token::Sign(sign));
    found.map_or(tokens.len(), |found| from + found)
}

fn words(tokens: &[Token]) -> Vec<String> {
    let words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    });
    words.collect()
}

/// The metrics of `{__name__=~"a|b"}`.
fn names_of(matchers: &[Token]) -> Vec<String> {
    let name = matchers.iter().position(|token| *token == Token::Word("__name__".to_owned()));
    let text = name.and_then(|at| {
        matchers[at..].iter().find_map(|token| match token {
            Token::Text(text) => Some(text),
            _ => None,
        })
    });
    text.map(|text| text.split('|').map(str::to_owned).collect()).unwrap_or_default()
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_:.".contains(letter);
        let length = match first {
            '"' | '\'' => {
                let end = rest[1..].find(first).map_or(rest.len(), |end| end + 2);
                tokens.push(Token::Text(rest[1..end - 1].to_owned()));
                end
            }
            '[' => {
                let end = rest.find(']').map_or(rest.len(), |end| end + 1);
                tokens.push(Token::Range(rest[1..end - 1].to_owned()));
                end
            }
            first if is_word(first) => {
                let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            first => {
                if !first.is_whitespace() {
                    tokens.push(Token::Sign(first));
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

#[test]
fn metrics_labels_and_groupings_are_found() {
    let read = read(
        "sum by (a, b) (max by (c) (rate(x_total{server=~\"$server\", d!=\"]\"}[$__rate_interval])))\n\
         / on (e) group_left () up * 10 unless 1 - y:z offset 15m > 1e9",
    );
    let metrics: Vec<&str> = read.selectors.iter().map(|found| &*found.metric).collect();
    assert_eq!(metrics, ["x_total", "up", "y:z"]);
    assert_eq!(read.grouping, ["a", "b", "c", "e"]);
    let first = &read.selectors[0];
    assert_eq!(first.labels, ["server", "d"]);
    assert_eq!((&*first.function, &*first.range), ("rate", "$__rate_interval"));
    let read = super::promql::read(
        "group by (s) ({__name__=~\"a|b\"}) or label_replace(c, \"new\", \"\", \"\", \"\")",
    );
    let metrics: Vec<&str> = read.selectors.iter().map(|found| &*found.metric).collect();
    assert_eq!(metrics, ["a", "b", "c"]);
    assert!(read.made_labels.contains(&"new".to_owned()));
}
