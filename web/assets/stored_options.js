// Options of this page in the browser's storage; a private window may have none.

export function readOption(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`streamdream-${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function storeOption(name, value) {
  try {
    localStorage.setItem(`streamdream-${name}`, JSON.stringify(value));
  } catch { /* no storage */ }
}
