"""The pairs of a lake with their lengths, the operator that makes the rows of one pair, and the check of the accounts.

Nothing here needs Spark: any engine that runs a function for each element can use it.
"""

import json
import os
import subprocess
import tempfile

READ_BYTES = 1 << 20


def list_pairs(lake):
    """Returns the pairs in the order of `distilld export`, each with the lengths up to which it is read.

    A directory that cannot be listed raises: its rows would be missing.
    """
    scored_base = os.path.join(lake, "data", "scored-runs")
    evidence_base = os.path.join(lake, "data", "evidence")
    paths = []
    for year in directories(scored_base):
        for month in directories(os.path.join(scored_base, year)):
            for day in directories(os.path.join(scored_base, year, month)):
                names = os.listdir(os.path.join(scored_base, year, month, day))
                paths += [(year, month, day, name) for name in names if name.endswith(".jsonl")]
    paths.sort(key=lambda parts: [os.fsencode(part) for part in parts])
    pairs = []
    for number, parts in enumerate(paths):
        path = "/".join(parts)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{os.fsencode(path)} is not UTF-8: rename it, or export it by hand with --name") from None
        # First the scored day-file: its lines are written after their evidence.
        scored_bytes = size_of(lake, os.path.join(scored_base, path))
        dirs = [os.path.join(evidence_base, *parts[:depth]) for depth in (1, 2, 3)]
        try:
            is_linked = any(os.path.islink(path) for path in dirs)
            evidence_bytes = None if is_linked else size_of(lake, os.path.join(evidence_base, path))
        except FileNotFoundError:
            evidence_bytes = None
        pairs.append({"number": number, "pair": path, "scored_bytes": scored_bytes, "evidence_bytes": evidence_bytes})
    return pairs


def directories(path):
    """Returns the names of the real directories in a directory; links are not descended."""
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def size_of(lake, path):
    """Returns the length of a day-file. A link is followed within the lake alone."""
    root = os.path.realpath(lake) + os.sep
    if os.path.islink(path) and not os.path.realpath(path).startswith(root):
        raise ValueError(f"{path} is a link that leaves the lake: replace it by the file, or remove it")
    return os.stat(path).st_size


def rows_of(pair, lake, distilld, recorded_at, options=()):
    """Yields lists of the rows of a pair, and returns its account.

    Raises unless the operator exits with 0. What was yielded before must be thrown away then.
    """
    path = pair["pair"]
    has_evidence = pair["evidence_bytes"] is not None
    evidence = os.path.join(lake, "data", "evidence", path) if has_evidence else "-"
    lengths = f"{pair['scored_bytes']},{pair['evidence_bytes'] or 0}"
    scored = os.path.join(lake, "data", "scored-runs", path)
    command = [distilld, "export", "--pair", scored, evidence, "--lengths", lengths]
    command += ["--recorded-at", recorded_at, "--output", "-", *options]
    with tempfile.TemporaryFile() as stderr:
        operator = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        try:
            rest = b""
            while chunk := operator.stdout.read(READ_BYTES):
                # Not `splitlines`, which also splits at U+2028 and U+0085.
                *rows, rest = (rest + chunk).split(b"\n")
                yield rows
            code = operator.wait()
        finally:
            # The task may end before the rows do.
            operator.kill()
            operator.stdout.close()
            operator.wait()
        stderr.seek(0)
        printed = stderr.read().decode(errors="replace").strip()
    if code != 0 or rest:
        raise RuntimeError(f"{path}: distilld exited with {code}: {printed}")
    return json.loads(printed.splitlines()[-1])


def faults(pairs, written):
    """Returns what is wrong with a table: `written` has (accounts, rows, bytes of the rows) for each pair number.

    Every line of every pair must have become a row of the table or be counted under the reason why not.
    """
    found = []
    for pair in pairs:
        at = f"{pair['pair']}: "
        if pair["number"] not in written:
            found.append(at + "not in the table")
            continue
        accounts, rows, rows_bytes = written.pop(pair["number"])
        if len(accounts) != 1:
            found.append(at + f"{len(accounts)} accounts in the table, not 1: was it written twice?")
            continue
        account = accounts[0]
        verdicts = account["verdicts"]
        expected = {
            "complete": True,
            "name": pair["pair"].rsplit("/", 1)[1],
            "scored_bytes": pair["scored_bytes"],
            "evidence_bytes": pair["evidence_bytes"] or 0,
            "lines": sum(verdicts.values()),
            "rows": verdicts["exported"],
        }
        for key, value in expected.items():
            if account[key] != value:
                found.append(at + f"{key} of the account is {account[key]}, not {value}")
        if (rows, rows_bytes) != (account["rows"], account["rows_bytes"]):
            found.append(
                at + f"{rows} rows of {rows_bytes} bytes in the table, "
                f"{account['rows']} of {account['rows_bytes']} in the account"
            )
    found += [f"pair {number} is in the table and not in the list" for number in written]
    return found


def totals(accounts):
    """Returns the sums of the accounts."""
    sums = {"pairs": 0, "lines": 0, "rows": 0, "rows_bytes": 0, "malformed_evidence": 0, "verdicts": {}}
    for account in accounts:
        sums["pairs"] += 1
        for key in ("lines", "rows", "rows_bytes", "malformed_evidence"):
            sums[key] += account[key]
        for verdict, lines in account["verdicts"].items():
            sums["verdicts"][verdict] = sums["verdicts"].get(verdict, 0) + lines
    return sums
