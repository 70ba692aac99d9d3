/** The dialog with one photo large and its caption to edit. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { session } from "../session.js";
import { itemReason, sides, sureness } from "../words.js";
import { BEFORE, CLOSE, COPY, NEXT } from "./icons.js";

/** The dialog; Escape asks what becomes of unsaved words, if there are any. */
export function viewerView(viewer, notices) {
  const { item } = viewer;
  const cancel = (event) => {
    event.preventDefault();
    viewer.close();
  };
  return html`
    <dialog
      id="viewer"
      class="wide"
      aria-labelledby="viewer-title"
      @cancel=${cancel}
      @keydown=${(event) => keys(viewer, event)}
    >
      <header>
        <h2 id="viewer-title">${item.name}</h2>
        <div class="steps">
          ${step(viewer, -1, "Previous photo", BEFORE)} ${step(viewer, 1, "Next photo", NEXT)}
          <button class="plain bare" aria-label="Close" @click=${() => viewer.close()}>${CLOSE}</button>
        </div>
      </header>
      <div class="viewer">
        <div class="picture">${picture(viewer)}</div>
        <div class="sheet">
          ${session.maySubmit ? editor(viewer) : html`<p class="caption">${viewer.draft}</p>`} ${about(viewer)}
        </div>
      </div>
      ${notices}
    </dialog>
  `;
}

function step(viewer, by, label, icon) {
  return html`
    <button class="plain bare" aria-label=${label} ?disabled=${!viewer.has(by)} @click=${() => viewer.step(by)}>
      ${icon}
    </button>
  `;
}

function keys(viewer, event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) viewer.save();
  if (event.target.closest("textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowRight") viewer.step(1);
  if (event.key === "ArrowLeft") viewer.step(-1);
}

function picture(viewer) {
  const { item, image } = viewer;
  if (item.source.startsWith("http")) {
    return html`<p>
      This photo lies on the web. <a href=${item.source} target="_blank" rel="noopener noreferrer">Open it there</a>
    </p>`;
  }
  if (item.error?.code === "image_too_large") return html`<p>No preview</p>`;
  if (viewer.blind) return html`<p>This browser cannot show the photo.</p>`;
  return html`<img
    src=${image}
    alt=${item.edited_caption ?? item.caption ?? item.name}
    @error=${() => viewer.notSeen()}
  />`;
}

function editor(viewer) {
  const { item, draft, dirty, saving, problem, leaving, editing } = viewer;
  const submit = (event) => {
    event.preventDefault();
    viewer.save();
  };
  return html`
    <form @submit=${submit}>
      <label for="draft">Caption ${item.edited_caption ? html`<span class="badge">Edited</span>` : nothing}</label>
      <textarea
        id="draft"
        rows="4"
        maxlength="2000"
        ?autofocus=${editing}
        .value=${draft}
        @input=${(event) => viewer.type(event.target.value)}
      ></textarea>
      ${problem ? html`<p class="alert" role="alert">${problem}</p>` : nothing}
      ${
        leaving
          ? undecided(viewer)
          : html`
              <div class="actions">
                <button class="button primary" ?disabled=${!dirty || !draft.trim() || saving}>
                  ${saving ? "Saving…" : "Save"}
                </button>
                <button type="button" class="button" ?disabled=${!draft.trim()} @click=${() => viewer.copy()}>
                  ${COPY} Copy
                </button>
              </div>
            `
      }
    </form>
  `;
}

function undecided(viewer) {
  const one = (answer, words, kind) => html`
    <button type="button" class="button ${kind}" @click=${() => viewer.decide(answer)}>${words}</button>
  `;
  return html`
    <div class="alert" role="alert">
      <p>These words are not saved yet.</p>
      <div class="actions">
        ${one("save", "Save", "primary")} ${one("discard", "Discard", "")} ${one("stay", "Go on editing", "")}
      </div>
    </div>
  `;
}

function about(viewer) {
  const { item } = viewer;
  const fact = (name, value) =>
    value
      ? html`<div>
          <dt>${name}</dt>
          <dd>${value}</dd>
        </div>`
      : nothing;
  return html`
    ${item.status === "failed" ? html`<p class="reason">${itemReason(item.error)}</p>` : nothing} ${own(viewer)}
    ${others(viewer)}
    <dl class="about">
      ${fact("Model", item.model)} ${fact("Sure", item.score === null ? "" : sureness(item.score))}
      ${fact("Size", sides(item))} ${fact("From", item.source === "upload" ? "" : item.source)}
      ${fact("Named", item.custom_id === item.name ? "" : item.custom_id)}
    </dl>
  `;
}

/** The model's own words, which an edit never replaces. */
function own(viewer) {
  const { item } = viewer;
  if (!item.edited_caption || !item.caption) return nothing;
  return html`
    <div class="own">
      <h3>The model's own caption</h3>
      <p>${item.caption}</p>
      ${session.maySubmit ? html`<button class="plain" @click=${() => viewer.restore()}>Use it again</button>` : nothing}
    </div>
  `;
}

function others(viewer) {
  const rest = viewer.item.alternatives.filter(({ text }) => text !== viewer.item.caption);
  if (!rest.length) return nothing;
  const one = ({ text, score }) => html`
    <li>
      <p>${text} <span class="score">${sureness(score)}</span></p>
      ${session.maySubmit ? html`<button class="plain" @click=${() => viewer.type(text)}>Take this one</button>` : nothing}
    </li>
  `;
  return html`<div class="own">
    <h3>Other wordings</h3>
    <ul>
      ${rest.map(one)}
    </ul>
  </div>`;
}
