// The sample viewer: prompts, responses coloured by the version that wrote them, why they ended, and the scores' evidence.

import { call, imageOf } from "./api.js";
import { h, fill } from "./dom.js";
import { isActive, number, versionOf, words } from "./format.js";
import { hueOf, versionChip } from "./parts.js";

const PAGE = 10;

export class Samples {
  constructor(runId, stage) {
    Object.assign(this, { runId, stage, offset: 0, last: 0, followsNewest: true, asked: 0 });
    this.purpose = h(
      "select",
      { onchange: () => this.#choose() },
      h("option", { value: "PURPOSE_TRAIN" }, "training"),
      h("option", { value: "PURPOSE_EVALUATE" }, "held-out"),
    );
    this.mode = h("select", { onchange: () => this.#choose() }, ["", "greedy", "sampled"].map((mode) => h("option", { value: mode }, mode || "any")));
    this.modeLabel = h("label", { hidden: true }, "Mode ", this.mode);
    this.iteration = h("input", { type: "number", min: "0", value: "0", onchange: () => this.#choose() });
    this.slider = h("input", {
      type: "range",
      min: "0",
      value: "0",
      "aria-label": "Iteration",
      oninput: () => (this.iteration.value = this.slider.value),
      onchange: () => this.#choose(),
    });
    this.before = h("button", { onclick: () => this.#turn(-PAGE) }, "Previous");
    this.after = h("button", { onclick: () => this.#turn(PAGE) }, "Next");
    this.where = h("output", { class: "quiet" });
    this.list = h("div", { class: "samples" });
    this.element = h(
      "div",
      {},
      h("div", { class: "tools" }, h("label", {}, "Samples ", this.purpose), this.modeLabel, h("label", {}, "of iteration ", this.iteration), this.slider),
      this.list,
      h("div", { class: "tools" }, this.before, this.after, this.where),
    );
  }

  /** Follows a run to its newest iteration that has samples, until the reader picks one. */
  update(run) {
    const evaluated = run.evaluations.map(({ policy }) => versionOf(policy));
    this.evaluated = [...new Set(evaluated)];
    this.last = isActive(run) ? versionOf(run.policy) : Math.max(0, versionOf(run.policy) - 1);
    this.slider.max = this.iteration.max = String(Math.max(this.last, ...evaluated));
    if (!this.followsNewest) return;
    this.#go(Math.max(0, versionOf(run.policy) - 1));
    this.#load();
  }

  #go(iteration) {
    this.iteration.value = this.slider.value = String(iteration);
    this.offset = 0;
  }

  #choose() {
    const isHeldOut = this.purpose.value === "PURPOSE_EVALUATE";
    this.followsNewest = false;
    this.modeLabel.hidden = !isHeldOut;
    let iteration = Math.min(Number(this.iteration.max), Math.max(0, Number(this.iteration.value)));
    if (isHeldOut && this.evaluated.length) iteration = nearest(this.evaluated, iteration);
    this.#go(iteration);
    this.#load();
  }

  #turn(by) {
    this.followsNewest = false;
    this.offset = Math.max(0, this.offset + by);
    this.#load();
  }

  async #load() {
    const asked = ++this.asked;
    const isHeldOut = this.purpose.value === "PURPOSE_EVALUATE";
    const request = {
      runId: this.runId,
      purpose: this.purpose.value,
      iteration: this.iteration.value,
      mode: isHeldOut ? this.mode.value : "",
      limit: PAGE,
      offset: this.offset,
      textOnly: true,
    };
    try {
      const { samples, numSamples } = await call("list-samples", request, this.stage.signal);
      if (asked === this.asked) this.#show(samples, Number(numSamples));
    } catch (error) {
      if (!this.stage.signal.aborted) fill(this.list, h("p", { class: "failure" }, error.message));
    }
  }

  #show(samples, total) {
    fill(this.list, samples.length ? samples.map(sampleOf) : h("p", { class: "quiet" }, "No scored samples in this iteration."));
    this.before.disabled = this.offset === 0;
    this.after.disabled = this.offset + samples.length >= total;
    this.where.textContent = total ? `${this.offset + 1} to ${this.offset + samples.length} of ${total.toLocaleString("en")}` : "";
  }
}

function nearest(values, wanted) {
  return values.reduce((best, value) => (Math.abs(value - wanted) < Math.abs(best - wanted) ? value : best));
}

function sampleOf({ trajectory, score }) {
  const { prompt, segments, ending } = trajectory;
  const numTokens = segments.reduce((sum, { numTokens: n }) => sum + n, 0);
  const ended = words((ending ?? "").replace("ENDING_", "").toLowerCase());
  return h(
    "article",
    { class: "sample", "aria-label": `Sample ${trajectory.id}` },
    h("header", {}, verdictOf(score), h("code", {}, trajectory.id), h("span", { class: "quiet" }, `${numTokens} tokens · ended by ${ended}`), versionsOf(segments)),
    prompt.messages.map((message) => h("p", { class: "prompt" }, h("span", { class: "role" }, message.role), contentOf(message))),
    prompt.reference ? h("p", { class: "prompt reference" }, h("span", { class: "role" }, "reference"), prompt.reference) : null,
    h("p", { class: "response" }, h("span", { class: "role" }, "response"), responseOf(trajectory)),
    evidenceOf(score),
  );
}

/** What a message says: its text, or its parts in order, with images in their places. */
function contentOf({ content, parts }) {
  return parts?.length ? parts.map(({ text, image }, i) => (image ? shown(image, i + 1) : text)) : content;
}

/** An image of a prompt; words in its place where it cannot be had. */
function shown({ digest }, number) {
  const picture = h("img", { class: "shown", alt: `image ${number} of the prompt`, title: digest });
  imageOf(digest).then(
    (address) => {
      picture.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
      picture.src = address;
    },
    (error) => picture.replaceWith(h("span", { class: "quiet" }, `[image ${digest.slice(0, 16)}: ${error.message}]`)),
  );
  return picture;
}

/** The response, each segment in its version's colour; without colours where the segments' texts are not told apart. */
function responseOf({ response, segments }) {
  const characters = [...response];
  const counted = segments.length === 1 ? [characters.length] : segments.map(({ numChars }) => numChars ?? NaN);
  if (counted.reduce((sum, n) => sum + n, 0) !== characters.length) return response;
  let at = 0;
  return segments.map((segment, i) => {
    const text = characters.slice(at, (at += counted[i])).join("");
    const by = segment.environment ? "the environment" : `version ${versionOf(segment.policy)}`;
    const colour = segment.environment ? {} : { "--hue": String(hueOf(versionOf(segment.policy))) };
    return h("span", { class: segment.environment ? "segment environment" : "segment", title: `${segment.numTokens} tokens by ${by}`, ...colour }, text);
  });
}

/** Which versions wrote how many tokens, in order. */
function versionsOf(segments) {
  const chips = segments.map((segment) =>
    h(
      "span",
      { class: "share" },
      segment.environment ? "environment" : versionChip(segment.policy),
      segments.length > 1 ? ` ${segment.numTokens}` : "",
    ),
  );
  return h("span", { class: "versions" }, chips);
}

const statusOf = (score) => (score?.status ?? "SCORE_STATUS_UNSPECIFIED").replace("SCORE_STATUS_", "").toLowerCase();

function verdictOf(score) {
  if (statusOf(score) !== "ok") return h("span", { class: "chip stopped" }, words(statusOf(score)));
  const right = score.components[0]?.value >= 1;
  return h("span", { class: `chip ${right ? "finished" : "failed"}` }, `${right ? "✓" : "✗"} ${number(score.value)}`);
}

function evidenceOf(score) {
  const rows = (score?.components ?? []).map((component) => {
    const evidence = Object.entries(component.evidence ?? {}).map(([key, value]) => h("div", {}, h("b", {}, words(key)), " ", value));
    const value = component.value === undefined ? words(statusOf(component)) : number(component.value);
    return h("tr", {}, h("th", { scope: "row" }, component.grader, h("span", { class: "quiet" }, ` ${component.version ?? ""}`)), h("td", { class: "figure" }, value), h("td", { class: "figure quiet" }, `× ${number(component.weight)}`), h("td", {}, evidence));
  });
  if (!rows.length) return null;
  return h("details", {}, h("summary", {}, "Score and evidence"), h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows))));
}
