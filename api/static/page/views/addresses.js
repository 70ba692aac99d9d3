/** The dialog where addresses of images are given. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { CLOSE } from "./icons.js";

/** Addresses, one a line, or one S3 folder or list. */
export function addressesView(app) {
  const { text, problem } = app.addresses;
  const gone = () => {
    app.addresses = null;
    app.changed();
  };
  const submit = (event) => {
    event.preventDefault();
    app.offerAddresses(new FormData(event.target).get("addresses"));
  };
  const close = () => document.getElementById("addresses").close();
  return html`
    <dialog id="addresses" aria-labelledby="addresses-title" @close=${gone}>
      <form @submit=${submit}>
        <header>
          <h2 id="addresses-title">Images that lie elsewhere</h2>
          <button type="button" class="plain bare" aria-label="Close" @click=${close}>${CLOSE}</button>
        </header>
        <label for="addresses-text">Addresses, one a line</label>
        <textarea
          id="addresses-text"
          name="addresses"
          rows="7"
          spellcheck="false"
          aria-describedby="addresses-help"
          placeholder="https://example.org/photo.jpg"
          .value=${text}
        ></textarea>
        ${problem ? html`<p class="alert" role="alert">${problem}</p>` : nothing}
        <p class="fine" id="addresses-help">
          Images on the web (<code>https://…</code>) or in S3 (<code>s3://bucket/photo.jpg</code>); or one whole folder
          of a bucket (<code>s3://bucket/2024/</code>) or one list (<code>s3://bucket/list.csv</code>). S3 is read where
          your key was granted access.
        </p>
        <div class="actions">
          <button class="button primary">Caption them</button>
          <button type="button" class="button" @click=${close}>Cancel</button>
        </div>
      </form>
    </dialog>
  `;
}
