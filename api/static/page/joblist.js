/** The jobs of this owner, newest first. */

import { read } from "./link.js";
import { isOver } from "./watch.js";

const PAGE = 10;
const AGAIN_MS = 4000;

export class JobList {
  jobs = null;
  next = null;
  problem = null;
  #onChange;
  #leave = new AbortController();

  constructor(onChange) {
    this.#onChange = onChange;
    this.#follow();
  }

  /** Read the next page. */
  async more() {
    this.problem = null;
    try {
      const page = await this.#page(this.next);
      this.jobs = [...this.jobs, ...page.data];
      this.next = page.next_cursor;
    } catch (error) {
      if (this.#leave.signal.aborted) return;
      this.problem = error;
    }
    this.#onChange();
  }

  /** Let go of everything under way. */
  close() {
    this.#leave.abort();
  }

  /** Read the first page now, and again while one of its jobs still moves. */
  async #follow() {
    const { signal } = this.#leave;
    this.problem = null;
    try {
      const { data, next_cursor: next } = await this.#page(null);
      const fresh = new Set(data.map((job) => job.id));
      const older = (this.jobs ?? []).filter((job) => !fresh.has(job.id));
      if (this.jobs === null) this.next = next;
      this.jobs = [...data, ...older];
    } catch (error) {
      if (signal.aborted) return;
      this.problem = error;
    }
    this.#onChange();
    const moving = this.jobs?.slice(0, PAGE).some((job) => !isOver(job));
    const timer = moving ? setTimeout(() => this.#follow(), AGAIN_MS) : 0;
    signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  }

  async #page(cursor) {
    const from = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const response = await read(`/v1/jobs?limit=${PAGE}${from}`, { signal: this.#leave.signal });
    return response.json();
  }
}
