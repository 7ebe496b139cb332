"""Makes the rows of a whole lake with Spark, and one Parquet table of them with the account of each pair.

    spark-submit distill.py --lake /mnt/lake --out /mnt/tables/sft --recorded-at 2026-05-02T00:00:00Z

Prints the sums of the accounts as one JSON object, after it has checked them against the table. Exits with 1 if one of
the pairs cannot be read to its end, or the account does not balance.
"""

import argparse
import json
import os
import sys

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from pairs import faults, list_pairs, rows_of, totals

PAIRS = "number BIGINT, pair STRING, scored_bytes BIGINT, evidence_bytes BIGINT"
# One line per row of the training set, and one per pair: `row` is null and `account` is not. ORDER BY number, row is
# the order of `distilld export`.
TABLE = "number BIGINT, pair STRING, row BIGINT, line STRING, account STRING"
ARROW = pa.schema(
    {"number": pa.int64(), "pair": pa.string(), "row": pa.int64(), "line": pa.string(), "account": pa.string()}
)


def batch(pair, rows, lines, account=None):
    count = len(lines)
    columns = [[pair["number"]] * count, [pair["pair"]] * count, rows, lines, [account] * count]
    return pa.RecordBatch.from_arrays([pa.array(c, t.type) for c, t in zip(columns, ARROW)], schema=ARROW)


def operator(lake, distilld, recorded_at, options):
    """Returns the function that Spark runs on batches of pairs."""

    def run(batches):
        for pairs in batches:
            for pair in pairs.to_pylist():
                made, parts = 0, rows_of(pair, lake, distilld, recorded_at, options)
                while True:
                    try:
                        lines = next(parts)
                    except StopIteration as end:
                        account = json.dumps(end.value)
                        break
                    yield batch(pair, range(made, made + len(lines)), [line.decode() for line in lines])
                    made += len(lines)
                yield batch(pair, [None], [None], account)

    return run


def check(spark, table, pairs):
    """Returns the sums of the accounts. Raises unless they are those of the rows in the table and of the list."""
    rows = spark.read.schema(TABLE).parquet(table).groupBy("number")
    summed = rows.agg(
        f.collect_list("account").alias("accounts"),
        f.count("row").alias("rows"),
        # Each row had a newline.
        f.coalesce(f.sum(f.octet_length("line") + 1), f.lit(0)).alias("bytes"),
    )
    written = {row.number: ([json.loads(it) for it in row.accounts], row.rows, row.bytes) for row in summed.collect()}
    accounts = [account for of_pair, *_ in written.values() for account in of_pair]
    found = faults(pairs, written)
    if found:
        raise SystemExit("the account does not balance:\n  " + "\n  ".join(found[:20]))
    return totals(accounts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="the root, at the same path on the driver and on every executor")
    parser.add_argument("--out", required=True, help="the table, which must not exist")
    parser.add_argument("--recorded-at", required=True, help="the timestamp of all rows, RFC 3339")
    parser.add_argument("--distilld", default="distilld", help="the program, on every executor")
    parser.add_argument("--partitions", type=int, default=0, help="tasks; default: one for about 8 pairs")
    parser.add_argument("options", nargs="*", help="after --: further flags of `distilld export`, such as --effective")
    arguments = parser.parse_args()

    # Executors on this host run this Python. On a cluster, PYSPARK_PYTHON names that of the executors.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.appName("distilld").getOrCreate()
    spark.sparkContext.addPyFile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "pairs.py"))
    # The driver lists once: a retry reads the lengths of the first attempt.
    pairs = list_pairs(arguments.lake)
    if not pairs:
        raise SystemExit(f"no day-files below {arguments.lake}/data/scored-runs")
    tasks = arguments.partitions or 1 + len(pairs) // 8
    # Day-files of one day are of different tasks: the newest days are often the largest.
    dealt = sorted(pairs, key=lambda pair: pair["number"] % tasks)
    listed = spark.sparkContext.parallelize([tuple(pair.values()) for pair in dealt], tasks)
    run = operator(arguments.lake, arguments.distilld, arguments.recorded_at, arguments.options)
    made = spark.createDataFrame(listed, PAIRS).mapInArrow(run, TABLE)
    made.write.mode("errorifexists").option("compression", "zstd").parquet(arguments.out)
    print(json.dumps(check(spark, arguments.out, pairs)))
    spark.stop()


if __name__ == "__main__":
    main()
