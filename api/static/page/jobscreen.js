/** One job on the screen: its state, its items, and what can be done with it. */

import { ItemPages } from "./items.js";
import { ask, link, Problem, Unreachable } from "./link.js";
import { followJob, isOver, jobPath } from "./watch.js";
import { progressLine } from "./words.js";

const SILENT = "The server does not answer. Please try again in a moment.";

export class JobScreen {
  job = null;
  pages = null;
  filter = "";
  problem = null;
  #onChange;
  #say;
  #said = "";
  #leave = new AbortController();

  /** `known` is the job when it was read already: then there is something to show at once. */
  constructor(id, onChange, say, known = null) {
    this.id = id;
    this.job = known;
    this.#onChange = onChange;
    this.#say = say;
    this.show("");
    this.#follow();
  }

  /** Let go of everything under way. */
  close() {
    this.#leave.abort();
  }

  /** Show the items of one status, or all ("" ). */
  show(status) {
    this.filter = status;
    this.pages = new ItemPages(this.id, status, this.#onChange, this.#leave.signal);
    this.#onChange();
  }

  /** Read the items that are wanted on the screen. */
  look(inSight, wantsMore) {
    return this.#attempt(() => this.pages.settle(inSight, wantsMore));
  }

  /** Stop the job; captions made so far stay. */
  cancel() {
    return this.#act("cancel", async () => {});
  }

  /** Queue again what failed or was left out. */
  retry() {
    return this.#act("retry", async () => {
      if (this.filter) this.show("");
      else this.pages.outdate(true);
      await this.#follow();
    });
  }

  /** Where the results are downloaded from; before the end, those there are so far. */
  resultsPath(format) {
    return `${jobPath(this.id)}/results?format=${format}${isOver(this.job) ? "" : "&partial=1"}`;
  }

  /** Download with the key in a header, which a plain link cannot send. */
  async download(event, format) {
    if (!link.key) return;
    event.preventDefault();
    await this.#attempt(async (signal) => {
      const response = await ask(this.resultsPath(format), { signal });
      const anchor = document.createElement("a");
      anchor.href = URL.createObjectURL(await response.blob());
      anchor.download = `${this.id}.${format}`;
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
    });
  }

  async #follow() {
    await this.#attempt((signal) => followJob(this.id, (job) => this.#changed(job), signal));
  }

  #changed(job) {
    this.job = job;
    this.pages.outdate();
    this.#announce();
    this.#onChange();
  }

  /** Tell listeners about quarters and ends, not about every photo. */
  #announce() {
    const mark = `${this.job.status} ${Math.floor(this.job.progress * 4)}`;
    if (mark === this.#said) return;
    this.#said = mark;
    this.#say(progressLine(this.job));
  }

  async #act(action, then) {
    await this.#attempt(async (signal) => {
      await ask(`${jobPath(this.id)}/${action}`, { method: "POST", signal });
      this.problem = null;
      await then();
    });
  }

  async #attempt(work) {
    try {
      await work(this.#leave.signal);
    } catch (error) {
      if (this.#leave.signal.aborted) return;
      this.problem = error instanceof Unreachable ? (error.problem ?? new Problem(0, { detail: SILENT })) : error;
      this.#onChange();
    }
  }
}
