// Which curves a run has, and how each is drawn.

import { h } from "./dom.js";
import { Chart } from "./chart.js";
import { duration, number, percent, versionOf, words } from "./format.js";

const COLOURS = ["#3b6fd4", "#d9692b", "#2a9d5c", "#a14fb5", "#c23b5a", "#7a8a1f", "#1793a5", "#8a6d4b"];
export const colourOf = (index) => COLOURS[index % COLOURS.length];

const MODE_SHADES = { greedy: 0, sampled: 1 };
const HELD_OUT = "held-out accuracy"; // `accuracy` is a metric: that of the training samples
const ACCURACY = { range: [0, 1], format: percent, tick: (share) => `${Math.round(share * 100)} %` };
const seconds = (value) => (value < 90 ? `${number(value)} s` : duration(value));

// Metrics that every run has first; whatever else a version reports follows, behind a click.
const CURVES = [
  { metric: "reward", title: "Reward" },
  { metric: "mean_tokens", title: "Length, tokens", fromZero: true },
  { metric: "entropy", title: "Entropy, nats a token" },
  { metric: "kl", title: "KL, nats a sequence" },
  { metric: "tokens_per_second", title: "Training, tokens a second", fromZero: true },
  { metric: "staleness", title: "Staleness, versions", fromZero: true },
  { metric: "toggle_withheld", title: "Toggle: rewards withheld", ...ACCURACY },
  { metric: "toggle_budget", title: "Toggle: budget of a prompt, tokens", fromZero: true },
  { metric: "rollout_seconds", title: "Rollout time", fromZero: true, format: seconds },
  { metric: "train_seconds", title: "Training time", fromZero: true, format: seconds },
];

/** The curves of one run, or of several in the same charts. */
export class Curves {
  constructor() {
    this.charts = new Map();
    this.main = h("div", { class: "charts" });
    this.rest = h("div", { class: "charts" });
    const more = h("details", { class: "more" }, h("summary", {}, "All other metrics"), this.rest);
    const choices = [0, 5, 20, 50].map((window) => h("option", { value: String(window) }, window ? String(window) : "off"));
    this.smoothing = h("select", { onchange: () => this.update(this.runs) }, ...choices);
    this.tool = h("label", { class: "tool" }, "Smooth over ", this.smoothing);
    this.nothing = h("p", { class: "quiet" }, "Curves begin with the first committed version.");
    this.element = h("div", {}, this.nothing, this.main, more);
    this.more = more;
    this.main.append(this.#chart(HELD_OUT, "Held-out accuracy, 95 % interval", ACCURACY));
  }

  /** Runs as { id, versions, evaluations }, versions in order. */
  update(runs) {
    this.runs = runs;
    this.charts.get(HELD_OUT).update(runs.flatMap(accuracyOf));
    for (const curve of CURVES) this.#update(curve, this.main);
    const known = new Set(CURVES.map(({ metric }) => metric));
    const others = new Set(runs.flatMap(({ versions }) => versions.slice(-20).flatMap((v) => Object.keys(v.metrics ?? {}))));
    const rest = [...others].filter((metric) => !known.has(metric)).sort();
    for (const metric of rest) this.#update({ metric, title: words(metric) }, this.rest);
    this.more.hidden = rest.length === 0;
    this.nothing.hidden = runs.some(({ versions }) => versions.length > 0);
  }

  #update({ metric, title, ...options }, place) {
    const series = this.runs.flatMap((run, index) => this.#seriesOf(run, index, metric));
    if (series.length === 0 && !this.charts.has(metric)) return;
    if (!this.charts.has(metric)) place.append(this.#chart(metric, title, options));
    this.charts.get(metric).update(series);
  }

  #seriesOf(run, index, metric) {
    const points = run.versions
      .filter(({ metrics }) => Number.isFinite(metrics?.[metric]))
      .map(({ policy, metrics }) => [versionOf(policy), metrics[metric]]);
    const series = { label: run.id, colour: colourOf(index) };
    const window = Number(this.smoothing.value);
    if (!window) return points.length ? [{ ...series, points }] : [];
    return points.length ? [{ ...series, points: smooth(points, window) }] : [];
  }

  #chart(name, title, options) {
    const chart = new Chart(title, options);
    this.charts.set(name, chart);
    return chart.element;
  }
}

/** The mean of each point and those before it, at most `window` in all. */
export function smooth(points, window) {
  let sum = 0;
  return points.map(([x, y], i) => {
    sum += y - (i >= window ? points[i - window][1] : 0);
    return [x, sum / Math.min(i + 1, window)];
  });
}

function accuracyOf(run, index, all) {
  const modes = [...new Set(run.evaluations.map(({ mode }) => mode))].sort();
  return modes.map((mode) => {
    const found = run.evaluations.filter((evaluation) => evaluation.mode === mode);
    return {
      label: all.length > 1 ? `${run.id} ${mode}` : mode,
      colour: colourOf(all.length > 1 ? 2 * index + (MODE_SHADES[mode] ?? 0) : (MODE_SHADES[mode] ?? 2)),
      points: found.map(({ policy, accuracy }) => [versionOf(policy), accuracy ?? 0]),
      band: found.map(({ policy, low, high }) => [versionOf(policy), low ?? 0, high ?? 0]),
      dots: true,
    };
  });
}
