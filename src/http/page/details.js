// The lists of what needs an explanation. Each entry opens it; what the status does not have is requested then.
import { byId, bytes, command, count, make, moment, named, number, prose, say, span } from "./text.js";

const LISTED = 50;
let status = {};

export async function request(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  // An unresponsive engine is reported as JSON with code 503.
  if (!(answer.headers.get("content-type") || "").includes("json")) throw new Error((await answer.text()).trim() || `${answer.status} for ${path}`);
  return answer.json();
}

function facts(pairs) {
  const list = make("dl", undefined, "facts");
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    list.append(make("dt", name), make("dd", value));
  }
  return list;
}

function advice(text, typed) {
  const box = make("p", undefined, "advice");
  box.append(...prose(text));
  if (typed) box.append(" ", make("code", named(typed, "bdi", "typed")));
  return box;
}

// Shows entries under their keys, so that one that is open stays open. `body` returns the explanation, also as a promise.
function list(container, entries, key, title, body, isOpen = () => false) {
  const old = new Map([...container.children].map((entry) => [entry.dataset.key, entry]));
  const now = entries.map((entry) => {
    const id = key(entry);
    const details = old.get(id) || make("details");
    const shown = JSON.stringify(entry);
    const parts = title(entry);
    if (!old.has(id)) {
      details.dataset.key = id;
      details.append(make("summary"), make("div", undefined, "body"));
      details.addEventListener("toggle", () => explain(details));
      details.open = isOpen(entry);
    }
    details.className = parts.kind || "";
    const text = JSON.stringify(parts.map(String));
    if (details.dataset.title !== text) {
      details.dataset.title = text;
      const [name, ...notes] = parts;
      details.firstChild.replaceChildren(named(name), ...notes.map((note) => make("span", named(note), "note")));
    }
    details.explanation = () => body(entry);
    if (details.dataset.entry !== shown) {
      details.dataset.entry = shown;
      explain(details);
    }
    return details;
  });
  if (now.length !== container.children.length || now.some((entry, n) => container.children[n] !== entry)) container.replaceChildren(...now);
}

async function explain(details) {
  if (!details.open) return;
  const body = details.lastChild;
  if (!body.hasChildNodes()) body.append(make("p", "Loading", "muted"));
  try {
    body.replaceChildren(...await details.explanation());
  } catch (error) {
    body.replaceChildren(make("p", `No explanation now: ${error.message}`, "muted"));
  }
}

// --- waiting runs ---

function lineOf(line) {
  const place = `${line.stream} line ${line.line ?? `at byte ${line.offset}`}`;
  const value = line.value === null || line.value === undefined ? undefined : named(line.value);
  return [place, [["verdict", line.verdict.replaceAll("_", " ")], ["rule", line.rule], ["value", value], ["in", named(line.day_file)], ["changed", line.changed_since ? "the line changed since it was read" : ""]]];
}

async function explainRun(run) {
  const known = run.run_id !== null && run.run_id !== undefined;
  const start = facts([["waits for", make("span", named(`data/evidence/${run.day_file}`))], ["since", moment(run.since)], ["scored at byte", count(run.offset)]]);
  if (!known) return [start, advice("Its run id is longer than 4 KiB, or its line cannot be read now: the list of faults shows why.")];
  const explained = (await request("/waiting.json")).waiting.find((one) => one.run_id === run.run_id);
  const lines = explained ? explained.lines : [];
  const parts = lines.map((line) => {
    const [place, pairs] = lineOf(line);
    const box = make("div", make("h4", place), "line");
    box.append(facts(pairs));
    return box;
  });
  const elsewhere = lines.flatMap((line) => line.evidence_elsewhere || []);
  const hint = elsewhere.length
    ? [make("p", "Evidence with this run id is in another day-file, which does not count:"), ...elsewhere.map((file) => make("p", named(`data/evidence/${file}`)))]
    : [];
  return [start, ...parts, ...hint, advice("It becomes a row as soon as a line with its run id is appended there. On the host:", command(status, ["explain"], [run.run_id]))];
}

function waiting() {
  const runs = status.waiting_oldest || [], waits = number((status.scored || {}).waiting);
  const noun = waits === 1 ? "scored run waits" : "scored runs wait";
  say(byId("waits-why"), waits === 0 ? "Nothing waits." : `${count(waits)} ${noun} for evidence with the same run id in the paired day-file${waits > runs.length ? `; the ${runs.length} oldest` : ""}.`);
  list(byId("waiting"), runs, (run) => `${run.day_file}:${run.offset}`,
    (run) => [run.run_id ?? "(not readable now)", run.day_file, `for ${span(Date.parse(status.as_of) - Date.parse(run.since))}`], explainRun);
}

// --- malformed lines and retracted rows: requested when they are opened ---

// A list that is requested: one entry with the number, which opens it.
function onDemand(id, shown, title, load) {
  list(byId(id), shown ? [{ shown }] : [], () => id, () => [title], async () => {
    // A refresh keeps the entries that are open.
    const box = byId(id).querySelector(".inner") || make("div", undefined, "inner list");
    const more = await load(box);
    return more ? [box, more] : [box];
  });
}

const REASONS = {
  syntax: "The line is not JSON.",
  "not-an-object": "The line is JSON, but neither an object nor null.",
  "wrong-type": "A key has a value of the wrong type.",
  "too-long": "The line is longer than the limit max_line_bytes.",
};

function explainLetter(letter) {
  const stream = letter.stream === "evidence" ? ["--evidence"] : [];
  return [
    facts([
      ["what is wrong", REASONS[letter.reason] || letter.reason],
      ["where", letter.detail ? named(letter.detail) : undefined],
      ["file", named(`data/${letter.stream === "evidence" ? "evidence" : "scored-runs"}/${letter.day_file}`)],
      ["bytes", `${count(letter.offset)} to ${count(letter.offset + letter.len_bytes)}`],
    ]),
    advice("It gives no row; the other lines of the file are read as usual. Its bytes:", command(status, ["dead-letters", "show"], [letter.day_file, String(letter.offset)], stream)),
    advice("A corrected line at the end of the file is read at once. After a correction in place:", command(status, ["dead-letters", "retry"], [letter.day_file], stream)),
  ];
}

function malformed() {
  const scored = number((status.scored || {}).malformed), evidence = number((status.evidence || {}).malformed), all = scored + evidence;
  say(byId("malformed-why"), all === 0 ? "None." : `${count(scored)} scored, ${count(evidence)} evidence.`);
  onDemand("malformed", all, `Show ${all > LISTED ? `${LISTED} of ${count(all)}` : count(all)} malformed ${all === 1 ? "line" : "lines"}`, async (box) => {
    const page = await request("/malformed.json");
    list(box, page.malformed, (letter) => `${letter.stream}:${letter.day_file}:${letter.offset}`,
      (letter) => [letter.day_file, `${letter.stream}${letter.line ? `, line ${count(letter.line)}` : ""}`, letter.reason], explainLetter);
    return page.more ? advice("The others, on the host:", command(status, ["dead-letters"], [], ["--skip", String(LISTED)])) : null;
  });
}

const CAUSES = {
  rejected: "A later line of the run is rejected.",
  needs_human_review: "A later line of the run needs a human review.",
  unknown_category: "A later line of the run has an unknown category.",
  rescored: "A later line of the run has a row of its own.",
  operator: "An operator ordered it; the reason is in the ledger.",
};

function explainRow(row) {
  const isOrder = row.cause === "operator";
  return [
    facts([
      ["cause", CAUSES[row.cause] || row.cause],
      [isOrder ? "its line" : "overruled by", row.line_offset === null ? named(row.day_file) : named(`${row.day_file} at byte ${row.line_offset}`)],
      ["when", moment(row.at)],
      ["row", `${bytes(row.row.len_bytes)} at byte ${count(row.row.offset)} of the export`],
    ]),
    row.run_id === null
      ? advice("The row stays in the export, and distilld rows leaves it out. Its run id is longer than 4 KiB.")
      : advice("The row stays in the export, and distilld rows leaves it out. On the host:", command(status, ["explain"], [row.run_id])),
    ...(isOrder && row.run_id !== null ? [advice("The end of the order, as the user of the daemon:", command(status, ["retract"], [row.run_id], ["--revoke"]))] : []),
  ];
}

function retracted() {
  const { rows = 0, orders = 0 } = status.retractions || {};
  const standing = orders ? ` ${count(orders)} standing ${orders === 1 ? "order" : "orders"}.` : "";
  say(byId("retracted-why"), rows || orders ? `${count(rows)} ${rows === 1 ? "row is" : "rows are"} out of the effective set.${standing}` : "None.");
  onDemand("retracted", rows, `Show ${rows > LISTED ? `the newest ${LISTED} of ${count(rows)}` : count(rows)} retracted ${rows === 1 ? "row" : "rows"}`, async (box) => {
    const page = await request("/retracted.json");
    list(box, page.retracted, (row) => `${row.row.offset}`, (row) => [row.run_id ?? "(longer than 4 KiB)", row.cause.replaceAll("_", " "), moment(row.at)], explainRow);
    return page.more ? advice("All of them, on the host:", command(status, ["explain"], [], ["--retracted"])) : null;
  });
}

// --- faults ---

function explainFault(fault) {
  if (fault.path !== undefined) {
    const shown = facts([["error", fault.why], ["stream", fault.stream]]);
    if (fault.why === "not a regular file") return [shown, advice("Replace it by a regular file, or move it out of the lake.")];
    return [shown, advice("Give the user of the daemon the right to read it, or mount its file system. The rights that are missing, as root:", command(status, ["check"]))];
  }
  if (fault.resolved) return [facts([["since", moment(fault.at)]]), advice("Reading has resumed. Nothing was lost, and nothing is left to do.")];
  const fix = fault.fix || "Reading is retried automatically, and nothing is lost. What is missing, as root:";
  return [facts([["since", moment(fault.at)]]), advice(`${fix[0].toUpperCase()}${fix.slice(1)}`, fault.fix ? undefined : command(status, ["check"]))];
}

function faults() {
  const past = (status.faults && status.faults.length ? status.faults : [status.last_fault]).filter(Boolean).slice(-8).reverse();
  const skipped = status.skipped || [], number = skipped.length + past.filter((fault) => !fault.resolved).length;
  say(byId("faults-why"), number ? `${count(number)} active.` : past.length ? "None is active." : "None since the start.");
  list(byId("faults"), [...skipped, ...past], (fault) => fault.path === undefined ? `${fault.at} ${fault.what}` : fault.path, (fault) => {
    const parts = fault.path === undefined ? [fault.what, fault.resolved ? "resolved" : "active", moment(fault.at)] : [fault.path, "cannot be read", fault.why];
    return Object.assign(parts, { kind: fault.resolved ? "" : "active" });
  }, explainFault, (fault) => !fault.resolved);
}

export function details(now) {
  status = now;
  faults();
  waiting();
  malformed();
  retracted();
}
