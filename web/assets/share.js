// Saves what the visitor has made, and offers it to the system's dialog for sharing where the browser can.

import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.share;
const SAVED_MS = 2000, OFFER_MS = 12_000, MESSAGE_MS = 5000;
const REVOKE_MS = 10_000;

export function save(blob, suffix, toast) {
  const name = `streamdream-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.${suffix}`;
  download(blob, name);
  const files = [new File([blob], name, { type: blob.type })], saved = fill(WORDS.saved, { name });
  if (!navigator.canShare?.({ files })) toast.show(saved, SAVED_MS);
  else toast.show(saved, OFFER_MS, { label: WORDS.share, run: () => share({ files }, toast) });
}

// ``data``: what navigator.share takes. Call this when the visitor clicks.
export async function share(data, toast) {
  try {
    await navigator.share(data);
  } catch (error) {
    if (error.name !== "AbortError") toast.show(WORDS.failed, MESSAGE_MS);   // else the visitor has closed the dialog
  }
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_MS);
}
