//! A checked value of a configuration key, parsed from a flag, a variable or TOML.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use toml::de::DeValue;

use crate::config::address::ListenAddress;
use crate::config::exclude::Exclude;
use crate::config::filter::parse_filter;
use crate::config::keys::{Key, Kind};

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Path(PathBuf),
    Number(u64),
    Text(String),
    Patterns(Vec<String>),
}

impl Value {
    pub(super) fn into_path(self) -> PathBuf {
        match self {
            Self::Path(path) => path,
            _ => unreachable!("a directory's value is a path"),
        }
    }

    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            _ => unreachable!("a number's value is a number"),
        }
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            _ => unreachable!("a filter's, a choice's and an address's value is text"),
        }
    }

    pub(super) fn into_patterns(self) -> Vec<String> {
        match self {
            Self::Patterns(patterns) => patterns,
            _ => unreachable!("the value of patterns is a list"),
        }
    }

    pub(super) fn choice<T: ValueEnum>(self) -> Option<T> {
        T::from_str(&self.into_text(), false).ok()
    }

    /// Resolves a relative path against the directory of the file, so that it does not depend on the working directory.
    pub(super) fn resolve_path(&mut self, directory: Option<&Path>) {
        if let (Self::Path(path), Some(directory)) = (self, directory)
            && !path.as_os_str().is_empty()
        {
            *path = directory.join(&*path);
        }
    }
}

impl Key {
    /// Parses the value of a flag or a variable; the error describes the value given.
    pub(super) fn parse(&self, text: &OsStr) -> Result<Value, String> {
        if let Kind::Directory = self.kind {
            return self.path(text.into());
        }
        let Some(text) = text.to_str() else {
            return Err(format!("{text:?}, which is not UTF-8"));
        };
        match self.kind {
            Kind::Number { .. } => self.number(text.parse().ok(), || format!("{text:?}")),
            Kind::Patterns => self.patterns(Exclude::split(text)),
            Kind::Directory | Kind::Choice(_) | Kind::Filter | Kind::Address => self.text(text),
        }
    }

    /// Parses the value of a TOML entry; the error describes the value given.
    pub(super) fn parse_toml(&self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self.kind, value) {
            (Kind::Number { .. }, DeValue::Integer(written)) => self.number(
                u64::from_str_radix(written.as_str(), written.radix()).ok(),
                || written.to_string(),
            ),
            (Kind::Directory, DeValue::String(text)) => self.path(PathBuf::from(text.as_ref())),
            (Kind::Choice(_) | Kind::Filter | Kind::Address, DeValue::String(text)) => {
                self.text(text)
            }
            (Kind::Patterns, DeValue::Array(list)) => self.patterns(Exclude::listed(list)?),
            (_, other) => Err(describe(other)),
        }
    }

    /// Checks patterns; the error describes the first that is none.
    pub(super) fn patterns(&self, patterns: Vec<String>) -> Result<Value, String> {
        Exclude::new(patterns.clone()).map(|_| Value::Patterns(patterns))
    }

    fn path(&self, path: PathBuf) -> Result<Value, String> {
        // An empty root has its own error, which lists the places where a root can be set.
        if path.as_os_str().is_empty() && self.name != "root" {
            return Err("empty".to_owned());
        }
        Ok(Value::Path(path))
    }

    fn number(&self, number: Option<u64>, given: impl FnOnce() -> String) -> Result<Value, String> {
        match (self.kind, number) {
            (Kind::Number { min, max, .. }, Some(number)) if (min..=max).contains(&number) => {
                Ok(Value::Number(number))
            }
            _ => Err(given()),
        }
    }

    fn text(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Kind::Choice(names) if !names().iter().any(|name| name == text) => {
                Err(format!("{text:?}"))
            }
            Kind::Filter => match parse_filter(text) {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(fault) => Err(format!("{text:?}: {fault}")),
            },
            Kind::Address => match ListenAddress::parse(text) {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(why) => Err(format!("{text:?}, {why}")),
            },
            _ => Ok(Value::Text(text.to_owned())),
        }
    }
}

pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {:?}", text.as_ref()),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
