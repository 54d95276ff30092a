//! The framing of PM2's sockets ("amp"), pure: bytes in, messages out.
//!
//! A message is one byte `version << 4 | argc`, then for each argument a 4-byte big-endian
//! length and that many bytes. Only version 1 exists.

/// Largest message that is kept: `getMonitorData` of some 5,000 processes.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// Of a message that nobody wants, this many bytes at either end of the body are kept: enough
/// to see whose it is.
pub const PEEK: usize = 320;

const VERSION: u8 = 1;
/// PM2 itself sends two arguments.
const MAX_ARGS: u8 = 8;

/// Why the bytes are not messages. The connection is of no use after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte names another version.
    #[error("version {0} of the protocol, expected 1")]
    Version(u8),
    /// More or fewer arguments than PM2 ever sends.
    #[error("{0} arguments in one message, expected 1 to 8")]
    Arguments(u8),
    /// Larger than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes, expected at most 33554432")]
    TooLarge(u64),
}

/// One argument: `s:` text, `j:` JSON, or raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument<'a> {
    /// `s:…`
    Text(&'a [u8]),
    /// `j:…`
    Json(&'a [u8]),
    /// Anything else.
    Raw(&'a [u8]),
}

impl<'a> Argument<'a> {
    /// By its prefix.
    pub fn parse(bytes: &'a [u8]) -> Self {
        match bytes {
            [b's', b':', rest @ ..] => Self::Text(rest),
            [b'j', b':', rest @ ..] => Self::Json(rest),
            _ => Self::Raw(bytes),
        }
    }

    /// What stands behind the prefix.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(bytes) | Self::Json(bytes) | Self::Raw(bytes) => bytes,
        }
    }
}

/// Writes one message.
pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    let size = args.iter().map(|arg| 4 + arg.len()).sum::<usize>();
    let mut out = Vec::with_capacity(1 + size);
    out.push(VERSION << 4 | (args.len() as u8 & 0x0f));
    for arg in args {
        out.extend_from_slice(&(arg.len() as u32).to_be_bytes());
        out.extend_from_slice(arg);
    }
    out
}

/// What a [`Decoder`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// All arguments of a message that was wanted.
    Whole(Vec<Vec<u8>>),
    /// A message that was not: its topic, the length of its body, and the ends of the body.
    Passed {
        /// First argument.
        topic: Vec<u8>,
        /// Length of the second argument in bytes.
        length: usize,
        /// First [`PEEK`] bytes of it.
        head: Vec<u8>,
        /// Last [`PEEK`] bytes of what follows `head`.
        tail: Vec<u8>,
    },
}

/// Takes bytes as they come and gives messages. Bodies of messages whose first argument is
/// not wanted are counted and dropped as they come, never gathered.
#[derive(Debug)]
pub struct Decoder {
    wanted: fn(&[u8]) -> bool,
    buffer: Vec<u8>,
    read: usize,
    passing: Option<Passing>,
}

#[derive(Debug)]
struct Passing {
    topic: Vec<u8>,
    length: usize,
    left: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Decoder {
    /// `wanted` looks at a message's first argument, prefix included.
    pub fn new(wanted: fn(&[u8]) -> bool) -> Self {
        Self { wanted, buffer: Vec::new(), read: 0, passing: None }
    }

    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// The bytes are not messages of this protocol.
    pub fn message(&mut self) -> Result<Option<Message>, FrameError> {
        let found = match self.passing.take() {
            Some(passing) => Ok(self.pass(passing)),
            None => self.gather(),
        };
        if self.read > 0 && !matches!(found, Ok(Some(_))) {
            // Only now, so that many small messages in one buffer are moved once.
            self.buffer.drain(..self.read);
            self.read = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > 256 * 1024 {
                self.buffer = Vec::new();
            }
        }
        found
    }

    fn gather(&mut self) -> Result<Option<Message>, FrameError> {
        let bytes = &self.buffer[self.read..];
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (version, argc) = (first >> 4, first & 0x0f);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if !(1..=MAX_ARGS).contains(&argc) {
            return Err(FrameError::Arguments(argc));
        }
        let mut at = 1;
        let mut ranges = Vec::with_capacity(usize::from(argc));
        let mut total = 0u64;
        for index in 0..argc {
            let Some(length) = bytes.get(at..at + 4) else { return Ok(None) };
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
            at += 4;
            let last_of_two = index == 1 && argc == 2;
            if last_of_two && !(self.wanted)(&bytes[ranges_first(&ranges)]) {
                let topic = bytes[ranges_first(&ranges)].to_vec();
                self.read += at;
                let passing =
                    Passing { topic, length, left: length, head: Vec::new(), tail: Vec::new() };
                return Ok(self.pass(passing));
            }
            total += length as u64;
            if total > MAX_MESSAGE as u64 {
                return Err(FrameError::TooLarge(total));
            }
            if bytes.len() < at + length {
                return Ok(None);
            }
            ranges.push(at..at + length);
            at += length;
        }
        let args = ranges.into_iter().map(|range| bytes[range].to_vec()).collect();
        self.read += at;
        Ok(Some(Message::Whole(args)))
    }

    fn pass(&mut self, mut passing: Passing) -> Option<Message> {
        let bytes = &self.buffer[self.read..];
        let now = passing.left.min(bytes.len());
        let (mut bytes, left) = (&bytes[..now], passing.left - now);
        self.read += now;
        passing.left = left;
        let head = (PEEK - passing.head.len()).min(bytes.len());
        passing.head.extend_from_slice(&bytes[..head]);
        bytes = &bytes[head..];
        if bytes.len() >= PEEK {
            passing.tail.clear();
            passing.tail.extend_from_slice(&bytes[bytes.len() - PEEK..]);
        } else {
            let surplus = (passing.tail.len() + bytes.len()).saturating_sub(PEEK);
            passing.tail.drain(..surplus);
            passing.tail.extend_from_slice(bytes);
        }
        if left > 0 {
            self.passing = Some(passing);
            return None;
        }
        let Passing { topic, length, head, tail, .. } = passing;
        Some(Message::Passed { topic, length, head, tail })
    }

    /// Bytes that are held: less than one message and what came with it.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.read
    }
}

fn ranges_first(ranges: &[std::ops::Range<usize>]) -> std::ops::Range<usize> {
    ranges.first().cloned().unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn all(decoder: &mut Decoder) -> Vec<Message> {
        std::iter::from_fn(|| decoder.message().unwrap()).collect()
    }

    #[test]
    fn a_call_looks_as_seen_on_the_socket() {
        // Captured from PM2 7.0.4: the request of `getVersion`.
        let bytes =
            encode(&[b"j:{\"type\":\"call\",\"method\":\"getVersion\",\"args\":[{}]}", b"s:1"]);
        assert_eq!(&bytes[..7], b"\x12\x00\x00\x003j:");
        assert_eq!(&bytes[bytes.len() - 7..], b"\x00\x00\x00\x03s:1");
    }

    #[test]
    fn other_protocols_are_refused() {
        for (bytes, error) in [
            (&b"HTTP/1.1 400"[..], FrameError::Version(4)),
            (b"\x22", FrameError::Version(2)),
            (b"\x10", FrameError::Arguments(0)),
            (b"\x1f", FrameError::Arguments(15)),
            (b"\x11\xff\xff\xff\xff", FrameError::TooLarge(u64::from(u32::MAX))),
        ] {
            let mut decoder = Decoder::new(|_| true);
            decoder.push(bytes);
            assert_eq!(decoder.message(), Err(error));
        }
    }

    #[test]
    fn what_is_not_wanted_is_never_gathered() {
        let mut decoder = Decoder::new(|topic| topic != b"s:log:out");
        let body = vec![b'x'; 50_000_000];
        let head =
            [&[0x12, 0, 0, 0, 9][..], b"s:log:out", &(body.len() as u32).to_be_bytes()].concat();
        decoder.push(&head);
        assert_eq!(decoder.message(), Ok(None));
        for chunk in body.chunks(65_536) {
            assert!(decoder.held() < 65_536);
            decoder.push(chunk);
            if let Some(message) = decoder.message().unwrap() {
                let Message::Passed { length, head, tail, .. } = message else { panic!() };
                assert_eq!((length, head.len(), tail.len()), (body.len(), PEEK, PEEK));
                return;
            }
        }
        panic!("the message never ended");
    }

    proptest! {
        #[test]
        fn messages_survive_being_torn(
            messages in vec(vec(vec(any::<u8>(), 0..900), 1..8), 1..6),
            cuts in vec(1usize..700, 1..60),
        ) {
            let bytes: Vec<u8> = messages
                .iter()
                .flat_map(|args| encode(&args.iter().map(Vec::as_slice).collect::<Vec<_>>()))
                .collect();
            let mut decoder = Decoder::new(|_| true);
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.push(now);
                found.extend(all(&mut decoder));
                rest = later;
                if rest.is_empty() { break; }
            }
            let expected: Vec<_> = messages.into_iter().map(Message::Whole).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(decoder.held(), 0);
        }

        #[test]
        fn ends_of_passed_bodies_are_right(
            body in vec(any::<u8>(), 0..2000),
            cuts in vec(1usize..500, 1..20),
        ) {
            let bytes = [encode(&[b"s:no", &body]), encode(&[b"s:yes", b"1"])].concat();
            let mut decoder = Decoder::new(|topic| topic == b"s:yes");
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.push(now);
                found.extend(all(&mut decoder));
                rest = later;
                if rest.is_empty() { break; }
            }
            let head = body[..body.len().min(PEEK)].to_vec();
            let after = &body[head.len()..];
            let tail = after[after.len().saturating_sub(PEEK)..].to_vec();
            prop_assert_eq!(found, vec![
                Message::Passed { topic: b"s:no".to_vec(), length: body.len(), head, tail },
                Message::Whole(vec![b"s:yes".to_vec(), b"1".to_vec()]),
            ]);
        }

        #[test]
        fn garbage_never_panics(bytes in vec(any::<u8>(), 0..4000)) {
            let mut decoder = Decoder::new(|topic| topic.len() % 2 == 0);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.message() {}
        }
    }
}
