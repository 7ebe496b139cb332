// The table of source classes: sorted by any column, filtered by name.
import { byId, count, fill, make, named, number, say, swatch } from "./text.js";

// With fewer classes the filter is only in the way.
const FILTER_CLASSES = 8;
const sorting = { column: 0, descending: false };
let shown = null;

// The verdicts of an account, in the order in which the daemon lists them.
export const verdicts = (scored) => Object.keys(scored).filter((key) => !["lines", "balanced"].includes(key));

const counted = (figure, kind = "") => `${count(figure)} ${kind}${number(figure) === 1 ? "line" : "lines"}`;

function head(titles) {
  const row = make("tr");
  titles.forEach((title, n) => {
    const cell = make("th"), button = make("button", title, "sort");
    cell.scope = "col";
    button.type = "button";
    button.onclick = () => {
      // Names ascend first, figures descend.
      Object.assign(sorting, sorting.column === n ? { descending: !sorting.descending } : { column: n, descending: n > 0 });
      show();
    };
    cell.append(button);
    row.append(cell);
  });
  return row;
}

function line(name, figures, isSum) {
  const row = make("tr", undefined, isSum ? "sum" : undefined), title = make("th");
  title.scope = "row";
  if (!isSum) title.append(swatch(name, "series"));
  title.append(isSum ? name : named(name || "(no name)"));
  row.append(title, ...figures.map((figure) => make("td", count(figure), number(figure) ? undefined : "zero")));
  return row;
}

function show() {
  const { titles, lines, sum } = shown, { column, descending } = sorting;
  const wanted = byId("filter").value.trim().toLowerCase();
  const found = lines.filter(([name]) => name.toLowerCase().includes(wanted));
  const by = ([name, ...figures]) => column === 0 ? name : figures[column - 1];
  const order = (a, b) => by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : 0;
  found.sort((a, b) => (descending ? order(b, a) : order(a, b)) || (a[0] < b[0] ? -1 : 1));
  const table = byId("classes");
  fill(table.tHead, titles, () => [head(titles)]);
  [...table.tHead.rows[0].cells].forEach((cell, n) => {
    if (n === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
  fill(table.tBodies[0], found, () => found.map(([name, ...figures]) => line(name, figures)));
  fill(table.tFoot, sum, () => [line("all", sum, true)]);
  byId("filter-box").hidden = lines.length < FILTER_CLASSES;
  say(byId("filtered"), wanted ? `${count(found.length)} of ${count(lines.length)}` : "");
}

export function classes(status) {
  // A verdict that no line has would only widen the table.
  const scored = status.scored || {}, keys = verdicts(scored).filter((key) => key === "exported" || number(scored[key]) > 0);
  const figures = (account, malformed) => [number(account.lines), ...keys.map((key) => number(account[key])), number(malformed)];
  shown = {
    titles: ["source class", "lines", ...keys.map((key) => key.replaceAll("_", " ")), "malformed evidence"],
    lines: (status.classes || []).map((account) => [account.class, ...figures(account, account.evidence_malformed)]),
    sum: figures(scored, (status.evidence || {}).malformed),
  };
  show();
  say(byId("balance"), scored.balanced === false
    ? "The account does not balance: a bug in distilld, please report it."
    : `${counted(scored.lines, "scored ")} read, each accounted for, and verdicts without a line are not shown; ${counted((status.evidence || {}).lines)} of evidence.`);
}

byId("filter").addEventListener("input", () => { if (shown) show(); });
