/** The screen of one job: how far it is, what can be done, and its photos with their captions. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { chosenOptions } from "../outbox.js";
import { session } from "../session.js";
import { isOver } from "../watch.js";
import { count, figure, jobTitle, problemReason, progressLine, when } from "../words.js";
import { AGAIN, DOWN, REMOVE, STOP } from "./icons.js";
import { listView } from "./photos.js";
import { viewerView } from "./viewer.js";

/** What is shown at `#/jobs/{id}`; `notices` are shown where they can be reached. */
export function jobView(screen, notices) {
  const { job, problem, viewer } = screen;
  return html`
    <nav aria-label="Back"><a class="back" href="#/">All jobs</a></nav>
    <h1 tabindex="-1">${job ? jobTitle(job) : "Job"}</h1>
    ${problem ? html`<p class="alert" role="alert">${problemReason(problem)}</p>` : nothing}
    ${job ? [state(job), actions(screen), listView(screen)] : nothing} ${viewer ? viewerView(viewer, notices) : nothing}
  `;
}

function state(job) {
  return html`
    <p class="state">${progressLine(job)}</p>
    ${isOver(job) ? nothing : html`<progress aria-label="Progress" max="1" .value=${job.progress}></progress>`}
    ${job.error ? html`<p class="alert">${job.error.message}</p>` : nothing}
    <p class="fine">${facts(job)}</p>
  `;
}

/** What was asked for, and until when it is kept. */
function facts({ created_at: made, expires_at: until, model, options }) {
  const chosen = chosenOptions({ options }).filter((name) => name !== "model");
  const parts = [
    `Made ${when(made)}`,
    `model ${model}`,
    ...chosen.map((name) => `${name.replaceAll("_", " ")}: ${options[name]}`),
    until && `kept until ${when(until)}`,
  ];
  return parts.filter(Boolean).join(" · ");
}

function actions(screen) {
  const { status, counts } = screen.job;
  const again = counts.failed + counts.canceled;
  const retry = (status === "completed" || status === "canceled") && again > 0;
  const stop = ["preparing", "queued", "running"].includes(status);
  const button = (kind, icon, words, act) =>
    html`<button class="button ${kind}" @click=${act}>${icon} ${words}</button>`;
  return html`
    <div class="actions">
      ${counts.succeeded + counts.failed ? downloads(screen) : nothing}
      ${retry && session.maySubmit ? button("", AGAIN, retryWords(counts), () => screen.retry()) : nothing}
      ${stop && session.maySubmit ? button("", STOP, "Stop this job", () => screen.cancel()) : nothing}
      ${session.maySubmit ? button("quiet", REMOVE, "Delete", () => screen.remove()) : nothing}
    </div>
  `;
}

function retryWords({ failed, canceled }) {
  return canceled ? `Caption the other ${figure(canceled + failed)}` : `Try ${count(failed, "failed photo")} again`;
}

const FORMATS = [
  ["csv", "CSV", "a table for spreadsheets"],
  ["jsonl", "JSONL", "a line of JSON for each photo"],
  ["parquet", "Parquet", "a table for data tools"],
  ["txt.zip", "TXT", "a zip file with a text file for each photo"],
];

function downloads(screen) {
  const words = isOver(screen.job) ? "Download" : "Download so far";
  const one = ([format, name, what]) => html`
    <a
      href=${screen.resultsPath(format)}
      download="${screen.id}.${format}"
      aria-label="${words}: ${name}, ${what}"
      title=${what}
      @click=${format === "parquet" ? (event) => screen.check(event) : nothing}
      >${name}</a
    >
  `;
  return html`<div class="downloads" role="group" aria-label="Downloads">${DOWN}${FORMATS.map(one)}</div>`;
}
