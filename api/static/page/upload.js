/** Sending photos as one new job. */

import { authorization, link, Problem, read, refusal, Unreachable } from "./link.js";

const BREAKS_WITH_SERVER_UP = 3;
const SENDING_BREAKS =
  "The sending broke off several times although the server is there. " +
  "Perhaps a photo was moved or changed after you chose it.";

/**
 * Send photos and return the job; `onProgress(sent, total)` counts bytes.
 *
 * A broken connection is mended by sending all of it again with the same idempotency key, so that the
 * server never makes two jobs of it.
 */
export async function sendPhotos(photos, title, onProgress, signal) {
  const headers = { "Idempotency-Key": randomKey() };
  for (let breaks = 0; ; breaks++) {
    const key = link.key;
    try {
      const job = await post(photos, title, { ...headers, ...authorization(key) }, onProgress, signal);
      link.answered();
      return job;
    } catch (error) {
      onProgress(0, 0);
      await recover(error, key, breaks, signal);
    }
  }
}

/** Do what makes another try sensible, or throw what ends the sending. */
async function recover(error, key, breaks, signal) {
  if (error.status === 401) return link.waitForKey(key);
  if (error.code === "idempotency_in_progress") return link.pause(new Unreachable("busy", error), 2, signal);
  if (!(error instanceof Unreachable)) throw error;
  if (breaks >= BREAKS_WITH_SERVER_UP) throw error.problem ?? new Problem(0, { detail: SENDING_BREAKS });
  await link.pause(error, breaks, signal);
  return read("/healthz", { signal });
}

function post(photos, title, headers, onProgress, signal) {
  const form = new FormData();
  form.append("job", JSON.stringify({ metadata: { title } }));
  for (const photo of photos) form.append("images", photo, photo.name);
  // fetch() cannot tell how much has been sent.
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    const stop = () => request.abort();
    signal.addEventListener("abort", stop, { once: true });
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("loadend", () => {
      signal.removeEventListener("abort", stop);
      settle(request, signal, resolve, reject);
    });
    request.open("POST", "/v1/jobs");
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.send(form);
  });
}

function settle(request, signal, resolve, reject) {
  const { status, response } = request;
  if (signal.aborted) reject(signal.reason);
  else if (status === 0) reject(new Unreachable("silent"));
  else if (status < 300) resolve(response);
  else reject(refusal(status, request.getResponseHeader("Retry-After"), response ?? {}));
}

/** Like crypto.randomUUID, which plain-http servers in the home network do not get from the browser. */
function randomKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
