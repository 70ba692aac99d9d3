/** The photos on their way to the server: how far they are, and what to do about those that were lost. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { LOST_REASONS } from "../upload.js";
import { bytes, count, figure, problemReason, span } from "../words.js";

const MOST_NAMES = 20;

/** What is under way, and how much waits behind it; `below` says that the screen has a heading of its own. */
export function sendingView(outbox, below) {
  const [sending, ...others] = outbox.sendings;
  if (!sending) return nothing;
  const words = sending.parcels.length ? `Sending ${count(sending.parcels.length)}` : "Making the job";
  const state = STATES[sending.state](outbox, sending);
  return html`
    <section class="sending" aria-labelledby="sending-title">
      ${below ? html`<h2 id="sending-title">${words}</h2>` : html`<h1 id="sending-title" tabindex="-1">${words}</h1>`}
      <p class="fine">${sending.title}</p>
      ${state}
      ${others.length ? html`<p class="fine">Then: ${others.map(({ title }) => title).join(", ")}.</p>` : nothing}
    </section>
  `;
}

const STATES = { waiting: underWay, sending: underWay, making: underWay, asking, broken };

function underWay(outbox, sending) {
  const { bytesSent, total } = sending;
  return html`
    <progress aria-label="Photos sent" max="1" .value=${total ? bytesSent / total : 0}></progress>
    <p class="numbers">${progress(sending)}</p>
    <button class="button" @click=${() => outbox.drop(sending)}>Stop sending</button>
  `;
}

function progress(sending) {
  const { state, parcels, photosSent, bytesSent, total, speed, lost } = sending;
  if (state === "making") return "All there. The job begins…";
  return [
    `${figure(photosSent)} of ${figure(parcels.length)} sent`,
    `${bytes(bytesSent)} of ${bytes(total)}`,
    speed && `${bytes(speed)} a second`,
    speed && total > bytesSent && `${span((total - bytesSent) / speed)} left`,
    lost.length && `${figure(lost.length)} not sent`,
  ]
    .filter(Boolean)
    .join(" · ");
}

/** Some photos did not arrive: what now? */
function asking(outbox, sending) {
  const { lost, photosSent } = sending;
  return html`
    <div class="alert" role="alert">
      <p>${count(lost.length)} could not be sent:</p>
      <ul>
        ${lost.slice(0, MOST_NAMES).map(({ path, reason }) => html`<li>${path}: ${LOST_REASONS[reason]}</li>`)}
        ${lost.length > MOST_NAMES ? html`<li>and ${count(lost.length - MOST_NAMES, "other")}</li>` : nothing}
      </ul>
    </div>
    <div class="actions">
      ${
        photosSent
          ? html`<button class="button primary" @click=${() => outbox.goOn()}>
              Caption the other ${figure(photosSent)}
            </button>`
          : nothing
      }
      <button class="button" @click=${() => outbox.again()}>Try again</button>
      <button class="button" @click=${() => outbox.drop(sending)}>Never mind</button>
    </div>
  `;
}

function broken(outbox, sending) {
  return html`
    <p class="alert" role="alert">${problemReason(sending.problem)}</p>
    <div class="actions">
      <button class="button primary" @click=${() => outbox.again()}>Try again</button>
      <button class="button" @click=${() => outbox.drop(sending)}>Never mind</button>
    </div>
  `;
}
