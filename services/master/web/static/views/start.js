// A new run, from the recipe of another or from one that is pasted.

import { call } from "../api.js";
import { h, fill } from "../dom.js";
import { recipeOf } from "../format.js";

export async function showStart(content, stage, like) {
  const recipe = h("textarea", { id: "recipe", name: "recipe", rows: 22, spellcheck: "false", required: true });
  const name = h("input", { name: "name", pattern: "[a-z0-9_-]{1,64}", placeholder: "made from the recipe's name" });
  const from = h("select", { onchange: () => fillFrom(from.value) }, h("option", { value: "" }, "choose a run …"));
  const failure = h("pre", { class: "failure", role: "alert", hidden: true });
  const button = h("button", { class: "primary" }, "Start");
  const form = h(
    "form",
    { class: "card start", onsubmit: submit },
    h("label", {}, "Recipe of ", from),
    h("label", { for: "recipe" }, "Recipe, as JSON"),
    recipe,
    h("label", {}, "Name ", name),
    failure,
    h("p", {}, button),
    h("p", { class: "quiet" }, "From a TOML file: ", h("code", {}, "perilune train FILE --master HOST:PORT"), ", or paste what ", h("code", {}, "perilune recipe check FILE"), " prints. A run waits until a trainer is free."),
  );
  fill(content, h("h1", {}, "Start a run"), form);
  let runs = [];

  function fillFrom(id) {
    const run = runs.find((one) => one.id === id);
    if (run) recipe.value = JSON.stringify(recipeOf(run), null, 2);
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      const { run } = await call("submit-run", { runId: name.value, recipeJson: recipe.value }, stage.signal);
      location.hash = `#/run/${run.id}`;
    } catch (error) {
      failure.hidden = false;
      failure.textContent = error.message;
      button.disabled = false;
    }
  }

  await stage.keep(async (signal) => {
    ({ runs } = await call("list-runs", {}, signal));
    from.append(...runs.map(({ id }) => h("option", { value: id, selected: id === like }, id)));
    fillFrom(like);
    return false;
  }, 3);
}
