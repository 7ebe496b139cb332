"""Reads the export by byte offset. Needs nothing but Python.

The export only ever grows, and a whole line in it never changes. The daemon may be writing at this moment, so the
last line may be a part of one: whatever stands behind the last newline is not a row yet. Remember the offset behind
the last row that you took, and go on from there, after a minute or after a year.
"""

import json
import os
import time


def rows(path, offset=0):
    """Gives (row, offset behind it) for each whole row from `offset` to the last newline of now."""
    with open(path, "rb") as export:
        size = os.fstat(export.fileno()).st_size
        if offset > size:
            raise ValueError(
                f"{path} is {size} bytes long, but {offset} were read of it before: "
                "it was rebuilt, begin at 0 again"
            )
        export.seek(offset)
        for line in export:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


def follow(path, offset=0, pause=0.2):
    """As `rows`, and waits for more at the end, for ever. The export need not be there yet."""
    while True:
        if os.path.exists(path):
            for row, offset in rows(path, offset):
                yield row, offset
        time.sleep(pause)


def load_offset(path):
    """The offset that `save_offset` left; 0 if none did."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def save_offset(path, offset):
    """Keeps an offset, so that a crash leaves the old one or the new one."""
    beside = f"{path}.new"
    with open(beside, "w", encoding="ascii") as file:
        file.write(f"{offset}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
