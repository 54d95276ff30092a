//! What both programs do alike as services, so that they behave alike: layered configuration
//! with every mistake told at once, tokens, problems, listening, logging, stopping.

pub mod body;
pub mod config;
pub mod files;
pub mod gzip;
pub mod host;
pub mod html;
pub mod limits;
pub mod log;
pub mod openapi;
pub mod places;
pub mod problem;
pub mod quantity;
pub mod serve;
pub mod shutdown;
pub mod tls;
pub mod token;
pub mod yaml;

use std::fmt;
use std::process::ExitCode;

/// How a program ends when it cannot do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something else; 1.
    Failure = 1,
    /// The command line or the configuration is wrong; 2, as clap has it.
    Configuration = 2,
    /// The address cannot be listened on; 3.
    Listen = 3,
    /// The database or another file cannot be used; 4.
    Storage = 4,
}

/// An error that knows the exit code it ends the program with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What went wrong, for people.
    pub error: anyhow::Error,
}

impl Failure {
    /// Wraps `error`.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let exit = if error.is::<config::Mistakes>() { Exit::Configuration } else { Exit::Failure };
        Self { exit, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// Tells the error on stderr and gives the exit code: the last line of both `main`s.
pub fn exit(program: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if text.contains('\n') {
                eprintln!("{program}:\n{text}");
            } else {
                eprintln!("{program}: {text}");
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}
