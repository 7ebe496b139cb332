"""The export in the form of conversations, as trainers of chat models take it: one JSON object a line to stdout.

    python to_messages.py /srv/lake/data/distilled/sft/sft_export.jsonl > messages.jsonl

What it writes is complete and does not change any more, so that `load_dataset("json", data_files="messages.jsonl")`
takes it.
"""

import argparse
import json

from stream import stream


def to_messages(row):
    """The instruction, with its context above it where there is one, and the answer."""
    asked = row["instruction"]
    if row["context"]:
        asked = f"[{row['context']}]\n\n{asked}"
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": row["response"]},
        ]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument(
        "--quality",
        choices=["accepted", "partially_accepted"],
        help="only rows of this category; default: both",
    )
    arguments = parser.parse_args()

    dataset = stream(arguments.export)
    if arguments.quality:
        dataset = dataset.filter(lambda row: row["quality_score"] == arguments.quality)
    columns = [name for name in dataset.features if name != "id"]
    for row in dataset.map(to_messages, remove_columns=columns):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
