#!/usr/bin/env python3
"""Merges small files of the table and deletes files that no version of the last week needs: maintain.py TABLE.

It may run while publishers commit: of two commits to one version the second begins again. One process maintains a table;
a retention that is shorter than the longest commit would delete the file of a commit in progress."""

import json
import sys

from deltalake import DeltaTable

RETENTION_HOURS = 7 * 24

if __name__ == "__main__":
    table = DeltaTable(sys.argv[1])
    merged = table.optimize.compact()
    deleted = table.vacuum(retention_hours=RETENTION_HOURS, dry_run=False)
    print(json.dumps({
        "version": table.version(),
        "files_merged": merged["numFilesRemoved"],
        "files_written": merged["numFilesAdded"],
        "files_deleted": len(deleted),
    }))
