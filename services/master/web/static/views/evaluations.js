// All evaluations by tasks: scores against models and versions, and each measurement in a row.

import { call } from "../api.js";
import { h, fill, section } from "../dom.js";
import { count, dateAndTime, dateOf } from "../format.js";
import { intervalText, modelOf, scoresOf, scoreText } from "../tasks.js";

export async function showEvaluations(content, stage) {
  const chosen = { task: "", model: "" };
  const selects = { task: select("Task"), model: select("Model") };
  const scores = section("Scores");
  const list = section("Measurements");
  const tools = h("div", { class: "tools" }, Object.values(selects).map(({ label }) => label));
  fill(content, h("h1", {}, "Evaluations"), tools, scores.element, list.element);

  let all = [];
  const show = () => {
    const wanted = all.filter((each) => fits(chosen.task, each.task) && fits(chosen.model, nameOf(each)));
    fill(scores.body, scoresOf(wanted));
    fill(list.body, tableOf(wanted));
  };
  for (const [key, { box }] of Object.entries(selects)) {
    box.addEventListener("change", () => {
      chosen[key] = box.value;
      show();
    });
  }
  let shown = "";
  await stage.keep(async (signal) => {
    ({ evaluations: all } = await call("list-task-evaluations", {}, signal));
    const now = JSON.stringify(all);
    if (now === shown) return;
    shown = now;
    offer(selects.task.box, all.map(({ task }) => task));
    offer(selects.model.box, all.map(nameOf));
    show();
  }, 5);
}

const fits = (wanted, value) => !wanted || wanted === value;
const nameOf = ({ runId, model }) => runId || model;

function select(name) {
  const box = h("select");
  return { box, label: h("label", {}, `${name} `, box) };
}

/** Fills a box with what there is, and keeps what is chosen. */
function offer(box, values) {
  const chosen = box.value;
  const options = ["", ...[...new Set(values)].sort()];
  fill(box, options.map((value) => h("option", { value, selected: value === chosen }, value || "all")));
}

function tableOf(evaluations) {
  if (!evaluations.length) return h("p", { class: "quiet" }, "None.");
  const headings = ["Model", "Task", "Score", "95 % interval", "Samples", "Failed", "Harness", "Measured", ""];
  return h(
    "div",
    { class: "scroll" },
    h("table", {}, h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, evaluations.map(rowOf))),
  );
}

function rowOf(evaluation) {
  const [score] = evaluation.scores;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, modelOf(evaluation)),
    h("td", {}, evaluation.task),
    h("td", { class: "figure" }, `${score.name} `, h("b", {}, scoreText(score.value))),
    h("td", { class: "figure quiet" }, intervalText(score)),
    h("td", { class: "figure" }, count(evaluation.numSamples)),
    h("td", { class: "figure" }, Number(evaluation.numFailed) ? h("b", { class: "bad" }, count(evaluation.numFailed)) : "–"),
    h("td", {}, `${evaluation.harness} ${evaluation.harnessVersion}`),
    h("td", {}, dateAndTime(dateOf(evaluation.timeUnixNs))),
    h("td", {}, h("a", { href: `#/evaluation/${evaluation.id}` }, "Samples")),
  );
}
