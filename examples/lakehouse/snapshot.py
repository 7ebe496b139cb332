#!/usr/bin/env python3
"""Writes a training set that stays the same: the rows of one version of the table, as lines of the exports, in the order
of host and offset. Prints the version, the number of rows and the SHA-256 of the lines: snapshot.py TABLE OUT [VERSION].

A vacuum deletes the files of old versions, so keep the lines, or copy them before its retention ends."""

import hashlib
import json
import sys

from deltalake import DeltaTable

KEYS = [
    "schema_version", "id", "instruction", "context", "response", "source_run_id", "quality_score", "created_at",
    "provenance",
]


def line(row):
    """Returns the line of the export that a row was made from, byte for byte."""
    if row["verbatim"] is not None:
        return row["verbatim"]
    return json.dumps({key: row[key] for key in KEYS}, ensure_ascii=False, separators=(",", ":"))


def snapshot(table, out, version=None):
    table = DeltaTable(table, version=version)
    rows = table.to_pyarrow_table().sort_by([("host", "ascending"), ("export_offset", "ascending")])
    digest = hashlib.sha256()
    with open(out, "wb") as file:
        for batch in rows.to_batches(max_chunksize=1000):
            lines = "".join(line(row) + "\n" for row in batch.to_pylist()).encode()
            digest.update(lines)
            file.write(lines)
    return {"version": table.version(), "rows": rows.num_rows, "sha256": digest.hexdigest()}


if __name__ == "__main__":
    table, out, *version = sys.argv[1:]
    print(json.dumps(snapshot(table, out, int(version[0]) if version else None)))
