// Looks that a visitor keeps in the browser's storage: {id, name, values, picture}, shared by the panels of all tabs.

import { readOption } from "./stored_options.js";

export const MAX_LOOKS = 24, MAX_NAME = 40;
const KEY = "own-looks";
const PICTURE = /^data:image\/(jpeg|webp);base64,[A-Za-z0-9+/=]{1,40000}$/;
const MAX_VALUES = 64, MAX_CHARACTERS = 1000;
const CHANGE = "streamdream:own-looks";

// What is in the storage may be of another version, or changed by hand.
export function ownLooks() {
  const stored = readOption(KEY, []);
  return Array.isArray(stored) ? stored.filter(isLook).slice(0, MAX_LOOKS) : [];
}

// Return whether the browser has stored them.
export function storeLooks(looks) {
  try {
    localStorage.setItem(`streamdream-${KEY}`, JSON.stringify(looks));
  } catch {
    return false;
  }
  dispatchEvent(new Event(CHANGE));
  return true;
}

// Call ``listener`` when they change, also in another window.
export function onLooksChange(listener) {
  addEventListener(CHANGE, listener);
  addEventListener("storage", ({ key }) => { if (key === `streamdream-${KEY}`) listener(); });
}

function isLook(look) {
  return typeof look?.id === "string" && typeof look.name === "string" && look.name.length <= MAX_NAME
    && typeof look.values === "object" && look.values !== null && Object.keys(look.values).length <= MAX_VALUES
    && Object.values(look.values).every((value) => ["string", "number", "boolean"].includes(typeof value)
      && String(value).length <= MAX_CHARACTERS)
    && (look.picture === "" || PICTURE.test(look.picture));
}
