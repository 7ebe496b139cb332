//! Commits to the table: each is the next version, or nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use delta_kernel::FileMeta;
use delta_kernel::arrow::array::RecordBatch;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation};
use delta_kernel::{KernelError, KernelResult};
use delta_kernel_default_engine::build_add_file_metadata;
use delta_kernel_default_engine::parquet::DataFileMetadata;

use crate::publish::table::schema::table_schema;
use crate::publish::table::{AddedFile, Location, Rewrite, Table, TableError, TableVersion};

/// The program that the history of the table names.
const ENGINE: &str = concat!("distilld-publish/", env!("CARGO_PKG_VERSION"));

/// What a commit does, as the history of the table names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Adds rows.
    Write,
    /// Takes rows out.
    Delete,
    /// Replaces the rows of a host.
    Replace,
}

/// The content of a commit.
#[derive(Debug)]
pub struct Change<'c> {
    /// What it does.
    pub operation: Operation,
    /// The numbers that it leaves in the table, by name.
    pub transactions: Vec<(String, i64)>,
    /// Files of new rows.
    pub added: &'c [AddedFile],
    /// Files without some of their rows.
    pub rewrite: Rewrite,
}

/// The result of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The table has this version now.
    Version(u64),
    /// Another writer was first: nothing of the commit is in the table.
    Conflict,
}

impl Table {
    /// Creates the table, empty. It is no error if another process creates it first.
    ///
    /// # Errors
    /// The storage refuses.
    pub fn create(&self) -> Result<(), TableError> {
        if let Location::Directory(path) = &self.location {
            // Only its own directory: above it may be a file system that is not mounted.
            create_dir(path).map_err(|error| self.unreachable(&error))?;
        }
        let create = || -> KernelResult<()> {
            let committer = Box::new(FileSystemCommitter::new());
            let schema = Arc::new(table_schema()?);
            create_table(self.location.url(), schema, ENGINE, false)
                .build(&*self.engine, committer)?
                .commit(&*self.engine)
                .map(drop)
        };
        match create() {
            Ok(()) | Err(KernelError::TableAlreadyExistsAtPath(_)) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }
}

/// Creates a directory with its name on disk, unless it is there.
fn create_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

impl TableVersion<'_> {
    /// Commits a change as the version after this one.
    ///
    /// # Errors
    /// The storage refuses, or the table cannot take the change. Whether the commit is in the table is then not known; the
    /// numbers in its newest version show it.
    pub fn commit(&self, change: Change<'_>) -> Result<Committed, TableError> {
        self.try_commit(change)
            .map_err(|error| self.table.error(error))
    }

    fn try_commit(&self, change: Change<'_>) -> KernelResult<Committed> {
        let engine = &*self.table.engine;
        let operation = match change.operation {
            Operation::Write => UpdateTableOperation::Write,
            Operation::Delete => UpdateTableOperation::Delete,
            Operation::Replace => UpdateTableOperation::Custom("REPLACE HOST".to_owned()),
        };
        let mut transaction = Arc::clone(&self.snapshot)
            .update_table(operation, ENGINE, true)
            .build(engine, Box::new(FileSystemCommitter::new()))?;
        for (name, number) in change.transactions {
            transaction = transaction.with_transaction_id(name, number);
        }
        for file in change.added.iter().chain(&change.rewrite.added) {
            self.add(&mut transaction, file)?;
        }
        for (files, selected) in change.rewrite.removed {
            transaction.remove_files(removal(files, selected)?);
        }
        match transaction.commit(engine)? {
            CommitResult::Committed(done) => Ok(Committed::Version(done.commit_version())),
            CommitResult::Conflicted(_) => Ok(Committed::Conflict),
            CommitResult::Retryable(failed) => Err(failed.error),
        }
    }

    fn add(&self, transaction: &mut Transaction, file: &AddedFile) -> KernelResult<()> {
        let context = transaction.write_state()?.write_context_builder().build()?;
        let location = context.table_root_dir().join(&file.name)?;
        let meta = FileMeta::new(location, file.modified_ms, file.len_bytes);
        let file = DataFileMetadata::new(meta, file.stats.clone());
        transaction.add_files(build_add_file_metadata(file, &context)?);
        Ok(())
    }

    /// Writes a checkpoint of this version, with which readers need not read the commits before it.
    ///
    /// # Errors
    /// The storage refuses.
    pub fn checkpoint(&self) -> Result<(), TableError> {
        let written = self.snapshot.checkpoint(&*self.table.engine, None);
        written.map(drop).map_err(|error| self.table.error(error))
    }
}

fn removal(files: RecordBatch, selected: Vec<bool>) -> KernelResult<FilteredEngineData> {
    FilteredEngineData::try_new(Box::new(ArrowEngineData::new(files)), selected)
}
