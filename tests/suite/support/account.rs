//! Compares the account in `status` with the counts of the naive batch.

use std::path::Path;
use std::process::Command;

use distilld::platform::storage::OsStorage;

use super::naive::{Counts, naive_batch, read_pairs};

/// The part of the account that must equal the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Every figure.
    All,
    /// Evidence may have been removed again while its rows remain: the verdict of lines without a row depends on the
    /// moment.
    Lines,
    /// Day-files may have been removed too; the lines that were read of them remain in the account.
    AtLeast,
}

/// Returns the difference between the account of a root, from its daemon or from the remaining state, and the counts
/// of a batch of the current lake.
pub fn account_fault(root: &Path, compared: Compared) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command.env_clear().arg("--root").arg(root);
    account_fault_by(command, root, compared)
}

/// As [`account_fault`], of a command that names the lake.
pub fn account_fault_by(mut command: Command, root: &Path, compared: Compared) -> Option<String> {
    let output = command.args(["status", "--json"]).output().unwrap();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Some(format!("status ended with {}: {stderr}", output.status));
    }
    let account: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let naive = naive_batch(&read_pairs(&OsStorage, root).unwrap(), false).counts;
    difference(&account["scored"], &naive, compared)
}

fn difference(account: &serde_json::Value, naive: &Counts, compared: Compared) -> Option<String> {
    if account["balanced"] != true {
        return Some(format!("the account does not balance: {account}"));
    }
    let of_lines = [
        ("lines", naive.records + naive.malformed),
        ("malformed", naive.malformed),
        ("firewalled", naive.firewall),
        ("unknown_category", naive.unknown_category),
    ];
    let of_evidence = [
        ("waiting", naive.no_evidence),
        ("wrong_role", naive.role),
        ("blank_text", naive.blank_text),
    ];
    let figure = |name: &str| account[name].as_u64().unwrap();
    let is_wrong = match compared {
        Compared::All => of_lines
            .iter()
            .chain(&of_evidence)
            .any(|(name, count)| figure(name) != *count),
        Compared::Lines => of_lines.iter().any(|(name, count)| figure(name) != *count),
        Compared::AtLeast => of_lines.iter().any(|(name, count)| figure(name) < *count),
    };
    // If all other figures match, an additional row would be an additional line.
    let is_wrong = is_wrong || figure("exported") < naive.exported;
    is_wrong.then(|| {
        format!("compared {compared:?}, the account is {account}, a batch counts {naive:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns the violation if one figure of ten differs by `by`.
    fn fault(name: &str, by: i64, compared: Compared) -> bool {
        let mut account = json!({
            "lines": 28, "exported": 7, "firewalled": 6, "unknown_category": 5, "wrong_role": 4, "blank_text": 3,
            "waiting": 2, "malformed": 1, "balanced": true,
        });
        account[name] = (account[name].as_i64().unwrap() + by).into();
        let naive = Counts {
            records: 27,
            malformed: 1,
            firewall: 6,
            unknown_category: 5,
            no_evidence: 2,
            role: 4,
            blank_text: 3,
            exported: 7,
            ..Counts::default()
        };
        difference(&account, &naive, compared).is_some()
    }

    #[test]
    fn a_wrong_figure_is_found_if_it_is_compared() {
        for compared in [Compared::All, Compared::Lines, Compared::AtLeast] {
            let all = compared == Compared::All;
            assert!(!fault("lines", 0, compared));
            for of_lines in ["lines", "malformed", "firewalled", "unknown_category"] {
                assert!(fault(of_lines, -1, compared), "{of_lines} {compared:?}");
                let at_least = compared == Compared::AtLeast;
                assert_eq!(fault(of_lines, 1, compared), !at_least, "{of_lines}");
            }
            for of_evidence in ["waiting", "wrong_role", "blank_text"] {
                assert_eq!(fault(of_evidence, -1, compared), all, "{of_evidence}");
            }
            assert!(fault("exported", -1, compared), "{compared:?}");
        }
        let unbalanced = json!({ "balanced": false });
        assert!(difference(&unbalanced, &Counts::default(), Compared::AtLeast).is_some());
    }
}
