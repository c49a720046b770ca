// What a file drop holds, remembered in this browser from one page to the next. The file itself is on the server, which
// gives it to nobody without this visitor's cookie.
const prefix = "streamdream:file:" + location.pathname + ":";

export function readKept(id) {
  try {
    return JSON.parse(localStorage.getItem(prefix + id));
  } catch (error) {
    return null;  // no storage here, or not ours
  }
}

export function keep(id, value) {
  try {
    if (value) localStorage.setItem(prefix + id, JSON.stringify(value));
    else localStorage.removeItem(prefix + id);
  } catch (error) { /* no storage, or it is full: the file is only not found again */ }
}
