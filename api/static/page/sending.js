/** The photos on their way to the server: at most one sending at a time. */

import { sendPhotos } from "./upload.js";

export class Sending {
  /** null, or `{photos, title, sent, total, problem}`: bytes, and what ended the sending, if anything did. */
  now = null;
  #onChange;
  #onJob;
  #abort = null;

  constructor(onChange, onJob) {
    this.#onChange = onChange;
    this.#onJob = onJob;
    addEventListener("beforeunload", (event) => {
      if (this.active) event.preventDefault();
    });
  }

  get active() {
    return this.now !== null && this.now.problem === null;
  }

  /** Send photos as a job of that title. */
  async start(photos, title) {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.now = { photos, title, sent: 0, total: 0, problem: null };
    this.#onChange();
    try {
      const job = await sendPhotos(photos, title, (sent, total) => this.#progress(sent, total), signal);
      this.now = null;
      this.#onJob(job);
    } catch (error) {
      if (!signal.aborted) this.now.problem = error;
    }
    this.#onChange();
  }

  /** Begin again with the same photos. */
  again() {
    return this.start(this.now.photos, this.now.title);
  }

  /** Stop, or put away what is left of a sending that failed. */
  stop() {
    this.#abort.abort();
    this.now = null;
    this.#onChange();
  }

  #progress(sent, total) {
    if (this.now === null) return;
    Object.assign(this.now, { sent, total });
    this.#onChange();
  }
}
