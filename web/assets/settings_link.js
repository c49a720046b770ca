// The link that holds the settings of the live dream: what differs from the server's, in the fragment of the address.

import strings from "./strings.js";

const LINK_PREFIX = "#dream?";
const COPIED_MS = 2000;

// ``values``: those that differ.
export function linkFragment(values) {
  return Object.keys(values).length ? LINK_PREFIX + new URLSearchParams(values) : "";
}

export function writeLink(hash) {
  history.replaceState(history.state, "", location.pathname + location.search + hash);
}

// The values in the address, as text by name; null if it holds none.
export function readLink() {
  if (!location.hash.startsWith(LINK_PREFIX)) return null;
  return Object.fromEntries(new URLSearchParams(location.hash.slice(LINK_PREFIX.length)));
}

// Copy the link with these values, and say so on the button.
export async function copyLink(values, button) {
  try {
    await navigator.clipboard.writeText(location.origin + location.pathname + linkFragment(values));
    button.dataset.done = strings.panel.copied;
  } catch {
    button.dataset.done = strings.panel.not_copied;
  }
  setTimeout(() => delete button.dataset.done, COPIED_MS);
}
