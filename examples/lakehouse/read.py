#!/usr/bin/env python3
"""Counts the rows of each host with each of these libraries that is installed: polars, DuckDB, Hugging Face datasets and
Spark: read.py TABLE [VERSION]."""

import importlib.util
import json
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stdout

import polars
from deltalake import DeltaTable


def with_polars(table, version):
    rows = polars.scan_delta(table, version=version)
    counts = rows.group_by("host").len().sort("host").collect()
    return dict(counts.iter_rows())


def with_duckdb(table, version):
    import duckdb

    # polars reads the column for DuckDB, whose own extension for Delta tables is a download. The data set that
    # DeltaTable.to_pyarrow_dataset gives reads with threads that call Python, and may abort it at its end.
    rows = polars.scan_delta(table, version=version).select("host").collect()
    counts = duckdb.sql("SELECT host, count(*) FROM rows GROUP BY host ORDER BY host")
    return dict(counts.fetchall())


def files_of(table, version):
    """Returns the files whose rows are those of a version: the publisher writes no deletion vectors, and delta-rs refuses
    a table that has some."""
    return DeltaTable(table, version=version).file_uris()


def with_datasets(table, version):
    import datasets

    files = files_of(table, version)
    if not files:
        return {}
    # The copy that the library makes of the rows lasts as long as the directory.
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
        return dict(sorted(Counter(rows["host"]).items()))


def with_pyspark(table, version):
    from pyspark.sql import SparkSession

    files = files_of(table, version)
    if not files:
        return {}
    # A cluster with Delta Lake's jar reads the table by itself, with each worker:
    # spark.read.format("delta").option("versionAsOf", version).load(table). Without the jar Spark reads the files of the
    # version, which have the rows.
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    # One part is enough for a few counts.
    spark = spark.config("spark.ui.showConsoleProgress", "false").config("spark.sql.shuffle.partitions", 1).getOrCreate()
    try:
        counts = spark.read.parquet(*files).groupBy("host").count().orderBy("host").collect()
        return {row["host"]: row["count"] for row in counts}
    finally:
        spark.stop()


if __name__ == "__main__":
    table, *version = sys.argv[1:]
    version = int(version[0]) if version else None
    for count in (with_polars, with_duckdb, with_datasets, with_pyspark):
        if importlib.util.find_spec(count.__name__.removeprefix("with_")):
            with redirect_stdout(sys.stderr):
                counts = count(table, version)
            print(json.dumps({count.__name__: counts}))
