//! A Delta table, as far as the publisher needs it: versions, the numbers that transactions leave in it, files of rows,
//! and commits that succeed only as the next version. The Delta kernel changes its interface with each minor version,
//! so nothing outside this folder uses it or Arrow.

mod commit;
mod read;
mod schema;
mod store;
mod write;

use std::io;
use std::num::NonZero;
use std::sync::Arc;

use delta_kernel::object_store::path::Path as StorePath;
use delta_kernel::object_store::{
    DynObjectStore, Error as StoreError, ObjectStore as _, ObjectStoreExt as _,
};
use delta_kernel::snapshot::SnapshotRef;
use delta_kernel::table_features::ColumnMappingMode;
use delta_kernel::{KernelError, Snapshot};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use tokio::runtime::Runtime;

pub use commit::{Change, Committed, Operation};
pub use read::{HostRow, Rewrite};
pub use store::Location;
pub use write::{AddedFile, FileWriter, NewRow};

/// The reason why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The storage of the table does not answer, or refuses.
    #[error("cannot use the table {table}: {reason}")]
    Unreachable {
        /// The table.
        table: Location,
        /// The message of the storage.
        reason: String,
    },
    /// There is no table.
    #[error("there is no table at {0}")]
    Missing(Location),
    /// The table has other columns, or properties with which rows cannot be published exactly once.
    #[error("the table {table} cannot take the rows: {what}")]
    Unfit {
        /// The table.
        table: Location,
        /// The difference.
        what: String,
    },
    /// A file that the table needs is not there.
    #[error("a file of the table {table} is missing: {file}")]
    FileMissing {
        /// The table.
        table: Location,
        /// The file.
        file: String,
    },
    /// Any other error of the kernel.
    #[error("the table {table}: {reason}")]
    Kernel {
        /// The table.
        table: Location,
        /// The message of the kernel.
        reason: String,
    },
    /// The process cannot start its threads.
    #[error("cannot start the threads for the table: {0}")]
    Threads(#[source] io::Error),
}

/// Rows of a file that are decoded at a time.
const READ_ROWS: NonZero<usize> = NonZero::new(256).expect("it is not zero");

type Engine = DefaultEngine<TokioMultiThreadExecutor>;

/// A table.
pub struct Table {
    location: Location,
    store: Arc<DynObjectStore>,
    engine: Arc<Engine>,
    /// Dropped last: the engine works on it.
    runtime: Runtime,
}

/// A version of the table that can take rows.
pub struct TableVersion<'t> {
    table: &'t Table,
    snapshot: SnapshotRef,
}

impl Table {
    /// Opens the storage of a table; reads nothing.
    ///
    /// # Errors
    /// The location cannot be used, or no thread can be started.
    pub fn open(location: Location) -> Result<Table, TableError> {
        // The kernel writes a checkpoint on one thread while it reads on another; one alone would wait for itself.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(TableError::Threads)?;
        let store = location.store()?;
        let executor = TokioMultiThreadExecutor::new(runtime.handle().clone());
        let engine = DefaultEngineBuilder::new(Arc::clone(&store))
            .with_task_executor(Arc::new(executor))
            .with_batch_size(READ_ROWS)
            .build();
        Ok(Table {
            location,
            store,
            engine: Arc::new(engine),
            runtime,
        })
    }

    /// Returns the location.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the newest version, read from its storage; `None` if there is no table.
    ///
    /// # Errors
    /// The storage does not answer, or the table cannot take rows of distilld.
    pub fn newest(&self) -> Result<Option<TableVersion<'_>>, TableError> {
        if !self.has_log()? {
            return Ok(None);
        }
        let snapshot = Snapshot::builder_for(self.location.url()).build(&*self.engine);
        let snapshot = snapshot.map_err(|error| self.error(error))?;
        let version = TableVersion {
            table: self,
            snapshot,
        };
        version.check()?;
        Ok(Some(version))
    }

    fn has_log(&self) -> Result<bool, TableError> {
        // A list of the log is as long as the history of the table. One of these is there, unless both were deleted.
        for name in ["_last_checkpoint", "00000000000000000000.json"] {
            let path = self.store_path(&format!("_delta_log/{name}"))?;
            if self.runtime.block_on(self.store.head(&path)).is_ok() {
                return Ok(true);
            }
        }
        let log = self.store_path("_delta_log")?;
        let listed = self
            .runtime
            .block_on(self.store.list_with_delimiter(Some(&log)));
        let listed = listed.map_err(|error| self.unreachable(&error))?;
        let is_commit = |path: &StorePath| path.extension() == Some("json");
        Ok(listed
            .objects
            .iter()
            .any(|object| is_commit(&object.location)))
    }

    /// Returns the path of a file of the table in its store.
    fn store_path(&self, name: &str) -> Result<StorePath, TableError> {
        let path = match &self.location {
            Location::Directory(path) => StorePath::from_absolute_path(path.join(name)),
            Location::S3(url) => {
                let prefix = url.splitn(4, '/').last().unwrap_or_default();
                StorePath::parse(format!("{prefix}/{name}"))
            }
        };
        path.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> TableError {
        TableError::Unreachable {
            table: self.location.clone(),
            reason: in_full(error),
        }
    }

    fn unfit(&self, what: impl Into<String>) -> TableError {
        TableError::Unfit {
            table: self.location.clone(),
            what: what.into(),
        }
    }

    fn error(&self, error: KernelError) -> TableError {
        if let Some(error) = self.cause(&error) {
            return error;
        }
        let table = self.location.clone();
        match error {
            KernelError::Backtraced { source, .. } => self.error(*source),
            KernelError::ObjectStore(error) => self.unreachable(&error),
            KernelError::FileNotFound(file) => TableError::FileMissing { table, file },
            KernelError::Unsupported(what) => TableError::Unfit { table, what },
            error => TableError::Kernel {
                table,
                reason: in_full(&error),
            },
        }
    }

    /// Returns the error of the storage that caused an error, however deep: the kernel reads files through Arrow, which
    /// keeps only the source.
    fn cause(&self, error: &KernelError) -> Option<TableError> {
        let table = || self.location.clone();
        for error in chain(error) {
            if let Some(StoreError::NotFound { path, .. }) = error.downcast_ref() {
                let file = path.clone();
                return Some(TableError::FileMissing {
                    table: table(),
                    file,
                });
            }
            if let Some(TableError::Unreachable { reason, .. }) = error.downcast_ref() {
                let reason = reason.clone();
                return Some(TableError::Unreachable {
                    table: table(),
                    reason,
                });
            }
            // A file that is shorter than in its list is an error of the store of a directory too.
            let is_of_store = match &self.location {
                Location::S3(_) => true,
                Location::Directory(_) => chain(error).any(|error| error.is::<io::Error>()),
            };
            if is_of_store && error.is::<StoreError>() {
                return Some(self.unreachable(error));
            }
        }
        None
    }
}

/// Returns an error and its sources.
fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Returns an error with its sources, as far as its own text does not have them.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

impl TableVersion<'_> {
    /// Returns the table.
    #[must_use]
    pub fn table(&self) -> &Table {
        self.table
    }

    /// Returns the number of the version.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.snapshot.version()
    }

    /// Returns the number that the last transaction with this name left in the table.
    ///
    /// # Errors
    /// The log of the table cannot be read.
    pub fn transaction(&self, name: &str) -> Result<Option<i64>, TableError> {
        let version = self.snapshot.get_app_id_version(name, &*self.table.engine);
        version.map_err(|error| self.table.error(error))
    }

    /// Checks that rows can be published into the table, and taken out again.
    fn check(&self) -> Result<(), TableError> {
        let wanted = schema::table_schema().map_err(|error| self.table.error(error))?;
        let (wanted, found) = (
            schema::describe(&wanted),
            schema::describe(&self.snapshot.schema()),
        );
        if wanted != found {
            let what = format!("its columns are {found}, and those of rows are {wanted}");
            return Err(self.table.unfit(what));
        }
        let properties = self.snapshot.table_properties();
        let is_mapped = properties
            .column_mapping_mode
            .is_some_and(|mode| mode != ColumnMappingMode::None);
        for (name, is_set) in [
            ("delta.appendOnly", properties.append_only == Some(true)),
            (
                "delta.enableChangeDataFeed",
                properties.enable_change_data_feed == Some(true),
            ),
            ("delta.columnMapping.mode", is_mapped),
            (
                "delta.setTransactionRetentionDuration",
                properties.set_transaction_retention_duration.is_some(),
            ),
        ] {
            if is_set {
                return Err(self.table.unfit(format!("its property {name} is set")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: i64) -> Change<'static> {
        Change {
            operation: Operation::Write,
            transactions: vec![("a".to_owned(), number)],
            added: &[],
            rewrite: Rewrite::default(),
        }
    }

    #[test]
    fn of_two_commits_to_one_version_the_second_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Directory(dir.path().join("sft"));
        let table = Table::open(location.clone()).unwrap();
        assert!(table.newest().unwrap().is_none());
        table.create().unwrap();
        table.create().unwrap();
        let twin = Table::open(location).unwrap();
        let (first, stale) = (
            table.newest().unwrap().unwrap(),
            twin.newest().unwrap().unwrap(),
        );
        assert_eq!(first.transaction("a").unwrap(), None);
        assert_eq!(first.commit(change(7)).unwrap(), Committed::Version(1));
        assert_eq!(stale.commit(change(8)).unwrap(), Committed::Conflict);
        let newest = twin.newest().unwrap().unwrap();
        assert_eq!(newest.transaction("a").unwrap(), Some(7));
        assert_eq!(newest.commit(change(8)).unwrap(), Committed::Version(2));
        assert_eq!(
            table.newest().unwrap().unwrap().transaction("a").unwrap(),
            Some(8)
        );
    }

    /// On the kernel's own executor, with one thread, a checkpoint never ends.
    #[test]
    fn a_checkpoint_ends() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Directory(dir.path().join("sft"));
        let (sender, receiver) = std::sync::mpsc::channel();
        let of_thread = location.clone();
        std::thread::spawn(move || {
            let table = Table::open(of_thread).unwrap();
            table.create().unwrap();
            for number in 0..20 {
                table
                    .newest()
                    .unwrap()
                    .unwrap()
                    .commit(change(number))
                    .unwrap();
            }
            table.newest().unwrap().unwrap().checkpoint().unwrap();
            sender.send(()).unwrap();
        });
        receiver
            .recv_timeout(std::time::Duration::from_secs(30))
            .unwrap();
        assert!(dir.path().join("sft/_delta_log/_last_checkpoint").exists());
        let table = Table::open(location).unwrap();
        assert_eq!(
            table.newest().unwrap().unwrap().transaction("a").unwrap(),
            Some(19)
        );
    }
}
