/** The page: what is shown at which address, and photos dropped anywhere. */

import { render } from "../vendor/lit-html/lit-html.js";
import { droppedFiles, sortOut, titleOf } from "./files.js";
import { JobList } from "./joblist.js";
import { JobScreen } from "./jobscreen.js";
import { link } from "./link.js";
import "./photo.js";
import { Sending } from "./sending.js";
import { homeView } from "./views/home.js";
import { jobView } from "./views/job.js";
import { shell } from "./views/shell.js";
import { count, jobTitle } from "./words.js";

const AHEAD_PX = 800;

class App {
  /** One of the two is set: the list of jobs (at `#/`) or one job (at `#/jobs/{id}`). */
  list = null;
  screen = null;
  notice = "";
  said = "";
  dragging = false;
  #root;
  #sent = null;
  #due = false;
  #focus = "";

  constructor(root) {
    this.#root = root;
    this.sending = new Sending(this.changed, (job) => this.#arrived(job));
    link.addEventListener("change", () => this.#linkChanged());
    addEventListener("hashchange", () => this.open("h1"));
    addEventListener("scroll", this.#look, { passive: true });
    addEventListener("resize", this.#look, { passive: true });
    takeDrops(this);
  }

  /** Show what the address names, and move the focus there. */
  open(focus = "") {
    this.list?.close();
    this.screen?.close();
    this.list = this.screen = null;
    const [, id] = location.hash.match(/^#\/jobs\/([\w-]+)$/) ?? [];
    const known = this.#sent?.id === id ? this.#sent : null;
    if (id) this.screen = new JobScreen(id, this.changed, (words) => this.#say(words), known);
    else this.list = new JobList(this.changed);
    this.#focus = focus;
    this.changed();
    scrollTo(0, 0);
  }

  /** Take files that a person dropped or chose, and send the photos among them. */
  offer(files, folder) {
    const { photos, others } = sortOut(files);
    if (this.sending.active) return this.tell("Photos are being sent already. Please wait until they have arrived.");
    if (!photos.length) return this.tell("There are no photos among these files.");
    this.tell(others.length ? `Left out, not a photo: ${listing(others)}.` : "");
    return this.sending.start(photos, titleOf(photos, folder));
  }

  /** Show a notice until it is closed or replaced; "" takes it away. */
  tell(words) {
    this.notice = words;
    this.changed();
  }

  /** Draw soon; many changes in a row are drawn once. */
  changed = () => {
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      render(shell(this, () => (this.screen ? jobView(this.screen) : homeView(this))), this.#root);
      document.title = this.#title();
      if (this.#focus) document.querySelector(this.#focus)?.focus();
      this.#focus = "";
      this.#look();
    });
  };

  #linkChanged() {
    if (link.keyWanted) this.#focus = "#key";
    this.changed();
  }

  #arrived(job) {
    this.#sent = job;
    location.hash = `#/jobs/${job.id}`;
  }

  #say(words) {
    this.said = words;
  }

  #title() {
    const job = this.screen?.job;
    if (!job) return "Captionfleet";
    const share = job.status === "running" ? `${Math.floor(job.progress * 100)} % · ` : "";
    return `${share}${jobTitle(job)} · Captionfleet`;
  }

  /** Read the items that have come near the screen. */
  #look = () => {
    this.screen?.look(inSight, nearEnd);
  };
}

function inSight(items) {
  const box = document.getElementById(`photos-${items[0].position}`)?.getBoundingClientRect();
  return box !== undefined && box.top < innerHeight + AHEAD_PX && box.bottom > -AHEAD_PX;
}

function nearEnd() {
  const button = document.querySelector(".more");
  return button !== null && button.getBoundingClientRect().top < innerHeight + AHEAD_PX;
}

function listing(files) {
  const names = files.slice(0, 3).map((file) => file.name);
  return files.length > 3 ? `${names.join(", ")} and ${count(files.length - 3, "other file")}` : names.join(", ");
}

function takeDrops(app) {
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (dragging) => {
    if (app.dragging === dragging) return;
    app.dragging = dragging;
    app.changed();
  };
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    show(true);
  });
  // Leaving the window, not one of its elements for another.
  addEventListener("dragleave", (event) => event.relatedTarget === null && show(false));
  addEventListener("drop", async (event) => {
    show(false);
    if (!carriesFiles(event)) return;
    event.preventDefault();
    try {
      const { files, title } = await droppedFiles(event.dataTransfer);
      app.offer(files, title);
    } catch {
      app.tell("The browser could not read what was dropped. Try choosing it with the button.");
    }
  });
}

new App(document.getElementById("app")).open();
