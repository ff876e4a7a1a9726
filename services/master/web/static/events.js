// What services said about a run, newest first.

import { h, fill } from "./dom.js";
import { clock, dateOf, number, words } from "./format.js";

const MAX_SHOWN = 500;

export class EventLog {
  constructor() {
    this.list = h("ol", { class: "events", reversed: true, role: "log", "aria-live": "off" });
    this.nothing = h("p", { class: "quiet" }, "Nothing was said since the master started.");
    this.element = h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Event log" }, this.nothing, this.list);
  }

  clear() {
    fill(this.list);
    this.nothing.hidden = false;
  }

  add(events) {
    this.list.prepend(...events.toReversed().map(lineOf));
    while (this.list.childElementCount > MAX_SHOWN) this.list.lastElementChild.remove();
    this.nothing.hidden = this.list.childElementCount > 0;
  }
}

function lineOf({ timeUnixNs, source, kind, iteration, metrics, text }) {
  const figures = Object.entries(metrics ?? {}).map(([name, value]) => `${words(name)} ${number(value)}`);
  const said = [text, ...figures].filter(Boolean).join(" · ");
  const at = dateOf(timeUnixNs);
  return h(
    "li",
    { class: kind.includes("fail") || ["silent", "warning"].includes(kind) ? "bad" : "" },
    h("time", { datetime: at.toISOString() }, clock(at)),
    h("span", { class: "source" }, source),
    h("b", {}, words(kind)),
    Number(iteration) ? h("span", { class: "quiet" }, `iteration ${iteration}`) : null,
    h("span", {}, said),
  );
}
