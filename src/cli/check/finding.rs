//! The result of one check: its severity, what was found, and the command that mends it.

use std::fmt;

use serde::Serialize;

use crate::config::as_typed;
use crate::platform::escape::Printable;

/// The severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// No problem.
    Ok,
    /// The daemon works with restrictions.
    Warn,
    /// The daemon would fail, or miss sources.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The subject of the check.
    pub what: String,
    /// The result.
    pub why: String,
    /// The command or the change that mends it; `None` if there is no problem.
    pub fix: Option<String>,
    /// The result without names and texts of the lake, where `why` or `fix` has some.
    #[serde(skip)]
    pub public: Option<String>,
}

impl Finding {
    /// Returns a finding. A problem has a fix.
    pub(super) fn new(
        severity: Severity,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: Option<&str>,
    ) -> Self {
        Self {
            severity,
            what: what.into(),
            why: as_typed(&why.into()),
            fix: fix.map(as_typed),
            public: None,
        }
    }

    /// Gives the result for a report that must not have names and texts of the lake.
    pub(super) fn public(&mut self, why: impl Into<String>) {
        self.public = Some(why.into());
    }

    /// Returns the finding without names and texts of the lake.
    pub(super) fn without_names(&self) -> Self {
        let Some(public) = &self.public else {
            return self.clone();
        };
        Self {
            why: public.clone(),
            fix: None,
            ..self.clone()
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        };
        let (what, why) = (Printable(&self.what), Printable(&self.why));
        write!(out, "{severity:<4} {what}: {why}")?;
        match &self.fix {
            Some(fix) => write!(out, "; {}", Printable(fix)),
            None => Ok(()),
        }
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Finding::new(Severity::Ok, what, why, None));
    }

    /// Adds a problem with the command or the change that mends it.
    pub(super) fn problem(
        &mut self,
        severity: Severity,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl AsRef<str>,
    ) -> &mut Finding {
        let finding = Finding::new(severity, what, why, Some(fix.as_ref()));
        self.0.push(finding);
        self.0.last_mut().expect("one was added")
    }

    pub(super) fn warn(
        &mut self,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl AsRef<str>,
    ) -> &mut Finding {
        self.problem(Severity::Warn, what, why, fix)
    }

    pub(super) fn fail(
        &mut self,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl AsRef<str>,
    ) -> &mut Finding {
        self.problem(Severity::Fail, what, why, fix)
    }
}
