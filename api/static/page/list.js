/** <endless-list>: thousands of rows of which only those near the screen are in the document. */

import { html, nothing, render } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";

// Rows drawn above and below the screen.
const AHEAD = 3;
// Browsers cannot lay out much more.
const TALLEST_PX = 12_000_000;
const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/**
 * Properties: `items` (`length`, `at(index)`, `want(first, last)`), `card` (a template of an item or null, and its
 * index), `kind` (the class of the inner list) and `revision` (drawn again whenever it changes).
 *
 * Rows have one height, which the first one has by the style sheet; scrolling moves the inner list as a whole.
 */
class EndlessList extends HTMLElement {
  card = null;
  #items = null;
  #inner = document.createElement("ol");
  #revision = null;
  #range = [0, 0];
  #columns = 1;
  #row = 0;
  #due = 0;
  /** The index that shall have the focus as soon as its item is there, or null. */
  #wanted = null;
  #leave = null;
  #sizes = new ResizeObserver(() => this.#resized());

  connectedCallback() {
    this.tabIndex = -1;
    this.replaceChildren(this.#inner);
    this.#leave = new AbortController();
    const options = { passive: true, signal: this.#leave.signal };
    addEventListener("scroll", () => this.#drawSoon(), options);
    this.addEventListener("keydown", (event) => this.#moved(event), { signal: this.#leave.signal });
    this.#sizes.observe(this);
  }

  disconnectedCallback() {
    cancelAnimationFrame(this.#due);
    this.#due = 0;
    this.#leave.abort();
    this.#sizes.disconnect();
  }

  get items() {
    return this.#items;
  }

  set items(items) {
    this.#items = items;
    this.#drawSoon();
  }

  set kind(name) {
    this.#inner.className = name;
    this.#row = 0;
    this.#drawSoon();
  }

  set revision(number) {
    if (number === this.#revision) return;
    this.#revision = number;
    this.#drawSoon();
  }

  /** How many items have room; beyond that browsers would not show them. */
  get shown() {
    const most = this.#row ? Math.floor(TALLEST_PX / this.#row) * this.#columns : Infinity;
    return Math.min(this.items?.length ?? 0, most);
  }

  /** Bring an item onto the screen and put the focus there. */
  reveal(index) {
    const top = this.getBoundingClientRect().top + scrollY + Math.floor(index / this.#columns) * this.#row;
    if (top < scrollY || top + this.#row > scrollY + innerHeight) {
      scrollTo({ top: Math.max(0, top - (innerHeight - this.#row) / 2), behavior: "instant" });
    }
    this.#wanted = index;
    this.#draw();
  }

  #drawSoon() {
    this.#due ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#due);
    this.#due = 0;
    if (!this.isConnected || !this.items) return;
    if (!this.#row) this.#measure();
    const [first, last] = this.#near();
    this.items.want(first, last);
    this.#letFocusGo(first, last);
    this.#range = [first, last];
    render(this.#cards(first, last), this.#inner);
    const rows = Math.ceil(this.shown / this.#columns);
    this.style.height = `${rows * this.#row}px`;
    this.#inner.style.top = `${(first / this.#columns) * this.#row}px`;
    this.#focusWanted();
  }

  #focusWanted() {
    const card = this.#wanted === null ? null : this.#inner.querySelector(`[data-index="${this.#wanted}"] .open`);
    if (!card) return;
    this.#wanted = null;
    // Unless the person has gone elsewhere meanwhile.
    if (document.activeElement === document.body || this.contains(document.activeElement))
      card.focus({ preventScroll: true });
  }

  #cards(first, last) {
    const indices = Array.from({ length: last - first }, (_, offset) => first + offset);
    const total = this.items.whole ? this.items.length : -1;
    return repeat(
      indices,
      (index) => index,
      (index) => html`
        <li aria-setsize=${total} aria-posinset=${index + 1} data-index=${index}>
          ${this.card(this.items.at(index), index)}
        </li>
      `,
    );
  }

  /** The indices of whole rows on the screen, and some more. */
  #near() {
    const top = -this.getBoundingClientRect().top;
    const rows = Math.ceil(this.shown / this.#columns);
    const at = (y) => Math.min(Math.max(Math.floor(y / this.#row), 0), rows);
    const first = Math.max(at(top) - AHEAD, 0);
    const last = Math.min(at(top + innerHeight) + 1 + AHEAD, rows);
    return [first * this.#columns, Math.min(last * this.#columns, this.shown)];
  }

  /** Learn the height of a row and how many cards are in it from an empty card. */
  #measure() {
    render(html`<li>${this.card(null, 0)}</li>`, this.#inner);
    const style = getComputedStyle(this.#inner);
    const gap = parseFloat(style.rowGap) || 0;
    this.#columns = Math.max(1, style.gridTemplateColumns.split(" ").length);
    this.#row = this.#inner.firstElementChild.getBoundingClientRect().height + gap;
    render(nothing, this.#inner);
  }

  /** Keep what was at the top of the screen there when the width changes. */
  #resized() {
    const offset = -this.getBoundingClientRect().top;
    const index = this.#row && offset > 0 ? Math.floor(offset / this.#row) * this.#columns : 0;
    const before = this.#columns;
    this.#row = 0;
    this.#draw();
    if (!index || before === this.#columns) return;
    scrollBy(0, this.getBoundingClientRect().top + Math.floor(index / this.#columns) * this.#row);
  }

  /** A focused card that goes out of the document leaves the focus to the list. */
  #letFocusGo(first, last) {
    const card = this.#inner.contains(document.activeElement) && document.activeElement.closest("[data-index]");
    if (!card) return;
    const index = Number(card.dataset.index);
    if (index < first || index >= last) this.focus({ preventScroll: true });
  }

  #moved(event) {
    const card = event.target.closest?.(".open")?.closest("[data-index]");
    if (!card || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = this.#target(event.key, Number(card.dataset.index));
    if (to === null) return;
    event.preventDefault();
    this.reveal(Math.min(Math.max(to, 0), this.shown - 1));
  }

  #target(key, index) {
    if (key === "Home") return 0;
    if (key === "End") return this.shown - 1;
    const [across, down] = STEPS[key] ?? [0, 0];
    const to = index + across + down * this.#columns;
    return to === index || to < 0 || to >= this.shown ? null : to;
  }
}

customElements.define("endless-list", EndlessList);
