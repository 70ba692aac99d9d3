/** Following one job. */

import { read } from "./link.js";

const WAIT_S = 20;
const BREATH_MS = 400;
const LONGEST_PAUSE_S = 5;
const FINAL = new Set(["completed", "failed", "canceled"]);

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
  let version = null;
  for (;;) {
    const started = performance.now();
    const response = await read(version ? `${jobPath(id)}?wait=${WAIT_S}` : jobPath(id), {
      again: jobPath(id),
      headers: version ? { "If-None-Match": version } : {},
      signal,
    });
    if (response.status === 200) {
      const job = await response.json();
      signal.throwIfAborted();
      version = response.headers.get("ETag");
      onJob(job);
      if (isOver(job)) return;
    }
    // A server with too many waiting readers answers at once and says when to come again.
    const atOnce = response.status === 304 && performance.now() - started < 1000;
    const asked = atOnce ? Math.min(Number(response.headers.get("Retry-After")) || 2, LONGEST_PAUSE_S) : 0;
    await breathe(Math.max(asked * 1000, BREATH_MS), signal);
  }
}

function breathe(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
