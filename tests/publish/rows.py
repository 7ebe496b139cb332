"""Prints the rows of one host of a Delta table, as its export has them, and the version on stderr:
rows.py TABLE HOST [VERSION]."""

import json
import os
import sys

from deltalake import DeltaTable

KEYS = [
    "schema_version", "id", "instruction", "context", "response", "source_run_id", "quality_score", "created_at",
    "provenance",
]

table, host, *version = sys.argv[1:]
table = DeltaTable(table, version=int(version[0]) if version else None)
rows = [row for row in table.to_pyarrow_table().to_pylist() if row["host"] == host]
print(table.version(), file=sys.stderr, flush=True)
out = sys.stdout.buffer
for row in sorted(rows, key=lambda row: row["export_offset"]):
    line = row["verbatim"]
    if line is None:
        line = json.dumps({key: row[key] for key in KEYS}, ensure_ascii=False, separators=(",", ":"))
    out.write(line.encode() + b"\n")
out.flush()
# Arrow's threads may still call Python when the interpreter ends, which aborts it.
os._exit(0)
