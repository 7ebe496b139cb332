// Shows /status.json and /recent.json while the page is visible.
import { byId, bytes, capital, command, count, fill, kind, make, named, number, prose, say, span } from "./text.js";
import { classes, verdicts } from "./table.js";
import { details, request } from "./details.js";
import { instances } from "./instances.js";
import * as plots from "./plot.js";

const STATUS_MS = 2000;
const RECENT_MS = 10000;
const NOT_REFUSED = ["exported", "waiting", "malformed"];

let last = null, recent = null;
let paused = false, recentAt = 0, asking = false, failed = 0;

// --- the state in one word ---

// The daemon decides the verdict; the page shows it.
function judge(status) {
  const health = status.health || {};
  const word = capital((health.verdict || "unknown").replaceAll("_", " "));
  const row = status.last_row_at ? `last row ${span(Date.parse(status.as_of) - Date.parse(status.last_row_at))} ago` : "no row since the start";
  const parts = [health.reason, health.verdict === "fresh" ? row : ""].filter(Boolean);
  return [kind(health.verdict), word, `${parts.map(capital).join(". ")}.`, health.fix];
}

function showState([className, word, why, fix]) {
  const state = byId("state");
  if (state.className !== `state ${className}`) state.className = `state ${className}`;
  say(byId("state-word"), word);
  say(byId("state-why"), why);
  byId("state-fix").hidden = !fix;
  fill(byId("state-fix"), fix || "", () => fix ? ["What to do: ", ...prose(fix), "."] : []);
  document.title = [word, ...nameParts(last), "distilld"].join(" · ");
}

function nameParts(status) {
  const { host, instance } = (status || {}).process || {};
  return [instance, host].filter(Boolean);
}

function showHead(status) {
  const { host, instance, version, started_at: started } = status.process || {};
  fill(byId("name"), [host, instance], () => ["distilld", ...[instance, host].filter(Boolean).map((name) => make("span", named(name), "of"))]);
  fill(byId("root"), status.root, () => [named(status.root || "")]);
  const up = Date.parse(status.as_of || new Date().toISOString()) - Date.parse(started);
  say(byId("process"), [version && `version ${version}`, started && `up ${span(up)}`, status.pid && `process ${status.pid}`].filter(Boolean).join(" · "));
}

// --- what to do first ---

function showFirst(status) {
  const isEmpty = number((status.scored || {}).lines) === 0 && number((status.evidence || {}).lines) === 0 && number((status.export || {}).rows) === 0;
  for (const id of ["rates", "by-class", "fresh"]) byId(id).hidden = isEmpty;
  byId("first").hidden = !isEmpty;
  if (!isEmpty) return;
  const day = new Date(status.as_of).toISOString().slice(0, 10).replaceAll("-", "/");
  fill(byId("first-steps"), [status.root, day], () => {
    const step = (text, path, code) => {
      const item = make("li", text);
      if (path) item.append(" ", make("code", named(path)));
      if (code) item.append(make("pre", code));
      return item;
    };
    return [
      step("A scorer appends a line for each judged run, here for today:", `${status.root}/data/scored-runs/${day}/audits.jsonl`, '{"evidence_run_id":"run-1","category":"accepted"}'),
      step("The evidence of the run is appended to the file with the same path below data/evidence:", `${status.root}/data/evidence/${day}/audits.jsonl`, '{"run_id":"run-1","model_role":"executor","text":"the answer of the model"}'),
      step("The row is in the export milliseconds after the second of the two lines:", (status.export || {}).path),
      step("If lines are there and nothing appears, this shows the rights that are missing, as root:", command(status, ["check"])),
    ];
  });
}

// --- figures ---

function tile(label, value, note, kind) {
  const box = make("div", undefined, kind);
  // A number is never broken: a long one is smaller.
  box.append(make("dt", label), make("dd", value, value.length > 12 ? "longest" : value.length > 9 ? "long" : undefined));
  if (note) box.append(make("dd", note, "note"));
  return box;
}

function tiles(status) {
  const scored = status.scored || {}, rows = status.export || {}, lag = status.lag || {}, ledger = status.retractions;
  const refused = verdicts(scored).filter((verdict) => !NOT_REFUSED.includes(verdict)).reduce((sum, verdict) => sum + number(scored[verdict]), 0);
  const malformed = [number(scored.malformed), number((status.evidence || {}).malformed)];
  const oldest = (status.waiting_oldest || [])[0];
  const shadows = [[rows.rows_pending, "not written yet"], [rows.superseded, "superseded"], [rows.contradicted, "contradicted"]]
    .filter(([figure]) => number(figure) > 0).map(([figure, what]) => `${count(figure)} ${what}`);
  const all = [];
  if (rows.rows_today !== undefined) all.push(["Rows today", count(rows.rows_today), "UTC day"]);
  all.push(["Rows in total", count(rows.rows), shadows.join(", ") || bytes(rows.len_bytes)]);
  if (ledger) {
    const orders = number(ledger.orders) === 0 ? "" : `, ${count(ledger.orders)} standing ${number(ledger.orders) === 1 ? "order" : "orders"}`;
    all.push(["Retracted", count(ledger.rows), `${count(number(rows.rows) - number(ledger.rows))} effective${orders}`]);
  }
  const unread = [number(lag.files) && `${count(lag.files)} ${number(lag.files) === 1 ? "file" : "files"}`, lag.seconds >= 1 && `for ${span(lag.seconds * 1000)}`].filter(Boolean);
  all.push(["Lag", bytes(lag.bytes), unread.join(" ") || "nothing pending", lag.caught_up === false || number(lag.seconds) > number(lag.objective_seconds) ? "warn" : ""]);
  all.push(["Waiting", count(scored.waiting), oldest ? `oldest ${span(Date.parse(status.as_of) - Date.parse(oldest.since))}` : "for evidence"]);
  all.push(["Refused", count(refused), `${count(scored.firewalled)} by the firewall`]);
  all.push(["Malformed", count(malformed[0] + malformed[1]), `${count(malformed[0])} scored, ${count(malformed[1])} evidence`, malformed[0] + malformed[1] > 0 ? "warn" : ""]);
  fill(byId("tiles"), all, () => all.map((parts) => tile(...parts)));
}

function overflows(status) {
  if (!status.last_overflow_at) return "";
  const times = status.event_overflows === 1 ? "once" : `${count(status.event_overflows)} times`;
  return ` (the event queue overflowed ${times}, last at ${new Date(status.last_overflow_at).toLocaleString()}; every day-file was checked)`;
}

function showStatus(status) {
  last = status;
  showHead(status);
  showState(judge(status));
  // Without a first snapshot there are no figures, and zeros would be misread as figures.
  if (!status.as_of || !status.classes) return;
  showFirst(status);
  tiles(status);
  details(status);
  classes(status);
  fill(byId("about"), [status.watch, status.last_overflow_at, (status.export || {}).path], () => [
    `Watching by ${status.watch || "nothing yet"}${overflows(status)}. Export `, named((status.export || {}).path || ""), "."]);
}

function showRecent() {
  if (!recent || !recent.series || !recent.steps) return;
  if (!byId("fresh").hidden) plots.freshness(recent, (last || {}).lag, ((last || {}).process || {}).started_at);
  if (!byId("rates").hidden) plots.rows(recent);
}

// --- requests ---

async function update() {
  if (paused || asking || document.hidden) return;
  asking = true;
  try {
    const wasHidden = byId("rates").hidden;
    const status = await request("/status.json");
    if (paused) return;
    showStatus(status);
    failed = 0;
    document.body.classList.remove("stale");
    instances(status);
    if (!byId("rates").hidden && (wasHidden || Date.now() - recentAt >= RECENT_MS)) updateRecent();
  } catch (error) {
    failed += 1;
    document.body.classList.add("stale");
    if (failed > 1) showState(["bad", "No response", "The daemon does not respond: it may be stopped or restarting. The figures below are the last known ones."]);
  } finally {
    asking = false;
  }
}

// The plots take longer on a busy daemon; the state does not wait for them.
async function updateRecent() {
  recentAt = Date.now();
  recent = await request("/recent.json").catch(() => recent);
  if (!paused) showRecent();
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  update();
});
document.addEventListener("visibilitychange", update);
new ResizeObserver(showRecent).observe(document.querySelector("main"));
setInterval(update, STATUS_MS);
update();
