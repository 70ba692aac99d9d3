/** The items of one job, read page by page, each page again only while somebody looks at it. */

import { read } from "./link.js";
import { jobPath } from "./watch.js";

const PAGE = 48;
const WAITING = new Set(["queued", "running"]);

/** Whether the item still changes by itself. */
export function isWaiting(item) {
  return WAITING.has(item.status);
}

/** The pages of a job's items that were looked at so far; `status` narrows them to one state. */
export class ItemPages {
  #path;
  #narrowed;
  #signal;
  #onChange;
  #pages = [];
  #busy = false;

  constructor(jobId, status, onChange, signal) {
    this.#path = `${jobPath(jobId)}/items?limit=${PAGE}${status ? `&status=${status}` : ""}`;
    this.#narrowed = Boolean(status);
    this.#onChange = onChange;
    this.#signal = signal;
  }

  /** Items as they came, page by page; a page that was read again is a new array. */
  get lists() {
    return this.#pages.map((page) => page.items);
  }

  /** Whether nothing has been read yet. */
  get empty() {
    return this.#pages.length === 0;
  }

  /** Whether there are items beyond those read. */
  get more() {
    return this.empty || this.#pages.at(-1).next !== null;
  }

  /** Mark what the job's change may have touched; `all` after a retry, which reopens final items. */
  outdate(all = false) {
    // In one state alone, new items appear at the end; the whole job never grows.
    const growing = this.#narrowed ? this.#pages.at(-1) : null;
    for (const page of this.#pages) page.stale ||= all || page === growing || page.items.some(isWaiting);
  }

  /** Read what is missing on the screen: outdated pages in sight, then the next page when its turn came. */
  async settle(inSight, wantsMore) {
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let page; (page = this.#due(inSight, wantsMore)); ) await this.#load(page);
    } finally {
      this.#busy = false;
    }
  }

  #due(inSight, wantsMore) {
    const stale = this.#pages.find((page) => page.stale && (!page.items.length || inSight(page.items)));
    if (stale) return stale;
    if (!this.more || !(this.empty || wantsMore())) return null;
    return { cursor: this.empty ? null : this.#pages.at(-1).next, items: [], next: null, stale: true };
  }

  async #load(page) {
    // Cleared first: a change that comes while the page is under way marks it again.
    page.stale = false;
    const cursor = page.cursor === null ? "" : `&cursor=${encodeURIComponent(page.cursor)}`;
    const response = await read(this.#path + cursor, { signal: this.#signal });
    const { data, next_cursor: next } = await response.json();
    this.#signal.throwIfAborted();
    Object.assign(page, { items: data, next });
    if (!this.#pages.includes(page)) this.#pages.push(page);
    this.#onChange();
  }
}
