"""Writes a description of a Parquet file of `to_parquet.py` in the Croissant format (ML Commons), to stdout.

    distilld cite --json --at VERSION > cite.json
    python croissant.py cite.json parquet/distilld-1-....parquet --name my-set --license LICENSE-URL > croissant.json

The version, the number of rows and the first and last stamp are those of `distilld cite`; the description has the
SHA-256 of the file, so that a reader notices another one.
"""

import argparse
import datetime
import hashlib
import json
import os

import mlcroissant as mlc
import pyarrow as pa
import pyarrow.parquet as pq

from export_reader import Refused, run

TYPES = {pa.string(): mlc.DataType.TEXT, pa.int64(): mlc.DataType.INTEGER}
DESCRIPTIONS = {
    "_offset": "Offset of the row in the export, bytes: its key",
    "id": "Source file and index; not unique",
    "context": "Figures of the run, among them the model that answered; not part of a prompt",
    "source_run_id": "The model run that the row was made from",
    "quality_score": "Category that the scorer gave the run",
}


def fields(schema, prefix="rows"):
    for column in schema:
        name = f"{prefix}/{column.name}"
        if pa.types.is_struct(column.type):
            nested = [field for field in fields(column.type, name)]
            yield mlc.Field(id=name, name=name, sub_fields=nested)
            continue
        path = name.split("/")[1:]
        transforms = [mlc.Transform(json_path=".".join(path[1:]))] if path[1:] else []
        yield mlc.Field(
            id=name,
            name=name,
            description=DESCRIPTIONS.get(column.name, column.name.replace("_", " ")),
            data_types=TYPES[column.type],
            source=mlc.Source(
                file_object="parquet", extract=mlc.Extract(column=path[0]), transforms=transforms
            ),
        )


def describe(cite, parquet, name, license):
    with open(parquet, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    written = pq.ParquetFile(parquet)
    version = (written.metadata.metadata or {}).get(b"distilld.version", b"").decode()
    if version != cite["version"] or written.metadata.num_rows != cite["effective"]:
        raise Refused(
            f"{parquet} has {written.metadata.num_rows} rows of {version or 'no version'}, and the citation "
            f"{cite['effective']} of {cite['version']}",
            f"write it with `to_parquet.py --at {cite['version']}`",
        )
    return mlc.Metadata(
        name=name,
        description=f"{cite['effective']} effective rows of {cite['rows']}; stamps from {cite['first_stamp']} to "
        f"{cite['last_stamp']}. Check of the version: {cite['check']}",
        license=license,
        version="1.0.0",
        cite_as=cite["version"],
        date_published=datetime.datetime.fromisoformat(cite["last_stamp"] or "1970-01-01"),
        distribution=[
            mlc.FileObject(
                id="parquet",
                name=os.path.basename(parquet),
                content_url=os.path.basename(parquet),
                content_size=f"{os.path.getsize(parquet)} B",
                encoding_formats=["application/x-parquet"],
                sha256=digest,
            )
        ],
        record_sets=[mlc.RecordSet(id="rows", name="rows", key="rows/_offset", fields=list(fields(written.schema_arrow)))],
    ).to_json()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cite", help="the output of `distilld cite --json`")
    parser.add_argument("parquet", help="the output of to_parquet.py with the same version")
    parser.add_argument("--name", required=True)
    parser.add_argument("--license", required=True, help="URL of the licence")
    arguments = parser.parse_args()
    with open(arguments.cite, encoding="utf-8") as file:
        cite = json.load(file)
    description = describe(cite, arguments.parquet, arguments.name, arguments.license)
    print(json.dumps(description, indent=2, default=str))


if __name__ == "__main__":
    run(main)
