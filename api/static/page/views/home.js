/** The first screen: choose photos, and the jobs so far. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { folderFiles } from "../files.js";
import { isOver } from "../watch.js";
import { jobTitle, problemReason, progressLine, when } from "../words.js";

/** What is shown at `#/`. */
export function homeView(app) {
  return html`
    ${app.sending.now ? nothing : welcome(app)} ${jobList(app.list)}
  `;
}

function welcome(app) {
  return html`
    <section class="welcome">
      <h1 tabindex="-1">Captions for your photos</h1>
      <p class="lead">Drop photos or a whole folder anywhere on this page.</p>
      ${chooser(app)}
      <p class="fine">JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF or BMP.</p>
    </section>
  `;
}

/** The two buttons that open the file dialogs; the file inputs themselves are what has the focus. */
function chooser(app) {
  const chosen = (event) => {
    const input = event.target;
    const { files, title } = input.webkitdirectory ? folderFiles(input.files) : { files: [...input.files], title: "" };
    app.offer(files, title);
    input.value = "";
  };
  return html`
    <div class="choices">
      <label class="button primary">
        Choose photos
        <input type="file" name="photos" multiple accept="image/*,.heic,.heif,.avif" @change=${chosen} />
      </label>
      <label class="button">
        Choose a folder
        <input type="file" name="folder" multiple webkitdirectory @change=${chosen} />
      </label>
    </div>
  `;
}

function jobList(list) {
  if (list.problem) return html`<p class="alert" role="alert">${problemReason(list.problem)}</p>`;
  if (!list.jobs?.length) return nothing;
  return html`
    <section class="jobs" aria-labelledby="jobs-title">
      <h2 id="jobs-title">Your jobs</h2>
      <ul>
        ${repeat(list.jobs, (job) => job.id, jobRow)}
      </ul>
      ${list.next && html`<button class="button" @click=${() => list.more()}>Show older jobs</button>`}
    </section>
  `;
}

function jobRow(job) {
  return html`
    <li>
      <a href="#/jobs/${job.id}">${jobTitle(job)}</a>
      <time datetime=${job.created_at}>${when(job.created_at)}</time>
      <p>${progressLine(job)}</p>
      ${isOver(job) ? nothing : html`<progress aria-label="Progress" max="1" .value=${job.progress}></progress>`}
    </li>
  `;
}
