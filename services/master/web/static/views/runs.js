// All runs, newest first; several can be picked to be compared.

import { call } from "../api.js";
import { h, fill } from "../dom.js";
import { dateAndTime, dateOf, duration, isActive, percent, stateOf, versionOf } from "../format.js";
import { chip } from "../parts.js";

export async function showRuns(content, stage) {
  const picked = new Set();
  const button = h("button", { disabled: true, onclick: () => (location.hash = `#/compare/${[...picked].join(",")}`) }, "Compare");
  const list = h("div", { class: "scroll" });
  fill(content, h("div", { class: "head" }, h("h1", {}, "Runs"), button), list);

  const pick = (id, isPicked) => {
    if (isPicked) picked.add(id);
    else picked.delete(id);
    button.disabled = picked.size < 2;
    button.textContent = picked.size < 2 ? "Compare" : `Compare ${picked.size} runs`;
  };
  let shown = "";
  await stage.keep(async (signal) => {
    const { runs } = await call("list-runs", {}, signal);
    const now = JSON.stringify(runs);
    if (now !== shown) fill(list, runs.length ? tableOf(runs, picked, pick) : welcome());
    shown = now;
  }, 3);
}

function tableOf(runs, picked, pick) {
  const headings = ["", "Run", "State", "Iteration", "Time", "Held-out accuracy", "Ledger", "Submitted"];
  return h(
    "table",
    { class: "runs" },
    h("thead", {}, h("tr", {}, headings.map((heading) => h("th", { scope: "col" }, heading)))),
    h("tbody", {}, runs.map((run) => rowOf(run, picked, pick))),
  );
}

function rowOf(run, picked, pick) {
  const box = h("input", {
    type: "checkbox",
    checked: picked.has(run.id),
    "aria-label": `Compare ${run.id}`,
    onchange: (event) => pick(run.id, event.target.checked),
  });
  const cell = (label, ...children) => h("td", { "data-label": label }, ...children);
  return h(
    "tr",
    { class: isActive(run) ? "active" : "" },
    h("td", { class: "pick" }, box),
    h("th", { scope: "row" }, h("a", { href: `#/run/${run.id}` }, run.id), run.problem ? h("div", { class: "bad" }, run.problem) : null),
    cell("State", chip(stateOf(run))),
    cell("Iteration", `${Math.min(versionOf(run.policy), run.numIterations)} of ${run.numIterations}`),
    cell("Time", duration(run.seconds)),
    cell("Accuracy", latestAccuracy(run)),
    cell("Ledger", run.ledger.balanced ? "balanced" : h("strong", { class: "bad" }, "does not balance")),
    cell("Submitted", dateAndTime(dateOf(run.submittedUnixNs))),
  );
}

/** The last evaluation of each mode, and what was gained since the first. */
function latestAccuracy({ evaluations }) {
  const modes = [...new Set(evaluations.map(({ mode }) => mode))].sort();
  return modes.map((mode) => {
    const found = evaluations.filter((evaluation) => evaluation.mode === mode);
    const [first, last] = [found[0].accuracy, found.at(-1).accuracy];
    const gain = found.length > 1 ? ` (${last >= first ? "+" : "−"}${Math.abs((last - first) * 100).toFixed(1)})` : "";
    return h("div", {}, `${mode} `, h("b", {}, percent(last)), h("span", { class: "quiet" }, gain));
  });
}

function welcome() {
  return h("p", {}, "There are no runs yet. ", h("a", { href: "#/start" }, "Start one"), ", or ", h("code", {}, "perilune train recipes/search.toml"), ".");
}
