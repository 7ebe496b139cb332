//! Writes rows to a Parquet file of the table. The file belongs to the table once a commit adds it.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;

use delta_kernel::arrow::array::{
    Array, ArrayRef, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder, StructArray,
};
use delta_kernel::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use delta_kernel::arrow::error::ArrowError;
use delta_kernel::engine::arrow_conversion::TryIntoArrow as _;
use delta_kernel::object_store::{
    Error as StoreError, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayloadMut,
};
use delta_kernel::parquet::arrow::ArrowWriter;
use delta_kernel::parquet::basic::{Compression, ZstdLevel};
use delta_kernel::parquet::file::properties::WriterProperties;

use crate::publish::columns::RowColumns;
use crate::publish::table::schema::{EXPORT_OFFSET, HOST, table_schema};
use crate::publish::table::{Table, TableError};

/// Bytes of rows that are held as values before they are encoded.
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of encoded rows that are held before they are appended to the file as a group.
const GROUP_BYTES: usize = 4 << 20;

/// Length at which a file is complete, about: a file is held in memory until it is stored.
pub(super) const FILE_BYTES: usize = 16 << 20;

/// Length of the blocks of a file in memory.
const BLOCK_BYTES: usize = 1 << 20;

/// A row for the table.
#[derive(Debug)]
pub struct NewRow<'r> {
    /// Its offset in the export.
    pub export_offset: u64,
    /// Its key, in hexadecimal digits.
    pub row_key: &'r str,
    /// Its values.
    pub columns: &'r RowColumns<'r>,
    /// The row as it is, where its values do not make it.
    pub verbatim: Option<&'r str>,
}

/// A file that is written and not yet part of the table.
#[derive(Debug, Clone)]
pub struct AddedFile {
    pub(super) name: String,
    pub(super) len_bytes: u64,
    pub(super) modified_ms: i64,
    pub(super) stats: StructArray,
    /// Its rows.
    pub rows: u64,
}

/// Writes new rows of one host to as many files as they need.
pub struct FileWriter<'t> {
    host: &'t str,
    schema: SchemaRef,
    stored: Vec<AddedFile>,
    file: BatchFile<'t>,
    file_bytes: usize,
    texts: [StringBuilder; 13],
    numbers: [Int64Builder; 3],
    held_bytes: usize,
}

impl Table {
    /// Begins to write rows of a host.
    ///
    /// # Errors
    /// The kernel cannot make the schema.
    pub fn writer<'t>(&'t self, host: &'t str) -> Result<FileWriter<'t>, TableError> {
        let schema = table_schema().map_err(|error| self.error(error))?;
        let schema: Result<Schema, _> = (&schema).try_into_arrow();
        let schema = Arc::new(schema.map_err(|error| self.error(error.into()))?);
        Ok(FileWriter {
            host,
            stored: Vec::new(),
            file: BatchFile::new(self, Arc::clone(&schema))?,
            file_bytes: FILE_BYTES,
            schema,
            texts: Default::default(),
            numbers: Default::default(),
            held_bytes: 0,
        })
    }
}

impl FileWriter<'_> {
    /// Adds a row.
    ///
    /// # Errors
    /// The rows that are held cannot be encoded, or a file cannot be stored.
    pub fn add(&mut self, row: &NewRow<'_>) -> Result<(), TableError> {
        let columns = row.columns;
        let provenance = &columns.provenance;
        let values = [
            Some(self.host),
            Some(row.row_key),
            Some(&columns.id),
            Some(&columns.instruction),
            Some(&columns.context),
            Some(&columns.response),
            Some(&columns.source_run_id),
            Some(&columns.quality_score),
            Some(&columns.created_at),
            Some(&provenance.source_file),
            Some(&provenance.sig_hash),
            Some(&provenance.recorded_at),
            row.verbatim,
        ];
        for (builder, value) in self.texts.iter_mut().zip(values) {
            builder.append_option(value);
            self.held_bytes += value.map_or(0, str::len);
        }
        let offset = i64::try_from(row.export_offset).unwrap_or(i64::MAX);
        let numbers = [offset, columns.schema_version, provenance.line_offset];
        for (builder, value) in self.numbers.iter_mut().zip(numbers) {
            builder.append_value(value);
        }
        match self.held_bytes >= BATCH_BYTES {
            true => self.encode(),
            false => Ok(()),
        }
    }

    fn encode(&mut self) -> Result<(), TableError> {
        if self.held_bytes == 0 {
            return Ok(());
        }
        self.held_bytes = 0;
        let batch = self.batch();
        let table = self.file.table;
        let batch = batch.map_err(|error| table.error(error.into()))?;
        self.file.write(&batch)?;
        if self.file.len_bytes() >= self.file_bytes {
            let next = BatchFile::new(table, Arc::clone(&self.schema))?;
            let full = std::mem::replace(&mut self.file, next);
            self.stored.extend(full.finish()?);
        }
        Ok(())
    }

    /// Takes the values that are held.
    fn batch(&mut self) -> Result<RecordBatch, ArrowError> {
        let [
            host,
            key,
            id,
            instruction,
            context,
            response,
            run,
            score,
            created,
            file,
            hash,
            recorded,
            verbatim,
        ] = &mut self.texts;
        let text = |builder: &mut StringBuilder| -> ArrayRef { Arc::new(builder.finish()) };
        let [offset, version, line] = &mut self.numbers;
        let number = |builder: &mut Int64Builder| -> ArrayRef { Arc::new(builder.finish()) };
        let fields = match self.schema.field_with_name("provenance")?.data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => Fields::empty(),
        };
        let provenance = [text(file), number(line), text(hash), text(recorded)];
        let provenance = StructArray::try_new(fields, provenance.to_vec(), None)?;
        let columns = vec![
            text(host),
            number(offset),
            text(key),
            number(version),
            text(id),
            text(instruction),
            text(context),
            text(response),
            text(run),
            text(score),
            text(created),
            Arc::new(provenance),
            text(verbatim),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }

    /// Stores what is held, and returns all files; none without rows.
    ///
    /// # Errors
    /// A file cannot be stored.
    pub fn finish(mut self) -> Result<Vec<AddedFile>, TableError> {
        self.encode()?;
        self.stored.extend(self.file.finish()?);
        Ok(self.stored)
    }
}

/// A file of batches that have the columns of the table.
pub(super) struct BatchFile<'t> {
    table: &'t Table,
    writer: ArrowWriter<Content>,
    range: Range,
}

/// The content of a file, in blocks: one buffer would be copied each time it grows, with both copies in memory.
struct Content(PutPayloadMut);

impl io::Write for Content {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The least and the greatest host and offset in a file, by which readers leave it out.
#[derive(Debug, Default)]
struct Range {
    rows: i64,
    hosts: Option<(String, String)>,
    offsets: Option<(i64, i64)>,
}

impl<'t> BatchFile<'t> {
    pub fn new(table: &'t Table, schema: SchemaRef) -> Result<BatchFile<'t>, TableError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let content = Content(PutPayloadMut::new().with_block_size(BLOCK_BYTES));
        let writer = ArrowWriter::try_new(content, schema, Some(properties));
        Ok(BatchFile {
            table,
            writer: writer.map_err(|error| table.error(error.into()))?,
            range: Range::default(),
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        self.range.add(batch);
        let written = self.writer.write(batch).and_then(|()| {
            match self.writer.in_progress_size() >= GROUP_BYTES {
                true => self.writer.flush(),
                false => Ok(()),
            }
        });
        written.map_err(|error| self.table.error(error.into()))
    }

    /// Returns about how long the file is.
    pub fn len_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Stores the file; `None` without rows.
    pub fn finish(self) -> Result<Option<AddedFile>, TableError> {
        if self.range.rows == 0 {
            return Ok(None);
        }
        let table = self.table;
        let content = self.writer.into_inner();
        let content = content.map_err(|error| table.error(error.into()))?.0;
        let stats = self.range.stats();
        let stats = stats.map_err(|error| table.error(error.into()))?;
        let (name, len_bytes) = (new_name(), content.content_length() as u64);
        let path = table.store_path(&name)?;
        let stored = table.runtime.block_on(async {
            let put = PutMode::Create.into();
            match table.store.put_opts(&path, content.freeze(), put).await {
                // No other file has this name. The storage lost its first answer and was asked again.
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => table.store.head(&path).await,
                Err(error) => Err(error),
            }
        });
        let stored = stored.map_err(|error| table.unreachable(&error))?;
        Ok(Some(AddedFile {
            name,
            len_bytes,
            modified_ms: stored.last_modified.timestamp_millis(),
            stats,
            rows: self.range.rows.unsigned_abs(),
        }))
    }
}

impl Range {
    fn add(&mut self, batch: &RecordBatch) {
        self.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        for host in hosts_of(batch)
            .into_iter()
            .flat_map(StringArray::iter)
            .flatten()
        {
            match &mut self.hosts {
                None => self.hosts = Some((host.to_owned(), host.to_owned())),
                Some((least, _)) if host < least.as_str() => *least = host.to_owned(),
                Some((_, greatest)) if host > greatest.as_str() => *greatest = host.to_owned(),
                Some(_) => {}
            }
        }
        for offset in offsets_of(batch)
            .into_iter()
            .flat_map(Int64Array::iter)
            .flatten()
        {
            let (least, greatest) = self.offsets.unwrap_or((offset, offset));
            self.offsets = Some((least.min(offset), greatest.max(offset)));
        }
    }

    fn stats(&self) -> Result<StructArray, ArrowError> {
        let (least_host, greatest_host) = self.hosts.clone().unzip();
        let (least, greatest) = self.offsets.unzip();
        let part = |host: Option<String>, offset: Option<i64>| -> Result<ArrayRef, ArrowError> {
            Ok(Arc::new(one_row(vec![
                (HOST, Arc::new(StringArray::from(vec![host]))),
                (EXPORT_OFFSET, Arc::new(Int64Array::from(vec![offset]))),
            ])?))
        };
        one_row(vec![
            ("numRecords", Arc::new(Int64Array::from(vec![self.rows]))),
            ("minValues", part(least_host, least)?),
            ("maxValues", part(greatest_host, greatest)?),
        ])
    }
}

fn one_row(columns: Vec<(&str, ArrayRef)>) -> Result<StructArray, ArrowError> {
    let field = |name: &str, column: &ArrayRef| Field::new(name, column.data_type().clone(), true);
    let fields: Fields = columns
        .iter()
        .map(|(name, column)| field(name, column))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    StructArray::try_new(fields, columns, None)
}

/// Returns the hosts of the rows of a batch.
pub(super) fn hosts_of(batch: &RecordBatch) -> Option<&StringArray> {
    batch.column_by_name(HOST)?.as_any().downcast_ref()
}

/// Returns the offsets of the rows of a batch.
pub(super) fn offsets_of(batch: &RecordBatch) -> Option<&Int64Array> {
    batch.column_by_name(EXPORT_OFFSET)?.as_any().downcast_ref()
}

/// Returns a name that no other file has.
fn new_name() -> String {
    // std takes its random keys from the system; each value of `RandomState` differs from the one before it.
    let random = || RandomState::new().hash_one(std::process::id());
    format!("part-{:016x}{:016x}.zstd.parquet", random(), random())
}

#[cfg(test)]
mod tests {
    use crate::publish::columns::RowColumns;
    use crate::publish::table::{Change, Location, NewRow, Operation, Rewrite, Table};

    #[test]
    fn rows_that_do_not_fit_one_file_are_in_several_and_all_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(Location::Directory(dir.path().join("sft"))).unwrap();
        table.create().unwrap();
        let version = table.newest().unwrap().unwrap();
        let row = "{\"schema_version\":1,\"id\":\"a.jsonl:1\",\"instruction\":\"\",\"context\":\"\",\"response\":\"TEXT\",\
                   \"source_run_id\":\"r\",\"quality_score\":\"accepted\",\"created_at\":\"t\",\"provenance\":{\
                   \"source_file\":\"f\",\"line_offset\":1,\"sig_hash\":\"s\",\"recorded_at\":\"t\"}}";
        let row = row.replace("TEXT", &"x".repeat(100_000));
        let columns = RowColumns::read(row.as_bytes()).unwrap();
        let mut writer = table.writer("lake-07").unwrap();
        writer.file_bytes = 1;
        for export_offset in 0..50 {
            let row = NewRow {
                export_offset,
                row_key: "00",
                columns: &columns,
                verbatim: None,
            };
            writer.add(&row).unwrap();
        }
        let added = writer.finish().unwrap();
        assert!(added.len() > 2, "{}", added.len());
        let change = Change {
            operation: Operation::Write,
            transactions: Vec::new(),
            added: &added,
            rewrite: Rewrite::default(),
        };
        version.commit(change).unwrap();
        let mut offsets = Vec::new();
        let version = table.newest().unwrap().unwrap();
        let mut note = |row: &crate::publish::table::HostRow<'_>| offsets.push(row.export_offset);
        version.host_rows("lake-07", &mut note).unwrap();
        offsets.sort_unstable();
        assert_eq!(offsets, (0..50).collect::<Vec<u64>>());
    }
}
