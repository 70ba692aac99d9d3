/** The items of one job as a long list: read page by page where somebody looks, and forgotten elsewhere. */

import { read } from "./link.js";
import { jobPath } from "./watch.js";

const PAGE = 100;
// Pages kept on each side of those in sight; so memory does not grow with the job.
const KEPT = 4;
const WAITING = new Set(["queued", "running"]);

/** Whether the item still changes by itself. */
export function isWaiting(item) {
  return WAITING.has(item.status);
}

/**
 * One job's items in one order.
 *
 * All of them by position are read from anywhere in the middle. What a status, a text or the score selects is read
 * from the beginning on, as far as somebody looks.
 */
export class Items {
  /** Grows with every change, so that a list knows when to draw itself again. */
  revision = 0;
  #path;
  #chosen;
  #plain;
  #total = 0;
  #pages = [];
  #sight = [0, 0];
  #busy = false;
  #onChange;
  #onProblem;
  #signal;

  /** `choice` is `{status, q, sort}`, each "" for none; `total` the number of images as far as it is known. */
  constructor(jobId, choice, total, { onChange, onProblem, signal }) {
    this.#path = `${jobPath(jobId)}/items`;
    this.#chosen = Object.entries(choice).filter(([, value]) => value);
    this.#plain = this.#chosen.length === 0;
    this.#total = total;
    this.#onChange = onChange;
    this.#onProblem = onProblem;
    this.#signal = signal;
  }

  /** How many there are, as far as that is known; of a selection one page more than was read. */
  get length() {
    if (this.#plain) return this.#total;
    return this.found + (this.whole ? 0 : PAGE);
  }

  /** How many of a selection were found so far. */
  get found() {
    return this.#pages.reduce((sum, page) => sum + page.length, 0);
  }

  /** Whether all of a selection was found. */
  get whole() {
    return this.#plain || this.#pages.at(-1)?.next === null;
  }

  /** The item at an index, or null while it is not here. */
  at(index) {
    return this.#pages[Math.floor(index / PAGE)]?.items?.[index % PAGE] ?? null;
  }

  /** Put a changed item in the place of what is shown at an index. */
  put(index, item) {
    const page = this.#pages[Math.floor(index / PAGE)];
    if (!page?.items || page.items[index % PAGE]?.position !== item.position) return;
    page.items[index % PAGE] = item;
    this.#changed();
  }

  /** Read what is missing between two indices, and forget what is far from them. */
  want(first, last) {
    this.#sight = [Math.floor(Math.max(first, 0) / PAGE), Math.floor(Math.max(last - 1, 0) / PAGE)];
    this.#forget();
    this.#settle();
  }

  /** Mark what the job's change may have touched; `all` where final items may have changed too. */
  outdate(total, all = false) {
    const grown = total !== this.#total;
    this.#total = total;
    for (const page of this.#pages) {
      if (page) page.stale ||= all || !this.#plain || (page.items?.some(isWaiting) ?? false) || this.#short(page);
    }
    if (grown) this.#changed();
    this.#settle();
  }

  #short(page) {
    return page.items !== null && page.items.length < PAGE;
  }

  #forget() {
    const [first, last] = this.#sight;
    this.#pages.forEach((page, number) => {
      if (page && (number < first - KEPT || number > last + KEPT)) page.items = null;
    });
  }

  async #settle() {
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let number; (number = this.#due()) !== null;) await this.#load(number);
    } catch (error) {
      if (!this.#signal.aborted) this.#onProblem(error);
    } finally {
      this.#busy = false;
    }
  }

  /** The number of the next page to read: in sight, and missing or outdated. */
  #due() {
    const [first, last] = this.#sight;
    for (let number = first; number <= last; number++) {
      const page = this.#pages[number];
      if (page?.items && !page.stale) continue;
      if (this.#plain) return number * PAGE < this.#total ? number : null;
      if (page || number === this.#pages.length) return this.whole && !page ? null : number;
      // A selection is read in order: what comes before the missing page comes first.
      return this.whole ? null : this.#pages.length;
    }
    return null;
  }

  async #load(number) {
    const known = this.#pages[number];
    // Cleared first: a change that comes while the page is under way marks it again.
    if (known) known.stale = false;
    const start = this.#plain ? null : number ? this.#pages[number - 1].next : null;
    const { items, next } = this.#plain ? await this.#at(number) : await this.#after(start);
    const stale = known?.stale ?? false;
    this.#pages[number] = { items, next, length: items.length, stale };
    this.#changed();
  }

  async #at(number) {
    const { data } = await this.#read({ limit: PAGE, first: number * PAGE });
    return { items: data, next: null };
  }

  /** Read one full page: of a search the API's own may be short, even empty, before the end. */
  async #after(start) {
    const items = [];
    let next = start;
    do {
      const cursor = next === null ? {} : { cursor: next };
      const page = await this.#read({ limit: PAGE - items.length, ...cursor });
      items.push(...page.data);
      next = page.next_cursor;
    } while (next !== null && items.length < PAGE);
    return { items, next };
  }

  async #read(where) {
    const query = new URLSearchParams([...this.#chosen, ...Object.entries(where)]);
    const response = await read(`${this.#path}?${query}`, { signal: this.#signal });
    const page = await response.json();
    this.#signal.throwIfAborted();
    return page;
  }

  #changed() {
    this.revision++;
    this.#onChange();
  }
}
