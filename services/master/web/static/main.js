// The page's shell: which view is shown, whether the master answers, and the token where it asks for one.

import { useToken } from "./api.js";
import { h, fill } from "./dom.js";
import { showEvaluation } from "./views/evaluation.js";
import { showEvaluations } from "./views/evaluations.js";
import { showFleet } from "./views/fleet.js";
import { showRun } from "./views/run.js";
import { showRuns } from "./views/runs.js";
import { showComparison } from "./views/compare.js";
import { showStart } from "./views/start.js";

const ROUTES = [
  [/^#\/run\/([a-z0-9_-]+)$/, showRun],
  [/^#\/compare\/([a-z0-9_,-]+)$/, showComparison],
  [/^#\/start(?:\/([a-z0-9_-]+))?$/, showStart],
  [/^#\/evaluations$/, showEvaluations],
  [/^#\/evaluation\/([a-zA-Z0-9_.-]+)$/, showEvaluation],
  [/^#\/fleet$/, showFleet],
  [/^(?:#\/?)?$/, showRuns],
];

const content = document.getElementById("content");
const connection = document.getElementById("connection");
let leave = new AbortController();

/**
 * What every view gets beside its element and its argument. `signal` is aborted when the view is left; `keep` repeats
 * work until then, and says in the header when the master does not answer.
 */
class Stage {
  constructor(signal) {
    this.signal = signal;
  }

  /** Does the work again and again, with a pause, while the view is shown and the tab is looked at. */
  async keep(work, pauseSeconds) {
    while (!this.signal.aborted) {
      await untilVisible(this.signal);
      const look = new AbortController();
      const stop = () => document.hidden && look.abort();
      document.addEventListener("visibilitychange", stop);
      try {
        const again = await work(AbortSignal.any([this.signal, look.signal]));
        say("");
        if (again === false) return;
      } catch (error) {
        if (this.signal.aborted) return;
        if (!look.signal.aborted && !(await this.#explain(error))) return;
      } finally {
        document.removeEventListener("visibilitychange", stop);
      }
      await pause(pauseSeconds, this.signal);
    }
  }

  /** Tells the reader; true if trying again may help. */
  async #explain(error) {
    if (error.code === "UNAUTHENTICATED") return askForToken();
    say(error.message);
    if (error.code === "UNAVAILABLE") return true;
    if (!error.code) throw error; // ours: let the console have it
    fill(content, h("p", { class: "failure", role: "alert" }, error.message), h("p", {}, h("a", { href: "#/" }, "All runs")));
    return false;
  }
}

async function route() {
  leave.abort();
  leave = new AbortController();
  const found = ROUTES.map(([pattern, show]) => [location.hash.match(pattern), show]).find(([match]) => match);
  const [match, show] = found ?? [[], showRuns];
  document.title = match[1] ? `${match[1]} · Perilune` : "Perilune";
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === (location.hash || "#/");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  fill(content);
  await show(content, new Stage(leave.signal), match[1]);
}

function say(text) {
  connection.textContent = text;
  connection.classList.toggle("bad", Boolean(text));
}

async function askForToken() {
  const dialog = document.getElementById("token");
  if (!dialog.open) dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  useToken(new FormData(dialog.querySelector("form")).get("token"));
  return true;
}

function untilVisible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

addEventListener("hashchange", () => route().then(() => content.focus({ preventScroll: true })));
route();
