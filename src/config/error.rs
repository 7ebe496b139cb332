//! The errors of a configuration. Each names its location and the correction, in one line, because it may be logged to
//! the journal.
//!
//! The exit code follows from the error; see [`ConfigError::exit_code`].

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::keys::KEYS;

/// The location of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag on the command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A line of the configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// The default; the value was not given.
    Default,
}

impl Origin {
    /// Returns the kind of the location, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Variable(_) => "env",
            Self::File { .. } => "file",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// An unusable configuration. The program exits with [`ConfigError::exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("{}: cannot read the configuration file: {source}", file.display())]
    FileUnreadable {
        /// The file.
        file: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// The location.
        origin: Origin,
        /// The message of the TOML parser.
        message: String,
    },
    /// The file has an unknown key.
    #[error("{origin}: unknown key `{key}`{}", suggestion(*nearest))]
    UnknownKey {
        /// The location.
        origin: Origin,
        /// The key as written.
        key: String,
        /// The most similar known key, if one is similar.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type, out of range, or not among the allowed ones.
    #[error("{origin}: `{key}` must be {allowed}, but is {found}")]
    BadValue {
        /// The location.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The description of the allowed values.
        allowed: String,
        /// The value given.
        found: String,
    },
    /// No root is configured.
    #[error(
        "no root: neither --root DIR, nor the variable LH_DISTILL_ROOT, nor the key `root` of a configuration file is set"
    )]
    RootMissing,
    /// The root is the empty string.
    #[error("{origin}: the root is empty")]
    RootEmpty {
        /// The location.
        origin: Origin,
    },
    /// The root is not a directory.
    #[error("{origin}: cannot use the root {}: it is not a directory", root.display())]
    RootNoDirectory {
        /// The location of its value.
        origin: Origin,
        /// The root.
        root: PathBuf,
    },
    /// The root cannot be accessed now.
    #[error("{origin}: cannot use the root {}: {source}", root.display())]
    RootOutOfReach {
        /// The location of its value.
        origin: Origin,
        /// The root.
        root: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A file system hangs.
    #[error("the file system of {} does not answer", path.display())]
    FileSystemSilent {
        /// A path in it.
        path: PathBuf,
    },
}

impl ConfigError {
    /// Returns the program's exit code. The service manager does not retry an error that an operator has to correct; a
    /// root that is not mounted or not accessible yet may recover by itself.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::RootOutOfReach { .. } | Self::FileSystemSilent { .. } => 1,
            _ => crate::config::EXIT_CODE,
        }
    }

    /// Returns the number of the underlying I/O error, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::RootOutOfReach { source, .. } | Self::FileUnreadable { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!(
            "; known keys: {}",
            KEYS.iter()
                .map(|key| key.name)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}
