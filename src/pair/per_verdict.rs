//! One value for each verdict, as JSON has it.

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pair::verdict::VerdictKind;

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
