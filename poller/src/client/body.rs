//! The body of an answer as it comes in, unpacked and bounded.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::read;
use flate2::write::MultiGzDecoder;

use super::CallError;

/// What came so far. What is packed is unpacked twice, once to see that it is not too large: what
/// would unpack to gigabytes costs no memory at all.
#[derive(Debug)]
pub(super) enum Body {
    Plain { bytes: Vec<u8>, most: usize },
    Gzip { packed: Vec<u8>, look: Box<MultiGzDecoder<Count>> },
}

#[derive(Debug)]
pub(super) struct Count {
    bytes: usize,
    most: usize,
}

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        match self.bytes > self.most {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body {
    /// At most `most` bytes, packed and unpacked.
    pub(super) fn new(gzip: bool, most: usize) -> Self {
        match gzip {
            false => Self::Plain { bytes: Vec::new(), most },
            true => Self::Gzip {
                packed: Vec::new(),
                look: Box::new(MultiGzDecoder::new(Count { bytes: 0, most })),
            },
        }
    }

    /// # Errors
    /// It is too large, or not packed as it says.
    pub(super) fn put(&mut self, new: &[u8]) -> Result<(), CallError> {
        let (bytes, most) = match self {
            Self::Plain { bytes, most } => (bytes, *most),
            Self::Gzip { packed, look } => {
                let looked = look.write_all(new);
                looked.map_err(|error| failed(look.get_ref(), &error))?;
                (packed, look.get_ref().most)
            }
        };
        if bytes.len() + new.len() > most {
            return Err(CallError::TooLarge(most));
        }
        bytes.extend_from_slice(new);
        Ok(())
    }

    /// # Errors
    /// It is too large, or its packing has no end.
    pub(super) fn end(self) -> Result<Bytes, CallError> {
        let (packed, mut look) = match self {
            Self::Plain { bytes, .. } => return Ok(bytes.into()),
            Self::Gzip { packed, look } => (packed, look),
        };
        let ended = look.try_finish();
        ended.map_err(|error| failed(look.get_ref(), &error))?;
        let mut bytes = Vec::with_capacity(look.get_ref().bytes);
        let unpacked = read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut bytes);
        unpacked.map_err(|error| failed(look.get_ref(), &error))?;
        Ok(bytes.into())
    }
}

fn failed(count: &Count, error: &io::Error) -> CallError {
    match count.bytes > count.most {
        true => CallError::TooLarge(count.most),
        false => CallError::Broken(format!("the answer cannot be unpacked: {error}")),
    }
}
