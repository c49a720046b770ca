// The live socket: pictures up and down, how many may be on their way, and how it comes back after a drop.

const HEADER_BYTES = 6;             // number (uint32), ms on the server (uint16), little endian
const LEAST_WINDOW = 2, MOST_WINDOW = 5;
const RECENT = 60;                  // round trips that are remembered
const LOST_MS = 4000;               // a picture that is not answered by then is given up
const OPEN_MS = 6000;
const LEAST_QUALITY = 0.7, MOST_QUALITY = 0.9; // of a small picture: what JPEG spoils is dreamed on
const QUEUED_MS = 50, CLEAR_MS = 20; // above the shortest way seen: the line is full; it is free

export const REASONS = {
  1008: "refused", 1013: "full", 4000: "ended", 4001: "idle", 4002: "time", 4003: "elsewhere", 1009: "refused",
};

export class Link {
  // on: {picture(number, blob, latencyMs, before), word(object), state(name, detail)}
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.session = "";
    this.everOpened = false;
    this.error = "";
    this.failures = 0;
    this.interval = 33;
    this.quality = 0.85;
    this.number = 0;
    this.rate = 60;                 // pictures a second that the server has time for
    this.due = 0;
    this.forget();
  }

  forget() {
    for (const sent of this.sent?.values() ?? []) sent.before?.close();
    this.sent = new Map();
    this.trips = [];
    this.ways = [];
  }

  open(values) {
    this.wanted = true;
    this.failures = 0;
    this.values = values;
    this.connect();
  }

  connect() {
    clearTimeout(this.retry);
    this.forget();
    this.error = "";
    const socket = this.socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    const late = setTimeout(() => socket.close(), OPEN_MS);
    socket.onopen = () => {
      clearTimeout(late);
      this.everOpened = true;
      this.say({ type: "hello", session: this.session, values: this.values() });
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") this.heard(JSON.parse(event.data));
      else this.answered(event.data);
    };
    socket.onclose = (event) => {
      clearTimeout(late);
      if (socket === this.socket) this.closed(event);
    };
  }

  heard(word) {
    if (word.rate) this.rate = word.rate;
    if (word.type === "error") this.error = word.message;   // longer than a reason for closing may be
    if (word.type === "welcome") {
      this.session = word.session;
      this.failures = 0;
      this.ready = true;
      this.on.state("live", word);
    } else if (word.type === "waiting") {
      this.on.state("waiting", word);
    }
    this.on.word(word);
  }

  closed(event) {
    this.ready = false;
    this.forget();
    if (!this.wanted) return;
    if (event.code in REASONS) {
      this.wanted = false;
      if (event.code !== 4003) this.session = "";
      this.on.state(REASONS[event.code], this.error || event.reason);
      return;
    }
    this.failures += 1;
    this.on.state(event.code === 1012 ? "restart" : "lost", this.failures);
    if (!this.wanted) return;       // the page has given up
    const wait = Math.min(5000, 200 * 2 ** Math.min(this.failures, 5)) * (0.75 + Math.random() / 2);
    this.retry = setTimeout(() => this.connect(), this.failures === 1 && event.code !== 1012 ? 50 : wait);
  }

  close() {
    this.wanted = false;
    this.ready = false;
    clearTimeout(this.retry);
    this.say({ type: "bye" });
    this.socket?.close(1000);
    this.session = "";
    this.forget();
  }

  // Whether it was sent.
  say(word) {
    const open = this.socket?.readyState === WebSocket.OPEN;
    if (open) this.socket.send(JSON.stringify(word));
    return open;
  }

  // --- pictures

  get window() {
    const shortest = this.trips.length ? Math.min(...this.trips) : 0;
    return Math.max(LEAST_WINDOW, Math.min(MOST_WINDOW, Math.round(shortest / this.interval) + 2));
  }

  get maysend() {
    const now = performance.now();
    for (const [number, sent] of this.sent) {
      if (now - sent.at > LOST_MS) this.drop(number);
    }
    if (now < this.due - this.interval / 2) return false;
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return false;
    let away = 0;
    for (const sent of this.sent.values()) away += sent.away;
    return away < this.window && this.sent.size <= this.window;   // one more may be on its way into JPEG
  }

  // A place is taken at once; the picture follows when it is encoded.
  reserve(at, before) {
    const now = performance.now();
    this.due = Math.max(now, this.due) + 1000 / this.rate;
    if (this.due > now + 2000 / this.rate) this.due = now + 1000 / this.rate;
    this.number += 1;
    this.sent.set(this.number, { at, sentAt: performance.now(), before, away: false });
    return this.number;
  }

  send(number, jpeg) {
    const sent = this.sent.get(number);
    if (!sent || !jpeg || this.socket.readyState !== WebSocket.OPEN) {
      this.drop(number);
      return;
    }
    const header = new DataView(new ArrayBuffer(HEADER_BYTES));
    header.setUint32(0, number, true);
    sent.sentAt = performance.now();
    sent.away = true;
    this.socket.send(new Blob([header, jpeg]));
  }

  drop(number) {
    this.sent.get(number)?.before?.close();
    this.sent.delete(number);
  }

  answered(buffer) {
    const header = new DataView(buffer, 0, HEADER_BYTES);
    const number = header.getUint32(0, true), here = header.getUint16(4, true);
    const sent = this.sent.get(number), now = performance.now();
    this.sent.delete(number);
    for (const older of [...this.sent.keys()]) if (older < number) this.drop(older); // the server took a newer one
    if (!sent) return;
    remember(this.trips, now - sent.sentAt);
    remember(this.ways, Math.max(0, now - sent.sentAt - here));
    this.adapt();
    this.on.picture(number, new Blob([new Uint8Array(buffer, HEADER_BYTES)], { type: "image/jpeg" }), sent);
  }

  // Smaller pictures while the line is full; better ones when it is free.
  adapt() {
    const usual = median(this.ways.slice(-10)), best = Math.min(...this.ways);
    if (usual > best + QUEUED_MS) this.quality -= 0.02;
    else if (usual < best + CLEAR_MS) this.quality += 0.002;
    this.quality = Math.max(LEAST_QUALITY, Math.min(MOST_QUALITY, this.quality));
  }
}

function remember(list, value) {
  list.push(value);
  if (list.length > RECENT) list.shift();
}

export function median(list) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}
