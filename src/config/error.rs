//! Owns what can be wrong with a configuration, in words that name the place and what to do there.
//!
//! It decides nothing; each message is one line, for it may end in the journal.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::keys::KEYS;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag(&'static str),
    /// In the environment.
    Variable(&'static str),
    /// In the configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// Nowhere.
    Default,
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

/// The configuration cannot be used. The program exits with [`ConfigError::exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error("{}: cannot read the configuration file: {source}", file.display())]
    FileUnreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        message: String,
    },
    /// The file has a key that distilld does not know.
    #[error("{origin}: unknown key `{key}`{}", suggestion(*nearest))]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key as written.
        key: String,
        /// The known key that looks most like it, if one does.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type, out of range, or not one of those allowed.
    #[error("{origin}: `{key}` must be {allowed}, but is {found}")]
    BadValue {
        /// Where.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What may stand there.
        allowed: String,
        /// What stands there.
        found: String,
    },
    /// Nobody says where the lake is.
    #[error(
        "no root: neither --root DIR, nor the variable LH_DISTILL_ROOT, nor the key `root` in the file of --config says \
         where the lake is"
    )]
    RootMissing,
    /// The root is the empty string.
    #[error("{origin}: the root is empty")]
    RootEmpty {
        /// Where.
        origin: Origin,
    },
    /// The root is no directory.
    #[error("{origin}: the root {} cannot be used: it is not a directory", root.display())]
    RootNoDirectory {
        /// Where it was named.
        origin: Origin,
        /// The root.
        root: PathBuf,
    },
    /// The root cannot be reached now.
    #[error("{origin}: the root {} cannot be used: {source}", root.display())]
    RootOutOfReach {
        /// Where it was named.
        origin: Origin,
        /// The root.
        root: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl ConfigError {
    /// The program's exit code. What a person has to change is not tried again by the service manager; a root that
    /// is not mounted yet, or not open to us yet, comes back by itself.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::RootOutOfReach { .. } => 1,
            _ => crate::config::EXIT_CODE,
        }
    }

    /// The number of the error that the disk gave, if it did.
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
