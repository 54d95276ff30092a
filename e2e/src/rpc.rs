//! Asking a PM2 daemon over its socket, as the tests see it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::amp;

/// Calls a method of the daemon of a `PM2_HOME` and gives the first value of its answer.
///
/// # Errors
/// There is no daemon, it does not answer within 10 s, or it answers with an error.
pub fn call(home: &Path, method: &str, arguments: Value) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(home.join("rpc.sock")).context("no PM2 daemon")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let request = json!({"type": "call", "method": method, "args": [arguments]});
    stream.write_all(&amp::encode(&[&amp::json(&request), b"s:1"]))?;
    let answer = amp::read(&mut stream).with_context(|| format!("{method} of PM2"))?;
    let mut answer =
        answer.first().and_then(|argument| amp::value(argument)).context("an empty answer")?;
    if let Some(error) = answer.get("error") {
        anyhow::bail!("{method} of PM2: {error}");
    }
    Ok(answer.pointer_mut("/args/0").map(Value::take).unwrap_or_default())
}
