"""Prints the id of each row as it arrives, and continues where it stopped when it is started again.

    python follow.py /srv/lake/data/distilled/sft/sft_export.jsonl --offset-file seen.offset
"""

import argparse

from export_reader import follow, load_offset, save_offset


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument("--offset-file", required=True, help="where to remember how far it was read")
    parser.add_argument("--rows", type=int, help="end after so many rows; default: never")
    arguments = parser.parse_args()

    taken = 0
    for row, offset in follow(arguments.export, load_offset(arguments.offset_file)):
        print(row["id"], row["source_run_id"], flush=True)
        # Behind the work on the row: after a crash a row may come twice, but none is lost.
        save_offset(arguments.offset_file, offset)
        taken += 1
        if taken == arguments.rows:
            return


if __name__ == "__main__":
    main()
