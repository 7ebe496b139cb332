#!/usr/bin/env python3
"""Merges small files of the table and deletes files that no version of the last week needs: maintain.py TABLE.

It may run while publishers commit: of two commits to one version the second begins again. One process maintains a table;
a retention that is shorter than the longest commit would delete the file of a commit in progress."""

import json
import os
import sys

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

RETENTION_HOURS = 7 * 24
ATTEMPTS = 100


def compact(table):
    """Merges small files, and begins again where a publisher took rows out of one of them meanwhile."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return table.optimize.compact()
        except CommitFailedError:
            if not left:
                raise
            table.update_incremental()


if __name__ == "__main__":
    table = DeltaTable(sys.argv[1])
    merged = compact(table)
    # The library syncs nothing, and publishers continue on this version.
    os.sync()
    deleted = table.vacuum(retention_hours=RETENTION_HOURS, dry_run=False)
    print(json.dumps({
        "version": table.version(),
        "files_merged": merged["numFilesRemoved"],
        "files_written": merged["numFilesAdded"],
        "files_deleted": len(deleted),
    }))
