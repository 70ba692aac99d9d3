/** From what was dropped, pasted or chosen to the photos worth sending. */

import { PHOTO, addressesIn } from "./sources.js";
import { count } from "./words.js";

const order = new Intl.Collator("en", { numeric: true });

/** Read a drop: files, and everything in folders, whatever their depth; each as `{file, path}`. */
export async function droppedFiles(transfer) {
  // Entries and files are gone once the event is over, so all are taken before the first wait.
  const taken = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = await Promise.all(
    taken.map(({ entry, file }) => (entry?.isDirectory ? walk(entry, "") : [plain(file)])),
  );
  const folders = taken.filter(({ entry }) => entry?.isDirectory).map(({ entry }) => entry.name);
  const files = found.flat().filter(Boolean);
  return { files, title: folders.length === 1 && taken.length === 1 ? folders[0] : "" };
}

/** Take the files of a chosen folder, which browsers list in any order. */
export function folderFiles(list) {
  const files = [...list].map((file) => ({ file, path: file.webkitRelativePath.split("/").slice(1).join("/") }));
  files.sort((a, b) => order.compare(a.path, b.path));
  return { files, title: list[0]?.webkitRelativePath.split("/")[0] ?? "" };
}

/** Take single files. */
export function singleFiles(list) {
  return [...list].map(plain);
}

function plain(file) {
  return file && { file, path: file.name };
}

async function walk(folder, above) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    // Browsers hand out a folder in slices; an empty one is the end.
    const slice = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!slice.length) break;
    entries.push(...slice);
  }
  entries.sort((a, b) => order.compare(a.name, b.name));
  const found = await Promise.all(entries.map((entry) => inside(entry, above + entry.name)));
  return found.flat();
}

/** What an entry of a folder stands for: one file, or all those of a folder. */
async function inside(entry, path) {
  if (entry.isDirectory) return walk(entry, `${path}/`);
  return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path }];
}

/** Part photos from what clearly is none (texts, videos, hidden files) and from empty ones; the doubtful are sent. */
export function sortOut(files) {
  const photos = [];
  const others = [];
  const empty = [];
  for (const one of files) (isPhoto(one.file) ? (one.file.size ? photos : empty) : others).push(one);
  return { photos, others, empty };
}

function isPhoto({ name, type }) {
  if (name.startsWith(".")) return false;
  return PHOTO.test(name) || type.startsWith("image/") || (!type && !/\.[a-z0-9]{1,5}$/i.test(name));
}

/** A name for the job that its owner will recognise in the list. */
export function titleOf(photos, folder) {
  if (folder) return folder;
  const [first, ...rest] = photos.map(({ file }) => file.name);
  return rest.length ? `${first} and ${rest.length} more` : first;
}

/** The names of the first few files. */
export function listing(files) {
  const names = files.slice(0, 3).map(({ file }) => file.name);
  return files.length > 3 ? `${names.join(", ")} and ${count(files.length - 3, "other file")}` : names.join(", ");
}

/**
 * Take drops and pastes anywhere on the page.
 *
 * `show(whether)` follows a drag over the page, `reading()` says that folders are being read, `files(files, title)` takes
 * files, `addresses(lines)` takes addresses, `failed()` is called where the browser cannot read what was dropped.
 */
export function arrivals({ show, reading, files, addresses, failed }) {
  const carries = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  // The page's own links and pictures can be dragged, too.
  let own = false;
  addEventListener("dragstart", () => (own = true));
  addEventListener("dragend", () => (own = false));
  const named = ({ dataTransfer }) => !own && dataTransfer?.types.includes("text/uri-list");
  addEventListener("dragover", (event) => {
    if (!carries(event) && !named(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    show(true);
  });
  // Leaving the window, not one of its elements for another.
  addEventListener("dragleave", (event) => event.relatedTarget === null && show(false));
  addEventListener("drop", async (event) => {
    show(false);
    if (!carries(event) && !named(event)) return;
    event.preventDefault();
    if (!carries(event)) {
      addresses(addressesIn(event.dataTransfer.getData("text/uri-list")));
      return;
    }
    reading();
    try {
      const dropped = await droppedFiles(event.dataTransfer);
      files(dropped.files, dropped.title);
    } catch {
      failed();
    }
  });
  addEventListener("paste", (event) => pasted(event, files, addresses));
}

function pasted(event, files, addresses) {
  if (event.target.closest?.("input, textarea")) return;
  const { clipboardData } = event;
  const lines = addressesIn(clipboardData.getData("text/plain"));
  if (clipboardData.files.length) files(singleFiles(clipboardData.files), "");
  else if (lines.length) addresses(lines);
}
