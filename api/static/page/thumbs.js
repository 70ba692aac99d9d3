/** Small pictures of large photos, made by the browser off its main thread; only so many are kept. */

import { ask } from "./link.js";

const WIDTH_PX = 300;
const AT_ONCE = 4;
const KEPT_BYTES = 48 * 1024 * 1024;

/** Bitmaps by address, the longest unused first. */
const kept = new Map();
let keptBytes = 0;
let busy = 0;
const waiting = [];

/** Return a photo as a bitmap of about the width of a card; the newest wish is fulfilled first. */
export async function thumbnail(address, signal) {
  await turn(signal);
  try {
    signal.throwIfAborted();
    const found = kept.get(address);
    if (found) return keep(address, found);
    // Bytes that the browser has are as good: they are the job's own copy.
    const response = await ask(address, { signal, cache: "default" });
    const options = { resizeWidth: Math.round(WIDTH_PX * Math.min(devicePixelRatio, 2)), resizeQuality: "medium" };
    return keep(address, await createImageBitmap(await response.blob(), options));
  } finally {
    busy--;
    waiting.pop()?.();
  }
}

/** Wait for one of a few places. */
async function turn(signal) {
  while (busy >= AT_ONCE) {
    await new Promise((resolve) => waiting.push(resolve));
    if (signal.aborted) waiting.pop()?.();
    signal.throwIfAborted();
  }
  busy++;
}

function keep(address, bitmap) {
  if (kept.delete(address)) keptBytes -= size(bitmap);
  kept.set(address, bitmap);
  keptBytes += size(bitmap);
  for (const [oldest, unused] of kept) {
    if (keptBytes <= KEPT_BYTES || unused === bitmap) break;
    kept.delete(oldest);
    keptBytes -= size(unused);
    unused.close();
  }
  return bitmap;
}

function size({ width, height }) {
  return width * height * 4;
}
