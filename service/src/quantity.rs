//! Durations, sizes and truths as people write them in configuration files and addresses.

use std::time::Duration;

/// `250ms`, `10s`, `5m`, `2h`, `90d`, `1y` (365 days), or several: `1h30m`. A bare `0` is zero.
///
/// # Errors
/// A sentence that names the text and what is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a duration: a number with ms, s, m, h, d or y, such as 10s")
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = count.checked_mul(millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    // A century is more than anybody means, and keeps all later arithmetic safe.
    if text.is_empty() || total > 100 * 365 * 86_400_000 {
        return Err(wrong());
    }
    Ok(Duration::from_millis(total))
}

/// `true` or `1`, `false` or `0`, as addresses have it.
///
/// # Errors
/// A sentence that names the text and what is allowed.
pub fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => {
            let shown: String = text.chars().take(64).collect();
            Err(format!("{shown:?} is neither true nor false"))
        }
    }
}

/// `4096`, `64KiB`, `8MiB`, `2GiB`, `10MB`: bytes.
///
/// # Errors
/// A sentence that names the text and what is allowed.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a size: a number with B, KB, MB, GB, KiB, MiB or GiB, or alone")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_people_write() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "s", "-1s", "1.5s", "10 s", "10w", "99999999999999999999s", "101y"]
        {
            assert!(duration(wrong).unwrap_err().contains("not a duration"), "{wrong}");
        }
    }

    #[test]
    fn sizes_people_write() {
        assert_eq!(bytes("8MiB"), Ok(8 << 20));
        assert_eq!(bytes("10 MB"), Ok(10_000_000));
        assert_eq!(bytes("512"), Ok(512));
        for wrong in ["", "MiB", "-1", "1.5GiB", "8mib", "99999999999GiB"] {
            assert!(bytes(wrong).unwrap_err().contains("not a size"), "{wrong}");
        }
    }

    #[test]
    fn truths_people_write() {
        assert_eq!((truth("true"), truth("1")), (Ok(true), Ok(true)));
        assert_eq!((truth("false"), truth("0")), (Ok(false), Ok(false)));
        for wrong in ["", "yes", "True", "2", " true"] {
            assert!(truth(wrong).unwrap_err().contains("neither true nor false"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = duration(&text);
            let _ = truth(&text);
            let _ = bytes(&text);
        }
    }
}
