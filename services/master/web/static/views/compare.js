// Several runs in the same charts.

import { call } from "../api.js";
import { h, fill, section } from "../dom.js";
import { Curves, colourOf } from "../curves.js";
import { duration, isActive, percent, recipeOf, stateOf, versionOf } from "../format.js";
import { chip } from "../parts.js";
import { scoresOf } from "../tasks.js";

export async function showComparison(content, stage, ids) {
  const curves = new Curves();
  const summary = h("div", { class: "scroll" });
  const charts = section("Curves", curves.tool);
  charts.body.append(curves.element);
  const tasks = section("Tasks");
  tasks.element.hidden = true;
  fill(content, h("h1", {}, "Comparison"), summary, charts.element, tasks.element);
  await stage.keep(async (signal) => {
    const ask = (runId) => call("get-run", { runId, withVersions: true }, signal);
    const answers = await Promise.all(ids.split(",").map(ask));
    fill(summary, tableOf(answers.map(({ run }) => run)));
    const measured = await Promise.all(ids.split(",").map((runId) => call("list-task-evaluations", { runId }, signal)));
    const evaluations = measured.flatMap((each) => each.evaluations);
    tasks.element.hidden = evaluations.length === 0;
    fill(tasks.body, scoresOf(evaluations));
    curves.update(answers.map(({ run, versions }) => ({ id: run.id, evaluations: run.evaluations, versions })));
    return answers.some(({ run }) => isActive(run));
  }, 5);
}

function tableOf(runs) {
  const recipes = runs.map((run) => flat(recipeOf(run)));
  const keys = [...new Set(recipes.flatMap((recipe) => Object.keys(recipe)))];
  const differing = keys.filter((key) => new Set(recipes.map((recipe) => String(recipe[key]))).size > 1);
  const row = (heading, cells) => h("tr", {}, h("th", { scope: "row" }, heading), cells.map((cell) => h("td", {}, cell)));
  return h(
    "table",
    { class: "facts" },
    h("thead", {}, h("tr", {}, h("td", {}), runs.map((run, i) => h("th", { scope: "col" }, nameOf(run, i))))),
    h(
      "tbody",
      {},
      row("state", runs.map((run) => chip(stateOf(run)))),
      row("iteration", runs.map((run) => `${Math.min(versionOf(run.policy), run.numIterations)} of ${run.numIterations}`)),
      row("time", runs.map((run) => duration(run.seconds))),
      row("accuracy", runs.map(lastAccuracies)),
      differing.map((key) => row(key, recipes.map((recipe) => String(recipe[key] ?? "–")))),
    ),
  );
}

function nameOf(run, index) {
  return [h("span", { class: "swatch", "--colour": colourOf(index) }), h("a", { href: `#/run/${run.id}` }, run.id)];
}

function lastAccuracies({ evaluations }) {
  const last = new Map(evaluations.map((evaluation) => [evaluation.mode, evaluation.accuracy]));
  return [...last].map(([mode, accuracy]) => `${mode} ${percent(accuracy)}`).join(", ") || "–";
}

/** Nested tables as `trainer.tau` → 0.1. */
function flat(table, prefix = "") {
  return Object.entries(table).reduce((all, [key, value]) => {
    const nested = value !== null && typeof value === "object" && !Array.isArray(value);
    return { ...all, ...(nested ? flat(value, `${prefix}${key}.`) : { [prefix + key]: Array.isArray(value) ? JSON.stringify(value) : value }) };
  }, {});
}
