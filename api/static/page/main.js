/** The page: what is shown at which address. */

import { render } from "../vendor/lit-html/lit-html.js";
import { arrivals, listing, sortOut, titleOf } from "./files.js";
import { JobList } from "./joblist.js";
import { JobScreen } from "./jobscreen.js";
import { link, read } from "./link.js";
import "./list.js";
import { Options } from "./options.js";
import { Outbox } from "./outbox.js";
import "./photo.js";
import { session } from "./session.js";
import { jobOf } from "./sources.js";
import { homeView } from "./views/home.js";
import { jobView } from "./views/job.js";
import { notices } from "./views/notices.js";
import { shell } from "./views/shell.js";
import { count, figure, jobTitle, problemReason } from "./words.js";

const BRIEFLY_MS = 5000;

class App {
  /** One of the two is set: the list of jobs (at `#/`) or one job (at `#/jobs/{id}`). */
  list = null;
  screen = null;
  /** null or `{words, action}`; the action has `words` and `run`. */
  notice = null;
  /** null or `{title, words, action, run}`: a question in a dialog of its own. */
  question = null;
  /** null or `{text, problem}`: addresses that are being typed into their dialog. */
  addresses = null;
  said = "";
  dragging = false;
  options = new Options(() => this.changed());
  outbox = new Outbox(
    () => this.changed(),
    (job) => this.#arrived(job),
  );
  #root;
  #sent = null;
  #due = false;
  #focus = "";
  #hiding = 0;

  constructor(root) {
    this.#root = root;
    link.addEventListener("change", this.changed);
    session.addEventListener("change", () => this.#sessionChanged());
    addEventListener("hashchange", () => this.open("h1"));
    arrivals({
      show: (dragging) => this.#drag(dragging),
      reading: () => this.tell("Reading what was dropped…"),
      files: (files, title) => this.offer(files, title),
      addresses: (lines) => this.askAddresses(lines.join("\n")),
      failed: () => this.tell("The browser could not read what was dropped. Try choosing it with the button."),
    });
  }

  /** Begin: learn who this is and what the server offers. */
  async start() {
    this.open();
    try {
      const response = await read("/v1/session");
      session.learn(await response.json());
      await this.options.load();
    } catch (error) {
      this.tell(problemReason(error));
    }
  }

  /** Show what the address names, and move the focus there. */
  open(focus = "") {
    this.list?.close();
    this.screen?.close();
    this.list = this.screen = this.question = this.addresses = null;
    const [, id, query] = location.hash.match(/^#\/jobs\/([\w-]+)(?:\?(.*))?$/) ?? [];
    const known = this.#sent?.id === id ? this.#sent : null;
    if (id) this.screen = new JobScreen(id, new URLSearchParams(query), this, known);
    else this.list = new JobList(this.changed);
    this.#focus = focus;
    this.changed();
    scrollTo(0, 0);
  }

  /** Take files that a person dropped, pasted or chose, and send the photos among them. */
  offer(files, folder) {
    if (!session.maySubmit) return this.tell("Your key may read jobs, but not make new ones.");
    const { photos, others, empty } = sortOut(files);
    const left = [
      others.length && `Left out, not a photo: ${listing(others)}.`,
      empty.length && `Left out, empty: ${listing(empty)}.`,
    ].filter(Boolean);
    if (!photos.length) return this.tell(["There are no photos among these files.", ...left].join(" "));
    const { most } = this.options;
    if (photos.length > most)
      return this.tell(`These are ${count(photos.length)}; one job may hold ${figure(most)} here.`);
    this.tell(left.join(" "));
    this.outbox.addPhotos(photos, titleOf(photos, folder), this.options.wanted);
    if (this.outbox.sendings.length > 1) this.tell(`${count(photos.length)} will be sent after those on their way.`);
    return undefined;
  }

  /** Let addresses be typed or looked over. */
  askAddresses(text = "") {
    this.addresses = { text, problem: "" };
    this.changed();
  }

  /** Make a job of addresses, or say what is wrong with them. */
  offerAddresses(text) {
    const { body, title, problem } = jobOf(text);
    this.addresses = { text, problem: problem ?? "" };
    if (!problem) {
      document.getElementById("addresses")?.close();
      this.outbox.addSources(body, title, this.options.wanted);
    }
    this.changed();
  }

  /** Ask before something that cannot be undone. */
  ask(question) {
    this.question = question;
    this.changed();
  }

  /** Show a notice until it is closed or replaced, or for a few seconds; "" takes it away. */
  tell(words, action = null, briefly = false) {
    clearTimeout(this.#hiding);
    this.notice = words ? { words, action } : null;
    if (briefly) this.#hiding = setTimeout(() => this.tell(""), BRIEFLY_MS);
    this.changed();
  }

  /** Tell listeners something that others see. */
  say(words) {
    this.said = words;
  }

  /** Leave a job that is no more. */
  deleted() {
    location.hash = "#/";
    this.tell("The job is deleted.", null, true);
  }

  /** Bring one of the list's items onto the screen. */
  reveal(index) {
    document.querySelector("endless-list")?.reveal(index);
  }

  /** Draw soon; many changes in a row are drawn once. */
  changed = () => {
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      render(
        shell(this, () => (this.screen ? jobView(this.screen, notices(this)) : homeView(this))),
        this.#root,
      );
      for (const dialog of document.querySelectorAll("dialog:not([open])")) dialog.showModal();
      document.title = this.#title();
      if (this.#focus) document.querySelector(this.#focus)?.focus();
      this.#focus = "";
    });
  };

  #drag(dragging) {
    if (this.dragging === dragging) return;
    this.dragging = dragging;
    this.changed();
  }

  #sessionChanged() {
    if (session.wanted) this.#focus = "#key";
    this.changed();
  }

  #arrived(job) {
    this.#sent = job;
    // Who is busy with something is not torn away from it.
    if (!document.querySelector("dialog")) location.hash = `#/jobs/${job.id}`;
    else this.tell(`${jobTitle(job)} has arrived.`, { words: "Open", run: () => (location.hash = `#/jobs/${job.id}`) });
  }

  #title() {
    const job = this.screen?.job;
    if (!job) return "Captionfleet";
    const share = job.status === "running" ? `${Math.floor(job.progress * 100)} % · ` : "";
    return `${share}${jobTitle(job)} · Captionfleet`;
  }
}

new App(document.getElementById("app")).start();
