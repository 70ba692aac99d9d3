/** One job on the screen: its state, its items, and what can be done with it. */

import { altText, shownCaption, snippet } from "./alt.js";
import { Problem, Unreachable } from "./calls.js";
import { copyText, saveText } from "./copy.js";
import { Items } from "./items.js";
import { ask, read } from "./link.js";
import { onOtherTabs, tellTabs } from "./tabs.js";
import { Viewer } from "./viewer.js";
import { followJob, isOver, jobPath } from "./watch.js";
import { count, progressLine } from "./words.js";

const SILENT = "The server does not answer. Please try again in a moment.";
const TYPING_MS = 250;
const CHOICES = ["status", "q", "sort"];
const ENDINGS = { text: "txt", html: "html", markdown: "md" };

export class JobScreen {
  job = null;
  items = null;
  problem = null;
  viewer = null;
  /** Which items, and in which order; "" for all, by position. */
  choice = { status: "", q: "", sort: "" };
  /** "" for the gallery, "alt" for alternative texts, and in which `form` those are. */
  view = "";
  form = "html";
  #app;
  #said = "";
  #typing = 0;
  #following = false;
  #retryNext = false;
  #leave = new AbortController();

  /** `known` is the job when it was read already: then there is something to show at once. */
  constructor(id, query, app, known = null) {
    this.id = id;
    this.job = known;
    this.#app = app;
    for (const name of CHOICES) this.choice[name] = query.get(name) ?? "";
    this.view = query.get("view") === "alt" ? "alt" : "";
    this.#list();
    this.#follow();
    const { signal } = this.#leave;
    document.addEventListener("visibilitychange", () => this.#refresh(), { signal });
    onOtherTabs((changed) => changed === id && this.#refresh(), signal);
  }

  /** Let go of everything under way. */
  close() {
    clearTimeout(this.#typing);
    this.#leave.abort();
  }

  /** Whether fewer than all items are asked for. */
  get narrowed() {
    return Boolean(this.choice.status || this.choice.q);
  }

  /** Choose which items, in which order, after a moment without another choice if it is being typed. */
  choose(name, value, { typed = false } = {}) {
    if (this.choice[name] === value) return;
    this.choice = { ...this.choice, [name]: value };
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#list(), typed ? TYPING_MS : 0);
    this.#app.changed();
  }

  /** Show photos or alternative texts. */
  look(view) {
    this.view = view;
    this.#remember();
    this.#app.changed();
  }

  /** Open one photo, to look at it and edit its caption. */
  open(index, editing = false) {
    this.viewer = new Viewer(this.id, this.items, index, editing, this.#app, () => (this.viewer = null));
    this.#app.changed();
  }

  /** Stop the job; captions made so far stay. */
  cancel() {
    return this.#act("cancel", () => {
      this.#app.tell("The job stops. What is captioned stays.", { words: "Caption the rest", run: () => this.retry() });
    });
  }

  /** Queue again what failed or was left out; of a job that is stopping, once it has stopped. */
  retry() {
    this.#retryNext = this.job.status === "canceling";
    if (this.#retryNext) return undefined;
    return this.#act("retry", () => this.#follow());
  }

  /** Ask, and then delete the job with all that belongs to it. */
  remove() {
    const photos = this.job.counts.total ? `${count(this.job.counts.total)} of this job` : "This job";
    this.#app.ask({
      title: "Delete this job?",
      words: `${photos}, all captions and your edits will be gone for good. Photos in S3 or on the web stay where they are.`,
      action: "Delete",
      run: () =>
        this.#attempt(async () => {
          await ask(jobPath(this.id), { method: "DELETE" });
          tellTabs(this.id);
          this.#app.deleted();
        }),
    });
  }

  /** Where the results are downloaded from; before the end, those there are so far. */
  resultsPath(format) {
    return `${jobPath(this.id)}/results?format=${format}${isOver(this.job) ? "" : "&partial=1"}`;
  }

  /** Say why the server cannot write a format before the browser saves its refusal as a file. */
  async check(event) {
    const path = event.currentTarget.getAttribute("href");
    event.preventDefault();
    const { href, download } = event.currentTarget;
    await this.#attempt(async (signal) => {
      const response = await ask(path, { signal });
      await response.body.cancel();
      Object.assign(document.createElement("a"), { href, download }).click();
    });
  }

  /** Copy one item's caption, or its alternative text in the present form. */
  async copy(item) {
    const text = this.view === "alt" ? snippet(item, this.form) : shownCaption(item);
    this.#app.tell((await copyText(text)) ? `Copied: ${text}` : "The browser did not allow copying.", null, true);
  }

  /** Write alternative texts in another form. */
  write(form) {
    this.form = form;
    this.items.revision++;
    this.#app.changed();
  }

  /** Copy or save the alternative texts of all items that have a caption. */
  takeAll(how) {
    return this.#attempt(async (signal) => {
      const lines = await this.#allLines(signal);
      const text = `${lines.join("\n")}\n`;
      if (how === "save") return saveText(text, `${this.id}-alt.${ENDINGS[this.form]}`, "text/plain");
      const done = await copyText(text);
      return this.#app.tell(
        done ? `Copied ${count(lines.length, "text")}.` : "The browser did not allow copying.",
        null,
        done,
      );
    });
  }

  async #allLines(signal) {
    const response = await ask(this.resultsPath("jsonl"), { signal });
    const items = (await response.text())
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
    const one =
      this.form === "text"
        ? (item) => `${item.name}\t${altText(shownCaption(item))}`
        : (item) => snippet(item, this.form);
    return items.filter(shownCaption).map(one);
  }

  #list() {
    const { signal } = this.#leave;
    const hooks = { onChange: this.#app.changed, onProblem: (error) => this.#failed(error), signal };
    this.problem = null;
    this.items = new Items(this.id, this.choice, this.job?.counts.total ?? 0, hooks);
    this.#remember();
    this.#app.changed();
  }

  /** Let the address say what is shown, so that a reload shows it again. */
  #remember() {
    const query = new URLSearchParams(Object.entries({ ...this.choice, view: this.view }).filter(([, value]) => value));
    const hash = `#/jobs/${this.id}${query.size ? `?${query}` : ""}`;
    if (location.hash !== hash) history.replaceState(null, "", hash);
  }

  async #follow() {
    if (this.#following) return;
    this.#following = true;
    await this.#attempt((signal) => followJob(this.id, (job) => this.#changed(job), signal));
    this.#following = false;
  }

  /** Look again at what may have changed without this tab's doing. */
  async #refresh() {
    if (document.hidden || !this.job) return;
    if (this.#following) this.items.outdate(this.job.counts.total, true);
    else
      await this.#attempt(async (signal) => {
        const response = await read(jobPath(this.id), { signal });
        this.#changed(await response.json(), true);
        if (!isOver(this.job)) this.#follow();
      });
  }

  #changed(job, all = false) {
    // After a retry final items are open again.
    const reopened = this.job !== null && isOver(this.job) && !isOver(job);
    this.job = job;
    this.items.outdate(job.counts.total, all || reopened);
    this.#announce();
    this.#app.changed();
    if (this.#retryNext && isOver(job)) this.retry();
  }

  /** Tell listeners about quarters and ends, not about every photo. */
  #announce() {
    const mark = `${this.job.status} ${Math.floor(this.job.progress * 4)}`;
    if (mark === this.#said) return;
    this.#said = mark;
    this.#app.say(progressLine(this.job));
  }

  async #act(action, then) {
    await this.#attempt(async (signal) => {
      const response = await ask(`${jobPath(this.id)}/${action}`, { method: "POST", signal });
      this.#changed(await response.json());
      tellTabs(this.id);
      then();
    });
  }

  /** Try something; what failed before is no longer said, nor does it fail silently. */
  async #attempt(work) {
    if (this.problem) {
      this.problem = null;
      this.#app.changed();
    }
    try {
      await work(this.#leave.signal);
    } catch (error) {
      if (!this.#leave.signal.aborted) this.#failed(error);
    }
  }

  #failed(error) {
    this.problem = error instanceof Unreachable ? (error.problem ?? new Problem(0, { detail: SILENT })) : error;
    this.#app.changed();
  }
}
