/** Everything the page says that depends on a code, a number or a time. */

const number = new Intl.NumberFormat("en");
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Why one photo has no caption, by the code on its item. */
export const ITEM_REASONS = {
  object_not_found: "The photo is no longer where the job found it.",
  access_denied: "The service is not allowed to read this photo.",
  url_forbidden: "The service does not fetch from this address, which is not a public one.",
  download_failed: "The photo could not be fetched from where it lies.",
  unsupported_format: "This file is not an image of a kind that can be read here.",
  image_corrupt: "The file is damaged or incomplete.",
  image_too_large: "The photo is larger than this service accepts.",
  caption_failed: "The model found no usable words for this photo.",
  model_out_of_memory: "The photo needs more memory than the model has.",
  worker_crashed: "This photo made the captioning program stop.",
  timeout: "Reading this photo took too long.",
};

/** Why a request was refused, by the problem's code. */
export const PROBLEM_REASONS = {
  invalid_request: "The server did not understand the request.",
  model_not_available: "The model that was asked for is not available here.",
  upload_incomplete: "Not all photos arrived. Please send them again.",
  unauthorized: "The API key was not accepted.",
  forbidden: "The server does not allow this.",
  not_found: "There is nothing at this address.",
  job_not_found: "This job does not exist, or it has been deleted.",
  method_not_allowed: "The server does not offer this.",
  not_acceptable: "This server cannot write that format. Whoever runs it can add what is missing: pyarrow.",
  idempotency_conflict: "These photos were already sent, but with other contents. Please start over.",
  idempotency_in_progress: "These photos are being received already.",
  job_state_conflict: "That is not possible in the present state of the job.",
  job_not_finished: "The job has not finished yet.",
  upload_too_large: "One of the files, or all of them together, is larger than the server accepts.",
  too_many_images: "That is more photos than one job may hold.",
  unsupported_media_type: "The server does not accept this kind of data.",
  rate_limited: "That was too much at once. Please wait a little and try again.",
  quota_exceeded: "Your share of this service is used up for now.",
  internal_error: "Something went wrong on the server. Its log says more.",
  storage_unavailable: "The server cannot reach its storage for the moment.",
  database_unavailable: "The server cannot reach its database for the moment.",
  broker_unavailable: "The server cannot reach its workers for the moment.",
};

// Codes with many reasons: the server's sentence says which one it is.
const TELLING = new Set(["invalid_request", "forbidden", "quota_exceeded"]);

export const STATUS_WORDS = {
  preparing: "Getting ready",
  queued: "Waiting to start",
  running: "Captioning",
  completed: "Finished",
  failed: "Failed",
  canceling: "Stopping",
  canceled: "Stopped",
};

/** Say why an item failed. */
export function itemReason(error) {
  return ITEM_REASONS[error.code] || error.message || "The photo could not be captioned.";
}

/** Say why a request failed, with the server's own sentence when it adds something. */
export function problemReason(problem) {
  const words = PROBLEM_REASONS[problem.code];
  if (!words) return problem.message;
  return TELLING.has(problem.code) ? `${words} It says: ${problem.message}` : words;
}

/** One line on the state of a job. */
export function progressLine({ status, counts, eta_seconds: eta, images_per_second: speed }) {
  const running = status === "running";
  const parts = [
    STATUS_WORDS[status] ?? status,
    counts.total && `${figure(counts.succeeded)} of ${count(counts.total)}${running ? "" : " captioned"}`,
    counts.failed && `${figure(counts.failed)} failed`,
    status === "canceled" && counts.canceled && `${figure(counts.canceled)} left out`,
    running && eta && `${span(eta)} left`,
    running && speed && `${rate(speed)} a second`,
  ];
  return parts.filter(Boolean).join(" · ");
}

/** The job's name: the one this page gave it, else what is known of it. */
export function jobTitle({ metadata, counts }) {
  return typeof metadata.title === "string" && metadata.title ? metadata.title : count(counts.total);
}

/** A number with its noun: "1 photo", "2,000 photos". */
export function count(amount, noun = "photo") {
  return `${number.format(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

/** A plain number with thousands set apart. */
export function figure(amount) {
  return number.format(amount);
}

/** A rate that stays readable: "0.4", "12", "1,200". */
export function rate(perSecond) {
  return number.format(perSecond < 10 ? Math.round(perSecond * 10) / 10 : Math.round(perSecond));
}

/** Bytes as people read them. */
export function bytes(amount) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; amount >= 1000 && unit < units.length - 1; unit++) amount /= 1000;
  return `${number.format(amount < 10 && unit ? Math.round(amount * 10) / 10 : Math.round(amount))} ${units[unit]}`;
}

/** A span of seconds, roughly. */
export function span(seconds) {
  if (seconds < 10) return "a few seconds";
  if (seconds < 90) return `about ${Math.round(seconds)} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${number.format(Math.round(seconds / 360) / 10)} h`;
}

/** How sure the model is of a caption: the mean probability of its words, from the mean of their logarithms. */
export function sureness(score) {
  return `${Math.round(Math.exp(score) * 100)} %`;
}

/** Sides of a photo in pixels. */
export function sides({ width, height }) {
  return width && height ? `${width} × ${height}` : "";
}

/** A moment in the reader's own time zone. */
export function when(iso) {
  return moment.format(new Date(iso));
}
