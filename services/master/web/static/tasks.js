// Evaluations by tasks: a table of scores, tasks against models and versions; each score leads to its samples.

import { h } from "./dom.js";
import { number, percent, versionOf } from "./format.js";
import { versionChip } from "./parts.js";

/** A score as it is compared: shares as percent, other figures as they are. */
export const scoreText = (value) => (value >= 0 && value <= 1 ? percent(value) : number(value));

export function intervalText({ low, high }) {
  return low === undefined || high === undefined ? "" : `[${scoreText(low)}, ${scoreText(high)}]`;
}

/** A model's name; of a run with its version. */
export function modelOf({ model, runId, policy }) {
  return runId ? [h("a", { href: `#/run/${runId}` }, runId), " ", versionChip(policy)] : model;
}

const columnOf = ({ model, runId, policy }) => (runId ? `${runId} ${String(versionOf(policy)).padStart(9, "0")}` : model);
const rowOf = ({ task, scores, harness }) => `${task} · ${scores[0].name} · ${harness}`;

/** Scores, tasks below each other, models and versions beside each other; where one was measured often, the newest. */
export function scoresOf(evaluations) {
  if (!evaluations.length) return h("p", { class: "quiet" }, "Nothing measured yet: ", h("code", {}, "perilune evaluate"), " does it.");
  const oldestFirst = evaluations.toReversed();
  const columns = new Map(oldestFirst.map((each) => [columnOf(each), each]));
  const names = [...columns.keys()].sort();
  const cells = new Map(oldestFirst.map((each) => [`${rowOf(each)}|${columnOf(each)}`, each]));
  const rows = [...new Set(oldestFirst.map(rowOf))].sort().map((row) =>
    h("tr", {}, h("th", { scope: "row" }, row), names.map((name) => h("td", { class: "figure" }, scoreCell(cells.get(`${row}|${name}`))))),
  );
  const heads = names.map((name) => h("th", { scope: "col" }, modelOf(columns.get(name))));
  const table = h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Task"), heads)), h("tbody", {}, rows));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores beside each other" }, table);
}

function scoreCell(evaluation) {
  if (!evaluation) return "–";
  const [score] = evaluation.scores;
  return [h("a", { href: `#/evaluation/${evaluation.id}` }, scoreText(score.value)), h("div", { class: "quiet" }, intervalText(score))];
}
