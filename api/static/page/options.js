/** How to caption: what the next job asks for. Untouched, it asks for nothing, and the model's own defaults hold. */

import { read } from "./link.js";

const KEPT = "captionfleet.options";
const NUMBERS = new Set(["num_beams", "num_captions", "max_length"]);

/** The names of all options that the page offers. */
export const OPTION_NAMES = ["model", "num_beams", "num_captions", "max_length", "prompt", "use_cache"];

export class Options {
  /** Models that may be named; null until they are known. */
  models = null;
  /** How many photos a job may hold. */
  most = Infinity;
  /** What was chosen, as text, by name. */
  chosen = kept();
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Whether nothing was chosen. */
  get untouched() {
    return Object.keys(this.chosen).length === 0;
  }

  /** The model that is chosen or the default one; null until models are known. */
  get model() {
    const models = this.models ?? [];
    return models.find(({ name }) => name === this.chosen.model) ?? models.find((model) => model.default) ?? null;
  }

  /** Learn which models there are, and what a job may hold. */
  async load(signal) {
    const [models, limits] = await Promise.all(["/v1/models", "/v1/limits"].map((path) => read(path, { signal })));
    this.models = (await models.json()).data;
    this.most = (await limits.json()).images_per_job;
    if (!this.models.some(({ name }) => name === this.chosen.model)) this.choose("model", "");
    this.#onChange();
  }

  /** Choose a value, "" for the model's own. */
  choose(name, value) {
    const { [name]: _, ...others } = this.chosen;
    this.chosen = value ? { ...others, [name]: value } : others;
    keep(this.chosen);
    this.#onChange();
  }

  /** Go back to the defaults. */
  reset() {
    this.chosen = {};
    keep(this.chosen);
    this.#onChange();
  }

  /** The `options` of a job. */
  get wanted() {
    const wanted = {};
    for (const [name, value] of Object.entries(this.chosen)) wanted[name] = NUMBERS.has(name) ? Number(value) : value;
    if (wanted.use_cache) wanted.use_cache = false;
    if (!this.model?.takes_prompt) delete wanted.prompt;
    // A search finds at most as many captions as it has beams.
    if (wanted.num_captions > 1) wanted.num_beams = Math.max(wanted.num_captions, wanted.num_beams ?? 0);
    return wanted;
  }
}

function kept() {
  try {
    const found = Object.entries(JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
    return Object.fromEntries(
      found.filter(([name, value]) => OPTION_NAMES.includes(name) && typeof value === "string"),
    );
  } catch {
    return {};
  }
}

function keep(chosen) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(chosen));
  } catch {
    // A browser that keeps nothing for pages: the choice holds until the page is closed.
  }
}
