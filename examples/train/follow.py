"""Prints each effective row as it arrives, and what happens to rows that were printed. Continues where it stopped.

    python follow.py /srv/lake/data/distilled/sft/sft_export.jsonl --resume seen.json

A line is `row OFFSET RUN`, `retracted OFFSET RUN CAUSE` or `restored OFFSET RUN CAUSE`. Drop what you made of a
retracted row; a restored row is printed once more after its event.
"""

import os
import time

from export_reader import Dataset, Point, arguments_of, load_point, run, save_point


def main():
    parser = arguments_of(__doc__)
    parser.add_argument("--resume", required=True, metavar="FILE", help="where to remember how far it was read")
    parser.add_argument("--lines", type=int, help="end after this number of lines; default: never")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two reads; default: 0.2")
    arguments = parser.parse_args()

    point = load_point(arguments.resume)
    while point is None and not os.path.exists(arguments.export):
        time.sleep(arguments.pause)
    if point is None:
        point = Point(Dataset(arguments.export).ledger.export, 0, 0)
    dataset = Dataset(arguments.export, point)
    lines = 0
    while True:
        for kind, item, point in dataset.news():
            if kind == "row":
                print(kind, item.offset, item.value()["source_run_id"], flush=True)
            else:
                print(kind, item["row_offset"], item["source_run_id"], item["cause"], flush=True)
            # After the work on the row: a crash may repeat a line, and never loses one.
            save_point(arguments.resume, point)
            lines += 1
            if lines == arguments.lines:
                return
        time.sleep(arguments.pause)


if __name__ == "__main__":
    run(main)
