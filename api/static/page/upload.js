/** Photos on their way into the object store: a few at a time, each tried again by itself. */

import { Problem, Unreachable } from "./calls.js";
import { ask, link, read, send, sendJson } from "./link.js";

const LANES = 4;
const ANNOUNCED_AT_ONCE = 50;
const MOST_TRIES = 4;
// Without a byte for so long the connection is taken for dead.
const STALLED_MS = 45_000;
const ADDRESSES_AGAIN = 2;
// So many in a row are not the photos' own fault.
const MOST_LOST = 8;
const CLOSED =
  "The storage takes no photos from this page. If that goes on, whoever runs the server has to let this page's " +
  "address into the bucket (CORS).";
// "Not now" is no fault of the photo's.
const BUSY = new Set([429, 503]);
// What the server reads of a JSON request; a longer list goes as lines, which it reads one by one.
const JSON_BYTES = 8 * 1024 * 1024;
const TYPE = /^image\/[a-zA-Z0-9.+-]{1,100}$/;

/** Why a photo could not be sent. */
export const LOST_REASONS = {
  too_large: "larger than the server accepts",
  changed: "moved, changed or not readable",
  refused: "not taken by the storage",
  broken: "the sending broke off several times",
};

// As long as the API takes names.
const LONGEST_NAME = 1024;

/**
 * One photo; `path` is its name, with folders where there are any. `state` is "waiting", "sending", "sent" or "lost"
 * (`reason` says why), `sent` the bytes that are there, `id` what a job names it by.
 */
export function parcel(file, path) {
  const name = path.toWellFormed().slice(-LONGEST_NAME);
  return { file, path: name, state: "waiting", sent: 0, id: null, reason: "", target: null };
}

/** Sends parcels; `onProgress()` follows every change of them. */
export class Upload {
  #parcels;
  #onProgress;
  #signal;
  #announcing = null;
  #lostInARow = 0;

  constructor(parcels, onProgress, signal) {
    this.#parcels = parcels;
    this.#onProgress = onProgress;
    this.#signal = signal;
  }

  /** Send all that wait; ends when each is sent or lost, or with the `Problem` that concerns all of them. */
  async run() {
    const lanes = Array.from({ length: LANES }, () => this.#lane());
    await Promise.all(lanes);
  }

  async #lane() {
    for (let next; (next = this.#parcels.find(({ state }) => state === "waiting"));) {
      this.#change(next, { state: "sending" });
      if (!next.target) await this.#address(next);
      if (next.state === "sending") await this.#send(next);
    }
  }

  /** Get addresses for a parcel and for the next ones. */
  async #address(wanted) {
    while (!wanted.target && wanted.state === "sending") {
      this.#announcing ??= this.#announceNext(wanted).finally(() => (this.#announcing = null));
      await this.#announcing;
    }
  }

  async #announceNext(wanted) {
    const others = this.#parcels.filter(({ state, target }) => state === "waiting" && !target);
    await this.#announce([wanted, ...others.slice(0, ANNOUNCED_AT_ONCE - 1)]);
  }

  async #announce(parcels) {
    const files = parcels.map(({ file }) => ({
      name: file.name.toWellFormed(),
      content_type: typeOf(file),
      size: file.size,
    }));
    try {
      const { data } = await patiently((signal) => sendJson("/v1/uploads", { files }, { signal }), this.#signal);
      parcels.forEach((one, number) => (one.target = data[number]));
    } catch (error) {
      if (error.code !== "upload_too_large") throw error;
      if (parcels.length === 1) return this.#lose(parcels[0], "too_large");
      // One of them is too large: halves find out which.
      const half = Math.ceil(parcels.length / 2);
      await this.#announce(parcels.slice(0, half));
      await this.#announce(parcels.slice(half));
    }
    return undefined;
  }

  async #send(one) {
    for (let tries = 1, addresses = 1; ;) {
      const status = await put(one, () => this.#onProgress(), this.#signal);
      if (status === 200 || status === 204) return this.#arrived(one);
      this.#change(one, { sent: 0 });
      if (status === 403 || status === 404) {
        // Too old an address, perhaps; a new one may do.
        if (addresses++ > ADDRESSES_AGAIN) return this.#lose(one, "refused");
        one.target = null;
        await this.#address(one);
        if (one.state !== "sending") return undefined;
      } else if (!(await isReadable(one.file))) {
        return this.#lose(one, "changed");
      } else if ((await this.#serverIsThere(status, tries)) && !BUSY.has(status)) {
        if (++tries > MOST_TRIES) return this.#lose(one, status ? "refused" : "broken");
      }
    }
  }

  /** Wait until the server answers; whether it did so at once, so that the try counts as the photo's own. */
  async #serverIsThere(status, tries) {
    try {
      await ask("/healthz", { signal: this.#signal });
      await link.pause(status ? new Unreachable("busy") : new Unreachable("silent"), tries - 1, this.#signal);
      link.answered();
      return true;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      await link.pause(error, 0, this.#signal);
      await read("/healthz", { signal: this.#signal });
      return false;
    }
  }

  #arrived(one) {
    link.answered();
    this.#lostInARow = 0;
    this.#change(one, { state: "sent", sent: one.file.size, id: one.target.id });
  }

  #lose(one, reason) {
    this.#change(one, { state: "lost", sent: 0, reason, target: null });
    if (reason !== "refused" && reason !== "broken") return;
    if (++this.#lostInARow >= MOST_LOST) throw new Problem(0, { detail: CLOSED });
  }

  #change(one, values) {
    Object.assign(one, values);
    this.#onProgress();
  }
}

/** Make one job of sent parcels, or of whatever else `body` names; a repeated call makes no second one. */
export async function makeJob(body, key, signal) {
  const { path, type, text } = jobRequest(body);
  const headers = { "Idempotency-Key": key, "Content-Type": type };
  return patiently((within) => send(path, text, { headers, signal: within }), signal);
}

/** Metadata has no place beside lines: a job of that many photos goes by their number instead of its title. */
function jobRequest(body) {
  const json = new Blob([JSON.stringify(body)]);
  if (json.size <= JSON_BYTES || !body.images) return { path: "/v1/jobs", type: "application/json", text: json };
  const lines = body.images.map((image) => `${JSON.stringify(image)}\n`);
  const path = `/v1/jobs?${new URLSearchParams(body.options)}`;
  return { path, type: "application/x-ndjson", text: new Blob(lines) };
}

/** Like crypto.randomUUID, which plain-http servers in the home network do not get from the browser. */
export function randomKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Do something that may be done again, until the server answers. */
async function patiently(act, signal) {
  for (let tries = 0; ; tries++) {
    try {
      return await act(signal);
    } catch (error) {
      const busy = error.code === "idempotency_in_progress" ? new Unreachable("busy", error) : error;
      if (!(busy instanceof Unreachable)) throw error;
      await link.pause(busy, tries, signal);
    }
  }
}

function typeOf(file) {
  return TYPE.test(file.type) ? file.type : "application/octet-stream";
}

async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** PUT a file and return the status, 0 where there was no answer; fetch() cannot tell how much has been sent. */
function put(one, onProgress, signal) {
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    const stop = () => request.abort();
    let stalled = setTimeout(stop, STALLED_MS);
    signal.addEventListener("abort", stop, { once: true });
    request.upload.addEventListener("progress", ({ loaded }) => {
      clearTimeout(stalled);
      stalled = setTimeout(stop, STALLED_MS);
      one.sent = Math.min(loaded, one.file.size);
      onProgress();
    });
    request.addEventListener("loadend", () => {
      clearTimeout(stalled);
      signal.removeEventListener("abort", stop);
      if (signal.aborted) reject(signal.reason);
      else resolve(request.status);
    });
    request.open("PUT", addressOf(one.target.url));
    for (const [name, value] of Object.entries(one.target.headers)) request.setRequestHeader(name, value);
    request.send(one.file);
  });
}

/** An address on this very server, as the browser knows the server: not every proxy says that it ends HTTPS. */
function addressOf(url) {
  const { host, pathname, search } = new URL(url);
  return host === location.host && pathname.startsWith("/v1/uploads/") ? pathname + search : url;
}
