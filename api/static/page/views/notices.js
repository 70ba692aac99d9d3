/** The short messages at the foot of the screen, or of the dialog that is open: nothing outside it can be reached. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { CLOSE } from "./icons.js";

/** The place of messages, which listeners are told, and the message if there is one. */
export function notices(app) {
  return html`<div role="status" class="notices">${app.notice ? notice(app) : nothing}</div>`;
}

function notice(app) {
  const { words, action } = app.notice;
  const act = () => {
    app.tell("");
    action.run();
  };
  return html`
    <div class="notice">
      <p>${words}</p>
      ${action ? html`<button class="plain" @click=${act}>${action.words}</button>` : nothing}
      <button class="plain bare" aria-label="Close this message" @click=${() => app.tell("")}>${CLOSE}</button>
    </div>
  `;
}
