#!/usr/bin/env python3
"""Counts the rows of each host with polars and with DuckDB: read.py TABLE [VERSION]."""

import json
import sys

import duckdb
import polars


def with_polars(table, version):
    rows = polars.scan_delta(table, version=version)
    counts = rows.group_by("host").len().sort("host").collect()
    return dict(counts.iter_rows())


def with_duckdb(table, version):
    # polars reads the column for DuckDB, whose own extension for Delta tables is a download. The data set that
    # DeltaTable.to_pyarrow_dataset gives reads with threads that call Python, and may abort it at its end.
    rows = polars.scan_delta(table, version=version).select("host").collect()
    counts = duckdb.sql("SELECT host, count(*) FROM rows GROUP BY host ORDER BY host")
    return dict(counts.fetchall())


if __name__ == "__main__":
    table, *version = sys.argv[1:]
    version = int(version[0]) if version else None
    for count in (with_polars, with_duckdb):
        print(json.dumps({count.__name__: count(table, version)}))
