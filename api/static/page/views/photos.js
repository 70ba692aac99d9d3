/** A job's photos: which of them and in which order, as a gallery or as alternative texts. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { ALT_LENGTH, altText, lengthOf, shownCaption, snippet } from "../alt.js";
import { isWaiting } from "../items.js";
import { session } from "../session.js";
import { jobPath } from "../watch.js";
import { count, figure, itemReason, sureness } from "../words.js";
import { COPY, EDIT, SEARCH } from "./icons.js";

/** The tools and the list itself. */
export function listView(screen) {
  const alt = screen.view === "alt";
  const card = alt ? (item, index) => altRow(screen, item, index) : (item, index) => photoCard(screen, item, index);
  return html`
    <section class="photos" aria-labelledby="photos-title">
      <div class="tools">
        <h2 id="photos-title" class="unseen">${alt ? "Alternative texts" : "Photos"}</h2>
        ${choice(
          "View",
          [
            ["", "Photos"],
            ["alt", "Alt texts"],
          ],
          screen.view,
          (view) => screen.look(view),
        )}
        ${search(screen)} ${filters(screen)} ${order(screen)}
      </div>
      ${alt ? altTools(screen) : nothing} ${outcome(screen)}
      <endless-list
        aria-label=${alt ? "Alternative texts" : "Photos"}
        role="group"
        .items=${screen.items}
        .card=${card}
        .kind=${alt ? "lines" : "gallery"}
        .revision=${`${screen.view} ${screen.items.revision} ${screen.items.length}`}
      ></endless-list>
    </section>
  `;
}

/** Buttons of which one is pressed. */
function choice(label, choices, chosen, choose) {
  const one = ([value, words]) => html`
    <button class="choice" aria-pressed=${value === chosen} @click=${() => choose(value)}>${words}</button>
  `;
  return html`<div class="choices-row" role="group" aria-label=${label}>${choices.map(one)}</div>`;
}

function filters(screen) {
  const { total, succeeded, failed } = screen.job.counts;
  if (!failed && screen.choice.status === "") return nothing;
  const choices = [
    ["", `All ${figure(total)}`],
    ["succeeded", `Captioned ${figure(succeeded)}`],
    ["failed", `Failed ${figure(failed)}`],
  ];
  return choice("Which photos", choices, screen.choice.status, (status) => screen.choose("status", status));
}

function search(screen) {
  const type = (event) => screen.choose("q", event.target.value.trim(), { typed: true });
  return html`
    <div class="search">
      ${SEARCH}
      <input
        type="search"
        aria-label="Search captions"
        placeholder="Search captions"
        maxlength="200"
        .value=${screen.choice.q}
        @input=${type}
      />
    </div>
  `;
}

function order(screen) {
  const change = (event) => screen.choose("sort", event.target.value);
  const option = (value, words) =>
    html`<option value=${value} ?selected=${screen.choice.sort === value}>${words}</option>`;
  return html`
    <select class="order" aria-label="Order" @change=${change}>
      ${option("", "In their order")} ${option("score", "Surest first")}
    </select>
  `;
}

/** How many a search or a filter found; told to listeners, too. */
function outcome({ items, narrowed }) {
  const words = () =>
    items.whole
      ? items.found
        ? `${count(items.found)} found`
        : "Nothing found."
      : `More than ${figure(items.found)} found`;
  const known = narrowed && (items.found > 0 || items.whole);
  return html`<p role="status" class="outcome">${known ? words() : nothing}</p>`;
}

function altTools(screen) {
  const forms = [
    ["html", "HTML"],
    ["markdown", "Markdown"],
    ["text", "Text"],
  ];
  return html`
    <div class="tools">
      ${choice("Written as", forms, screen.form, (form) => screen.write(form))}
      <button class="button" @click=${() => screen.takeAll("copy")}>${COPY} Copy all</button>
      <button class="button" @click=${() => screen.takeAll("save")}>Save all as a file</button>
      <p class="fine">At most ${ALT_LENGTH} characters each, cut between words.</p>
    </div>
  `;
}

/** What lies on the web is not fetched by this page, and what cannot be decoded here not at all. */
function photoOf(screen, item) {
  const hidden = item.source.startsWith("http") || item.error?.code === "image_too_large";
  const src = hidden ? "" : `${jobPath(screen.id)}/items/${item.position}/image`;
  return html`<item-photo src=${src} ?foreign=${item.source !== "upload"}></item-photo>`;
}

function photoCard(screen, item, index) {
  if (!item) return html`<div class="card"><item-photo></item-photo>${cardWords(html`<p class="caption"></p>`)}</div>`;
  const text = captionOf(item, screen.choice.q);
  return html`
    <div class="card ${item.status}">
      <button class="open" aria-label="Open ${item.name}" @click=${() => screen.open(index)}>
        ${photoOf(screen, item)}
      </button>
      ${cardWords(text, item, item.caption || item.edited_caption ? cardActions(screen, item, index) : editFailed(screen, item, index))}
    </div>
  `;
}

function cardWords(text, item = null, actions = nothing) {
  return html`
    <div class="words">
      ${text}
      <p class="facts"><span class="name" title=${item?.name ?? nothing}>${item?.name}</span>${marks(item)}</p>
      <div class="card-actions">${actions}</div>
    </div>
  `;
}

function marks(item) {
  if (!item) return nothing;
  if (item.edited_caption) return html`<span class="badge">Edited</span>`;
  if (item.score === null) return nothing;
  const words = sureness(item.score);
  return html`<span class="score" title="How sure the model is of each word, on average"
    >${words}<span class="unseen"> sure</span></span
  >`;
}

function cardActions(screen, item, index) {
  return html`
    <button class="plain" aria-label="Copy the caption of ${item.name}" @click=${() => screen.copy(item)}>
      ${COPY} Copy
    </button>
    ${
      session.maySubmit
        ? html`<button
            class="plain"
            aria-label="Edit the caption of ${item.name}"
            @click=${() => screen.open(index, true)}
          >
            ${EDIT} Edit
          </button>`
        : nothing
    }
  `;
}

function editFailed(screen, item, index) {
  if (item.status !== "failed" || !session.maySubmit) return nothing;
  return html`<button
    class="plain"
    aria-label="Write a caption for ${item.name}"
    @click=${() => screen.open(index, true)}
  >
    ${EDIT} Write one
  </button>`;
}

function captionOf(item, q = "") {
  const shown = shownCaption(item);
  if (shown) return html`<p class="caption">${marked(shown, q)}</p>`;
  if (isWaiting(item))
    return html`<p class="caption waiting">${item.status === "running" ? "Looking…" : "Waiting"}</p>`;
  if (item.status === "failed") return html`<p class="caption reason">${itemReason(item.error)}</p>`;
  return html`<p class="caption waiting">Left out</p>`;
}

/** The caption with what was searched for marked in it. */
function marked(text, q) {
  const at = q ? text.toLowerCase().indexOf(q.toLowerCase()) : -1;
  if (at < 0) return text;
  return html`${text.slice(0, at)}<mark>${text.slice(at, at + q.length)}</mark>${text.slice(at + q.length)}`;
}

function altRow(screen, item, index) {
  if (!item) return html`<div class="line"></div>`;
  const alt = altText(shownCaption(item));
  return html`
    <div class="line ${item.status}">
      <button class="open" aria-label="Open ${item.name}" @click=${() => screen.open(index)}>
        ${photoOf(screen, item)}
      </button>
      ${alt ? html`<code class="snippet">${snippet(item, screen.form)}</code>` : captionOf(item)}
      <p class="facts">
        <span class="name">${item.name}</span>${alt ? html`<span>${lengthOf(alt)} of ${ALT_LENGTH}</span>` : nothing}
      </p>
      ${
        alt
          ? html`<button
              class="button"
              aria-label="Copy the alternative text of ${item.name}"
              @click=${() => screen.copy(item)}
            >
              ${COPY} Copy
            </button>`
          : nothing
      }
    </div>
  `;
}
