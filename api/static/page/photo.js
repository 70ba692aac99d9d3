/** <item-photo src="…" source="…">: one photo, as a thumbnail once it has been near the screen for a moment. */

import { link } from "./link.js";
import { thumbnail } from "./thumbs.js";

// Cards that only fly past are not worth a request.
const MOMENT_MS = 120;
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) target.near(isIntersecting);
  },
  { rootMargin: "200px" },
);

class ItemPhoto extends HTMLElement {
  static observedAttributes = ["src"];
  #leave = null;
  #timer = 0;
  #shown = "";

  connectedCallback() {
    near.observe(this);
  }

  disconnectedCallback() {
    near.unobserve(this);
    this.#stop();
  }

  attributeChangedCallback() {
    if (!this.isConnected) return;
    this.#stop();
    this.#shown = "";
    this.replaceChildren();
    near.unobserve(this);
    near.observe(this);
  }

  /** Called when the photo comes near the screen, or goes. */
  near(is) {
    if (!is) return this.#stop();
    if (this.#shown === this.getAttribute("src")) return undefined;
    this.#timer = setTimeout(() => this.#show(), MOMENT_MS);
    return undefined;
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#leave?.abort();
    this.#leave = null;
  }

  async #show() {
    const source = this.getAttribute("src");
    if (!source) return this.#put(sign("No preview"));
    this.#leave = new AbortController();
    const { signal } = this.#leave;
    try {
      // Buckets that are not the service's own let images be shown, but not read by scripts.
      const shown = this.hasAttribute("foreign") ? await image(source) : await drawn(source, signal);
      if (signal.aborted) return undefined;
      this.#shown = source;
      return this.#put(shown);
    } catch {
      return signal.aborted ? undefined : this.#missing(signal);
    }
  }

  #missing(signal) {
    link.addEventListener("back", () => this.#show(), { once: true, signal });
    return this.#put(sign("No preview"));
  }

  #put(element) {
    this.replaceChildren(element);
  }
}

async function drawn(source, signal) {
  const bitmap = await thumbnail(source, signal);
  const canvas = document.createElement("canvas");
  // The caption and the name stand beside it as text.
  canvas.setAttribute("aria-hidden", "true");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
}

async function image(source) {
  const element = new Image();
  element.alt = "";
  element.decoding = "async";
  element.src = source;
  await element.decode();
  return element;
}

function sign(words) {
  const element = document.createElement("span");
  element.className = "no-preview";
  element.textContent = words;
  return element;
}

customElements.define("item-photo", ItemPhoto);
