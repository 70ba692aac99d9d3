/** The screen of one job: how far it is, what can be done, and its photos with their captions. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { guard } from "../../vendor/lit-html/directives/guard.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { isWaiting } from "../items.js";
import { isOver, jobPath } from "../watch.js";
import { count, figure, itemReason, jobTitle, problemReason, progressLine } from "../words.js";

/** What is shown at `#/jobs/{id}`. */
export function jobView(screen) {
  const { job, problem } = screen;
  return html`
    <nav aria-label="Back"><a class="back" href="#/">All jobs</a></nav>
    <h1 tabindex="-1">${job ? jobTitle(job) : "Job"}</h1>
    ${problem && html`<p class="alert" role="alert">${problemReason(problem)}</p>`}
    ${job ? [state(job), actions(screen), gallery(screen)] : nothing}
  `;
}

function state(job) {
  return html`
    <p class="state">${progressLine(job)}</p>
    ${isOver(job) ? nothing : html`<progress aria-label="Progress" max="1" .value=${job.progress}></progress>`}
    ${job.error && html`<p class="alert">${job.error.message}</p>`}
  `;
}

function actions(screen) {
  const { status, counts } = screen.job;
  const again = counts.failed + counts.canceled;
  const retry = (status === "completed" || status === "canceled") && again > 0;
  const stop = ["preparing", "queued", "running"].includes(status);
  return html`
    <div class="actions">
      ${counts.succeeded + counts.failed ? downloads(screen) : nothing}
      ${retry ? html`<button class="button" @click=${() => screen.retry()}>${retryWords(counts)}</button>` : nothing}
      ${stop ? html`<button class="button" @click=${() => screen.cancel()}>Stop this job</button>` : nothing}
    </div>
  `;
}

function retryWords({ failed, canceled }) {
  return canceled ? `Caption the other ${figure(canceled + failed)}` : `Try ${count(failed, "failed photo")} again`;
}

function downloads(screen) {
  const words = isOver(screen.job) ? "Download" : "Download so far";
  const one = (format, name) => html`
    <a
      class="button"
      href=${screen.resultsPath(format)}
      download="${screen.id}.${format}"
      aria-label="${words}: ${name}"
      @click=${(event) => screen.download(event, format)}
      >${name}</a
    >
  `;
  return html`<div class="downloads"><span aria-hidden="true">${words}</span>${one("csv", "CSV")}${one("jsonl", "JSONL")}</div>`;
}

function gallery(screen) {
  const { counts } = screen.job;
  return html`
    <section aria-labelledby="photos-title">
      <div class="gallery-head">
        <h2 id="photos-title">Photos</h2>
        ${counts.failed ? filters(screen, counts) : nothing}
      </div>
      ${repeat(screen.pages.lists.filter(isFilled), firstPosition, (items) => galleryPage(screen, items))}
      ${screen.pages.more
        ? html`<button class="button more" @click=${() => screen.look(nobody, always)}>Show more</button>`
        : nothing}
    </section>
  `;
}

const isFilled = (items) => items.length > 0;
const firstPosition = (items) => items[0].position;

/** One page of cards: drawn again only when it was read again, laid out only near the screen. */
function galleryPage(screen, items) {
  return guard(
    [screen.id, items],
    () => html`
      <ol class="gallery" id="photos-${firstPosition(items)}">
        ${repeat(items, (item) => item.position, (item) => card(screen.id, item))}
      </ol>
    `,
  );
}

const nobody = () => false;
const always = () => true;

function filters(screen, counts) {
  const one = (status, words) => html`
    <button class="filter" aria-pressed=${screen.filter === status} @click=${() => screen.show(status)}>
      ${words}
    </button>
  `;
  return html`
    <div class="filters" role="group" aria-label="Which photos">
      ${one("", `All ${figure(counts.total)}`)} ${one("failed", `Failed ${figure(counts.failed)}`)}
    </div>
  `;
}

function card(jobId, item) {
  return html`
    <li class="card ${item.status}">
      ${item.error?.code === "image_too_large"
        ? html`<item-photo><span>No preview</span></item-photo>`
        : html`<item-photo src="${jobPath(jobId)}/items/${item.position}/image"></item-photo>`}
      ${words(item)}
      <p class="name">${item.name}</p>
    </li>
  `;
}

function words(item) {
  if (isWaiting(item)) return html`<p class="caption waiting">${item.status === "running" ? "Looking…" : "Waiting"}</p>`;
  if (item.status === "failed") return html`<p class="caption reason">${itemReason(item.error)}</p>`;
  if (item.status === "canceled") return html`<p class="caption waiting">Left out</p>`;
  return html`<p class="caption">${item.edited_caption ?? item.caption}</p>`;
}
