//! The machine, from `/proc/{stat,meminfo,loadavg}` (proc(5)) and statvfs(3).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use wire::{HostReadings, Time};

/// Modes of the `cpu` line of `/proc/stat`, in their order there; guest time is part of user.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Larger than these files are on most machines.
const LARGE: usize = 16 * 1024;

/// A file of `/proc`, which does not tell its size: with room for all of it from the start it
/// is read at once, not in many small pieces.
fn read<'a>(path: &str, into: &'a mut Vec<u8>) -> &'a str {
    into.clear();
    // What cannot be read is nothing.
    let _ = File::open(path).and_then(|mut file| {
        loop {
            let before = into.len();
            into.resize(before.max(LARGE / 2) * 2, 0);
            let found = file.read(into.get_mut(before..).unwrap_or_default());
            into.truncate(before + found.as_ref().copied().unwrap_or(0));
            match found {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    });
    std::str::from_utf8(into).unwrap_or_default()
}

/// Reads the machine.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// Readings now; the file system is the one that holds `path`.
    pub fn read(path: &Path) -> HostReadings {
        let mut readings = HostReadings::default();
        let mut text = Vec::with_capacity(LARGE);
        parse_stat(read("/proc/stat", &mut text), &mut readings);
        parse_memory(read("/proc/meminfo", &mut text), &mut readings);
        let load = read("/proc/loadavg", &mut text);
        readings.load1 = load.split(' ').next().and_then(|number| number.parse().ok());
        // Where PM2's directory is not there yet, the nearest one above it says as much.
        let volume = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
        if let Some(volume) = volume {
            readings.filesystem_size_bytes = Some(volume.f_blocks.saturating_mul(volume.f_frsize));
            readings.filesystem_avail_bytes = Some(volume.f_bavail.saturating_mul(volume.f_frsize));
        }
        readings
    }

    /// The machine's own name for itself.
    pub fn name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

fn parse_stat(text: &str, readings: &mut HostReadings) {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut cpus = 0;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        match fields.next() {
            Some("cpu") => {
                readings.cpu_seconds = MODES
                    .iter()
                    .zip(fields)
                    .filter_map(|(mode, count)| {
                        Some(((*mode).into(), count.parse::<u64>().ok()? as f64 / ticks))
                    })
                    .collect();
            }
            Some("btime") => {
                let seconds = fields.next().and_then(|number| number.parse::<i64>().ok());
                readings.booted_at =
                    seconds.map(|seconds| Time::from_millis(seconds.saturating_mul(1000)));
            }
            Some(word) if word.starts_with("cpu") => cpus += 1,
            _ => {}
        }
    }
    readings.cpus = (cpus > 0).then_some(cpus);
}

fn parse_memory(text: &str, readings: &mut HostReadings) {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    readings.memory_total_bytes = bytes("MemTotal:");
    readings.memory_available_bytes = bytes("MemAvailable:");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_read_and_nonsense_is_left_out() {
        let mut readings = HostReadings::default();
        parse_stat("cpu  100 0 50 x 7\ncpu0 1\ncpu1 1\nbtime 1700000000\n", &mut readings);
        parse_memory("MemTotal:       1000 kB\nMemAvailable: many kB\n", &mut readings);
        let modes: Vec<&str> = readings.cpu_seconds.iter().map(|(mode, _)| mode.as_str()).collect();
        assert_eq!(modes, ["user", "nice", "system", "iowait"]);
        assert_eq!(readings.cpus, Some(2));
        assert_eq!(readings.booted_at, Some(Time::from_millis(1_700_000_000_000)));
        assert_eq!(readings.memory_total_bytes, Some(1_024_000));
        assert_eq!(readings.memory_available_bytes, None);
    }

    #[test]
    fn this_machine_is_read() {
        let readings = Host::read(Path::new("/nonexistent/deep/path"));
        assert!(readings.cpus.unwrap() >= 1);
        assert!(readings.memory_available_bytes.unwrap() <= readings.memory_total_bytes.unwrap());
        assert!(readings.filesystem_size_bytes.unwrap() > 0);
    }
}
