"""Divides the effective rows into a training and a validation set, by the SHA-256 of a key of each row.

    python split.py /srv/lake/data/distilled/sft/sft_export.jsonl --out sets --validation 0.02

A row stays on its side while the export grows, because its side follows from its key alone; a seeded shuffle moves most
rows when one is added. All rows with one key are on one side: by `source_run_id`, the rows of a run; by `instruction`,
the answers to an instruction.
"""

import hashlib
import os
import sys
from functools import reduce

from export_reader import Dataset, arguments_of, run
from to_messages import add_form_arguments, formed


def is_validation(key, share):
    """Returns whether a key is on the side of the validation set, which has about a share of all keys."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return number < share * 2**64


def main():
    parser = arguments_of(__doc__)
    add_form_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="for train.jsonl and validation.jsonl")
    parser.add_argument("--validation", type=float, default=0.02, metavar="SHARE", help="default: 0.02")
    parser.add_argument(
        "--by",
        default="source_run_id",
        choices=["source_run_id", "instruction", "response", "provenance.sig_hash"],
        help="the key; default: source_run_id",
    )
    arguments = parser.parse_args()

    dataset = Dataset(arguments.export, arguments.at)
    os.makedirs(arguments.out, exist_ok=True)
    paths = [os.path.join(arguments.out, name) for name in ("train.jsonl", "validation.jsonl")]
    files = [open(f"{path}.new", "w", encoding="utf-8") for path in paths]
    rows, keys = [0, 0], [set(), set()]
    for row, line in formed(dataset, arguments):
        key = reduce(dict.__getitem__, arguments.by.split("."), row)
        side = is_validation(key, arguments.validation)
        files[side].write(line)
        rows[side] += 1
        keys[side].add(key)
    for path, file in zip(paths, files):
        file.close()
        os.replace(f"{path}.new", path)
    # A key with few values makes sides of other sizes than asked for, or an empty one.
    for path, count, distinct in zip(paths, rows, keys):
        print(f"{path}: {count} rows, {len(distinct)} values of {arguments.by}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
