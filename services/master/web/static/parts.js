// Pieces that several views show.

import { h } from "./dom.js";
import { clock, count, dateOf, versionOf, words } from "./format.js";

/** A state as a coloured word. */
export const chip = (state) => h("span", { class: `chip ${state}` }, state);

/** A version as a coloured word, after its policy's name if it has one; the same version has the same colour everywhere. */
export function versionChip(policy) {
  const number = versionOf(policy);
  const attributes = { class: "version", "--hue": String(hueOf(number)), title: policy?.digest ? `digest ${policy.digest}` : "" };
  return h("span", attributes, policy?.name ? `${policy.name} v${number}` : `v${number}`);
}

/** Hues far from each other for versions that are near to each other. */
export const hueOf = (number) => Math.round((number * 137.508) % 360);

const ENTRIES = ["trained", "filtered", "stale", "dead", "inFlight"];

/** The ledger as its equation, drawn and written. */
export function ledgerOf(ledger) {
  const counts = ENTRIES.map((name) => [name, Number(ledger[name])]);
  const total = Math.max(1, Number(ledger.dispatched));
  const bar = counts.filter(([, n]) => n).map(([name, n]) => h("span", { class: name, "--share": String(n / total) }));
  const cells = counts.map(([name, n]) =>
    h("div", { class: name }, h("dt", {}, name === "inFlight" ? "in flight" : name), h("dd", {}, count(n))),
  );
  const verdict = ledger.balanced ? h("span", { class: "chip finished" }, "balanced") : h("span", { class: "chip failed" }, "does not balance");
  const heldout = `Held-out: ${count(ledger.evaluationDispatched)} dispatched, ${count(ledger.evaluationScored)} scored, ${count(ledger.evaluationDead)} dead`;
  return [
    h("div", { class: "bar", role: "presentation" }, bar),
    h("dl", { class: "counts" }, h("div", {}, h("dt", {}, "dispatched"), h("dd", {}, count(ledger.dispatched))), cells),
    h("p", { class: "quiet" }, verdict, " ", heldout),
  ];
}

/** Where a worker runs, as `docker ps` and `ps` name it, and what is wrong with it. */
function placeOf({ host, pid, address }) {
  const process = Number(pid) ? ` process ${pid}` : "";
  return [host ? h("code", {}, host) : null, process, host || process ? " · " : null, address];
}

function healthOf({ trouble, troubleSinceUnixNs }) {
  if (!trouble) return "–";
  return h("span", { class: "bad" }, `${trouble} since ${clock(dateOf(troubleSinceUnixNs))}`);
}

/** The workers of a fleet, with the version that each serves, where each runs, and what is wrong with it. */
export function workersOf(workers, { withRun }) {
  if (!workers.length) return h("p", { class: "quiet" }, "Nobody has joined.");
  const headings = ["Worker", "Kind", ...(withRun ? ["Run"] : []), "Serves", "Trouble", "Where"];
  const rows = workers.map((worker) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, worker.id),
      h("td", {}, worker.kind),
      withRun && h("td", {}, worker.runId ? h("a", { href: `#/run/${worker.runId}` }, worker.runId) : "–"),
      h("td", {}, worker.policy ? versionChip(worker.policy) : "–"),
      h("td", {}, healthOf(worker)),
      h("td", { class: "quiet" }, placeOf(worker)),
    ),
  );
  return h(
    "div",
    { class: "scroll" },
    h("table", {}, h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, rows)),
  );
}

/** Queues by the consumer that empties them. */
export function queuesOf(queues) {
  const deepest = Math.max(1, ...queues.map((queue) => Number(queue.numWaiting) + Number(queue.numInHand)));
  const row = ({ name, numWaiting, numInHand }) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, words(name)),
      h("td", { class: "figure" }, count(numWaiting)),
      h("td", { class: "figure" }, count(numInHand)),
      h("td", { class: "depth" }, h("span", { class: "inFlight", "--share": String((Number(numWaiting) + Number(numInHand)) / deepest) })),
    );
  const headings = ["Queue", "Waiting", "In hand", ""];
  return h("table", {}, h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, queues.map(row)));
}
