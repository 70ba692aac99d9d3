/** What the tabs of one browser tell each other, so that none shows what is no longer so. */

const channel = "BroadcastChannel" in window ? new BroadcastChannel("captionfleet") : null;

/** Tell the other tabs that a job was changed here. */
export function tellTabs(jobId) {
  channel?.postMessage({ jobId });
}

/** Call `act` with the id of each job that another tab has changed, until `signal` says stop. */
export function onOtherTabs(act, signal) {
  channel?.addEventListener("message", ({ data }) => act(data.jobId), { signal });
}
