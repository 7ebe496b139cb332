"""The fold of a ledger of retractions, `sft_retractions.jsonl`: which rows of an export are retracted.

The whole contract: read whole lines; `retract` adds `row_offset` to a set, `restore` removes it, every other event
changes nothing. The rest of this file refuses a ledger that is not what its writer wrote.
"""

import json

KEYS = {
    "schema_version": int,
    "seq": int,
    "op": str,
    "export": str,
    "export_len": int,
    "row_offset": int,
    "row_len": int,
    "row_hash": str,
    "id": str,
    "source_run_id": str,
    "cause": str,
    "day_file": str,
    "line_offset": int,
    "reason": str,
    "at": str,
}
ROW_OPS = ("retract", "restore", "note")
OPS = ("begin", "order", "revoke", *ROW_OPS)

START = "start `distilld run` once, which writes it; a copy of an export needs the copy of its ledger in the same directory"
RESTORE = (
    "restore the export and its ledger from one copy, or run `distilld rebuild --state-only`, "
    "which keeps the rows and begins a new ledger"
)


class Refused(Exception):
    """It is not certain which rows are retracted. The message names the file, the fault and the way out."""

    def __init__(self, what, fix):
        super().__init__(f"{what}\nfix: {fix}")


class Ledger:
    """The state after the lines that were read."""

    def __init__(self, path):
        self.path = path
        # Identity of the export.
        self.export = None
        # Length of the export at the last event.
        self.export_len = 0
        self.events = 0
        self.len = 0
        # Length of each retracted row, by offset.
        self.retracted = {}
        # Length and hash of each row that was named, by offset; and those that were not yet compared.
        self._named = {}
        self._new = {}
        # Called with each event and the end of its line.
        self.listener = None

    def read(self, file, end=None):
        """Reads the whole lines from where it ended, up to `end` or to the end of the file."""
        file.seek(self.len)
        data = file.read(-1 if end is None else end - self.len)
        for line in data.split(b"\n")[:-1]:
            self._read_line(line)

    def read_first(self, file):
        """Returns the identity of the export, from the first line."""
        first = Ledger(self.path)
        file.seek(0)
        line, newline, _rest = file.read(64 << 10).partition(b"\n")
        if not newline:
            raise Refused(f"the ledger {self.path} is empty", START)
        first._read_line(line)
        return first.export

    def take_named(self, length):
        """Returns the rows within `length` bytes that were named since the last call, with length and hash."""
        taken = {offset: row for offset, row in self._new.items() if offset + row[0] <= length}
        for offset in taken:
            del self._new[offset]
        return sorted(taken.items())

    def _read_line(self, line):
        try:
            event = json.loads(line)
            _check_form(event)
            self._check_order(event)
        except (ValueError, RecursionError) as error:
            what = f"the ledger {self.path} is damaged: line {self.events + 1}, at byte {self.len}: {error}"
            raise Refused(what, RESTORE) from None
        if event["op"] == "retract":
            self.retracted[event["row_offset"]] = event["row_len"]
        elif event["op"] == "restore":
            del self.retracted[event["row_offset"]]
        self.export, self.export_len = event["export"], event["export_len"]
        self.events += 1
        self.len += len(line) + 1
        if self.listener:
            self.listener(event, self.len)

    def _check_order(self, event):
        op, offset, length = event["op"], event["row_offset"], event["row_len"]
        if event["seq"] != self.events:
            raise ValueError(f"seq is {event['seq']}, and {self.events} follows: lines are missing or repeated")
        if (op == "begin") != (self.events == 0):
            raise ValueError(f"{op} is at a place where it never is: the first line alone is begin")
        if self.export not in (None, event["export"]):
            raise ValueError(f"the line belongs to the export {event['export']}, and the ledger to {self.export}")
        if event["export_len"] < self.export_len:
            raise ValueError(f"export_len falls from {self.export_len} to {event['export_len']}")
        if op not in ROW_OPS:
            return
        if op != "note" and (offset in self.retracted) == (op == "retract"):
            raise ValueError(f"{op} of the row at {offset} does not alternate with the event before it")
        row = (length, event["row_hash"])
        if self._named.setdefault(offset, row) != row:
            raise ValueError(f"the row at {offset} has another length or hash than in the event before it")
        self._new[offset] = row


def _check_form(event):
    if not isinstance(event, dict) or event.keys() != KEYS.keys():
        raise ValueError("the line is not an event of a ledger")
    for key, kind in KEYS.items():
        if type(event[key]) is not kind:
            raise ValueError(f"{key} has a value that it never has: {event[key]!r}")
    if event["schema_version"] != 1:
        raise ValueError(f"schema_version is {event['schema_version']}, and this reader knows 1")
    if event["op"] not in OPS:
        raise ValueError(f"op has a value that it never has: {event['op']!r}")
    if event["op"] in ROW_OPS:
        offset, length = event["row_offset"], event["row_len"]
        if offset < 0 or length < 1 or offset + length > event["export_len"]:
            raise ValueError(f"{event['op']} names no row of the export: {length} bytes at {offset}")
