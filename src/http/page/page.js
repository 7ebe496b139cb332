// Shows /status.json and /recent.json while the page is visible. Text from the lake is inserted as text, never as markup.
"use strict";

const STATUS_MS = 2000;
const RECENT_MS = 10000;
const PATIENCE_MS = 8000;
const CLASSES_DRAWN = 5;
const QUARTER = 15;
const SVG = "http://www.w3.org/2000/svg";
const NOT_VERDICTS = ["lines", "balanced"];
const NOT_REFUSED = ["exported", "waiting", "malformed"];

const byId = (id) => document.getElementById(id);
const number = (value) => Number(value || 0);
const grouped = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = String(text);
  if (className) element.className = className;
  return element;
}

function draw(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function count(value) {
  return grouped.format(number(value));
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = number(value), unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// Changes only text that differs, so that selections and screen readers are not disturbed.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fill(element, key, build) {
  const now = JSON.stringify(key);
  if (element.dataset.shown === now) return;
  element.dataset.shown = now;
  element.replaceChildren(...build());
}

// --- the state in one word ---

const KINDS = { fresh: "good", no_sources: "good", starting: "warn", recovering: "warn", catching_up: "warn" };

// The daemon decides the verdict; the page shows it.
function judge(status) {
  const health = status.health || {};
  const title = (health.verdict || "unknown").replaceAll("_", " ");
  const word = title[0].toUpperCase() + title.slice(1);
  const last = status.last_row_at ? `Last row ${span(Date.parse(status.as_of) - Date.parse(status.last_row_at))} ago` : "No row since the start";
  const parts = [health.reason, health.fix, health.verdict === "fresh" ? last : ""].filter(Boolean);
  return [KINDS[health.verdict] || "bad", word, `${parts.join(". ")}.`];
}

function showState([kind, word, why]) {
  const state = byId("state");
  if (state.className !== `state ${kind}`) state.className = `state ${kind}`;
  say(byId("state-word"), word);
  say(byId("state-why"), why);
  document.title = `${word} · distilld`;
}

// --- figures ---

function tile(label, value, note, kind) {
  const box = make("div", undefined, kind);
  box.append(make("dt", label), make("dd", value));
  if (note) box.append(make("dd", note, "note"));
  return box;
}

// The verdicts of an account, in the order in which the daemon lists them.
function verdicts(scored) {
  return Object.keys(scored).filter((key) => !NOT_VERDICTS.includes(key));
}

function tiles(status) {
  const scored = status.scored || {}, rows = status.export || {}, lag = status.lag || {};
  const refused = verdicts(scored).filter((verdict) => !NOT_REFUSED.includes(verdict)).reduce((sum, verdict) => sum + number(scored[verdict]), 0);
  const malformed = [number(scored.malformed), number((status.evidence || {}).malformed)];
  const oldest = (status.waiting_oldest || [])[0];
  const shadows = [[rows.rows_pending, "not written yet"], [rows.superseded, "superseded"], [rows.contradicted, "contradicted"]]
    .filter(([figure]) => number(figure) > 0).map(([figure, what]) => `${count(figure)} ${what}`);
  const all = [];
  if (rows.rows_today !== undefined) all.push(["Rows today", count(rows.rows_today), "UTC day"]);
  all.push(["Rows in total", count(rows.rows), shadows.join(", ") || bytes(rows.len_bytes)]);
  const ledger = status.retractions;
  if (ledger) {
    const effective = `${count(number(rows.rows) - number(ledger.rows))} effective`;
    const orders = number(ledger.orders) === 0 ? "" : `, ${count(ledger.orders)} standing ${number(ledger.orders) === 1 ? "order" : "orders"}`;
    all.push(["Retracted", count(ledger.rows), effective + orders]);
  }
  all.push(["Lag", bytes(lag.bytes), lag.seconds ? `for ${span(lag.seconds * 1000)}` : "nothing pending", status.ready === false ? "warn" : ""]);
  all.push(["Waiting", count(scored.waiting), oldest ? `oldest ${span(Date.parse(status.as_of) - Date.parse(oldest.since))}` : "for evidence"]);
  all.push(["Refused", count(refused), `${count(scored.firewalled)} by the firewall`]);
  all.push(["Dead letters", count(malformed[0] + malformed[1]), `${count(malformed[0])} scored, ${count(malformed[1])} evidence`, malformed[0] + malformed[1] > 0 ? "warn" : ""]);
  fill(byId("tiles"), all, () => all.map((parts) => tile(...parts)));
}

function row(cells, tag) {
  const line = make("tr");
  cells.forEach((cell, n) => {
    const element = make(n === 0 ? "th" : tag || "td", cell);
    if (n === 0) element.scope = tag ? "col" : "row";
    else if (tag) element.scope = "col";
    line.append(element);
  });
  return line;
}

function classes(status) {
  const scored = status.scored || {}, shown = verdicts(scored);
  const figures = (account, evidenceMalformed) => [number(account.lines), ...shown.map((verdict) => number(account[verdict])), number(evidenceMalformed)];
  const lines = (status.classes || []).map((line) => [line.class || "(no name)", ...figures(line, line.evidence_malformed)]);
  const sum = ["all", ...figures(scored, (status.evidence || {}).malformed)];
  fill(byId("classes"), [lines, sum], () => {
    const head = row(["source class", "lines", ...shown.map((verdict) => verdict.replace("_", " ")), "malformed evidence"], "th");
    const body = [...lines, sum].map(([name, ...figures]) => row([name, ...figures.map(count)]));
    body[body.length - 1].className = "sum";
    return [head, ...body];
  });
  say(byId("balance"), scored.balanced === false
    ? "The account does not balance: a bug in distilld, please report it."
    : `${count(scored.lines)} scored lines read, each accounted for; ${count((status.evidence || {}).lines)} lines of evidence.`);
}

function waiting(status) {
  const runs = status.waiting_oldest || [];
  const waits = number((status.scored || {}).waiting);
  say(byId("waits-why"), waits === 0 ? "Nothing waits." : `${count(waits)} scored runs wait for evidence with their run id in the paired day-file${runs.length ? "; the oldest:" : "."}`);
  byId("waiting-scroll").hidden = runs.length === 0;
  const lines = runs.map((run) => [run.run_id === null || run.run_id === undefined ? "(not readable now)" : run.run_id, run.day_file, span(Date.parse(status.as_of) - Date.parse(run.since))]);
  fill(byId("waiting"), lines, () => [row(["run", "day-file", "for"], "th"), ...lines.map((line) => row(line))].map((line) => {
    if (line.children[1]) line.children[1].className = "left wide";
    return line;
  }));
}

function faults(status) {
  const shown = (status.faults && status.faults.length ? status.faults : [status.last_fault]).filter(Boolean).slice(-5).reverse();
  fill(byId("faults"), shown, () => shown.length === 0 ? [make("li", "None since the start.")] : shown.map((fault) => {
    const item = make("li", undefined, fault.resolved ? "" : "open");
    item.append(make("strong", `${new Date(fault.at).toLocaleString()} · ${fault.resolved ? "resolved" : "active"}`), make("span", fault.what));
    return item;
  }));
}

function overflows(status) {
  if (!status.last_overflow_at) return "";
  const times = status.event_overflows === 1 ? "once" : `${count(status.event_overflows)} times`;
  return ` (the event queue overflowed ${times}, last at ${new Date(status.last_overflow_at).toLocaleString()}; every day-file was checked)`;
}

function showStatus(status) {
  say(byId("root"), status.root || "");
  showState(judge(status));
  // Without a first snapshot there are no figures, and zeros would be misread as figures.
  if (!status.lag) return;
  tiles(status);
  classes(status);
  waiting(status);
  faults(status);
  say(byId("about"), `Process ${status.pid}, watching by ${status.watch || "nothing yet"}${overflows(status)}. Export ${(status.export || {}).path || ""}. As of ${new Date(status.as_of).toLocaleTimeString()}.`);
}

// --- plots ---

let recent = null;
const cursors = { hour: null, day: null };

// Classes by number of rows, descending; those beyond the drawn ones are merged.
function ranked(series) {
  const sum = (figures) => (figures || []).reduce((all, figure) => all + number(figure), 0);
  const names = Object.keys(series).map((name) => [name, sum(series[name].exported)]);
  return names.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}

// Whole minutes or quarters of an hour; the last one may be incomplete.
function buckets(names, steps, width) {
  const all = Math.max(steps, ...names.map((name) => (recent.series[name].exported || []).length));
  const past = Math.floor(recent.minute_s / recent.step_s + all - steps) % width;
  const made = [];
  for (let at = all - steps + ((width - past) % width); at < all; at += width) {
    const bucket = { from: recent.minute_s + at * recent.step_s, rows: names.map(() => 0), refused: 0 };
    for (let step = Math.max(0, at); step < at + width; step += 1) {
      names.forEach((name, n) => {
        bucket.rows[n] += number((recent.series[name].exported || [])[step]);
        bucket.refused += number((recent.series[name].refused || [])[step]);
      });
    }
    bucket.sum = bucket.rows.reduce((sum, figure) => sum + figure, 0);
    made.push(bucket);
  }
  return made;
}

function ceiling(value) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * ten).find((step) => step >= value) || 1;
}

function plot(id, names, made, tick) {
  const box = byId(id);
  const width = Math.max(200, box.clientWidth), height = 170;
  const left = 40, top = 8, bottom = 20;
  const most = ceiling(Math.max(1, ...made.map((bucket) => bucket.sum)));
  const mostRefused = Math.max(0, ...made.map((bucket) => bucket.refused));
  // One scale for both: a refused line is as tall as a row.
  const unit = (height - bottom - top - 4) / (most + mostRefused);
  const zero = top + most * unit;
  const bar = (width - left) / made.length;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  for (const value of most % 2 === 0 ? [most / 2, most] : [most]) {
    const y = zero - value * unit;
    draw(svg, "line", { class: "grid", x1: left, x2: width, y1: y, y2: y });
    draw(svg, "text", { x: left - 5, y: y + 4, "text-anchor": "end" }, count(value));
  }
  draw(svg, "text", { x: left - 5, y: zero + 4, "text-anchor": "end" }, "0");
  made.forEach((bucket, n) => {
    const x = left + n * bar, thick = Math.max(1, bar - (bar > 4 ? 1.5 : 0.5));
    let y = zero;
    bucket.rows.forEach((rows, which) => {
      if (rows === 0) return;
      const tall = Math.max(1, rows * unit);
      y -= tall;
      draw(svg, "rect", { class: `c${Math.min(which, CLASSES_DRAWN)}`, x, y, width: thick, height: tall });
    });
    if (bucket.refused > 0) draw(svg, "rect", { class: "refused", x, y: zero + 1, width: thick, height: Math.max(2, bucket.refused * unit) });
    const date = new Date(bucket.from * 1000);
    if (tick(date, width)) draw(svg, "text", { x: Math.min(width - 16, Math.max(left + 16, x + bar / 2)), y: height - 4, "text-anchor": "middle" }, clock.format(date));
  });
  draw(svg, "line", { class: "axis", x1: left, x2: width, y1: zero + 0.5, y2: zero + 0.5 });
  const cursor = draw(svg, "rect", { class: "cursor", x: 0, y: top, width: bar, height: height - bottom - top, visibility: "hidden" });
  box.replaceChildren(svg);
  const rows = made.reduce((sum, bucket) => sum + bucket.sum, 0);
  const refused = made.reduce((sum, bucket) => sum + bucket.refused, 0);
  const whole = `${count(rows)} rows, ${count(refused)} refused`;
  box.setAttribute("aria-label", `${id === "hour" ? "Last hour" : "Last day"}: ${whole}. Arrow keys read single bars.`);
  const point = (n) => {
    cursors[id] = n;
    const bucket = n === null ? undefined : made[n];
    cursor.setAttribute("visibility", bucket ? "visible" : "hidden");
    if (!bucket) { say(byId(`${id}-readout`), whole); return; }
    cursor.setAttribute("x", left + n * bar);
    const parts = names.map((name, which) => [name, bucket.rows[which]]).filter(([, figure]) => figure > 0).slice(0, 3);
    const detail = parts.map(([name, figure]) => `${name} ${count(figure)}`).join(", ");
    say(byId(`${id}-readout`), `${clock.format(new Date(bucket.from * 1000))}: ${count(bucket.sum)} rows${detail ? ` (${detail})` : ""}, ${count(bucket.refused)} refused`);
  };
  box.onpointermove = (event) => {
    const at = Math.floor((event.clientX - box.getBoundingClientRect().left - left) / bar);
    point(at >= 0 && at < made.length ? at : null);
  };
  box.onpointerleave = () => point(null);
  box.onblur = () => point(null);
  box.onkeydown = (event) => {
    const last = made.length - 1, at = cursors[id] === null ? last + 1 : cursors[id];
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") point(null);
    if (to === undefined) return;
    event.preventDefault();
    point(Math.min(last, Math.max(0, to)));
  };
  point(cursors[id]);
}

function legend(names) {
  const shown = names.slice(0, CLASSES_DRAWN).map((name, n) => [`c${n}`, name]);
  if (names.length > CLASSES_DRAWN) shown.push([`c${CLASSES_DRAWN}`, `${names.length - CLASSES_DRAWN} more`]);
  shown.push(["refused", "refused"]);
  fill(byId("legend"), shown, () => shown.map(([colour, name]) => {
    const item = make("li");
    const svg = draw(item, "svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    draw(svg, "rect", { class: colour, width: 10, height: 10, rx: 2 });
    item.append(document.createTextNode(name));
    return item;
  }));
}

function showRecent() {
  const there = Boolean(recent && recent.series && recent.step_s);
  byId("no-plot").hidden = there;
  byId("plot-key").hidden = !there;
  document.querySelectorAll("figure").forEach((figure) => { figure.hidden = !there; });
  if (!there) return;
  const names = ranked(recent.series);
  legend(names);
  plot("hour", names, buckets(names, 60, 1), (date, width) => date.getMinutes() % (width < 420 ? 20 : 10) === 0);
  plot("day", names, buckets(names, 1440, QUARTER), (date, width) => date.getMinutes() < QUARTER && date.getHours() % (width < 420 ? 6 : 4) === 0);
}

// --- requests ---

let paused = false, recentAt = 0, asking = false, failed = 0;

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  // An unresponsive engine is reported as JSON with code 503.
  const isJson = (answer.headers.get("content-type") || "").includes("json");
  if (!isJson) throw new Error(`${answer.status} for ${path}`);
  return answer.json();
}

async function update() {
  if (paused || asking || document.hidden) return;
  asking = true;
  try {
    const status = await ask("/status.json");
    showStatus(status);
    failed = 0;
    document.body.classList.remove("stale");
    // Without accounts by class there is no history by class either.
    if (status.classes && Date.now() - recentAt >= RECENT_MS) {
      recent = await ask("/recent.json").catch(() => recent);
      recentAt = Date.now();
      showRecent();
    }
  } catch (error) {
    failed += 1;
    document.body.classList.add("stale");
    if (failed > 1) showState(["bad", "No response", "The daemon does not respond; it may be stopped or restarting. The figures below are the last known ones."]);
  } finally {
    asking = false;
  }
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  update();
});
document.addEventListener("visibilitychange", update);
new ResizeObserver(() => showRecent()).observe(byId("came").parentElement);
setInterval(update, STATUS_MS);
update();
