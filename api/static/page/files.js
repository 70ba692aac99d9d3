/** From what was dropped or chosen to the photos worth sending. */

const PHOTO = /\.(jpe?g|jfif|png|webp|gif|apng|bmp|tiff?|avif|hei[cf])$/i;
const order = new Intl.Collator("en", { numeric: true });

/** Read a drop: files, and everything in folders, whatever their depth. */
export async function droppedFiles(transfer) {
  // Entries and files are gone once the event is over, so all are taken before the first wait.
  const taken = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = await Promise.all(taken.map(({ entry, file }) => (entry?.isDirectory ? walk(entry) : [file])));
  const folders = taken.filter(({ entry }) => entry?.isDirectory).map(({ entry }) => entry.name);
  const files = found.flat().filter(Boolean);
  return { files, title: folders.length === 1 && taken.length === 1 ? folders[0] : "" };
}

/** Take the files of a chosen folder, which browsers list in any order. */
export function folderFiles(list) {
  const files = [...list].sort((a, b) => order.compare(a.webkitRelativePath, b.webkitRelativePath));
  return { files, title: files[0]?.webkitRelativePath.split("/")[0] ?? "" };
}

async function walk(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    // Browsers hand out a folder in slices; an empty one is the end.
    const slice = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!slice.length) break;
    entries.push(...slice);
  }
  entries.sort((a, b) => order.compare(a.name, b.name));
  const found = [];
  for (const entry of entries) {
    if (entry.isDirectory) found.push(...(await walk(entry)));
    else found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  }
  return found;
}

/** Part photos from what clearly is none (texts, videos, hidden files); the doubtful are sent. */
export function sortOut(files) {
  const photos = [];
  const others = [];
  for (const file of files) (isPhoto(file) ? photos : others).push(file);
  return { photos, others };
}

function isPhoto({ name, type }) {
  if (name.startsWith(".")) return false;
  return PHOTO.test(name) || type.startsWith("image/") || (!type && !/\.[a-z0-9]{1,5}$/i.test(name));
}

/** A name for the job that its owner will recognise in the list. */
export function titleOf(photos, folder) {
  if (folder) return folder;
  const [first, ...rest] = photos.map((photo) => photo.name);
  return rest.length ? `${first} and ${rest.length} more` : first;
}
