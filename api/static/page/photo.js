/** <item-photo src="…">: one photo, fetched when it comes near the screen, with the key where one is needed. */

import { ask, link } from "./link.js";

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) target.show();
  },
  { rootMargin: "400px" },
);

class ItemPhoto extends HTMLElement {
  static observedAttributes = ["src"];
  #blob = null;
  #leave = null;

  connectedCallback() {
    this.#leave = new AbortController();
    if (this.hasAttribute("src")) near.observe(this);
  }

  disconnectedCallback() {
    near.unobserve(this);
    this.#leave.abort();
    this.#clear();
  }

  attributeChangedCallback() {
    if (!this.isConnected) return;
    this.#clear();
    near.unobserve(this);
    near.observe(this);
  }

  /** Fetch the photo and put it in place; one that cannot be shown leaves a quiet sign. */
  async show() {
    near.unobserve(this);
    const { signal } = this.#leave;
    const image = new Image();
    // The caption and the name stand beside it as text.
    image.alt = "";
    image.decoding = "async";
    try {
      image.src = link.key ? await this.#fetched(signal) : this.getAttribute("src");
      await loaded(image);
      if (!signal.aborted) this.replaceChildren(image);
    } catch {
      if (!signal.aborted) this.#missing();
    }
  }

  async #fetched(signal) {
    const response = await ask(this.getAttribute("src"), { signal });
    this.#blob = URL.createObjectURL(await response.blob());
    return this.#blob;
  }

  #missing() {
    const sign = document.createElement("span");
    sign.className = "no-preview";
    sign.textContent = "No preview";
    this.replaceChildren(sign);
    link.addEventListener("back", () => this.show(), { once: true, signal: this.#leave.signal });
  }

  #clear() {
    if (this.#blob) URL.revokeObjectURL(this.#blob);
    this.#blob = null;
    this.replaceChildren();
  }
}

/** Loaded, not decoded: the browser then decodes at the size it shows. */
function loaded(image) {
  return new Promise((resolve, reject) => {
    image.addEventListener("load", resolve, { once: true });
    image.addEventListener("error", reject, { once: true });
  });
}

customElements.define("item-photo", ItemPhoto);
