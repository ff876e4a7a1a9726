// Stages before and after reinforcement learning: how far each is, and its loss.

import { h, fill } from "./dom.js";
import { Chart } from "./chart.js";
import { colourOf } from "./curves.js";
import { number } from "./format.js";

export class Stages {
  constructor() {
    this.rows = h("tbody");
    const headings = ["Stage", "Progress", "Steps", "Loss", "Tokens a second"];
    const head = h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col" }, one))));
    this.chart = new Chart("Loss, nats a token, by step", {});
    this.element = h("div", {}, h("table", {}, head, this.rows), h("div", { class: "charts" }, this.chart.element));
    this.points = new Map(); // of each stage by its place in the recipe: its loss by step
  }

  /** The run with its stages' newest steps, and steps before them where they are known. */
  update(run, steps) {
    for (const step of [...steps, ...run.stages]) this.#keep(step);
    fill(this.rows, run.stages.map((stage) => rowOf(stage, nameOf(stage, run.stages))));
    const series = run.stages.map((stage) => ({
      label: nameOf(stage, run.stages),
      colour: colourOf(stage.index),
      points: [...this.points.get(stage.index)].sort(([a], [b]) => a - b),
    }));
    this.chart.update(series.filter(({ points }) => points.length > 0));
  }

  #keep({ index, step, metrics }) {
    if (!this.points.has(index)) this.points.set(index, new Map());
    const points = this.points.get(index);
    for (const later of [...points.keys()].filter((one) => one > step)) points.delete(later); // taken again
    if (Number.isFinite(metrics?.loss)) points.set(Number(step), metrics.loss);
  }
}

function nameOf({ name, index }, all) {
  return all.filter((other) => other.name === name).length > 1 ? `${name} ${index + 1}` : name;
}

function rowOf({ step, numSteps, metrics }, name) {
  const bar = h("progress", { max: Number(numSteps), value: Number(step), "aria-label": `Steps of ${name}` });
  const figures = [`${step} of ${numSteps}`, figure(metrics?.loss), figure(metrics?.tokens_per_second)];
  return h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, bar), figures.map((text) => h("td", { class: "figure" }, text)));
}

function figure(value) {
  return Number.isFinite(value) ? number(value) : "";
}
