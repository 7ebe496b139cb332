//! Owns the values of keys that are one of a few words.

use clap::ValueEnum;

/// How the daemon learns of news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Watch {
    /// Events where the file system gives them, else polling.
    #[default]
    Auto,
    /// Events, also where they are not known to come.
    Events,
    /// Polling only.
    Poll,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `human` on a terminal, the journal's own fields in the journal, `kv` elsewhere.
    #[default]
    Auto,
    /// Short lines for a person.
    Human,
    /// One line of key=value per event.
    Kv,
    /// One JSON object per event.
    Json,
}
