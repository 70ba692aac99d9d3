/** What surrounds every screen: the head, notices, the sending of photos, dialogs, and the box for the key. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { link } from "../link.js";
import { session } from "../session.js";
import { addressesView } from "./addresses.js";
import { ARRIVE } from "./icons.js";
import { notices } from "./notices.js";
import { sendingView } from "./sending.js";

/** The whole page; `screen` makes what belongs to the present address. */
export function shell(app, screen) {
  return html`
    <a class="skip" href="#main" @click=${skip}>Skip to the content</a>
    <header class="head">
      <a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="28" height="28" />Captionfleet</a>
      <nav aria-label="Page">
        ${app.screen ? html`<a class="plain" href="#/">New job</a>` : nothing}
        <a class="plain" href="/docs">API</a>
        ${session.canEnd ? account(app) : nothing}
      </nav>
    </header>
    <div role="status" class="trouble">${trouble()}</div>
    <main id="main" tabindex="-1">
      ${session.wanted ? signIn() : [sendingView(app.outbox, Boolean(app.screen)), screen()]}
    </main>
    ${app.screen?.viewer ? nothing : notices(app)}
    <p role="status" class="unseen">${app.said}</p>
    ${app.addresses ? addressesView(app) : nothing} ${app.question ? question(app) : nothing}
    <div class="curtain" ?hidden=${!app.dragging} aria-hidden="true"><p>${ARRIVE} Drop to caption</p></div>
  `;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function account(app) {
  const end = () => session.end().catch(() => app.tell("The server does not answer. You are still signed in."));
  return html`<button class="plain" title="Signed in as ${session.known.owner}" @click=${end}>Sign out</button>`;
}

const TROUBLE = {
  silent: "The server does not answer. Trying again until it does.",
  busy: "The server is busy. Trying again until it is not.",
};

function trouble() {
  if (!link.trouble) return nothing;
  return html`
    <p class="warning">
      <span
        >${navigator.onLine ? TROUBLE[link.trouble] : "This device is offline. Going on as soon as it is back."}</span
      >
      <button class="plain" @click=${() => link.retryNow()}>Try now</button>
    </p>
  `;
}

function question(app) {
  const { title, words, action, run } = app.question;
  const gone = () => {
    app.question = null;
    app.changed();
  };
  const close = () => document.getElementById("question").close();
  const act = () => {
    close();
    run();
  };
  return html`
    <dialog id="question" class="small" aria-labelledby="question-title" @close=${gone}>
      <h2 id="question-title">${title}</h2>
      <p>${words}</p>
      <div class="actions">
        <button class="button danger" @click=${act}>${action}</button>
        <button class="button" autofocus @click=${close}>Cancel</button>
      </div>
    </dialog>
  `;
}

const WANTED = {
  refused: "This key was not accepted. Is it complete, and neither expired nor revoked?",
  silent: "The server does not answer. Please try again in a moment.",
};

function signIn() {
  const submit = (event) => {
    event.preventDefault();
    const key = new FormData(event.target).get("key").trim();
    if (key) session.open(key);
  };
  return html`
    <form class="sign-in" @submit=${submit}>
      <h1 tabindex="-1">Sign in</h1>
      <p>This server asks for an API key. Whoever runs it makes one with <code>captionfleet keys create</code>.</p>
      ${WANTED[session.wanted] ? html`<p class="alert" role="alert">${WANTED[session.wanted]}</p>` : nothing}
      <label for="key">API key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" required spellcheck="false" />
      <p class="fine">The server keeps it behind a cookie until you sign out.</p>
      <button class="button primary">Sign in</button>
    </form>
  `;
}
