//! The verdicts on scored lines: their one table, the persisted verdict of a record, and the counts by verdict.
//!
//! [`VerdictKind`] is the only list of verdicts. Status, plan, metrics, tables and the batch iterate over
//! [`VerdictKind::ALL`] and print [`VerdictKind::code`].

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::pair::totals::LineTotals;
use crate::record::synthesize::Refusal;

/// The verdict on a scored line, without the data of [`Verdict`]. Every scored line that was read has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictKind {
    /// Its row is in the export.
    Exported,
    /// Refused by the firewall: the category is `rejected` or `needs_human_review`.
    Firewalled,
    /// Refused: the category is not a known one.
    UnknownCategory,
    /// Refused: an operator ordered the run out.
    Ordered,
    /// Refused: the model role of its evidence gives no samples.
    WrongRole,
    /// Refused: the text of its evidence is blank.
    BlankText,
    /// Waits for its evidence.
    Waiting,
    /// Not a record; kept as a dead letter.
    Malformed,
}

impl VerdictKind {
    /// All verdicts, in the order in which they are printed. Well-formed records come first.
    pub const ALL: [VerdictKind; 8] = [
        VerdictKind::Exported,
        VerdictKind::Firewalled,
        VerdictKind::UnknownCategory,
        VerdictKind::Ordered,
        VerdictKind::WrongRole,
        VerdictKind::BlankText,
        VerdictKind::Waiting,
        VerdictKind::Malformed,
    ];

    /// Number of verdicts on well-formed records: all but [`VerdictKind::Malformed`].
    pub const RECORDS: usize = Self::ALL.len() - 1;

    /// Returns the name used in JSON, metric labels, logs and batch results. It never changes.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            VerdictKind::Exported => "exported",
            VerdictKind::Firewalled => "firewalled",
            VerdictKind::UnknownCategory => "unknown_category",
            VerdictKind::Ordered => "ordered",
            VerdictKind::WrongRole => "wrong_role",
            VerdictKind::BlankText => "blank_text",
            VerdictKind::Waiting => "waiting",
            VerdictKind::Malformed => "malformed",
        }
    }

    /// Returns the name for tables that people read: the code, with spaces.
    #[must_use]
    pub fn title(self) -> String {
        self.code().replace('_', " ")
    }

    /// Returns whether a rule refused the record. A waiting or malformed line is not refused.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self.refuses_evidence()
            || matches!(
                self,
                VerdictKind::Firewalled | VerdictKind::UnknownCategory | VerdictKind::Ordered
            )
    }

    /// Returns whether the record was refused for its evidence; other evidence can give it another verdict.
    #[must_use]
    pub const fn refuses_evidence(self) -> bool {
        match self {
            VerdictKind::WrongRole | VerdictKind::BlankText => true,
            VerdictKind::Exported
            | VerdictKind::Firewalled
            | VerdictKind::UnknownCategory
            | VerdictKind::Ordered
            | VerdictKind::Waiting
            | VerdictKind::Malformed => false,
        }
    }
}

/// One value for each verdict. Serialized as a map from [`VerdictKind::code`] to the value, so that it can be flattened
/// into a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerVerdict<T>([T; VerdictKind::ALL.len()]);

impl<T: Copy> PerVerdict<T> {
    /// Calls `value` once for each verdict.
    pub fn from_fn(mut value: impl FnMut(VerdictKind) -> T) -> Self {
        Self(VerdictKind::ALL.map(&mut value))
    }

    /// Returns each verdict with its value, in the order of [`VerdictKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (VerdictKind, T)> {
        VerdictKind::ALL.into_iter().zip(self.0)
    }
}

impl PerVerdict<u64> {
    /// Returns the sum over the verdicts that `filter` accepts.
    pub fn sum_of(&self, filter: impl Fn(VerdictKind) -> bool) -> u64 {
        self.iter()
            .filter(|(kind, _)| filter(*kind))
            .fold(0, |sum, (_, lines)| sum.saturating_add(lines))
    }
}

impl<T> Index<VerdictKind> for PerVerdict<T> {
    type Output = T;

    fn index(&self, kind: VerdictKind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<VerdictKind> for PerVerdict<T> {
    fn index_mut(&mut self, kind: VerdictKind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

impl<T: Copy + AddAssign> AddAssign for PerVerdict<T> {
    fn add_assign(&mut self, other: Self) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum += value;
        }
    }
}

impl<T: Serialize> Serialize for PerVerdict<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (kind, value) in VerdictKind::ALL.iter().zip(&self.0) {
            map.serialize_entry(kind.code(), value)?;
        }
        map.end()
    }
}

/// A verdict that is absent reads as the default, a key that is not a verdict is ignored.
impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for PerVerdict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<T>(PerVerdict<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Values<T> {
            type Value = PerVerdict<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from verdicts to values")
            }

            fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
                while let Some(key) = map.next_key::<String>()? {
                    match VerdictKind::ALL.into_iter().find(|kind| kind.code() == key) {
                        Some(kind) => self.0[kind] = map.next_value()?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(self.0)
            }
        }

        deserializer.deserialize_map(Values(PerVerdict(std::array::from_fn(|_| T::default()))))
    }
}

/// The scored records of a pair by verdict. Malformed lines are no records; [`LineTotals`] counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerdictCounts {
    /// Records by verdict, in the order of [`VerdictKind::ALL`].
    pub(super) records: [u64; VerdictKind::RECORDS],
    /// Exported records for which evidence that differs arrived after the row was written.
    pub superseded: u64,
    /// Exported records whose row a later line of the same run overrules.
    pub contradicted: u64,
}

impl VerdictCounts {
    /// Returns the number of records with a verdict. Saturates, so that counts of a damaged state fail the account
    /// instead of ending the process.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.iter().copied().fold(0, u64::saturating_add)
    }

    /// Returns the counts with `lines` records of one verdict.
    ///
    /// # Panics
    /// Like the index, for [`VerdictKind::Malformed`].
    #[must_use]
    pub fn with(mut self, kind: VerdictKind, lines: u64) -> Self {
        self[kind] = lines;
        self
    }

    /// Moves the records that were refused for their evidence to the waiting ones, because their evidence was reset.
    /// Returns how many.
    pub fn requeue_refused_evidence(&mut self) -> u64 {
        let mut refused = 0;
        for (kind, records) in VerdictKind::ALL.into_iter().zip(&mut self.records) {
            if kind.refuses_evidence() {
                refused += std::mem::take(records);
            }
        }
        self[VerdictKind::Waiting] += refused;
        refused
    }
}

/// Panics for [`VerdictKind::Malformed`], which is not the verdict of a record.
impl Index<VerdictKind> for VerdictCounts {
    type Output = u64;

    fn index(&self, kind: VerdictKind) -> &u64 {
        &self.records[kind as usize]
    }
}

impl IndexMut<VerdictKind> for VerdictCounts {
    fn index_mut(&mut self, kind: VerdictKind) -> &mut u64 {
        &mut self.records[kind as usize]
    }
}

/// The verdict on a well-formed scored line, with what is remembered of it. Persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No evidence yet; joined again when evidence with its run id arrives.
    Waiting {
        /// Its index among the well-formed records of its day-file.
        index: u32,
        /// When it began to wait, seconds since 1970.
        since_s: u64,
    },
    /// Refused because an operator ordered the run out; joined again like a waiting run.
    Ordered {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Refused for the model role of its evidence; joined again like a waiting run.
    WrongRole {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Refused for the blank text of its evidence; joined again like a waiting run.
    BlankText {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Its row is in the export.
    Exported {
        /// Offset of the row in the export, bytes.
        row_offset: u64,
        /// Digest of the evidence line that the row was made from; for a claimed row, of the evidence that counted at
        /// that time; 0 if an earlier version did not record it.
        evidence_digest: u32,
        /// Evidence that differs arrived later.
        superseded: bool,
        /// A later line of the same run overrules the row.
        contradicted: bool,
    },
    /// Refused by the firewall. Final.
    Firewalled,
    /// Refused for an unknown category. Final.
    UnknownCategory,
}

impl Verdict {
    /// Returns the verdict of a record that a rule refused.
    #[must_use]
    pub fn refused(refusal: Refusal, index: u32) -> Self {
        match refusal {
            Refusal::UnknownCategory => Verdict::UnknownCategory,
            Refusal::Ordered => Verdict::Ordered { index },
            Refusal::WrongRole => Verdict::WrongRole { index },
            Refusal::BlankText => Verdict::BlankText { index },
        }
    }

    /// Returns whether the category refused the record.
    #[must_use]
    pub fn is_refused_category(&self) -> bool {
        matches!(self, Verdict::Firewalled | Verdict::UnknownCategory)
    }

    /// Returns whether the line overrules the rows of earlier lines of its run.
    #[must_use]
    pub fn overrules(&self) -> bool {
        self.is_refused_category() || matches!(self, Verdict::Exported { .. })
    }

    /// Returns the rule that refused the record, except the firewall.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Verdict::UnknownCategory => Some(Refusal::UnknownCategory),
            Verdict::Ordered { .. } => Some(Refusal::Ordered),
            Verdict::WrongRole { .. } => Some(Refusal::WrongRole),
            Verdict::BlankText { .. } => Some(Refusal::BlankText),
            Verdict::Waiting { .. } | Verdict::Exported { .. } | Verdict::Firewalled => None,
        }
    }

    /// Returns the record's index if it is joined again with new evidence.
    #[must_use]
    pub fn index_to_join(&self) -> Option<u32> {
        match *self {
            Verdict::Waiting { index, .. }
            | Verdict::Ordered { index }
            | Verdict::WrongRole { index }
            | Verdict::BlankText { index } => Some(index),
            Verdict::Exported { .. } | Verdict::Firewalled | Verdict::UnknownCategory => None,
        }
    }

    /// Returns the verdict after a reset of the record's evidence, if it was refused for that evidence.
    #[must_use]
    pub fn requeued(&self, since_s: u64) -> Option<Self> {
        let refused = self.kind().refuses_evidence();
        let index = self.index_to_join().filter(|_| refused)?;
        Some(Verdict::Waiting { index, since_s })
    }

    /// Returns the persisted form: a code, a number of 48 bits and one of 32.
    pub(super) fn pack(&self) -> (u8, u64, u32) {
        match *self {
            Verdict::Waiting { index, since_s } => (0, since_s, index),
            Verdict::WrongRole { index } => (1, 0, index),
            Verdict::BlankText { index } => (2, 0, index),
            Verdict::Exported {
                row_offset,
                evidence_digest,
                superseded,
                contradicted,
            } => {
                let flags = u8::from(superseded) << 4 | u8::from(contradicted) << 5;
                (3 | flags, row_offset, evidence_digest)
            }
            Verdict::Firewalled => (4, 0, 0),
            Verdict::UnknownCategory => (5, 0, 0),
            Verdict::Ordered { index } => (6, 0, index),
        }
    }

    /// Returns the verdict with this persisted form.
    pub(super) fn unpack(code: u8, long: u64, short: u32) -> Option<Self> {
        Some(match code & 0x0f {
            0 => Verdict::Waiting {
                index: short,
                since_s: long,
            },
            1 => Verdict::WrongRole { index: short },
            2 => Verdict::BlankText { index: short },
            3 => Verdict::Exported {
                row_offset: long,
                evidence_digest: short,
                superseded: code & 0x10 != 0,
                contradicted: code & 0x20 != 0,
            },
            4 => Verdict::Firewalled,
            5 => Verdict::UnknownCategory,
            6 => Verdict::Ordered { index: short },
            _ => return None,
        })
    }

    /// Returns the verdict without its data.
    #[must_use]
    pub fn kind(&self) -> VerdictKind {
        match self {
            Verdict::Exported { .. } => VerdictKind::Exported,
            Verdict::Firewalled => VerdictKind::Firewalled,
            Verdict::UnknownCategory => VerdictKind::UnknownCategory,
            Verdict::Ordered { .. } => VerdictKind::Ordered,
            Verdict::WrongRole { .. } => VerdictKind::WrongRole,
            Verdict::BlankText { .. } => VerdictKind::BlankText,
            Verdict::Waiting { .. } => VerdictKind::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_each_verdict_at_its_index_and_malformed_last() {
        for (n, kind) in VerdictKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
        }
        assert_eq!(VerdictKind::Malformed as usize, VerdictKind::RECORDS);
    }

    #[test]
    fn each_verdict_of_a_record_has_one_code_and_is_refused_by_one_rule() {
        let records = u8::try_from(VerdictKind::RECORDS).unwrap();
        let verdicts: Vec<Verdict> = (0..records)
            .map(|code| Verdict::unpack(code, 7, 9).unwrap())
            .collect();
        assert_eq!(Verdict::unpack(records, 7, 9), None);
        for kind in &VerdictKind::ALL[..VerdictKind::RECORDS] {
            let of_kind: Vec<&Verdict> = verdicts.iter().filter(|v| v.kind() == *kind).collect();
            let [verdict] = of_kind.as_slice() else {
                panic!("not one code of {}: {of_kind:?}", kind.code());
            };
            let (code, long, short) = verdict.pack();
            assert_eq!(Verdict::unpack(code, long, short), Some(**verdict));
            let by_rule = verdict
                .refusal()
                .map(|refusal| Verdict::refused(refusal, 9));
            let is_by_rule = kind.is_refusal() && *kind != VerdictKind::Firewalled;
            assert_eq!(by_rule, is_by_rule.then_some(**verdict));
            let is_joined = kind.refuses_evidence()
                || matches!(kind, VerdictKind::Waiting | VerdictKind::Ordered);
            assert_eq!(verdict.index_to_join(), is_joined.then_some(9));
            let waiting = (kind.refuses_evidence()).then_some(Verdict::Waiting {
                index: 9,
                since_s: 8,
            });
            assert_eq!(verdict.requeued(8), waiting);
        }
    }

    #[test]
    fn values_per_verdict_are_a_json_object_and_other_keys_are_ignored() {
        let values = PerVerdict::from_fn(|kind| kind as u64);
        let json = serde_json::to_string(&values).unwrap();
        assert!(
            json.starts_with(r#"{"exported":0,"firewalled":1,"#),
            "{json}"
        );
        assert_eq!(
            serde_json::from_str::<PerVerdict<u64>>(&json).unwrap(),
            values
        );
        let some: PerVerdict<u64> =
            serde_json::from_str(r#"{"waiting":3,"later":{"a":1}}"#).unwrap();
        assert_eq!(some.sum_of(|_| true), 3);
    }
}
