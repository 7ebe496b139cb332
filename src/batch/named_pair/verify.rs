//! Compares given rows with those of a named pair, as multisets, timestamps aside.
//!
//! Memory: about 60 bytes for each row of the pair.

use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};

use crate::batch::named_pair::account::PairVerification;
use crate::batch::named_pair::error::NamedPairError;
use crate::batch::named_pair::export::NamedPairOptions;
use crate::batch::named_pair::{NamedPair, PairFiles};
use crate::batch::verify::max_row_bytes;
use crate::platform::storage::Storage;
use crate::record::row::digest_without_stamps;

/// The rows to be compared.
pub struct GivenRows<'r> {
    /// Their name, for messages.
    pub name: String,
    /// One row a line, in any order.
    pub lines: &'r mut dyn BufRead,
}

/// Compares rows with those of a pair, and returns the result with a description of the first difference.
pub fn verify_named_pair(
    storage: &dyn Storage,
    files: &PairFiles,
    options: &NamedPairOptions<'_>,
    given: GivenRows<'_>,
) -> (PairVerification, Result<Option<String>, NamedPairError>) {
    let mut comparison = Comparison {
        result: PairVerification::default(),
        earned: HashMap::new(),
        max_row_bytes: max_row_bytes(options.reading.max_line_bytes),
        first_difference: None,
    };
    let compared = comparison.compare(storage, files, options, given);
    let Comparison {
        mut result,
        first_difference,
        ..
    } = comparison;
    match &compared {
        Ok(()) => {
            result.account.complete = true;
            result.equal = first_difference.is_none();
        }
        Err(error) => result.account.error = error.to_string(),
    }
    (result, compared.map(|()| first_difference))
}

/// A row of the pair, by its digest.
struct Earned {
    /// Lines that earn it and have not been matched.
    left: u64,
    /// Offset of the last one.
    offset: u64,
}

struct Comparison {
    result: PairVerification,
    earned: HashMap<u128, Earned>,
    max_row_bytes: usize,
    first_difference: Option<String>,
}

impl Comparison {
    fn compare(
        &mut self,
        storage: &dyn Storage,
        files: &PairFiles,
        options: &NamedPairOptions<'_>,
        given: GivenRows<'_>,
    ) -> Result<(), NamedPairError> {
        let pair = NamedPair::open(storage, files, options.refuses_overlong)?;
        let account = &mut self.result.account;
        account.on_open(&pair);
        let earned = &mut self.earned;
        let totals = pair.for_each_row(&options.reading, &mut |line| {
            account.rows += 1;
            let digest = digest_without_stamps(line.row).expect("a row that was just made");
            let row = earned
                .entry(digest)
                .or_insert(Earned { left: 0, offset: 0 });
            row.left += 1;
            row.offset = line.span.offset;
            Ok(())
        })?;
        account.on_read(&totals);
        let name = given.name.clone();
        self.read_given(given)
            .map_err(|source| NamedPairError::Rows { path: name, source })?;
        self.add_missing(&pair);
        Ok(())
    }

    fn read_given(&mut self, given: GivenRows<'_>) -> io::Result<()> {
        let (mut offset, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let limit = self.max_row_bytes as u64 + 1;
            let read = given.lines.take(limit).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            if read as u64 == limit {
                let message = format!("the line at byte {offset} is longer than any row");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.add(&line, offset, &given.name);
            offset += read as u64;
        }
    }

    fn add(&mut self, line: &[u8], offset: u64, name: &str) {
        let result = &mut self.result;
        result.given += 1;
        let at = format!("the line at byte {offset} of {name}");
        let difference = match line.ends_with(b"\n").then(|| digest_without_stamps(line)) {
            None => {
                result.unreadable += 1;
                format!("unreadable: {at} has no newline: the rows are cut")
            }
            Some(Err(error)) => {
                result.unreadable += 1;
                format!("unreadable: {at} is not a row: {error}")
            }
            Some(Ok(digest)) => match self.earned.get_mut(&digest) {
                Some(row) if row.left > 0 => {
                    row.left -= 1;
                    return;
                }
                Some(_) => {
                    result.duplicate += 1;
                    format!("duplicate: {at} is a row that was given before")
                }
                None => {
                    result.unexpected += 1;
                    format!("unexpected: {at} is no row of the pair")
                }
            },
        };
        self.first_difference.get_or_insert(difference);
    }

    fn add_missing(&mut self, pair: &NamedPair) {
        let missing = self.earned.values().filter(|row| row.left > 0);
        let Some(offset) = missing.clone().map(|row| row.offset).min() else {
            return;
        };
        self.result.missing = missing.map(|row| row.left).sum();
        let path = pair.scored.path.display();
        self.first_difference.get_or_insert(format!(
            "missing: the row of the line at byte {offset} of {path} was not given"
        ));
    }
}
