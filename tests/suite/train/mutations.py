"""Changes a ledger in every way that is small, and reads the export with each: a row that is retracted is never given.

Arguments: the export, and a directory for the copies. Prints how many changed ledgers were refused and how many were
read, as those with another time are."""

import os
import random
import shutil
import sys

import export_reader

export_reader.PATIENCE_SECONDS = 0
export, out = sys.argv[1:]
wanted = {row.offset for row in export_reader.Dataset(export).rows()}
with open(os.path.join(os.path.dirname(export), "sft_retractions.jsonl"), "rb") as file:
    ledger = file.read()
lines = ledger.splitlines(keepends=True)
copy = os.path.join(out, "sft_export.jsonl")
shutil.copy(export, copy)


def changes():
    for at in range(len(lines) - 1):
        yield lines[:at] + lines[at + 1 :]
        yield lines[: at + 1] + lines[at:]
        yield lines[:at] + [lines[at + 1], lines[at]] + lines[at + 2 :]
    # Only a version finds a cut between two lines.
    ends = {sum(map(len, lines[:at])) for at in range(1, len(lines) + 1)}
    for at in range(0, len(ledger), 7):
        if at not in ends:
            yield [ledger[:at]]
    chance = random.Random(1)
    for at in range(0, len(ledger)):
        yield [ledger[:at], bytes([chance.choice(b'0123456789abcdef"{}:,\n\x00\xff-')]), ledger[at + 1 :]]


refused = read = 0
for change in changes():
    with open(os.path.join(out, "sft_retractions.jsonl"), "wb") as file:
        file.write(b"".join(change))
    try:
        rows = {row.offset for row in export_reader.Dataset(copy).rows()}
    except export_reader.Refused:
        refused += 1
        continue
    assert rows <= wanted, (rows - wanted, [part for part in change if len(part) == 1] or change)
    read += 1
print(refused, read)
