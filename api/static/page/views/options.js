/** The options of the next job, folded away: who leaves them alone gets the model's own defaults. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";

const CARE = [
  ["", "As the model does by default"],
  ["1", "Quick: the first words that come"],
  ["3", "Balanced: compares 3 wordings"],
  ["5", "Careful: compares 5 wordings"],
];
const CAPTIONS = [
  ["", "One"],
  ["2", "Two"],
  ["3", "Three"],
  ["5", "Five"],
];
const LENGTHS = [
  ["", "As the model does by default"],
  ["8", "Short, at most 8 words"],
  ["15", "At most 15 words"],
  ["50", "As long as it takes"],
];

/** The form; every change holds at once. */
export function optionsView(options) {
  if (!options.models) return nothing;
  return html`
    <details class="options">
      <summary>Options${options.untouched ? nothing : html` <span class="badge">changed</span>`}</summary>
      <div class="fields">
        ${options.models.length > 1 ? select(options, "model", "Model", modelChoices(options.models)) : nothing}
        ${select(options, "num_beams", "Care", CARE)}
        ${select(options, "num_captions", "Captions for each photo", CAPTIONS)}
        ${select(options, "max_length", "Length", LENGTHS)} ${options.model?.takes_prompt ? prompt(options) : nothing}
        ${fresh(options)}
        ${
          options.untouched
            ? nothing
            : html`<button class="plain" @click=${() => options.reset()}>Back to the defaults</button>`
        }
      </div>
    </details>
  `;
}

function modelChoices(models) {
  return models.map(({ name, default: isDefault, workers }) => {
    const notes = [isDefault && "default", !workers && "no worker now"].filter(Boolean).join(", ");
    return [isDefault ? "" : name, notes ? `${name} (${notes})` : name];
  });
}

function select(options, name, label, choices) {
  const chosen = options.chosen[name] ?? "";
  const change = (event) => options.choose(name, event.target.value);
  return html`
    <div>
      <label for="option-${name}">${label}</label>
      <select id="option-${name}" @change=${change}>
        ${choices.map(([value, words]) => html`<option value=${value} ?selected=${value === chosen}>${words}</option>`)}
      </select>
    </div>
  `;
}

function prompt(options) {
  const change = (event) => options.choose("prompt", event.target.value.trim());
  return html`
    <div class="wide">
      <label for="option-prompt">Prompt</label>
      <input id="option-prompt" maxlength="1024" .value=${options.chosen.prompt ?? ""} @change=${change} />
      <p class="fine">The caption's first words, or what the model is asked to do.</p>
    </div>
  `;
}

function fresh(options) {
  const change = (event) => options.choose("use_cache", event.target.checked ? "no" : "");
  return html`
    <label class="check wide">
      <input type="checkbox" .checked=${Boolean(options.chosen.use_cache)} @change=${change} />
      Caption anew what an earlier job has captioned already
    </label>
  `;
}
