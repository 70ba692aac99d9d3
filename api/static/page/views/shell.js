/** What surrounds every screen: the head, notices, the sending of photos, and the box for the key. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { link } from "../link.js";
import { bytes, count, problemReason } from "../words.js";

/** The whole page; `screen` makes what belongs to the present address. */
export function shell(app, screen) {
  return html`
    <header class="head">
      <a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="28" height="28" />Captionfleet</a>
      <nav aria-label="Page">
        ${app.screen ? html`<a class="plain" href="#/">New job</a>` : nothing}
        ${link.key && !link.keyWanted
          ? html`<button class="plain" @click=${() => link.signOut()}>Sign out</button>`
          : nothing}
      </nav>
    </header>
    <div role="status" class="notices">${trouble()} ${notice(app)}</div>
    <main>${link.keyWanted ? signIn() : [sending(app), screen()]}</main>
    <p role="status" class="unseen">${app.said}</p>
    <div class="curtain" ?hidden=${!app.dragging} aria-hidden="true"><p>Drop to caption</p></div>
  `;
}

const TROUBLE = {
  silent: "The server does not answer. Trying again until it does.",
  busy: "The server is busy. Trying again until it is not.",
};

function trouble() {
  if (!link.trouble) return nothing;
  return html`
    <p class="notice warn">
      <span>${TROUBLE[link.trouble]}</span>
      <button class="plain" @click=${() => link.retryNow()}>Try now</button>
    </p>
  `;
}

function notice(app) {
  if (!app.notice) return nothing;
  return html`
    <p class="notice">
      <span>${app.notice}</span>
      <button class="plain" @click=${() => app.tell("")}>Close</button>
    </p>
  `;
}

function sending({ sending, screen }) {
  const { now } = sending;
  if (now === null) return nothing;
  const words = `Sending ${count(now.photos.length)}`;
  return html`
    <section class="sending" aria-labelledby="sending-title">
      ${screen ? html`<h2 id="sending-title">${words}</h2>` : html`<h1 id="sending-title" tabindex="-1">${words}</h1>`}
      ${now.problem ? broken(sending) : underWay(sending)}
    </section>
  `;
}

function underWay(sending) {
  const { sent, total } = sending.now;
  const all = total > 0 && sent >= total;
  return html`
    <progress aria-label="Photos sent" max="1" .value=${total ? sent / total : 0}></progress>
    <p>${all ? "Sent. The server is putting them away…" : total ? `${bytes(sent)} of ${bytes(total)}` : "Starting…"}</p>
    <button class="button" @click=${() => sending.stop()}>Stop sending</button>
  `;
}

function broken(sending) {
  return html`
    <p class="alert" role="alert">${problemReason(sending.now.problem)}</p>
    <div class="actions">
      <button class="button primary" @click=${() => sending.again()}>Send again</button>
      <button class="button" @click=${() => sending.stop()}>Never mind</button>
    </div>
  `;
}

function signIn() {
  const submit = (event) => {
    event.preventDefault();
    const key = new FormData(event.target).get("key").trim();
    if (key) link.signIn(key);
  };
  return html`
    <form class="sign-in" @submit=${submit}>
      <h1 tabindex="-1">Sign in</h1>
      <p>This server asks for an API key. Whoever runs it makes one with <code>captionfleet keys create</code>.</p>
      ${link.keyWanted === "refused"
        ? html`<p class="alert" role="alert">This key was not accepted. Is it complete, and not revoked?</p>`
        : nothing}
      <label for="key">API key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" required spellcheck="false" />
      <p class="fine">Kept in this browser tab until you close it.</p>
      <button class="button primary">Sign in</button>
    </form>
  `;
}
