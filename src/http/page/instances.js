// The instances of the host, where there are several: the verdict of each, and the way to its page.
import { byId, capital, fill, kind, make, named, prose, say } from "./text.js";
import { request } from "./details.js";

const LIST_MS = 10000;
const PORT = 9743;
let askedAt = -LIST_MS, asking = false;

// A page is reached at a port of this computer: its own, or one to which ssh forwards.
function way(address, n, host) {
  const own = Number(location.port) || PORT;
  const socket = address.startsWith("unix:") ? address.slice(5) : null;
  const port = socket ? own + n : Number(address.slice(address.lastIndexOf(":") + 1));
  const link = make("a", `localhost:${port}`);
  link.href = `http://localhost:${port}/`;
  const typed = make("code", named(`ssh -L ${port}:${socket || address} ${host}`, "bdi", "typed"));
  const box = make("p");
  if (socket) box.append("First ", typed, " as a user of its group, then ", link);
  else box.append(link, " From another computer, first ", typed);
  return box;
}

function sentence(start, text) {
  const sentence = make("p");
  sentence.append(start, ...prose(text), text.endsWith("?") ? "" : ".");
  return sentence;
}

function entry(instance, n, host) {
  const item = make("li");
  const { verdict, error, fix, pages } = instance;
  const word = verdict ? capital(verdict.replaceAll("_", " ")) : "Unknown";
  item.append(make("strong", named(instance.name)), make("span", word, `verdict ${kind(verdict)}`));
  const body = make("div", undefined, "reach");
  if (instance.own) body.append(make("p", "this page"));
  else if (error) body.append(sentence("", capital(error)));
  if (fix && !instance.own) body.append(sentence("What to do: ", fix));
  else if (!instance.own && pages.length === 0) body.append(make("p", "It serves no page."));
  if (!instance.own) body.append(...pages.slice(0, 1).map((address) => way(address, n, host)));
  item.append(body);
  return item;
}

function show(listed, host) {
  const others = listed.filter((instance) => !instance.own);
  byId("instances").hidden = others.length === 0;
  say(byId("instances-why"), "");
  fill(byId("instances-list"), [listed, host], () => listed.map((instance, n) => entry(instance, n + 1, host)));
}

// Requests the list every few seconds; no other figure waits for it.
export async function instances(status) {
  if (asking || performance.now() - askedAt < LIST_MS) return;
  asking = true;
  try {
    show((await request("/instances.json")).instances, ((status || {}).process || {}).host || "HOST");
  } catch (error) {
    say(byId("instances-why"), `The list is the last known one: ${error.message}.`);
  } finally {
    askedAt = performance.now();
    asking = false;
  }
}
