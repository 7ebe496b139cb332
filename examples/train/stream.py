"""The export as a Hugging Face dataset in streaming mode: one row in memory, also while the daemon appends.

    python stream.py /srv/lake/data/distilled/sft/sft_export.jsonl [--offset N] [--shuffle SEED]

Not `load_dataset("json", data_files=...)` on the export itself: that takes the last line for whole, and fails on all
of the file when the daemon is in the middle of writing it.
"""

import argparse
import json

from datasets import Features, IterableDataset, Value

from export_reader import rows

FEATURES = Features(
    {
        "schema_version": Value("int64"),
        "id": Value("string"),
        "instruction": Value("string"),
        "context": Value("string"),
        "response": Value("string"),
        "source_run_id": Value("string"),
        "quality_score": Value("string"),
        "created_at": Value("string"),
        "provenance": {
            "source_file": Value("string"),
            "line_offset": Value("int64"),
            "sig_hash": Value("string"),
            "recorded_at": Value("string"),
        },
        # Not in the export: where the next row begins, to continue from.
        "next_offset": Value("int64"),
    }
)


def _generate(path, offset):
    for row, next_offset in rows(path, offset):
        yield {**row, "next_offset": next_offset}


def stream(path, offset=0):
    """The rows from `offset` on; each pass over it goes to the last newline of that moment."""
    return IterableDataset.from_generator(
        _generate, features=FEATURES, gen_kwargs={"path": str(path), "offset": offset}
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument("--offset", type=int, default=0, help="where to continue; default: 0")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="in a buffer of 10,000 rows")
    arguments = parser.parse_args()

    dataset = stream(arguments.export, arguments.offset)
    if arguments.shuffle is not None:
        dataset = dataset.shuffle(seed=arguments.shuffle, buffer_size=10_000)
    for row in dataset:
        print(json.dumps({"id": row["id"], "next_offset": row["next_offset"]}))


if __name__ == "__main__":
    main()
