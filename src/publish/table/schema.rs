//! The columns of the table.

use delta_kernel::schema::{DataType, StructField, StructType};

/// The column with the name of the host.
pub(super) const HOST: &str = "host";
/// The column with the offset of the row in its host's export.
pub(super) const EXPORT_OFFSET: &str = "export_offset";
/// The column with the row as it is, for rows that the other columns do not give back byte for byte.
pub(super) const VERBATIM: &str = "verbatim";

/// Returns the schema of the table.
pub(super) fn table_schema() -> Result<StructType, delta_kernel::KernelError> {
    let text = |name| StructField::nullable(name, DataType::STRING);
    let number = |name| StructField::nullable(name, DataType::LONG);
    let provenance = StructType::try_new([
        text("source_file"),
        number("line_offset"),
        text("sig_hash"),
        text("recorded_at"),
    ])?;
    StructType::try_new([
        text(HOST),
        number(EXPORT_OFFSET),
        text("row_key"),
        number("schema_version"),
        text("id"),
        text("instruction"),
        text("context"),
        text("response"),
        text("source_run_id"),
        text("quality_score"),
        text("created_at"),
        StructField::nullable("provenance", provenance),
        text(VERBATIM),
    ])
}

/// Returns the names and types of columns, without comments and other properties of columns.
pub(super) fn describe(schema: &StructType) -> String {
    let field = |field: &StructField| match &field.data_type {
        DataType::Struct(inner) => format!("{} struct<{}>", field.name, describe(inner)),
        plain => format!("{} {plain}", field.name),
    };
    schema.fields().map(field).collect::<Vec<_>>().join(", ")
}
