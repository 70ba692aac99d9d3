/** The link to the API: the key, one shape for errors, and patience while the server is away. */

const KEY = "captionfleet.key";
const PATIENCE_MS = 40_000;
const BUSY = new Set([429, 502, 503, 504]);

/** The API refused a request: `code` is stable, `message` the server's own sentence, `after` in seconds. */
export class Problem extends Error {
  constructor(status, body, after = 0) {
    super(body.detail || body.title || `The server answered with status ${status}.`);
    this.status = status;
    this.code = body.code || "";
    this.after = after;
  }
}

/** Nobody answered ("silent"), or the answer was "not now" ("busy", with the `problem` it came with). */
export class Unreachable extends Error {
  constructor(reason, problem = null) {
    super(reason);
    this.problem = problem;
    this.after = problem?.after ?? 0;
  }
}

/** What the page shows about the link; a "change" event follows every change, "back" every return. */
class Link extends EventTarget {
  /** null, "silent" (nobody answers) or "busy" (the server said: not now). */
  trouble = null;
  /** null, "missing" or "refused": whether an API key is asked for, and why. */
  keyWanted = null;
  #signedIn = null;
  #wake = new Set();

  get key() {
    return sessionStorage.getItem(KEY);
  }

  /** Keep a key for this tab and let everything that waited for one go on. */
  signIn(key) {
    sessionStorage.setItem(KEY, key);
    this.keyWanted = null;
    this.#changed();
    this.#signedIn?.resolve();
    this.#signedIn = null;
  }

  /** Forget the key, and with it everything the page shows. */
  signOut() {
    sessionStorage.removeItem(KEY);
    location.reload();
  }

  /** Ask for a key and wait for it; `used` is the one that was refused, if any. */
  async waitForKey(used) {
    if (used !== this.key) return;
    this.keyWanted = used ? "refused" : "missing";
    this.#signedIn ??= Promise.withResolvers();
    this.#changed();
    await this.#signedIn.promise;
  }

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
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const link = new Link();
addEventListener("online", () => link.retryNow());

/** Headers that prove who asks. */
export function authorization(key = link.key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Return the error that a refusing answer means: `Unreachable` for "not now", else a `Problem`. */
export function refusal(status, retryAfter, body) {
  const problem = new Problem(status, body, Number(retryAfter) || 0);
  return BUSY.has(status) ? new Unreachable("busy", problem) : problem;
}

/** Send one request and return the answer; asks for a key when the API wants one. */
export async function ask(path, { method = "GET", headers = {}, signal } = {}) {
  for (;;) {
    const key = link.key;
    const response = await once(path, { method, headers: { ...headers, ...authorization(key) }, signal });
    const fine = response.ok || response.status === 304;
    const body = fine ? null : await response.json().catch(() => ({}));
    const error = fine ? null : refusal(response.status, response.headers.get("Retry-After"), body);
    if (error instanceof Unreachable) throw error;
    link.answered();
    if (fine) return response;
    if (error.status !== 401) throw error;
    await link.waitForKey(key);
    signal?.throwIfAborted();
  }
}

/**
 * Read from the API, however long the server is away; only `signal` and a `Problem` end it.
 *
 * After a failure `again` is asked instead, if given: what is answered at once shows that the server is back.
 */
export async function read(path, { again = path, ...options } = {}) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask(tries ? again : path, options);
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      await link.pause(error, tries, options.signal);
    }
  }
}

async function once(path, { method, headers, signal }) {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const either = signal ? AbortSignal.any([signal, limit]) : limit;
  try {
    return await fetch(path, { method, headers, signal: either, cache: "no-store" });
  } catch {
    signal?.throwIfAborted();
    throw new Unreachable("silent");
  }
}
