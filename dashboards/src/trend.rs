//! A trend as a drawing of a few bytes: a thousand of them stand on one page.

use std::fmt::Write;

/// Steps that are drawn: an hour by five minutes.
pub(crate) const STEPS: usize = 12;
/// Height in the drawing's own units.
const HEIGHT: f64 = 14.0;

/// The path through shares of 0 to 1, four units a step; empty where there is nothing to draw.
/// What is always below a tenth is drawn as if a tenth were the top, so that it is not flat.
pub(crate) fn path(steps: &[Option<f64>]) -> String {
    let shown = &steps[steps.len().saturating_sub(STEPS)..];
    let known = || shown.iter().flatten().filter(|value| value.is_finite());
    if known().count() < 2 {
        return String::new();
    }
    let top = known().copied().fold(0.1, f64::max);
    let y = |value: f64| (HEIGHT - (HEIGHT - 1.0) * (value / top).clamp(0.0, 1.0)).round() as i32;
    let mut path = String::new();
    let mut before: Option<i32> = None;
    let first = STEPS - shown.len();
    for (index, value) in shown.iter().enumerate() {
        let now = value.filter(|value| value.is_finite()).map(y);
        match (before, now) {
            (None, Some(now)) => {
                let _ = write!(path, "M{} {now}", (first + index) * 4);
            }
            (Some(before), Some(now)) if before == now => path.push_str("h4"),
            (Some(before), Some(now)) if now < before => {
                let _ = write!(path, "l4{}", now - before);
            }
            (Some(before), Some(now)) => {
                let _ = write!(path, "l4 {}", now - before);
            }
            (_, None) => {}
        }
        before = now;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_short_and_its_gaps_are_gaps() {
        let steps = [Some(0.1), Some(0.5), Some(1.0), Some(1.0), None, Some(0.0)];
        assert_eq!(path(&steps), "M24 13l4-5l4-7h4M44 14");
        assert_eq!(path(&[Some(0.01); 12]), "M0 13h4h4h4h4h4h4h4h4h4h4h4");
        assert_eq!(path(&[Some(f64::NAN), None, Some(0.5)]), "");
        assert!(path(&[Some(0.3); 500]).len() < 60);
    }
}
