"""Writes the effective rows of one version as a Parquet file that is named by the version.

    python to_parquet.py /srv/lake/data/distilled/sft/sft_export.jsonl --out parquet [--at VERSION]

A version is a closed prefix of the export and of its ledger: the same name always has the same rows, so a file that
exists is not written again. The version is in the metadata of the file as well, under `distilld.version`.
"""

import os

import pyarrow as pa
import pyarrow.parquet as pq

from export_reader import Dataset, arguments_of, run

TEXT = pa.string()
SCHEMA = pa.schema(
    {
        # Not in the export: the offset of the row, which is its key.
        "_offset": pa.int64(),
        "schema_version": pa.int64(),
        "id": TEXT,
        "instruction": TEXT,
        "context": TEXT,
        "response": TEXT,
        "source_run_id": TEXT,
        "quality_score": TEXT,
        "created_at": TEXT,
        "provenance": pa.struct(
            {"source_file": TEXT, "line_offset": pa.int64(), "sig_hash": TEXT, "recorded_at": TEXT}
        ),
    }
)
ROWS_OF_A_GROUP = 10_000


def main():
    parser = arguments_of(__doc__)
    parser.add_argument("--out", required=True, metavar="DIR")
    arguments = parser.parse_args()

    dataset = Dataset(arguments.export, arguments.at)
    version = dataset.version()
    os.makedirs(arguments.out, exist_ok=True)
    path = os.path.join(arguments.out, version.replace(":", "-") + ".parquet")
    if not os.path.exists(path):
        schema = SCHEMA.with_metadata({"distilld.version": version})
        with pq.ParquetWriter(f"{path}.new", schema, compression="zstd") as writer:
            group = []
            for row in dataset.rows():
                group.append(row.value())
                if len(group) == ROWS_OF_A_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema))
                    group.clear()
            writer.write_table(pa.Table.from_pylist(group, schema))
        os.replace(f"{path}.new", path)
    print(path)


if __name__ == "__main__":
    run(main)
