/** What is on its way to the server: each drop becomes one job, one after the other. */

import { OPTION_NAMES } from "./options.js";
import { makeJob, parcel, randomKey, Upload } from "./upload.js";

const TOLD_EVERY_MS = 150;
const SPEED_OVER_MS = 6000;

/** One job to be: photos that are sent first, or addresses that are only named. */
class Sending {
  /** "waiting", "sending", "asking" (some photos were lost), "making" the job, or "broken" (by `problem`). */
  state = "waiting";
  problem = null;
  parcels;
  title;
  #body;
  #key = randomKey();
  #samples = [];

  constructor(title, body, parcels = []) {
    this.title = title;
    this.#body = body;
    this.parcels = parcels;
    this.total = parcels.reduce((sum, { file }) => sum + file.size, 0);
  }

  /** The job's request, with the photos that arrived. */
  get request() {
    if (!this.parcels.length) return this.#body;
    const sent = this.parcels.filter(({ state }) => state === "sent");
    return { ...this.#body, images: sent.map(({ id, path }) => ({ upload_id: id, custom_id: path })) };
  }

  get key() {
    return this.#key;
  }

  get bytesSent() {
    return this.parcels.reduce((sum, { sent }) => sum + sent, 0);
  }

  get lost() {
    return this.parcels.filter(({ state }) => state === "lost");
  }

  get photosSent() {
    return this.parcels.filter(({ state }) => state === "sent").length;
  }

  /** Bytes a second over the last few seconds; null while that is not known. */
  get speed() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const seconds = first && (last.at - first.at) / 1000;
    return seconds > 0.9 ? Math.max(0, (last.bytes - first.bytes) / seconds) : null;
  }

  /** Note how far it is, for the speed. */
  measure() {
    const at = performance.now();
    this.#samples.push({ at, bytes: this.bytesSent });
    while (this.#samples[0].at < at - SPEED_OVER_MS) this.#samples.shift();
  }

  /** Let lost photos, or all that did not arrive, be sent again, as what may become another request. */
  again() {
    for (const one of this.parcels) if (one.state !== "sent") Object.assign(one, { state: "waiting", target: null });
    this.#key = randomKey();
    this.#samples = [];
    this.state = "waiting";
    this.problem = null;
  }
}

export class Outbox {
  /** The first one is under way, or asks what to do. */
  sendings = [];
  #onChange;
  #onJob;
  #abort = null;
  #told = 0;

  constructor(onChange, onJob) {
    this.#onChange = onChange;
    this.#onJob = onJob;
    addEventListener("beforeunload", (event) => {
      if (this.sendings.length) event.preventDefault();
    });
  }

  /** Send photos, `{file, path}` each, as a job of that title. */
  addPhotos(photos, title, options) {
    const body = { options, metadata: { title, sent_from: "page" } };
    this.#add(
      new Sending(
        title,
        body,
        photos.map(({ file, path }) => parcel(file, path)),
      ),
    );
  }

  /** Make a job of what lies elsewhere. */
  addSources(body, title, options) {
    this.#add(new Sending(title, { ...body, options, metadata: { title } }));
  }

  /** Send again what did not arrive. */
  again() {
    this.sendings[0].again();
    this.#next();
  }

  /** Make the job of those photos that arrived. */
  goOn() {
    this.#work(this.sendings[0], (sending, signal) => this.#make(sending, signal));
  }

  /** Give up one; what of it has arrived is removed by the server after a day. */
  drop(sending) {
    const first = sending === this.sendings[0];
    this.sendings = this.sendings.filter((one) => one !== sending);
    if (first) {
      this.#abort?.abort();
      this.#next();
    }
    this.#onChange();
  }

  #add(sending) {
    this.sendings.push(sending);
    if (this.sendings.length === 1) this.#next();
    this.#onChange();
  }

  #next() {
    const [sending] = this.sendings;
    if (sending) this.#work(sending, (one, signal) => this.#send(one, signal));
  }

  async #work(sending, act) {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      await act(sending, signal);
    } catch (error) {
      if (signal.aborted) return;
      // The other lanes shall not go on without it.
      this.#abort.abort();
      Object.assign(sending, { state: "broken", problem: error });
    }
    this.#onChange();
  }

  async #send(sending, signal) {
    sending.state = "sending";
    this.#onChange();
    const upload = new Upload(sending.parcels, () => this.#progress(sending), signal);
    await upload.run();
    signal.throwIfAborted();
    if (sending.lost.length) sending.state = "asking";
    else await this.#make(sending, signal);
  }

  async #make(sending, signal) {
    sending.state = "making";
    this.#onChange();
    const job = await makeJob(sending.request, sending.key, signal);
    this.sendings = this.sendings.filter((one) => one !== sending);
    this.#onJob(job);
    this.#next();
  }

  #progress(sending) {
    if (performance.now() - this.#told < TOLD_EVERY_MS) return;
    this.#told = performance.now();
    sending.measure();
    this.#onChange();
  }
}

/** Whether a job was made with options of its own. */
export function chosenOptions({ options }) {
  return OPTION_NAMES.filter((name) => options[name] !== null && options[name] !== undefined);
}
