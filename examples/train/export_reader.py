"""Reads the effective rows of an export, by its ledger of retractions. Needs only Python's standard library.

The export grows, and a whole line in it never changes. It keeps rows that later lines of their run overrule; the ledger
next to it names them by their byte offsets. A reader takes the length of the export first and reads the ledger to its
end afterwards: then it has every retraction that was committed with these rows or before them.

Every fault that leaves the set of retracted rows uncertain raises `Refused`, before the first row is returned.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from typing import NamedTuple

from ledger import RESTORE, START, Ledger, Refused

READ_BYTES = 256 << 10
# A writer appends the ledger first and the rows right afterwards.
PATIENCE_SECONDS = 2.0
OPEN_ATTEMPTS = 5
# Where the name of an export that a rebuild replaced goes on after that of the export.
KEPT = ".before-rebuild"

BEGIN_AGAIN = "discard the rows that were taken, remove the resume file, and begin with the first row"
OTHER_COPY = "restore both files from a copy that has it; `distilld cite` names the version that is there"


class Point(NamedTuple):
    """A point in the history of a dataset: two prefixes of two files that only grow."""

    export: str
    export_len: int
    ledger_len: int


class Row(NamedTuple):
    offset: int
    line: bytes

    def value(self):
        """Returns the row as a dictionary, with its offset: `id` is not unique, and the offset is."""
        try:
            return {"_offset": self.offset, **json.loads(self.line)}
        except (ValueError, TypeError):
            what = f"the line at byte {self.offset} of the export is not a row"
            raise Refused(what, "remove that line with `distilld rebuild`") from None


def parse_version(text):
    """Returns the point and the digest of a name that `distilld cite` printed."""
    found = re.fullmatch(r"distilld:1:([0-9a-f]{16}):([0-9]+):([0-9]+):([0-9a-f]{16})", text.strip())
    if not found:
        raise Refused(f"{text!r} is not a version", "use a name that `distilld cite` printed")
    export, export_len, ledger_len, digest = found.groups()
    return Point(export, int(export_len), int(ledger_len)), digest


class Dataset:
    """An export and its ledger at one point: now, a `Point`, or a version of `distilld cite`."""

    def __init__(self, path, at=None):
        self.path = os.fspath(path)
        for _ in range(OPEN_ATTEMPTS):
            self._open()
            point, digest = parse_version(at) if isinstance(at, str) else (at, None)
            self.len = self._settle() if point is None else self._read_to(point)
            self._check_named()
            if not self._replaced():
                break
        else:
            raise Refused(f"{self.path} was replaced while it was read", "wait until `distilld rebuild` has ended")
        if digest is not None and self.version() != at.strip():
            raise Refused(f"the bytes of {self.path} or of its ledger are not those of {at.strip()}", OTHER_COPY)

    def _open(self):
        # The export first, so that the ledger is not older.
        self._export = _open(self.path, f"there is no export at {self.path}", "name the export of a root")
        directory, name = os.path.split(os.path.realpath(self.path))
        # The ledger of an export that a rebuild replaced was replaced with it, and has the end of its name.
        kept = name[name.index(KEPT) :] if KEPT in name else ""
        self.ledger = Ledger(os.path.join(directory, f"sft_retractions.jsonl{kept}"))
        # A daemon that starts creates the ledger right after the export, and before the first row.
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not os.path.exists(self.ledger.path) and not self._rows_len() and time.monotonic() < give_up:
            time.sleep(0.01)
        missing = f"the export has no ledger: {self.ledger.path} does not exist, so nothing shows which rows are retracted"
        self._ledger = _open(self.ledger.path, missing, START)

    def _replaced(self):
        pairs = ((self.path, self._export), (self.ledger.path, self._ledger))
        try:
            return any(not os.path.samestat(os.stat(path), os.fstat(file.fileno())) for path, file in pairs)
        except FileNotFoundError:
            return True

    def _settle(self):
        """Reads the ledger to its end, and returns the length of the rows that belong to it."""
        seen, give_up = None, 0
        while True:
            length = self._rows_len()
            self.ledger.read(self._ledger)
            torn = os.fstat(self._ledger.fileno()).st_size > self.ledger.len
            if not torn and self.ledger.events and self.ledger.export_len <= length:
                return length
            if seen != (length, self.ledger.len):
                seen, give_up = (length, self.ledger.len), time.monotonic() + PATIENCE_SECONDS
            elif time.monotonic() > give_up:
                break
            time.sleep(0.01)
        if torn:
            what = f"the ledger {self.ledger.path} ends within a line, at byte {self.ledger.len}"
            raise Refused(what, f"start `distilld run`, which completes it; otherwise {RESTORE}")
        if not self.ledger.events:
            raise Refused(f"the ledger {self.ledger.path} is empty", START)
        what = f"{self.path} has {length} bytes of rows, and its ledger was written when it had {self.ledger.export_len}"
        raise Refused(what, f"start `distilld run`, which appends the rows that are missing; otherwise {RESTORE}")

    def _read_to(self, point):
        """Reads the ledger up to a point, and returns the length of the export there."""
        # The identity first: after a rebuild lengths mean nothing.
        export = self.ledger.read_first(self._ledger)
        if export != point.export:
            raise Refused(
                f"{self.path} is the export {export}, and the rows were taken from {point.export}: "
                "a rebuild came between, or it is another lake",
                f"{BEGIN_AGAIN}; a rebuild keeps the old export with the suffix .before-rebuild",
            )
        sizes = ((self.path, self._rows_len(), point.export_len), (self.ledger.path, _size(self._ledger), point.ledger_len))
        for path, size, needed in sizes:
            if size < needed:
                raise Refused(f"{path} has {size} bytes, and {needed} were read of it before", OTHER_COPY)
        if point.ledger_len:
            self.ledger.read(self._ledger, point.ledger_len)
            if self.ledger.len != point.ledger_len:
                raise Refused(f"no line of {self.ledger.path} ends at byte {point.ledger_len}", OTHER_COPY)
        if point.export_len and os.pread(self._export.fileno(), 1, point.export_len - 1) != b"\n":
            raise Refused(f"no row of {self.path} ends at byte {point.export_len}", OTHER_COPY)
        return point.export_len

    def _check_named(self):
        """Compares the rows that the ledger names with the export, as far as it has them."""
        length = self._rows_len()
        for offset, (size, row_hash) in self.ledger.take_named(length):
            start = max(offset - 1, 0)
            read = os.pread(self._export.fileno(), size + offset - start, start)
            row = read[offset - start :]
            starts = offset == 0 or read.startswith(b"\n")
            if not starts or row.count(b"\n") != 1 or hashlib.sha256(row).hexdigest()[:32] != row_hash:
                what = f"the ledger {self.ledger.path} does not fit its export: the row at byte {offset} is another one"
                raise Refused(what, RESTORE)

    def _rows_len(self):
        """Returns the length of the export up to its last newline."""
        end = _size(self._export)
        while end > 0:
            start = max(end - READ_BYTES, 0)
            newline = os.pread(self._export.fileno(), end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0

    def point(self):
        return Point(self.ledger.export, self.len, self.ledger.len)

    def version(self):
        """Returns the name that `distilld cite` prints. Reads both prefixes."""
        prefixes = ((self._export, self.len), (self._ledger, self.ledger.len))
        lines = "".join(_sha256(file, length) + "\n" for file, length in prefixes)
        digest = hashlib.sha256(lines.encode()).hexdigest()[:16]
        return f"distilld:1:{self.ledger.export}:{self.len}:{self.ledger.len}:{digest}"

    def rows(self, start=0, end=None):
        """Gives each effective row that begins in a range of bytes: from `start`, the start of a row, to `end`."""
        end = self.len if end is None else end
        if start >= end:
            return
        for offset, line in self._lines(start):
            if offset not in self.ledger.retracted:
                yield Row(offset, line)
            if offset + len(line) >= end:
                return

    def _lines(self, offset):
        held = b""
        while part := os.pread(self._export.fileno(), READ_BYTES, offset + len(held)):
            *lines, held = (held + part).split(b"\n")
            for line in lines:
                yield offset, line + b"\n"
                offset += len(line) + 1
        raise Refused(f"{self.path} was cut at byte {offset} while it was read", BEGIN_AGAIN)

    def shards(self, count):
        """Divides the rows into at most `count` ranges of bytes of about one length, for workers of a data loader."""
        starts = sorted({self._row_start(self.len * index // count) for index in range(count)})
        return [(start, end) for start, end in zip(starts, starts[1:] + [self.len]) if start < end]

    def _row_start(self, offset):
        """Returns the start of the first row that begins at an offset or after it."""
        if offset == 0:
            return 0
        _before, line = next(self._lines(offset - 1))
        return offset - 1 + len(line)

    def news(self):
        """Gives what happened since the point, and moves it: (kind, event or row, point after it).

        First "retracted" and "restored" of rows before the point, then "row" for each effective row after it. A restored
        row follows its event once more, since it may be one that was never given.
        """
        if self._replaced():
            raise Refused(f"{self.path} was replaced: a rebuild came between", BEGIN_AGAIN)
        taken, before = self.len, self.ledger.len
        events = []
        self.ledger.listener = lambda event, end: events.append((event, end))
        length = self._settle()
        self.ledger.listener = None
        if length < taken:
            raise Refused(f"{self.path} was cut to {length} bytes, and {taken} were read of it", BEGIN_AGAIN)
        self._check_named()
        for event, end in events:
            offset, kind = event["row_offset"], {"retract": "retracted", "restore": "restored"}.get(event["op"])
            point = Point(self.ledger.export, taken, end)
            if kind == "retracted" and offset < taken:
                yield kind, event, point
            elif kind == "restored" and offset < taken:
                yield kind, event, point._replace(ledger_len=before)
                yield "row", Row(offset, os.pread(self._export.fileno(), event["row_len"], offset)), point
            before = end
        for row in self.rows(taken, length):
            self.len = row.offset + len(row.line)
            yield "row", row, self.point()
        self.len = length


def _open(path, missing, fix):
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise Refused(missing, fix) from None
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}", "read it as a user of the group of the export") from None


def _size(file):
    return os.fstat(file.fileno()).st_size


def _sha256(file, length):
    digest, at = hashlib.sha256(), 0
    while at < length:
        part = os.pread(file.fileno(), min(1 << 20, length - at), at)
        if not part:
            break
        digest.update(part)
        at += len(part)
    return digest.hexdigest()


def load_point(path):
    """Returns the point that `save_point` left; None if none did."""
    try:
        with open(path, encoding="ascii") as file:
            point = json.load(file)
        return Point(str(point["export"]), int(point["export_len"]), int(point["ledger_len"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        what = f"{path} is not a resume file with the identity of its export"
        raise Refused(what, BEGIN_AGAIN) from None


def save_point(path, point):
    """Keeps a point, so that a crash leaves the old one or the new one."""
    new = f"{path}.new"
    with open(new, "w", encoding="ascii") as file:
        json.dump(point._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def arguments_of(doc):
    """Returns a parser with the arguments that the scripts share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", help="sft_export.jsonl; its ledger is in the same directory")
    parser.add_argument("--at", metavar="VERSION", help="a version that `distilld cite` printed; default: now")
    return parser


def run(main):
    """Runs a script: a refusal goes to stderr, with exit code 1."""
    try:
        main()
    except Refused as refusal:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {refusal}")
    except BrokenPipeError:
        # The reader of the output has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
