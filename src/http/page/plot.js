// The plots: a frame with axes and a cursor that pointer and arrow keys move, and what is drawn in it.
import { brief, byId, clock, coloured, count, draw, fill, make, number, say, short, swatch } from "./text.js";

const HEIGHT = 190, TOP = 10, BOTTOM = 20, DIGIT = 6.6;
const HOUR = 60, QUARTER = 15;
const DRAWN_CLASSES = 8;
const cursors = {};
const rowsOf = (rows) => `${count(rows)} ${rows === 1 ? "row" : "rows"}`;

const inHour = (date, width) => date.getMinutes() % (width < 420 ? 20 : 10) === 0;
const inDay = (date, width) => date.getMinutes() < QUARTER && date.getHours() % (width < 420 ? 6 : 4) === 0;

// The smallest round number that is not below a value.
export function ceiling(value) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * ten).find((step) => step >= value) || 10 * ten;
}

// A frame for `made` buckets whose axis has these labels. `show` returns the readout of one bucket, or of all.
function frame(id, made, labels, tick, whole, show) {
  const box = byId(id), width = Math.max(240, box.clientWidth);
  const left = Math.ceil(Math.max(...labels.map((label) => label.length)) * DIGIT) + 10;
  const bar = (width - left - 2) / made.length;
  const svg = draw(null, "svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
  const step = { svg, left, width, bar, thick: Math.max(1, bar - (bar > 4 ? 1.5 : 0.4)), x: (n) => left + n * bar };
  let free = 0;
  made.forEach((bucket, n) => {
    const date = new Date(bucket.from * 1000);
    const x = step.x(n) + bar / 2;
    if (!tick(date, width) || x < left + 16 || x < free) return;
    draw(svg, "text", { x: Math.min(width - 17, x), y: HEIGHT - 4, "text-anchor": "middle" }, clock.format(date));
    free = x + 44;
  });
  step.level = (y, label, className = "grid") => {
    draw(svg, "line", { class: className, x1: left, x2: width, y1: y, y2: y });
    if (label !== undefined) draw(svg, "text", { x: left - 6, y: y + 4, "text-anchor": "end" }, label);
  };
  step.finish = () => {
    const cursor = draw(svg, "rect", { class: "cursor", x: 0, y: TOP, width: bar, height: HEIGHT - BOTTOM - TOP, visibility: "hidden" });
    box.replaceChildren(svg);
    box.setAttribute("aria-label", `${whole}. Arrow keys read single bars.`);
    const point = (n) => {
      cursors[id] = n;
      const bucket = n === null || n === undefined ? undefined : made[n];
      cursor.setAttribute("visibility", bucket ? "visible" : "hidden");
      if (bucket) cursor.setAttribute("x", step.x(n));
      say(byId(`${id === "freshness" ? "fresh" : id}-readout`), bucket ? `${clock.format(new Date(bucket.from * 1000))}: ${show(bucket)}` : whole);
    };
    box.onpointermove = (event) => {
      const at = Math.floor((event.clientX - box.getBoundingClientRect().left - left) / bar);
      point(at >= 0 && at < made.length ? at : null);
    };
    box.onpointerleave = box.onblur = () => point(null);
    box.onkeydown = (event) => {
      const last = made.length - 1, at = cursors[id] ?? last + 1;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") point(null);
      if (to === undefined) return;
      event.preventDefault();
      point(Math.min(last, Math.max(0, to)));
    };
    point(cursors[id]);
  };
  return step;
}

function nothing(step, text, y) {
  draw(step.svg, "text", { class: "nothing", x: (step.left + step.width) / 2, y, "text-anchor": "middle" }, text);
}

// --- freshness ---

function figure(name, value, className) {
  const box = make("div", undefined, className);
  box.append(make("dt", name), make("dd", value));
  return box;
}

// The process has no figures from before its start.
export function freshness(recent, lag, started) {
  const fresh = recent.freshness;
  if (!fresh) return;
  const hour = fresh.hour || {}, objective = number((lag || {}).objective_seconds) * 1000;
  fill(byId("percentiles"), [hour], () => [
    figure("p50", hour.batches ? brief(hour.p50_ms) : "–", "p50"),
    figure("p99", hour.batches ? brief(hour.p99_ms) : "–", "p99"),
  ]);
  fill(byId("fresh-legend"), [objective], () => [["p50", "p50"], ["p99", "p99"], ["objective", `objective ${brief(objective)}`]].map(([kind, text]) => {
    const item = make("li");
    item.append(swatch("", kind), text);
    return item;
  }));
  const made = (fresh.batches || []).map((batches, n) => ({ from: fresh.minute_s + n * 60, batches: number(batches), p50: number(fresh.p50_ms[n]), p99: number(fresh.p99_ms[n]) }));
  const longest = Math.max(...made.map((bucket) => bucket.p99), objective || 1000);
  const decades = Math.max(3, Math.ceil(Math.log10(longest)));
  const names = Array.from({ length: decades + 1 }, (_, n) => n < 3 ? `${10 ** n} ms` : n < 5 ? `${10 ** (n - 3)} s` : brief(10 ** n));
  const batches = number(hour.batches);
  const whole = batches ? `p50 ${brief(hour.p50_ms)}, p99 ${brief(hour.p99_ms)}, ${count(batches)} ${batches === 1 ? "batch" : "batches"}` : `no rows ${Date.parse(started) / 1000 > fresh.minute_s ? "since the start" : "in the last hour"}`;
  const step = frame("freshness", made, names, inHour, whole, (bucket) => bucket.batches ? `p50 ${brief(bucket.p50)}, p99 ${brief(bucket.p99)}, ${count(bucket.batches)} ${bucket.batches === 1 ? "batch" : "batches"}` : "no rows");
  const floor = HEIGHT - BOTTOM, y = (ms) => floor - (floor - TOP) * Math.log10(Math.max(1, ms)) / decades;
  names.forEach((name, n) => step.level(y(10 ** n), name, n ? "grid" : "axis"));
  if (objective) draw(step.svg, "line", { class: "objective", x1: step.left, x2: step.width, y1: y(objective), y2: y(objective) });
  made.forEach((bucket, n) => {
    if (!bucket.batches) return;
    const x = step.x(n), low = y(bucket.p50), high = y(bucket.p99);
    draw(step.svg, "rect", { class: "band", x, y: high, width: step.thick, height: Math.max(1, low - high) });
    draw(step.svg, "rect", { class: "p99", x, y: high - 1.5, width: step.thick, height: 3, rx: 1 });
    draw(step.svg, "rect", { class: "p50", x, y: low - 1.5, width: step.thick, height: 3, rx: 1 });
  });
  if (!batches) nothing(step, `N${whole.slice(1)}`, (TOP + floor) / 2);
  step.finish();
}

// --- rows ---

// Whole minutes or quarters of an hour that end with the newest step; the last one may be incomplete.
function buckets(recent, names, steps, width) {
  const all = recent.steps;
  const past = Math.floor(recent.minute_s / recent.step_s + all - steps) % width;
  const made = [];
  for (let at = all - steps + ((width - past) % width); at < all; at += width) {
    const bucket = { from: recent.minute_s + at * recent.step_s, rows: names.map(() => 0), refused: 0 };
    for (let step = at; step < Math.min(all, at + width); step += 1) {
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

function bars(id, names, drawn, made, tick) {
  const rowsTop = ceiling(Math.max(...made.map((bucket) => bucket.sum)));
  const refusedTop = ceiling(Math.max(...made.map((bucket) => bucket.refused)));
  const sum = (kind) => made.reduce((all, bucket) => all + bucket[kind], 0);
  const rows = sum("sum"), refused = sum("refused");
  const labels = [short(rowsTop), short(rowsTop / 2), short(refusedTop)];
  const step = frame(id, made, labels, tick, `${rowsOf(rows)}, ${count(refused)} refused`, (bucket) => {
    const most = names.map((name, n) => [name, bucket.rows[n]]).filter(([, rows]) => rows > 0).sort((a, b) => b[1] - a[1]);
    const detail = most.slice(0, 3).map(([name, rows]) => `${name} ${count(rows)}`).join(", ");
    return `${rowsOf(bucket.sum)}${detail ? ` (${detail}${most.length > 3 ? ", …" : ""})` : ""}, ${count(bucket.refused)} refused`;
  });
  const zero = 126, floor = HEIGHT - BOTTOM - 1, base = zero + 12;
  const y = (rows) => zero - (zero - TOP) * rows / rowsTop;
  step.level(y(rowsTop), labels[0]);
  if (rowsTop % 2 === 0) step.level(y(rowsTop / 2), labels[1]);
  step.level(floor, refused ? labels[2] : undefined);
  const paths = [...names.map(() => ""), ""];
  made.forEach((bucket, n) => {
    let top = zero;
    bucket.rows.forEach((rows, which) => {
      if (rows === 0) return;
      const tall = zero - y(rows);
      top -= tall;
      paths[drawn.has(names[which]) ? which : names.length] += `M${step.x(n).toFixed(1)} ${top.toFixed(1)}h${step.thick.toFixed(1)}v${tall.toFixed(1)}h-${step.thick.toFixed(1)}z`;
    });
    if (bucket.refused > 0) draw(step.svg, "rect", { class: "refused", x: step.x(n), y: base, width: step.thick, height: Math.max(2, (floor - base) * bucket.refused / refusedTop) });
  });
  paths.forEach((path, which) => {
    if (!path) return;
    if (which === names.length) draw(step.svg, "path", { class: "others", d: path });
    else coloured(draw(step.svg, "path", { class: "series", d: path, "data-class": names[which] }), names[which]);
  });
  step.level(zero + 0.5, "0", "axis");
  step.level(base - 0.5, undefined, "axis");
  if (!rows) nothing(step, `No rows in the last ${id}`, (TOP + zero) / 2);
  step.finish();
}

function highlight(name) {
  for (const path of document.querySelectorAll("path.series")) path.classList.toggle("dim", name !== null && path.dataset.class !== name);
}

// The classes with a row in the last day, those with most rows first.
function ranked(series) {
  const sum = (name) => (series[name].exported || []).reduce((all, rows) => all + number(rows), 0);
  const sums = Object.keys(series).map((name) => [name, sum(name)]).filter(([, rows]) => rows > 0);
  return sums.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}

function legend(shown, others) {
  fill(byId("legend"), [shown, others], () => {
    const items = shown.map((name) => {
      const button = make("button", undefined, "key"), item = make("li", button);
      button.type = "button";
      button.append(swatch(name, "series"), make("bdi", name, "name"));
      button.onpointerenter = button.onfocus = () => highlight(name);
      button.onpointerleave = button.onblur = () => highlight(null);
      return item;
    });
    if (others > 0) {
      items.push(make("li", swatch("", "others")));
      items[items.length - 1].append(`${others} others`);
    }
    const refused = make("li");
    refused.append(swatch("", "refused"), "refused");
    return [...items, refused];
  });
}

export function rows(recent) {
  const most = ranked(recent.series), shown = most.slice(0, DRAWN_CLASSES).sort(), drawn = new Set(shown);
  legend(shown, most.length - shown.length);
  // Those that are drawn one by one come first: they are at the bottom of the stack, in the order of the legend.
  const names = [...shown, ...Object.keys(recent.series).filter((name) => !drawn.has(name)).sort()];
  bars("hour", names, drawn, buckets(recent, names, HOUR, 1), inHour);
  bars("day", names, drawn, buckets(recent, names, recent.steps, QUARTER), inDay);
}
