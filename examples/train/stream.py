"""The effective rows as a Hugging Face dataset in streaming mode: one row in memory, also while the daemon appends.

    python stream.py /srv/lake/data/distilled/sft/sft_export.jsonl [--shards N] [--shuffle SEED] [--resume FILE]

A stream has the rows of one version, in every pass and in every worker of a data loader; a new stream has the rows and
the retractions of now. `load_dataset("json", data_files=...)` on the export itself keeps retracted rows, and fails on
all of the file while the daemon is writing its last line.
"""

import json
import os

from datasets import Features, IterableDataset

from export_reader import BEGIN_AGAIN, Dataset, Point, Refused, arguments_of, run
from to_parquet import SCHEMA

FEATURES = Features.from_arrow_schema(SCHEMA)


def _generate(path, point, ranges):
    dataset = Dataset(path, Point(*point))
    for start, end in ranges:
        for row in dataset.rows(start, end):
            yield row.value()


def stream(path, at=None, shards=1):
    """Returns the rows of a version as a dataset with at most `shards` shards, each a range of bytes of the export."""
    dataset = Dataset(path, at)
    # A list among the arguments is what `datasets` divides among workers.
    ranges = dataset.shards(shards) or [(0, 0)]
    arguments = {"path": os.path.abspath(path), "point": tuple(dataset.point()), "ranges": ranges}
    return IterableDataset.from_generator(_generate, features=FEATURES, gen_kwargs=arguments)


def load_state(path):
    """Returns the point, the number of shards and the state of a stream that were saved; None if none were."""
    try:
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)
        return Point(**saved["point"]), saved["shards"], saved["state"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise Refused(f"{path} is not a resume file with the identity of its export", BEGIN_AGAIN) from None


def main():
    parser = arguments_of(__doc__)
    parser.add_argument("--shards", type=int, default=1, help="ranges of bytes; default: 1")
    parser.add_argument("--shard", type=int, metavar="INDEX", help="only this shard, as a worker has it")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="in a buffer of 10,000 rows")
    parser.add_argument("--rows", type=int, help="end after this number of rows")
    parser.add_argument("--resume", metavar="FILE", help="continue where the last run with this file ended")
    arguments = parser.parse_args()

    at, shards, state = arguments.at, arguments.shards, None
    saved = load_state(arguments.resume) if arguments.resume else None
    if saved:
        at, shards, state = saved
    point = Dataset(arguments.export, at).point()
    dataset = stream(arguments.export, point, shards)
    if arguments.shard is not None:
        dataset = dataset.shard(num_shards=shards, index=arguments.shard)
    if arguments.shuffle is not None:
        dataset = dataset.shuffle(seed=arguments.shuffle, buffer_size=10_000)
    if state:
        dataset.load_state_dict(state)
    for number, row in enumerate(dataset, 1):
        print(json.dumps({"_offset": row["_offset"], "source_run_id": row["source_run_id"]}))
        if number == arguments.rows:
            break
    if arguments.resume:
        with open(arguments.resume, "w", encoding="utf-8") as file:
            json.dump({"point": point._asdict(), "shards": shards, "state": dataset.state_dict()}, file)


if __name__ == "__main__":
    run(main)
