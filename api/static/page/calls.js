/** One request to the API and one shape for every way it can fail. */

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

/** Return the error that a refusing answer means: `Unreachable` for "not now", else a `Problem`. */
export function refusal(status, retryAfter, body) {
  const problem = new Problem(status, body, Number(retryAfter) || 0);
  // A quota is used up for hours: nothing to wait for with the photos in hand.
  return BUSY.has(status) && problem.code !== "quota_exceeded" ? new Unreachable("busy", problem) : problem;
}

/** Send one request; an answer that is no success is thrown as `Problem` or `Unreachable`. */
export async function call(path, { method = "GET", headers = {}, body = null, cache = "no-store", signal } = {}) {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const either = signal ? AbortSignal.any([signal, limit]) : limit;
  let response;
  try {
    response = await fetch(path, { method, headers, body, cache, signal: either });
  } catch {
    signal?.throwIfAborted();
    throw new Unreachable("silent");
  }
  if (response.ok || response.status === 304) return response;
  const said = await response.json().catch(() => ({}));
  throw refusal(response.status, response.headers.get("Retry-After"), said);
}
