// One evaluation by a task: its figures, how it was sampled, and its samples.

import { call } from "../api.js";
import { h, fill, section } from "../dom.js";
import { count, dateAndTime, dateOf, duration, number, words } from "../format.js";
import { intervalText, modelOf, scoreText } from "../tasks.js";

const PAGE = 10;

export async function showEvaluation(content, stage, evaluationId) {
  const figures = section("Figures");
  const settings = section("Settings");
  const samples = section("Samples");
  const head = h("div");
  const list = new SampleList(evaluationId, stage, (evaluation) => {
    fill(head, headOf(evaluation));
    fill(figures.body, figuresOf(evaluation));
    fill(settings.body, settingsOf(evaluation));
  });
  samples.body.append(list.element);
  fill(content, head, h("div", { class: "columns" }, figures.element, settings.element), samples.element);
  await stage.keep(async (signal) => {
    await list.load(signal);
    return false;
  }, 1);
}

function headOf(evaluation) {
  const { task, harness, harnessVersion, numProblems, numSamples, numFailed, seconds, timeUnixNs, note } = evaluation;
  const failed = Number(numFailed) ? `, ${count(numFailed)} failed` : "";
  const facts = `${harness} ${harnessVersion} · ${count(numProblems)} problems, ${count(numSamples)} samples${failed}`;
  return [
    h("div", { class: "head" }, h("h1", {}, task), h("span", {}, modelOf(evaluation))),
    h("p", { class: "facts" }, `${facts} · ${duration(seconds)} · ${dateAndTime(dateOf(timeUnixNs))}`),
    note ? h("p", { class: "reason" }, note) : null,
  ];
}

function figuresOf({ scores }) {
  const rows = scores.map((score) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, score.name),
      h("td", { class: "figure" }, h("b", {}, scoreText(score.value))),
      h("td", { class: "figure quiet" }, intervalText(score)),
    ),
  );
  return h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows)));
}

function settingsOf({ settingsJson, policy, id }) {
  const given = { ...settingsIn(settingsJson), ...(policy?.digest ? { weights: policy.digest } : {}), evaluation: id };
  const rows = Object.entries(given).map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, words(key)), h("td", {}, String(value ?? "–"))));
  return h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows)));
}

function settingsIn(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

class SampleList {
  constructor(evaluationId, stage, onEvaluation) {
    Object.assign(this, { evaluationId, stage, onEvaluation, offset: 0, asked: 0 });
    this.onlyWrong = h("input", { type: "checkbox", onchange: () => this.#turn(-this.offset) });
    this.before = h("button", { onclick: () => this.#turn(-PAGE) }, "Previous");
    this.after = h("button", { onclick: () => this.#turn(PAGE) }, "Next");
    this.where = h("output", { class: "quiet" });
    this.list = h("div", { class: "samples" });
    const tools = h("div", { class: "tools" }, h("label", {}, this.onlyWrong, " Only those that are wrong or have no score"));
    this.element = h("div", {}, tools, this.list, h("div", { class: "tools" }, this.before, this.after, this.where));
  }

  async load(signal) {
    const asked = ++this.asked;
    const request = { evaluationId: this.evaluationId, limit: PAGE, offset: this.offset, onlyWrong: this.onlyWrong.checked };
    const { evaluation, samples, numSamples } = await call("list-task-samples", request, signal);
    if (asked !== this.asked) return;
    this.onEvaluation(evaluation);
    const total = Number(numSamples);
    fill(this.list, samples.length ? samples.map(sampleOf) : h("p", { class: "quiet" }, "No samples."));
    this.before.disabled = this.offset === 0;
    this.after.disabled = this.offset + samples.length >= total;
    this.where.textContent = total ? `${this.offset + 1} to ${this.offset + samples.length} of ${count(total)}` : "";
  }

  #turn(by) {
    this.offset = Math.max(0, this.offset + by);
    this.load(this.stage.signal).catch((error) => {
      if (!this.stage.signal.aborted) fill(this.list, h("p", { class: "failure" }, error.message));
    });
  }
}

function sampleOf(sample) {
  const { problemId, number: place, prompt, reference, response, numTokens, evidence } = sample;
  const name = Number(place) ? `${problemId}, response ${Number(place) + 1}` : problemId;
  const line = (role, text) => (text ? h("p", { class: "prompt" }, h("span", { class: "role" }, role), text) : null);
  const facts = Object.entries(evidence ?? {}).map(([key, value]) => h("div", {}, h("b", {}, words(key)), " ", value));
  return h(
    "article",
    { class: "sample", "aria-label": `Sample ${name}` },
    h("header", {}, verdictOf(sample), h("code", {}, name), h("span", { class: "quiet" }, `${count(numTokens)} tokens`)),
    line("prompt", prompt),
    line("reference", reference),
    h("p", { class: "response" }, h("span", { class: "role" }, "response"), response),
    facts.length ? h("details", {}, h("summary", {}, "Evidence"), facts) : null,
  );
}

function verdictOf({ value }) {
  if (value === undefined || value === null) return h("span", { class: "chip stopped" }, "no score");
  return h("span", { class: `chip ${value >= 1 ? "finished" : "failed"}` }, `${value >= 1 ? "✓" : "✗"} ${number(value)}`);
}
