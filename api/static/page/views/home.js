/** The first screen: choose photos, and the jobs so far. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { folderFiles, singleFiles } from "../files.js";
import { isOver, jobPath } from "../watch.js";
import { figure, jobTitle, problemReason, progressLine, when } from "../words.js";
import { ADDRESS, ARRIVE, FOLDER, PHOTOS } from "./icons.js";
import { optionsView } from "./options.js";

/** What is shown at `#/`. */
export function homeView(app) {
  const sending = app.outbox.sendings.length > 0;
  return html`${sending ? nothing : welcome(app)} ${jobList(app.list)}`;
}

function welcome(app) {
  return html`
    <section class="welcome">
      <div class="arrive">${ARRIVE}</div>
      <h1 tabindex="-1">Captions for your photos</h1>
      <p class="lead">Drop photos or a whole folder anywhere on this page.</p>
      ${chooser(app)}
      <p class="fine">JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF or BMP, thousands at once. You can also paste them.</p>
      ${optionsView(app.options)}
    </section>
  `;
}

/** The buttons that open the file dialogs; the file inputs themselves are what has the focus. */
function chooser(app) {
  const chosen = (event) => {
    const input = event.target;
    const { files, title } = input.webkitdirectory
      ? folderFiles(input.files)
      : { files: singleFiles(input.files), title: "" };
    app.offer(files, title);
    input.value = "";
  };
  return html`
    <div class="choices">
      <label class="button primary">
        ${PHOTOS} Choose photos
        <input type="file" name="photos" multiple accept="image/*,.heic,.heif,.avif" @change=${chosen} />
      </label>
      <label class="button">
        ${FOLDER} Choose a folder
        <input type="file" name="folder" multiple webkitdirectory @change=${chosen} />
      </label>
      <button class="button" @click=${() => app.askAddresses()}>${ADDRESS} Web or S3 addresses</button>
    </div>
  `;
}

function jobList(list) {
  const alert = list.problem ? html`<p class="alert" role="alert">${problemReason(list.problem)}</p>` : nothing;
  if (!list.jobs?.length) return alert;
  return html`
    ${alert}
    <section class="jobs" aria-labelledby="jobs-title">
      <h2 id="jobs-title">Your jobs</h2>
      <ul>
        ${repeat(list.jobs, (job) => job.id, jobRow)}
      </ul>
      ${list.next ? html`<button class="button" @click=${() => list.more()}>Show older jobs</button>` : nothing}
    </section>
  `;
}

function jobRow(job) {
  return html`
    <li>
      ${cover(job)}
      <div>
        <a href="#/jobs/${job.id}">${jobTitle(job)}</a>
        <p>${progressLine(job)}</p>
        ${isOver(job) ? nothing : html`<progress aria-label="Progress" max="1" .value=${job.progress}></progress>`}
      </div>
      <time datetime=${job.created_at}>${when(job.created_at)}</time>
    </li>
  `;
}

/** The first photo, where it lies with the service itself; else how many there are. */
function cover({ id, counts, source, metadata }) {
  const own = (source === "upload" || metadata.sent_from === "page") && counts.succeeded > 0;
  if (own) return html`<item-photo src="${jobPath(id)}/items/0/image"></item-photo>`;
  return html`<span class="cover" aria-hidden="true">${figure(counts.total)}</span>`;
}
