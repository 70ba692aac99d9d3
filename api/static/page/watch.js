/** Following one job: by server-sent events, and by asking where those do not come through. */

import { read } from "./link.js";

const FINAL = new Set(["completed", "failed", "canceled"]);
const POLL_MS = 2000;
const HIDDEN_POLL_MS = 10_000;
// The first event comes at once. Where it does not, something between collects the stream.
const FIRST_MS = 5000;
// Then it is worth asking whether the connection is still one.
const QUIET_MS = 20_000;
// A stream that ends so soon was no help; for a while the page asks instead.
const SHORT_MS = 3000;
const WITHOUT_STREAM_MS = 30_000;

/** Whether nothing more happens to the job by itself. */
export function isOver(job) {
  return FINAL.has(job.status);
}

/** The path of a job in the API. */
export function jobPath(id) {
  return `/v1/jobs/${encodeURIComponent(id)}`;
}

/** Call `onJob` with the job at once and after every change, until it is over or `signal` says stop. */
export async function followJob(id, onJob, signal) {
  let latest = null;
  let version = null;
  let streamAgain = 0;
  const note = (job) => onJob((latest = job));
  for (;;) {
    const headers = version ? { "If-None-Match": version } : {};
    const response = await read(jobPath(id), { headers, signal });
    if (response.status === 200) {
      version = response.headers.get("ETag");
      note(await response.json());
      signal.throwIfAborted();
    }
    if (isOver(latest)) return;
    if (document.hidden || performance.now() < streamAgain) {
      await breathe(document.hidden ? HIDDEN_POLL_MS : POLL_MS, signal);
      continue;
    }
    const began = performance.now();
    await stream(id, note, signal);
    if (isOver(latest)) return;
    if (performance.now() - began < SHORT_MS) streamAgain = performance.now() + WITHOUT_STREAM_MS;
  }
}

/** Hand on events until the stream ends or falls silent; a hidden tab gives its connection to others. */
function stream(id, onJob, signal) {
  const source = new EventSource(`${jobPath(id)}/events`);
  const done = new AbortController();
  return new Promise((resolve, reject) => {
    let timer = 0;
    const end = () => {
      clearTimeout(timer);
      source.close();
      done.abort();
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const wait = (milliseconds) => {
      clearTimeout(timer);
      timer = setTimeout(end, milliseconds);
    };
    wait(FIRST_MS);
    const on = (target, kind, act) => target.addEventListener(kind, act, { signal: done.signal });
    on(source, "job", ({ data }) => {
      wait(QUIET_MS);
      const job = JSON.parse(data);
      onJob(job);
      if (isOver(job)) end();
    });
    on(source, "deleted", end);
    on(source, "error", end);
    on(document, "visibilitychange", end);
    on(window, "offline", end);
    on(signal, "abort", end);
  });
}

function breathe(milliseconds, signal) {
  const done = new AbortController();
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      done.abort();
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end, { signal: done.signal });
    document.addEventListener("visibilitychange", end, { signal: done.signal });
  });
}
