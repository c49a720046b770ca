// The upload of one file in pieces (the routes are in jobs/upload_routes.py). A network that fails costs at most one
// piece: the upload goes on by itself at the offset that the server has, as soon as there is a network again.
import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.upload;
const LARGEST_PIECE = 4e6, SMALLEST_PIECE = 25e4;  // bytes; below 1 MB for proxies with nginx's default limit
const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 15000;
const SILENCE_MS = 30000, ANSWER_MS = 90000;  // without progress; for the answer, which comes after the inspection
const LATER = [0, 408, 425, 429, 502, 503, 504];
const PIECE_TOO_LARGE = 413, OTHER_OFFSET = 409, GONE = 404, MAX_RESTARTS = 3;

export class Refused extends Error {}

// One line for a visitor, of an answer that may come from a proxy.
export function reasonOf({ status, answer }) {
  if (answer.error) return answer.error.charAt(0).toUpperCase() + answer.error.slice(1) + ".";
  return strings.http?.[status] ?? (status ? fill(WORDS.failed, { status }) : WORDS.lost);
}

// Answer of a route: its status, 0 if none came, and what its JSON says.
export async function ask(method, path) {
  try {
    const response = await fetch(new URL(path, document.baseURI), { method, cache: "no-store" });
    return { status: response.status, answer: await response.json().catch(() => ({})) };
  } catch (error) {
    return { status: 0, answer: {} };
  }
}

export class ResumableUpload {
  // `on` has sent(bytes, total), checking(), waiting(reason) and begun(token). `token` is that of an upload to go on with.
  constructor(file, on, token = "") {
    Object.assign(this, { file, on, token, offset: 0, piece: LARGEST_PIECE, waits: 0, restarts: 0, ended: false });
    this.wake = () => {};
    this.wakeUp = () => this.wake();
    this.giveUp = () => this.request?.abort();
    this.warn = (event) => event.preventDefault();  // the browser asks whether to leave
  }

  // Resolves with the facts of the file, or null after `cancel`. Rejects with Refused.
  async run() {
    addEventListener("online", this.wakeUp);
    addEventListener("offline", this.giveUp);
    addEventListener("beforeunload", this.warn);
    try {
      if (this.token) await this.synchronize();
      while (!this.ended && !this.facts) await this.step();
      return this.ended ? null : this.facts;
    } finally {
      removeEventListener("online", this.wakeUp);
      removeEventListener("offline", this.giveUp);
      removeEventListener("beforeunload", this.warn);
    }
  }

  cancel() {
    this.ended = true;
    this.request?.abort();
    this.wake();
  }

  async step() {
    const result = this.token ? await this.sendPiece()
      : await ask("POST", `uploads?name=${encodeURIComponent(this.file.name)}&size=${this.file.size}`);
    if (this.ended) return;
    const { status, answer } = result;
    if (status === 200 || status === 201) this.take(answer);
    else if (status === OTHER_OFFSET) this.offset = answer.offset;
    else if (status === PIECE_TOO_LARGE && this.token && this.piece > SMALLEST_PIECE) this.piece /= 4;
    else if (status === GONE && this.restarts < MAX_RESTARTS) this.restart();
    else if (LATER.includes(status)) await this.waitToGoOn(reasonOf(result));
    else throw new Refused(reasonOf(result));
  }

  take(answer) {
    this.waits = 0;
    if (answer.offset === undefined) { this.facts = answer; return; }
    if (!this.token) this.on.begun(answer.token);
    this.token = answer.token;
    this.offset = answer.offset;
  }

  restart() {
    this.restarts += 1;
    this.token = "";
    this.offset = 0;
  }

  async waitToGoOn(reason) {
    this.on.waiting(reason);
    const pause_ms = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.waits++);
    await new Promise((resolve) => { this.wake = resolve; setTimeout(resolve, pause_ms); });
    if (this.token && !this.ended) await this.synchronize();
  }

  // What the server has of it.
  async synchronize() {
    const { status, answer } = await ask("GET", "uploads/" + this.token);
    if (status === 200) this.take(answer);
    else if (status === GONE) this.restart();
  }

  sendPiece() {
    const piece = this.file.slice(this.offset, this.offset + this.piece);
    const isLast = this.offset + piece.size >= this.file.size;
    return new Promise((resolve) => {
      const request = this.request = new XMLHttpRequest();
      let watch;
      const watchFor = (span_ms) => { clearTimeout(watch); watch = setTimeout(() => request.abort(), span_ms); };
      request.open("PATCH", new URL("uploads/" + this.token, document.baseURI));
      request.setRequestHeader("Upload-Offset", this.offset);
      request.upload.onprogress = (event) => {
        watchFor(event.loaded < event.total ? SILENCE_MS : ANSWER_MS);
        this.on.sent(this.offset + event.loaded, this.file.size);
        if (isLast && event.loaded === event.total) this.on.checking();
      };
      request.onloadend = () => {
        clearTimeout(watch);
        this.request = undefined;
        let answer = {};
        try { answer = JSON.parse(request.responseText); } catch (error) { /* the page of a proxy, or none */ }
        resolve({ status: request.status, answer });
      };
      watchFor(SILENCE_MS);
      request.send(piece);
    });
  }
}
