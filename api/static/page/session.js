/** Who is signed in. The server keeps the key behind a cookie that no script can read. */

import { call, Unreachable } from "./calls.js";

const PATH = "/v1/session";

/** A "change" event follows every change. */
class Session extends EventTarget {
  /** What the server said: `owner`, `scopes` and, where a key was shown, `csrf_token`. */
  known = null;
  /** Whether a key is asked for: null, "missing", "refused" (the key) or "silent" (the server). */
  wanted = null;
  #opened = null;

  /** What unsafe calls send to prove that this page makes them. */
  get proof() {
    const token = this.known?.csrf_token;
    return token ? { "X-CSRF-Token": token } : {};
  }

  /** Whether there is something to sign out of. */
  get canEnd() {
    return Boolean(this.known?.csrf_token);
  }

  /** Whether jobs may be made and changed; true while that is not known. */
  get maySubmit() {
    return this.known?.scopes.includes("submit") ?? true;
  }

  /** Ask the server who this is. */
  async load(signal) {
    const response = await call(PATH, { signal });
    this.learn(await response.json());
  }

  /** Ask for a key, and wait until the server has taken one. */
  async wait() {
    this.known = null;
    this.wanted ??= "missing";
    this.#opened ??= Promise.withResolvers();
    this.#changed();
    await this.#opened.promise;
  }

  /** Show the server a key; from then on a cookie stands for it. */
  async open(key) {
    const headers = { "Content-Type": "application/json" };
    try {
      const response = await call(PATH, { method: "POST", headers, body: JSON.stringify({ key }) });
      this.wanted = null;
      this.learn(await response.json());
      this.#opened?.resolve();
      this.#opened = null;
    } catch (error) {
      this.wanted = error instanceof Unreachable ? "silent" : "refused";
      this.#changed();
    }
  }

  /** End the session, and forget everything the page shows. */
  async end() {
    try {
      await this.#endHere();
    } catch (error) {
      // One that has ended already is as good.
      if (error.status !== 401) throw error;
    }
    location.hash = "#/";
    location.reload();
  }

  /** Another tab may have signed in anew: then the proof is of the session before, and is learnt once more. */
  async #endHere() {
    try {
      await call(PATH, { method: "DELETE", headers: this.proof });
    } catch (error) {
      if (error.status !== 401) throw error;
      await this.load();
      await call(PATH, { method: "DELETE", headers: this.proof });
    }
  }

  /** Note what the server said of the session. */
  learn(known) {
    this.known = known;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const session = new Session();
