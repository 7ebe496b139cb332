#!/usr/bin/env python3
"""Writes a training set that stays the same: the rows of one version of the table, as lines of the exports, in the order
of host and offset. Prints the version, the number of rows and the SHA-256 of the lines: snapshot.py TABLE OUT [VERSION].

A vacuum deletes the files of old versions, so keep the lines, or copy them before its retention ends."""

import hashlib
import json
import sys

import polars
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
    version = DeltaTable(table, version=version).version()
    rows = polars.read_delta(table, version=version).sort("host", "export_offset")
    digest = hashlib.sha256()
    with open(out, "wb") as file:
        for part in rows.iter_slices(1000):
            lines = "".join(line(row) + "\n" for row in part.iter_rows(named=True)).encode()
            digest.update(lines)
            file.write(lines)
    return {"version": version, "rows": rows.height, "sha256": digest.hexdigest()}


if __name__ == "__main__":
    table, out, *version = sys.argv[1:]
    print(json.dumps(snapshot(table, out, int(version[0]) if version else None)))
