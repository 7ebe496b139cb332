//! The contamination firewall: decides by the category alone whether a scored run may become training data. It fails
//! closed and is the only place that makes an [`AdmittedRun`].

pub use crate::record::category::{ACCEPTED, FIREWALL};
use crate::record::category::{is_firewalled, is_one_of};
use crate::record::json::escape::Dialect;
use crate::record::parse::ScoredRun;

/// The decision of the firewall on a scored run.
#[derive(Debug, Clone, Copy)]
pub enum Admission<'r, 'a> {
    /// It may become a sample.
    Admitted(AdmittedRun<'r, 'a>),
    /// Its category is one of [`FIREWALL`]: quarantined.
    Firewalled,
    /// Its category is unknown, or missing: not instructable.
    UnknownCategory,
}

/// A scored run that passed the firewall. Only [`admit`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct AdmittedRun<'r, 'a> {
    run: &'r ScoredRun<'a>,
}

impl<'r, 'a> AdmittedRun<'r, 'a> {
    /// Returns the run.
    pub fn run(&self) -> &'r ScoredRun<'a> {
        self.run
    }
}

/// Judges a scored run by its category. The Go dialect admits an unknown category; no dialect admits a firewalled one.
pub fn admit<'r, 'a>(run: &'r ScoredRun<'a>, dialect: Dialect) -> Admission<'r, 'a> {
    if is_firewalled(&run.category) {
        Admission::Firewalled
    } else if dialect == Dialect::Go || is_one_of(&run.category, &ACCEPTED) {
        Admission::Admitted(AdmittedRun { run })
    } else {
        Admission::UnknownCategory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse::scored_run;

    fn check(category: &str, native: &str, go: &str) {
        let line = format!("{{\"category\":{category}}}");
        let run = scored_run(line.as_bytes()).unwrap();
        let verdict = |dialect| match admit(&run, dialect) {
            Admission::Admitted(_) => "admitted",
            Admission::Firewalled => "firewalled",
            Admission::UnknownCategory => "unknown",
        };
        assert_eq!(
            (verdict(Dialect::Native), verdict(Dialect::Go)),
            (native, go),
            "{category}"
        );
    }

    #[test]
    fn the_firewall_is_exactly_these_two() {
        assert_eq!(FIREWALL, ["rejected", "needs_human_review"]);
        check("\"rejected\"", "firewalled", "firewalled");
        check("\"needs_human_review\"", "firewalled", "firewalled");
        check("\"re\\u006aected\"", "firewalled", "firewalled");
    }

    #[test]
    fn an_unknown_category_is_not_admitted() {
        for unknown in [
            "\"Rejected\"",
            "\"rejected \"",
            "\"excellent\"",
            "\"\"",
            "null",
            "\"accepted\\u0000\"",
        ] {
            check(unknown, "unknown", "admitted");
        }
        check("\"accepted\"", "admitted", "admitted");
        check("\"partially_\\u0061ccepted\"", "admitted", "admitted");
    }
}
