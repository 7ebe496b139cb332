//! The categories that scorers assign to runs.

use crate::record::json::text::JsonText;

/// The categories that never reach the training set. This set never grows or shrinks.
pub const FIREWALL: [&str; 2] = ["rejected", "needs_human_review"];

/// The categories that may reach it.
pub const ACCEPTED: [&str; 2] = ["accepted", "partially_accepted"];

/// Returns whether a category is one of [`FIREWALL`].
pub(super) fn is_firewalled(category: &JsonText<'_>) -> bool {
    is_one_of(category, &FIREWALL)
}

/// Returns whether a category is one of a set.
pub(super) fn is_one_of(category: &JsonText<'_>, set: &[&str]) -> bool {
    set.iter().any(|known| category.eq_str(known))
}
