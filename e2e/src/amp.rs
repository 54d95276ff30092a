//! The framing of PM2's sockets, once more and apart from the exporter's: a test that spoke
//! through the code under test would share its mistakes.
//!
//! A frame is one byte `version << 4 | count`, then each argument with its length (4 bytes,
//! big-endian) before it.

use std::io::{self, Read};

/// Largest argument that is read.
const MAX_ARGUMENT: usize = 64 << 20;

/// One frame.
pub fn encode(arguments: &[&[u8]]) -> Vec<u8> {
    let count = u8::try_from(arguments.len()).unwrap_or(0) & 0x0f;
    let mut frame = vec![1 << 4 | count];
    for argument in arguments {
        let length = u32::try_from(argument.len()).unwrap_or(u32::MAX);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(argument);
    }
    frame
}

/// A JSON argument: `j:…`.
pub fn json(value: &serde_json::Value) -> Vec<u8> {
    format!("j:{value}").into_bytes()
}

/// Reads one frame.
///
/// # Errors
/// The stream ends or fails, or an argument is larger than 64 MiB.
pub fn read(stream: &mut impl Read) -> io::Result<Vec<Vec<u8>>> {
    let mut head = [0];
    stream.read_exact(&mut head)?;
    let mut arguments = Vec::new();
    for _ in 0..head[0] & 0x0f {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_ARGUMENT {
            return Err(io::Error::other(format!("an argument of {length} bytes")));
        }
        let mut argument = vec![0; length];
        stream.read_exact(&mut argument)?;
        arguments.push(argument);
    }
    Ok(arguments)
}

/// The value of a `j:` argument.
pub fn value(argument: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(argument.strip_prefix(b"j:")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_frame_survives() {
        let body = json!({"type": "call", "method": "ping", "args": []});
        let frame = encode(&[&super::json(&body), b"s:1"]);
        assert_eq!(frame[0], 0x12);
        let arguments = read(&mut frame.as_slice()).unwrap();
        assert_eq!(value(&arguments[0]).unwrap(), body);
        assert_eq!(arguments[1], b"s:1");
        assert!(read(&mut &frame[..frame.len() - 1]).is_err());
    }
}
