// Elements, numbers and names. Text from the lake is inserted as text nodes, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const HUES = 12, TONES = 3;
const grouped = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const KINDS = { fresh: "good", no_sources: "good", starting: "warn", recovering: "warn", catching_up: "warn" };

export const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
export const byId = (id) => document.getElementById(id);
export const number = (value) => Number(value || 0);
export const count = (value) => grouped.format(number(value));
// A number of at most five characters, for an axis.
export const short = (value) => value < 10000 ? grouped.format(value) : compact.format(value);

export const capital = (text) => text ? text[0].toUpperCase() + text.slice(1) : "";
// The class of a verdict, which gives its colour.
export const kind = (verdict) => KINDS[verdict] || "bad";

export function make(tag, content, className) {
  const element = document.createElement(tag);
  if (content instanceof Node) element.append(content);
  else if (content !== undefined) element.textContent = String(content);
  if (className) element.className = className;
  return element;
}

export function draw(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

// A name from the lake: isolated from the direction of the text around it, and broken after its separators.
export function named(text, tag = "bdi", className = "name") {
  const element = make(tag, undefined, className);
  for (const part of String(text).split(/(?<=[/_.:\-])(?=[^/_.:\-])/)) {
    if (element.childNodes.length) element.append(document.createElement("wbr"));
    element.append(document.createTextNode(part));
  }
  return element;
}

// A text of the daemon, with its commands, which it writes between backticks, set as code.
export function prose(text) {
  return String(text).split("`").map((part, n) => n % 2 ? make("code", part) : document.createTextNode(part));
}

// Changes only text that differs, so that selections and screen readers are not disturbed.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function fill(element, key, build) {
  const now = JSON.stringify(key);
  if (element.dataset.shown === now) return;
  element.dataset.shown = now;
  element.replaceChildren(...build());
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let size = number(value), unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// A time of the freshness scale, with two digits.
export function brief(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 100000) return `${(ms / 1000).toPrecision(2)} s`;
  return span(ms);
}

export function moment(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? String(text || "an unknown time") : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

// The colour of a source class depends on its name alone: one of 12 hues in one of 3 tones. The start
// value was searched so that the 8 classes of the example have 8 hues, and those next to each other differ most.
export function coloured(element, name) {
  let hash = 233780;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  const slot = ((hash ^ (hash >>> 12)) >>> 0) % (HUES * TONES);
  element.style.setProperty("--hue", String((slot % HUES) * (360 / HUES) + 15));
  element.style.setProperty("--tone", String(Math.floor(slot / HUES) - 1));
  return element;
}

export function swatch(name, className) {
  const svg = draw(null, "svg", { viewBox: "0 0 10 10", "aria-hidden": "true", class: "swatch" });
  const rect = draw(svg, "rect", { class: className, width: 10, height: 10, rx: 2.5 });
  if (className === "series") coloured(rect, name);
  return svg;
}

const quoted = (text) => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`;

// A command that reaches this daemon from any directory. `values` are foreign: one that begins with a dash is no flag.
export function command(status, words, values = [], flags = []) {
  const own = `${status.root}/data/distilled/.distilld`;
  const state = status.state_dir && status.state_dir !== own ? ["--state-dir", status.state_dir] : [];
  const end = values.some((value) => value.startsWith("-")) ? ["--"] : [];
  return ["distilld", "--root", status.root, ...state, ...words, ...flags, ...end, ...values].map(quoted).join(" ");
}
