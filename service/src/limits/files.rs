//! How many files may be open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows as many as the machine lets this program have: systemd's default is 1,024 for who does not ask
/// for more, which is meant for those who use select(2), and half a million for who does.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "no more files may be open");
        }
    }
}

/// Of so many connections, how many there may be: what else is opened must not have to wait for them.
pub(crate) fn connections(wanted: usize) -> usize {
    let half = getrlimit(Resource::Nofile).current.map(|most| most / 2);
    half.and_then(|half| usize::try_from(half).ok()).map_or(wanted, |half| wanted.min(half.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_all_else() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(connections(3), 3);
        let most = usize::try_from(limit.current.unwrap_or(u64::MAX)).unwrap();
        assert_eq!(connections(usize::MAX), if limit.current.is_some() { most / 2 } else { most });
    }
}
