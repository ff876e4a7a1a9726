// One run: where it is, its curves, ledger, fleet, samples and events; stop and resume.

import { call, stream } from "../api.js";
import { h, fill, section } from "../dom.js";
import { Curves } from "../curves.js";
import { EventLog } from "../events.js";
import { duration, isActive, percent, stateOf, versionOf } from "../format.js";
import { chip, ledgerOf, queuesOf, versionChip, workersOf } from "../parts.js";
import { Stages } from "../stages.js";
import { Samples } from "../samples.js";
import { scoresOf } from "../tasks.js";

export async function showRun(content, stage, runId) {
  const head = new Head(runId, stage);
  const stages = new Stages();
  const curves = new Curves();
  const samples = new Samples(runId, stage);
  const events = new EventLog();
  const parts = {
    stages: section("Stages"),
    curves: section("Curves", curves.tool),
    ledger: section("Ledger"),
    fleet: section("Fleet"),
    queues: section("Queues"),
    samples: section("Samples"),
    accuracy: section("Held-out accuracy"),
    tasks: section("Tasks"),
    events: section("Events"),
  };
  parts.stages.body.append(stages.element);
  parts.curves.body.append(curves.element);
  parts.samples.body.append(samples.element);
  parts.events.body.append(events.element);
  const beside = h("div", { class: "columns" }, parts.ledger.element, parts.fleet.element, parts.queues.element);
  const order = [parts.stages, parts.curves, { element: beside }, parts.samples, parts.accuracy, parts.tasks, parts.events];
  fill(content, head.element, order.map(({ element }) => element));

  const versions = new Map();
  let run = null;
  let measured = "";
  parts.tasks.element.hidden = true;
  const show = ({ run: now, versions: committed, stageSteps, events: heard, fleet }) => {
    for (const version of committed) versions.set(versionOf(version.policy), version);
    const isNews = committed.length > 0 || now.evaluations.length !== run?.evaluations.length;
    run = now;
    head.update(run);
    stages.update(run, stageSteps ?? []);
    parts.stages.element.hidden = run.stages.length === 0;
    fill(parts.ledger.body, ledgerOf(run.ledger));
    if (isNews) {
      curves.update([{ id: run.id, evaluations: run.evaluations, versions: [...versions.values()] }]);
      fill(parts.accuracy.body, accuracyTable(run.evaluations));
      samples.update(run);
    }
    if (fleet) fill(parts.fleet.body, workersOf(fleet.filter(({ runId: id }) => !id || id === run.id), { withRun: false }));
    if (heard) events.add(heard);
  };

  await Promise.all([
    stage.keep(async (signal) => {
      const answer = await call("get-run", { runId, withVersions: true }, signal);
      show(answer);
      if (!isActive(answer.run)) return;
      events.clear(); // a new watch tells them all again
      for await (const snapshot of stream("watch-run", { runId }, signal)) show(snapshot);
    }, 3),
    stage.keep(async (signal) => {
      const { evaluations } = await call("list-task-evaluations", { runId }, signal);
      parts.tasks.element.hidden = evaluations.length === 0;
      const newest = JSON.stringify(evaluations);
      if (newest !== measured) fill(parts.tasks.body, scoresOf(evaluations));
      measured = newest;
      return !run || isActive(run);
    }, 5),
    stage.keep(async (signal) => {
      if (run && !isActive(run)) return void hide(parts.fleet, parts.queues);
      const { queues, problem } = await call("get-fleet", {}, signal);
      if (problem) return void fill(parts.queues.body, h("p", { class: "bad" }, problem));
      const ours = queues.filter(({ name }) => !name.startsWith("rollout-") || name === `rollout-${runId}`);
      fill(parts.queues.body, queuesOf(ours));
    }, 2),
  ]);
}

function hide(...sections) {
  for (const { element } of sections) element.hidden = true;
}

/** Name, state, progress, and what can be done about it. */
class Head {
  constructor(runId, stage) {
    this.runId = runId;
    this.stage = stage;
    this.state = h("span");
    this.facts = h("p", { class: "facts" });
    this.reason = h("p", { class: "reason", hidden: true });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Iterations" });
    this.stop = h("button", { onclick: () => this.#ask("stop-run", this.stop, "Stopping …") }, "Stop");
    this.resume = h("button", { class: "primary", onclick: () => this.#ask("resume-run", this.resume, "Resuming …") }, "Resume");
    const again = h("a", { class: "button", href: `#/start/${runId}` }, "Start another like it");
    this.failure = h("p", { class: "failure", role: "alert", hidden: true });
    const title = h("div", { class: "head" }, h("h1", {}, runId), this.state, h("span", { class: "actions" }, this.stop, this.resume, again));
    this.element = h("div", {}, title, this.progress, this.facts, this.reason, this.failure);
  }

  update(run) {
    const state = stateOf(run);
    if (this.shown !== state) fill(this.state, chip(state));
    this.shown = state;
    this.progress.max = Math.max(1, run.numIterations);
    const done = Math.min(versionOf(run.policy), run.numIterations);
    this.progress.value = done;
    fill(
      this.facts,
      `${done} of ${run.numIterations} iterations · ${duration(run.seconds)}`,
      run.policy ? [" · ", versionChip(run.policy)] : null,
      run.modelPath ? [" · weights in ", h("code", {}, run.modelPath)] : null,
    );
    const reason = [run.reason === state ? "" : run.reason, run.problem].filter(Boolean).join("; ");
    this.reason.hidden = !reason;
    this.reason.textContent = reason;
    this.reason.classList.toggle("bad", state === "failed" || Boolean(run.problem));
    this.stop.hidden = !["pending", "starting", "running"].includes(state);
    this.resume.hidden = !["stopped", "failed"].includes(state);
  }

  async #ask(method, button, meanwhile) {
    const text = button.textContent;
    button.disabled = true;
    button.textContent = meanwhile;
    this.failure.hidden = true;
    try {
      const { run } = await call(method, { runId: this.runId }, this.stage.signal);
      this.update(run);
    } catch (error) {
      this.failure.hidden = false;
      this.failure.textContent = error.message;
    } finally {
      button.disabled = false;
      button.textContent = text;
    }
  }
}

function accuracyTable(evaluations) {
  if (!evaluations.length) return h("p", { class: "quiet" }, "Not measured yet.");
  const rows = evaluations.toReversed().map(({ policy, mode, accuracy, low, high, numCorrect, numProblems, meanTokens }) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, versionChip(policy)),
      h("td", {}, mode),
      h("td", { class: "figure" }, h("b", {}, percent(accuracy))),
      h("td", { class: "figure quiet" }, `[${(low * 100).toFixed(1)}, ${(high * 100).toFixed(1)}]`),
      h("td", { class: "figure" }, `${numCorrect} of ${numProblems}`),
      h("td", { class: "figure" }, meanTokens.toFixed(0)),
    ),
  );
  const headings = ["Version", "Mode", "Accuracy", "95 % interval", "Right", "Mean tokens"];
  const table = h("table", {}, h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, rows));
  return h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Evaluations" }, table);
}
