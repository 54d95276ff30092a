//! Figures of several side by side, and the ratio of each to the last.

use std::fmt;

/// Columns are what is compared, the last one being what the others are compared with; rows
/// are figures.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Row>,
    ratios: bool,
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    values: Vec<f64>,
    is_ratio: bool,
}

impl Table {
    /// Without rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), ratios: true }
    }

    /// Its columns are figures of different kinds: there is nothing to compare.
    #[must_use]
    pub fn without_ratios(self) -> Self {
        Self { ratios: false, ..self }
    }

    /// A row whose ratios say something; not a number (`f64::NAN`) where there is no figure.
    pub fn row(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) {
        self.add(name.into(), values, true);
    }

    /// A row without ratios.
    pub fn count(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) {
        self.add(name.into(), values, false);
    }

    fn add(&mut self, name: String, values: impl IntoIterator<Item = f64>, is_ratio: bool) {
        self.rows.push(Row { name, values: values.into_iter().collect(), is_ratio });
    }
}

/// Widths that hold what is written here.
const NAME: usize = 34;
const VALUE: usize = 20;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:<NAME$}", self.title)?;
        for column in &self.columns {
            write!(f, "{column:>VALUE$}")?;
        }
        let compared = if self.ratios { self.columns.len().saturating_sub(1) } else { 0 };
        for number in 1..=compared {
            let head = if compared == 1 { "ratio".to_owned() } else { format!("{number}. ratio") };
            write!(f, "{head:>10}")?;
        }
        for Row { name, values, is_ratio } in &self.rows {
            write!(f, "\n{name:<NAME$}")?;
            for value in values {
                if value.is_nan() {
                    write!(f, "{:>VALUE$}", "-")
                } else {
                    write!(f, "{value:>VALUE$.3}")
                }?;
            }
            let Some((last, others)) = values.split_last().filter(|_| *is_ratio && self.ratios)
            else {
                continue;
            };
            for value in others {
                let ratio = value / last;
                if ratio.is_finite() {
                    write!(f, "{ratio:>10.3}")
                } else {
                    write!(f, "{:>10}", "-")
                }?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_not_there_has_no_ratio() {
        let mut table = Table::new("cost", &["ours", "theirs"]);
        table.row("CPU", [1.0, 4.0]);
        table.row("memory", [f64::NAN, 4.0]);
        table.count("scrapes", [100.0, 100.0]);
        let text = table.to_string();
        let lines: Vec<Vec<&str>> =
            text.trim().lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["cost", "ours", "theirs", "ratio"]);
        assert_eq!(lines[1], ["CPU", "1.000", "4.000", "0.250"]);
        assert_eq!(lines[2], ["memory", "-", "4.000", "-"]);
        assert_eq!(lines[3], ["scrapes", "100.000", "100.000"]);
    }
}
