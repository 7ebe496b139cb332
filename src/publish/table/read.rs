//! Reads the rows of a host from the table, and writes files again without some of them.

use std::collections::HashMap;
use std::sync::Arc;

use delta_kernel::arrow::array::{
    Array, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray,
};
use delta_kernel::arrow::compute::filter_record_batch;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::Scan;
use delta_kernel::scan::state::{ScanFile, transform_to_logical};
use delta_kernel::{Engine as _, EngineData, FileMeta, KernelError, KernelResult};
use serde::Deserialize;

use crate::publish::columns::{ProvenanceColumns, RowColumns};
use crate::publish::table::schema::VERBATIM;
use crate::publish::table::write::{BatchFile, FILE_BYTES, hosts_of, offsets_of};
use crate::publish::table::{AddedFile, TableError, TableVersion};

/// Files without some of their rows: those to remove, and those that replace them.
#[derive(Debug, Default)]
pub struct Rewrite {
    pub(super) added: Vec<AddedFile>,
    pub(super) removed: Vec<(RecordBatch, Vec<bool>)>,
    /// The rows that are taken out.
    pub rows: u64,
}

impl Rewrite {
    /// Returns whether no file changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty()
    }
}

/// A row of a host in the table.
#[derive(Debug)]
pub struct HostRow<'r> {
    /// Its offset in the export.
    pub export_offset: u64,
    /// Its key, in hexadecimal digits.
    pub row_key: &'r str,
    /// The bytes that its columns make, with its newline.
    pub bytes: &'r [u8],
}

/// Which rows are wanted of a host.
enum Wanted<'w> {
    All,
    Offsets(&'w [i64]),
}

impl Wanted<'_> {
    fn has(&self, offset: i64) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Offsets(offsets) => offsets.binary_search(&offset).is_ok(),
        }
    }

    fn has_within(&self, least: i64, greatest: i64) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Offsets(offsets) => {
                let first = offsets.partition_point(|offset| *offset < least);
                offsets.get(first).is_some_and(|offset| *offset <= greatest)
            }
        }
    }
}

/// The part of a file's statistics that names the rows it may have.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stats {
    min_values: Ends,
    max_values: Ends,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ends {
    host: Option<String>,
    export_offset: Option<i64>,
}

impl Stats {
    /// Returns whether the file may have a wanted row of the host. Without statistics it may. A long text may be cut in
    /// statistics, and names of hosts are short.
    fn may_have(&self, host: &str, wanted: &Wanted<'_>) -> bool {
        let (min, max) = (&self.min_values, &self.max_values);
        let is_before = min.host.as_deref().is_some_and(|least| host < least);
        let is_after = max.host.as_deref().is_some_and(|greatest| host > greatest);
        let offsets = min.export_offset.zip(max.export_offset);
        !is_before
            && !is_after
            && offsets.is_none_or(|(least, greatest)| wanted.has_within(least, greatest))
    }
}

/// One batch of the list of files, with those that may have wanted rows.
struct Listed {
    list: RecordBatch,
    files: Vec<(usize, ScanFile)>,
}

impl TableVersion<'_> {
    /// Writes the files of a host again without the rows at these offsets, which are in order.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn without(&self, host: &str, offsets: &[u64]) -> Result<Rewrite, TableError> {
        let offset = |offset: &u64| i64::try_from(*offset).unwrap_or(i64::MAX);
        let offsets: Vec<i64> = offsets.iter().map(offset).collect();
        self.rewrite(host, &Wanted::Offsets(&offsets))
    }

    /// Writes the files of a host again without its rows.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn without_host(&self, host: &str) -> Result<Rewrite, TableError> {
        self.rewrite(host, &Wanted::All)
    }

    /// Calls `each` with each row of a host, in no order.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn host_rows(
        &self,
        host: &str,
        each: &mut dyn FnMut(&HostRow<'_>),
    ) -> Result<(), TableError> {
        let error = |error| self.table.error(error);
        let scan = self.scan()?;
        for listed in self.list(&scan, host, &Wanted::All)? {
            for (_, file) in &listed.files {
                self.read(&scan, file, &mut |batch| {
                    rows_of(batch, host, each).ok_or_else(|| {
                        KernelError::generic(format!("a column of {} has another type", file.path))
                    })
                })
                .map_err(error)?;
            }
        }
        Ok(())
    }

    fn scan(&self) -> Result<Scan, TableError> {
        let scan = Arc::clone(&self.snapshot).scan_builder().build();
        scan.map_err(|error| self.table.error(error))
    }

    fn rewrite(&self, host: &str, wanted: &Wanted<'_>) -> Result<Rewrite, TableError> {
        let mut rewrite = Rewrite::default();
        let scan = self.scan()?;
        for listed in self.list(&scan, host, wanted)? {
            let mut selected = vec![false; listed.list.num_rows()];
            for (at, file) in &listed.files {
                selected[*at] = self.rewrite_file(&scan, file, host, wanted, &mut rewrite)?;
            }
            if selected.contains(&true) {
                rewrite.removed.push((listed.list, selected));
            }
        }
        Ok(rewrite)
    }

    /// Writes a file again without the wanted rows and returns true, or returns false if it has none of them.
    fn rewrite_file(
        &self,
        scan: &Scan,
        file: &ScanFile,
        host: &str,
        wanted: &Wanted<'_>,
        rewrite: &mut Rewrite,
    ) -> Result<bool, TableError> {
        let rows_before = rewrite.rows;
        let mut has_wanted = |batch: &RecordBatch| {
            rewrite.rows += batch.num_rows() as u64 - kept(batch, host, wanted).true_count() as u64;
            Ok(())
        };
        let error = |error| self.table.error(error);
        self.read(scan, file, &mut has_wanted).map_err(error)?;
        if rewrite.rows == rows_before {
            return Ok(false);
        }
        let mut out: Option<BatchFile<'_>> = None;
        self.read(scan, file, &mut |batch| {
            let left = filter_record_batch(batch, &kept(batch, host, wanted))?;
            if left.num_rows() == 0 {
                return Ok(());
            }
            let to = match &mut out {
                Some(to) => to,
                None => out.insert(BatchFile::new(self.table, left.schema()).map_err(as_kernel)?),
            };
            to.write(&left).map_err(as_kernel)?;
            // A compaction makes files of any size.
            if to.len_bytes() >= FILE_BYTES {
                let full = out.take().map(BatchFile::finish).transpose();
                rewrite.added.extend(full.map_err(as_kernel)?.flatten());
            }
            Ok(())
        })
        .map_err(error)?;
        let last = out.map(BatchFile::finish).transpose()?;
        rewrite.added.extend(last.flatten());
        Ok(true)
    }

    /// Lists the files that may have wanted rows of a host.
    fn list(
        &self,
        scan: &Scan,
        host: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Listed>, TableError> {
        self.try_list(scan, host, wanted)
            .map_err(|error| self.table.error(error))
    }

    fn try_list(&self, scan: &Scan, host: &str, wanted: &Wanted<'_>) -> KernelResult<Vec<Listed>> {
        let mut listed = Vec::new();
        for part in scan.scan_metadata(&*self.table.engine)? {
            let part = part?;
            let files = part.visit_scan_files(Vec::new(), |files, file| files.push(file))?;
            let selection = part.scan_files.selection_vector().to_vec();
            let (data, _) = part.scan_files.into_parts();
            let list = ArrowEngineData::try_from_engine_data(data)?
                .record_batch()
                .clone();
            let is_selected = |at: usize| selection.get(at).copied().unwrap_or(true);
            let wanted_files = wanted_of(&list, &is_selected, host, wanted);
            let mut by_path: HashMap<String, ScanFile> = files
                .into_iter()
                .map(|file| (file.path.clone(), file))
                .collect();
            let files = wanted_files.into_iter().filter_map(|(at, path)| {
                let file = by_path.remove(&path)?;
                Some((at, file))
            });
            let files = files.collect();
            listed.push(Listed { list, files });
        }
        Ok(listed)
    }

    /// Calls `each` with the batches of a file, without the rows that a deletion vector takes out.
    fn read(
        &self,
        scan: &Scan,
        file: &ScanFile,
        each: &mut dyn FnMut(&RecordBatch) -> KernelResult<()>,
    ) -> KernelResult<()> {
        let engine = &*self.table.engine;
        let root = scan.table_root();
        let mut left = file.dv_info.get_selection_vector(engine, root)?;
        let meta = FileMeta::new(
            root.join(&file.path)?,
            file.modification_time,
            file.size.unsigned_abs(),
        );
        let schema = scan.physical_schema();
        let batches =
            engine
                .parquet_handler()
                .read_parquet_files(&[meta], Arc::clone(schema), None)?;
        for batch in batches {
            let transform = file.transform.clone();
            let batch =
                transform_to_logical(engine, batch?, schema, scan.logical_schema(), transform)?;
            let batch: Box<dyn EngineData> = match &mut left {
                None => batch,
                Some(selected) => {
                    let rest = selected.split_off(batch.len().min(selected.len()));
                    batch.apply_selection_vector(std::mem::replace(selected, rest))?
                }
            };
            each(ArrowEngineData::try_from_engine_data(batch)?.record_batch())?;
        }
        Ok(())
    }
}

/// Carries an error through a function of the kernel.
fn as_kernel(error: TableError) -> KernelError {
    KernelError::generic_err(error)
}

/// Returns the positions and paths of the listed files that may have wanted rows of a host.
fn wanted_of(
    list: &RecordBatch,
    is_selected: &dyn Fn(usize) -> bool,
    host: &str,
    wanted: &Wanted<'_>,
) -> Vec<(usize, String)> {
    let text =
        |name: &str| -> Option<&StringArray> { list.column_by_name(name)?.as_any().downcast_ref() };
    let (Some(paths), stats) = (text("path"), text("stats")) else {
        return Vec::new();
    };
    let stats_of = |at: usize| {
        let stats = stats.filter(|stats| stats.is_valid(at))?;
        serde_json::from_str::<Stats>(stats.value(at)).ok()
    };
    (0..list.num_rows())
        .filter(|at| is_selected(*at) && paths.is_valid(*at))
        .filter(|at| stats_of(*at).unwrap_or_default().may_have(host, wanted))
        .map(|at| (at, paths.value(at).to_owned()))
        .collect()
}

/// Returns which rows of a batch stay.
fn kept(batch: &RecordBatch, host: &str, wanted: &Wanted<'_>) -> BooleanArray {
    let (hosts, offsets) = (hosts_of(batch), offsets_of(batch));
    let is_wanted = |at: usize| {
        let is_of_host = hosts.is_some_and(|hosts| hosts.is_valid(at) && hosts.value(at) == host);
        let offset = offsets.filter(|offsets| offsets.is_valid(at));
        is_of_host && offset.is_some_and(|offsets| wanted.has(offsets.value(at)))
    };
    (0..batch.num_rows())
        .map(|at| Some(!is_wanted(at)))
        .collect()
}

/// Calls `each` with the rows of a host in a batch; `None` if a column has another type than it should.
fn rows_of(batch: &RecordBatch, host: &str, each: &mut dyn FnMut(&HostRow<'_>)) -> Option<()> {
    let inner: &StructArray = batch
        .column_by_name("provenance")?
        .as_any()
        .downcast_ref()?;
    let texts = |name: &str| -> Option<&StringArray> {
        let column = batch
            .column_by_name(name)
            .or_else(|| inner.column_by_name(name));
        column?.as_any().downcast_ref()
    };
    let numbers = |name: &str| -> Option<&Int64Array> {
        let column = batch
            .column_by_name(name)
            .or_else(|| inner.column_by_name(name));
        column?.as_any().downcast_ref()
    };
    let (hosts, offsets, keys) = (hosts_of(batch)?, offsets_of(batch)?, texts("row_key")?);
    let verbatim = texts(VERBATIM)?;
    let mut bytes = Vec::new();
    for at in (0..batch.num_rows()).filter(|at| hosts.is_valid(*at) && hosts.value(*at) == host) {
        let text = |name| Some(texts(name)?.value(at).into());
        bytes.clear();
        if verbatim.is_valid(at) {
            bytes.extend_from_slice(verbatim.value(at).as_bytes());
            bytes.push(b'\n');
        } else {
            let row = RowColumns {
                schema_version: numbers("schema_version")?.value(at),
                id: text("id")?,
                instruction: text("instruction")?,
                context: text("context")?,
                response: text("response")?,
                source_run_id: text("source_run_id")?,
                quality_score: text("quality_score")?,
                created_at: text("created_at")?,
                provenance: ProvenanceColumns {
                    source_file: text("source_file")?,
                    line_offset: numbers("line_offset")?.value(at),
                    sig_hash: text("sig_hash")?,
                    recorded_at: text("recorded_at")?,
                },
            };
            row.write(&mut bytes);
        }
        each(&HostRow {
            export_offset: offsets.value(at).unsigned_abs(),
            row_key: keys.value(at),
            bytes: &bytes,
        });
    }
    Some(())
}
