// Who works, at which version, and how much work waits for whom.

import { call } from "../api.js";
import { h, fill, section } from "../dom.js";
import { count } from "../format.js";
import { queuesOf, workersOf } from "../parts.js";

export async function showFleet(content, stage) {
  const workers = section("Workers");
  const queues = section("Queues");
  fill(content, h("h1", {}, "Fleet"), workers.element, queues.element);
  await stage.keep(async (signal) => {
    const fleet = await call("get-fleet", {}, signal);
    fill(workers.body, workersOf(fleet.workers, { withRun: true }));
    if (fleet.problem) fill(queues.body, h("p", { class: "bad" }, fleet.problem));
    else fill(queues.body, queuesOf(fleet.queues), deadLetters(Number(fleet.numDeadLetters)));
  }, 2);
}

function deadLetters(number) {
  if (!number) return h("p", { class: "quiet" }, "No dead letters.");
  return h("p", { class: "bad" }, `${count(number)} dead letters: messages that were given up. `, h("code", {}, "perilune.dead"), " keeps them, with the reasons.");
}
