/** Alternative texts for web pages, and the code to paste. */

/** What screen readers read at a stretch; many guidelines name it. */
export const ALT_LENGTH = 125;

const HTML = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** The text that stands for an image: the edited caption or else the model's own. */
export function shownCaption(item) {
  return item.edited_caption ?? item.caption ?? "";
}

/** A caption as an alternative text: one line, a capital first, cut between words after 125 characters. */
export function altText(caption) {
  const line = caption.replace(/\s+/gu, " ").trim();
  const letters = Array.from(line.charAt(0).toUpperCase() + line.slice(1));
  if (letters.length <= ALT_LENGTH) return letters.join("");
  const cut = letters.slice(0, ALT_LENGTH - 1).join("");
  const lastWord = cut.search(/\s\S*$/u);
  return `${(lastWord > ALT_LENGTH / 2 ? cut.slice(0, lastWord) : cut).replace(/[\s,;:.–—-]+$/u, "")}…`;
}

/** Length in characters as people count them. */
export function lengthOf(text) {
  return Array.from(text).length;
}

/** Where a page would find the image: its path if it was sent with a folder, or its own address. */
export function addressOf({ name, custom_id: id, source }) {
  if (/^https?:/.test(source)) return source;
  const path = id === name || id.endsWith(`/${name}`) ? id : name;
  return path.split("/").map(encoded).join("/");
}

function encoded(part) {
  return encodeURIComponent(part.toWellFormed()).replace(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

const FORMS = {
  text: (alt) => alt,
  html: (alt, address) => `<img src="${escaped(address)}" alt="${escaped(alt)}">`,
  markdown: (alt, address) => `![${plain(alt)}](<${address.replace(/[<>\\]/g, encodeURIComponent)}>)`,
};

/** The code of an item's image in one form: "text", "html" or "markdown". */
export function snippet(item, form) {
  return FORMS[form](altText(shownCaption(item)), addressOf(item));
}

function escaped(text) {
  return text.replace(/[&<>"']/g, (sign) => HTML[sign]);
}

/** Take every sign for itself that Markdown would take for something else. */
function plain(text) {
  return text.replace(/[\\`*_{}[\]()<>#+!|~&$]/g, "\\$&");
}
