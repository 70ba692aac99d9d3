/** The link to the API: signed in where it must be, and patient while the server is away. */

import { call, Unreachable } from "./calls.js";
import { session } from "./session.js";

const SAFE = new Set(["GET", "HEAD"]);

/** What the page shows about the link; a "change" event follows every change, "back" every return. */
class Link extends EventTarget {
  /** null, "silent" (nobody answers) or "busy" (the server said: not now). */
  trouble = null;
  #wake = new Set();

  /** Wait before the next try: longer each time, cut short by `retryNow` or a returning network. */
  async pause(error, tries, signal) {
    this.#setTrouble(error.message);
    const seconds = error.after || Math.min(2 ** tries * 0.5, 8);
    await new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wake.delete(done);
        resolve();
      };
      const timer = setTimeout(done, seconds * 1000);
      this.#wake.add(done);
      signal?.addEventListener("abort", done, { once: true });
    });
    signal?.throwIfAborted();
  }

  /** Try again at once. */
  retryNow() {
    for (const wake of [...this.#wake]) wake();
  }

  /** Note that the server answered. */
  answered() {
    if (this.trouble === null) return;
    this.#setTrouble(null);
    this.dispatchEvent(new Event("back"));
  }

  #setTrouble(trouble) {
    if (this.trouble === trouble) return;
    this.trouble = trouble;
    this.dispatchEvent(new Event("change"));
  }
}

export const link = new Link();
addEventListener("online", () => link.retryNow());

/** Send one request and return the answer; asks for a key where the API wants one. */
export async function ask(path, { method = "GET", headers = {}, signal, ...rest } = {}) {
  const unsafe = !SAFE.has(method);
  for (let renewed = false; ;) {
    try {
      if (unsafe && !session.known) await session.load(signal);
      const proven = unsafe ? { ...headers, ...session.proof } : headers;
      const response = await call(path, { method, headers: proven, signal, ...rest });
      link.answered();
      return response;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof Unreachable) throw error;
      link.answered();
      if (error.status !== 401) throw error;
      // Another tab may have signed in anew: then this one's proof is of the session before.
      if (unsafe && session.known && !renewed) [renewed, session.known] = [true, null];
      else await session.wait();
    }
    signal?.throwIfAborted();
  }
}

/** Read from the API, however long the server is away; only `signal` and a `Problem` end it. */
export async function read(path, options = {}) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask(path, options);
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      await link.pause(error, tries, options.signal);
    }
  }
}

/** Send JSON and return the JSON that comes back. */
export async function sendJson(path, body, { headers = {}, ...rest } = {}) {
  return send(path, JSON.stringify(body), { headers: { ...headers, "Content-Type": "application/json" }, ...rest });
}

/** Send a body and return the JSON that comes back. */
export async function send(path, body, { method = "POST", headers = {}, signal } = {}) {
  const response = await ask(path, { method, headers, body, signal });
  return response.json();
}
