/** From addresses that somebody typed or pasted to a job's sources. */

/** What a photo's name ends with, here as on the server. */
export const PHOTO = /\.(jpg|jpeg|jpe|jfif|png|apng|gif|bmp|dib|tif|tiff|webp|avif|heic|heif|hif)$/i;
const LIST = /\.(csv|ndjson|jsonl)$/i;
const ADDRESS = /^(https?:\/\/[^\s/]+\S*|s3:\/\/[a-z0-9][a-z0-9.-]+[a-z0-9]\/\S*)$/;

/** The addresses in a text, if it is nothing else; for what was pasted anywhere on the page. */
export function addressesIn(text) {
  const lines = linesOf(text);
  return lines.length && lines.every((line) => ADDRESS.test(line)) ? lines : [];
}

/** Return `{body, title}` for a job of these addresses, or `{problem}` in words. */
export function jobOf(text) {
  const lines = linesOf(text);
  if (!lines.length) return { problem: "Please give at least one address." };
  const wrong = lines.find((line) => !/^(https?|s3):\/\/\S/.test(line));
  if (wrong) return { problem: `“${wrong}” is not an address that begins with https://, http:// or s3://.` };
  const [first, ...rest] = lines;
  if (!rest.length && isPrefix(first)) return { body: { s3_prefix: asFolder(first) }, title: first };
  if (!rest.length && isList(first)) return { body: { manifest: first }, title: nameOf(first) };
  const folder = lines.find(isPrefix);
  if (folder) return { problem: `“${folder}” is a folder: it makes a job of its own, without further addresses.` };
  const images = lines.map((line) => (line.startsWith("s3:") ? { s3_uri: line } : { url: line }));
  return { body: { images }, title: rest.length ? `${nameOf(first)} and ${rest.length} more` : nameOf(first) };
}

function linesOf(text) {
  return [
    ...new Set(
      text
        .split(/[\r\n]+/)
        .map((line) => line.trim())
        .filter(Boolean),
    ),
  ];
}

function isPrefix(line) {
  return line.startsWith("s3:") && (line.endsWith("/") || (!PHOTO.test(line) && !LIST.test(line)));
}

/** Without the slash its neighbours would come along: `2024-old/` with `2024`. */
function asFolder(line) {
  return line.endsWith("/") ? line : `${line}/`;
}

function isList(line) {
  return line.startsWith("s3:") && LIST.test(line);
}

function nameOf(address) {
  const [path] = address.split(/[?#]/);
  return path.split("/").filter(Boolean).at(-1) ?? address;
}
