/** One photo large, with its caption to edit. */

import { shownCaption } from "./alt.js";
import { Unreachable } from "./calls.js";
import { copyText } from "./copy.js";
import { sendJson } from "./link.js";
import { tellTabs } from "./tabs.js";
import { jobPath } from "./watch.js";
import { problemReason } from "./words.js";

const MOST = 2000;

export class Viewer {
  /** Which of the list's items is open, and the item. */
  index;
  item;
  draft = "";
  /** Whether the caption has the focus first. */
  editing;
  saving = false;
  /** Whether the browser cannot show the photo. */
  blind = false;
  /** Why the last try to save failed, in words. */
  problem = "";
  /** Whether it is asked what becomes of unsaved words; then what to do next. */
  leaving = null;
  #jobId;
  #items;
  #app;
  #gone;

  constructor(jobId, items, index, editing, app, gone) {
    this.#jobId = jobId;
    this.#items = items;
    this.#app = app;
    this.#gone = gone;
    this.editing = editing;
    this.#show(index);
  }

  /** Whether the words differ from those that are kept. */
  get dirty() {
    return this.draft.trim() !== shownCaption(this.item);
  }

  get image() {
    return `${jobPath(this.#jobId)}/items/${this.item.position}/image`;
  }

  /** Whether there is an item so many steps further. */
  has(step) {
    return this.#items.at(this.index + step) !== null;
  }

  /** Go to another item of the list. */
  step(step) {
    if (!this.has(step)) return;
    this.#settle(() => {
      this.#show(this.index + step);
      // The list goes along, and keeps what is next at hand.
      this.#app.reveal(this.index);
    });
  }

  notSeen() {
    this.blind = true;
    this.#app.changed();
  }

  type(text) {
    this.draft = text.slice(0, MOST);
    this.#app.changed();
  }

  /** Keep the words; those of the model itself are no edit. */
  async save() {
    const words = this.draft.trim();
    if (!this.dirty || !words || this.saving) return false;
    // Another photo may be open by the time of the answer.
    const { item, index } = this;
    const before = item.edited_caption;
    const kept = await this.#keep(item, index, words === item.caption ? null : words);
    if (kept) this.#app.tell("Caption saved.", { words: "Undo", run: () => this.#keep(item, index, before) });
    return kept;
  }

  /** Take the edit back. */
  async restore() {
    const { item, index } = this;
    if (await this.#keep(item, index, null)) {
      const undo = () => this.#keep(item, index, item.edited_caption);
      this.#app.tell("The model's own caption is back.", { words: "Undo", run: undo });
    }
  }

  async copy() {
    const done = await copyText(this.draft.trim());
    this.#app.tell(done ? "Copied." : "The browser did not allow copying.", null, done);
  }

  /** Close, once it is clear what becomes of unsaved words. */
  close() {
    this.#settle(() => this.#close());
  }

  /** Answer what becomes of unsaved words: "save", "discard" or "stay". */
  async decide(answer) {
    const next = this.leaving;
    this.leaving = null;
    if (answer === "save" && !(await this.save())) return this.#app.changed();
    if (answer !== "stay") next();
    return this.#app.changed();
  }

  #settle(next) {
    if (this.dirty && this.draft.trim()) this.leaving = next;
    else next();
    this.#app.changed();
  }

  #close() {
    document.getElementById("viewer")?.close();
    this.#gone();
    this.#app.changed();
    this.#app.reveal(this.index);
  }

  #show(index) {
    this.index = index;
    this.item = this.#items.at(index);
    this.draft = shownCaption(this.item);
    this.problem = "";
    this.blind = false;
    this.#items.want(index - 1, index + 2);
  }

  async #keep(item, index, caption) {
    this.saving = true;
    this.problem = "";
    this.#app.changed();
    try {
      const sent = this.draft;
      const path = `${jobPath(this.#jobId)}/items/${item.position}`;
      const changed = await sendJson(path, { caption }, { method: "PATCH" });
      this.#items.put(index, changed);
      if (this.item.position === changed.position) {
        this.item = changed;
        // What was typed meanwhile stays.
        if (this.draft === sent) this.draft = shownCaption(changed);
      }
      tellTabs(this.#jobId);
      return true;
    } catch (error) {
      this.problem =
        error instanceof Unreachable ? "The server does not answer. Nothing is lost: try again." : problemReason(error);
      return false;
    } finally {
      this.saving = false;
      this.#app.changed();
    }
  }
}
