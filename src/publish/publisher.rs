//! One step of the publisher: what the table lacks, and the commit that adds it. See the invariants of the parent.

use std::ops::ControlFlow;
use std::path::Path;

use crate::dataset::error::DatasetError;
use crate::dataset::feed::{Changes, Feed, Point};
use crate::platform::storage::OsStorage;
use crate::publish::columns::RowColumns;
use crate::publish::error::PublishError;
use crate::publish::numbers::{numbers, point};
use crate::publish::settings::Settings;
use crate::publish::table::{
    AddedFile, Change, Committed, FileWriter, NewRow, Operation, Rewrite, Table, TableVersion,
};
use crate::record::keys::RowKey;
use crate::record::ledger::RowSpan;

/// Attempts of one step while other writers are first.
pub(super) const ATTEMPTS_MAX: u32 = 1_000;

/// What a commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// Commits.
    pub commits: u64,
    /// Attempts at which another writer was first.
    pub conflicts: u64,
    /// Rows that were added for the first time, or again after a restore.
    pub rows: u64,
    /// Rows that were taken out.
    pub retracted: u64,
    /// Bytes of the export that were read for them.
    pub bytes: u64,
    /// The newest version of the table.
    pub version: u64,
}

impl Account {
    /// Adds what another step did.
    pub fn add(&mut self, other: Account) {
        self.commits += other.commits;
        self.conflicts += other.conflicts;
        self.rows += other.rows;
        self.retracted += other.retracted;
        self.bytes += other.bytes;
        self.version = other.version;
    }
}

/// What a step did, and what the table has after it.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What it did.
    pub account: Account,
    /// How much of the export the table has.
    pub published: Point,
}

/// Rows that were written for a commit at which another writer was first. They fit the next attempt if it begins and ends
/// at the same points.
struct Written {
    from: Point,
    to: Point,
    files: Vec<AddedFile>,
}

/// The publisher of one export.
pub struct Publisher<'p> {
    settings: &'p Settings,
    /// The table.
    pub table: Table,
    /// The export.
    pub feed: Feed,
}

impl Publisher<'_> {
    /// Opens export and table.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn open(settings: &Settings) -> Result<Publisher<'_>, PublishError> {
        Ok(Publisher {
            settings,
            table: Table::open(settings.table.clone())?,
            feed: Feed::open(&OsStorage, &settings.export)?,
        })
    }

    /// Opens the export again if a rebuild replaced it, and returns whether one did.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn reopen_if_replaced(&mut self) -> Result<bool, PublishError> {
        let is_replaced = self.feed.is_replaced(&OsStorage)?;
        if is_replaced {
            self.feed = Feed::open(&OsStorage, &self.settings.export)?;
        }
        Ok(is_replaced)
    }

    /// Commits what the table lacks of the export as it is now, and calls `each` after each commit until it returns false.
    /// Rows that arrive meanwhile are left to the next call: under a steady load this would not end otherwise, and each
    /// commit would have a few rows.
    ///
    /// # Errors
    /// Those of [`Publisher::step`].
    pub fn catch_up(&mut self, each: &mut dyn FnMut(Step) -> bool) -> Result<(), PublishError> {
        let end = self.feed.head()?;
        loop {
            let step = self.step()?;
            let has_all = step.published.export_len >= end.export_len
                && step.published.ledger_len >= end.ledger_len;
            if !each(step) || has_all || step.account.commits == 0 {
                return Ok(());
            }
        }
    }

    /// Makes one commit, if the table lacks anything. Creates the table if there is none.
    ///
    /// # Errors
    /// What the table lacks is not known with certainty, or cannot be committed.
    pub fn step(&mut self) -> Result<Step, PublishError> {
        let mut account = Account::default();
        let mut written = None;
        for _ in 0..ATTEMPTS_MAX {
            let Some(version) = self.table.newest()? else {
                self.table.create()?;
                continue;
            };
            account.version = version.number();
            let mut attempt = Attempt {
                settings: self.settings,
                feed: &mut self.feed,
                version: &version,
                written: &mut written,
                published: Point::default(),
                account: Account::default(),
            };
            match attempt.run()? {
                Some(Committed::Conflict) => account.conflicts += 1,
                done => {
                    if let Some(Committed::Version(number)) = done {
                        attempt.account.commits = 1;
                        attempt.account.version = number;
                        account.add(attempt.account);
                    }
                    let published = attempt.published;
                    return Ok(Step { account, published });
                }
            }
        }
        Err(PublishError::Contended {
            table: self.settings.table.clone(),
            attempts: ATTEMPTS_MAX,
        })
    }
}

/// One attempt to commit what a version of the table lacks.
struct Attempt<'a, 't> {
    settings: &'a Settings,
    feed: &'a mut Feed,
    version: &'a TableVersion<'t>,
    written: &'a mut Option<Written>,
    /// What the table has, with the commit of this attempt if it is not refused.
    published: Point,
    account: Account,
}

impl Attempt<'_, '_> {
    /// Returns `None` if the table lacks nothing.
    fn run(&mut self) -> Result<Option<Committed>, PublishError> {
        let point = point(self.settings, self.feed, self.version)?;
        self.published = point;
        let changes = self.feed.changes(point)?;
        if !changes.retracted.is_empty() || !changes.restored.is_empty() {
            return self.commit_changes(point, &changes).map(Some);
        }
        let end = self.feed.end_of_rows(
            point.export_len,
            changes.export_len,
            self.settings.commit_bytes,
        )?;
        let next = Point {
            export_len: end,
            ledger_len: changes.ledger_len,
        };
        if next == point {
            return Ok(None);
        }
        let files = self.written(point, next)?;
        self.account.bytes = end - point.export_len;
        let committed = self.commit(Operation::Write, next, &files, Rewrite::default())?;
        *self.written = Some(Written {
            from: point,
            to: next,
            files,
        });
        Ok(Some(committed))
    }

    /// Returns the files with the rows between two points: those of an attempt before, or new ones.
    fn written(&mut self, from: Point, to: Point) -> Result<Vec<AddedFile>, PublishError> {
        match self.written.take() {
            Some(written) if (written.from, written.to) == (from, to) => Ok(written.files),
            _ => write_rows(
                self.settings,
                self.version,
                self.feed,
                from.export_len,
                to.export_len,
            ),
        }
    }

    /// Commits what happened to rows that the table has or had. The rows that follow are left to the next commit: a
    /// reader that follows the table may leave out commits that take rows out.
    fn commit_changes(
        &mut self,
        point: Point,
        changes: &Changes,
    ) -> Result<Committed, PublishError> {
        let next = Point {
            ledger_len: changes.ledger_len,
            ..point
        };
        let offsets: Vec<u64> = changes.retracted.iter().map(|row| row.offset).collect();
        let rewrite = match offsets.is_empty() {
            true => Rewrite::default(),
            false => self.version.without(&self.settings.host, &offsets)?,
        };
        self.account.retracted = rewrite.rows;
        let restored = self.write_restored(&changes.restored)?;
        let operation = match rewrite.is_empty() {
            true => Operation::Write,
            false => Operation::Delete,
        };
        self.commit(operation, next, &restored, rewrite)
    }

    fn write_restored(&self, rows: &[RowSpan]) -> Result<Vec<AddedFile>, PublishError> {
        let mut writer = self.version.table().writer(&self.settings.host)?;
        for row in rows {
            let bytes = self.feed.row(*row)?;
            add(&mut writer, self.feed.export_path(), row.offset, &bytes)?;
        }
        Ok(writer.finish()?)
    }

    fn commit(
        &mut self,
        operation: Operation,
        point: Point,
        added: &[AddedFile],
        rewrite: Rewrite,
    ) -> Result<Committed, PublishError> {
        self.published = point;
        self.account.rows = added.iter().map(|file| file.rows).sum();
        Ok(self.version.commit(Change {
            operation,
            transactions: numbers(self.settings, self.feed, point)?,
            added,
            rewrite,
        })?)
    }
}

/// Writes the effective rows of a range of the export to files.
pub(super) fn write_rows(
    settings: &Settings,
    version: &TableVersion<'_>,
    feed: &mut Feed,
    from: u64,
    to: u64,
) -> Result<Vec<AddedFile>, PublishError> {
    let mut writer = version.table().writer(&settings.host)?;
    let path = feed.export_path().to_owned();
    let mut failed = None;
    feed.effective_rows(
        from,
        to,
        &mut |offset, row| match add(&mut writer, &path, offset, row) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) => {
                failed = Some(error);
                Ok::<_, DatasetError>(ControlFlow::Break(()))
            }
        },
    )?;
    match failed {
        Some(error) => Err(error),
        None => Ok(writer.finish()?),
    }
}

fn add(
    writer: &mut FileWriter<'_>,
    path: &Path,
    offset: u64,
    row: &[u8],
) -> Result<(), PublishError> {
    let no_row = |reason: String| PublishError::NoRow {
        path: path.to_owned(),
        at_byte: offset,
        reason,
    };
    let columns = RowColumns::read(row).map_err(|error| no_row(error.to_string()))?;
    let key = RowKey::from_row(row).map_err(|error| no_row(error.to_string()))?;
    let verbatim = columns.verbatim(row);
    writer.add(&NewRow {
        export_offset: offset,
        row_key: &format!("{key:?}"),
        columns: &columns,
        verbatim: verbatim.as_deref(),
    })?;
    Ok(())
}
