// The WebSocket of the live page: sends frames, receives residuals, limits the frames in flight, and reconnects.

const HEADER_BYTES = 6;             // frame number (uint32), milliseconds on the server (uint16), little endian
const MIN_WINDOW = 2, MAX_WINDOW = 5; // frames in flight
const MAX_SAMPLES = 60;             // round trips that are remembered
const FRAME_TIMEOUT_MS = 4000;
const CONNECT_TIMEOUT_MS = 10000;   // longer than a proxy waits for a server that hangs, before it asks the next one
const FIRST_RETRY_MS = 50;          // a replaced server has a successor, and a lost network may be back
const SILENCE_MS = 8000;            // the server sends figures each second; a network that is gone closes no connection
const MIN_QUALITY = 0.7, MAX_QUALITY = 0.9; // of the small JPEG; the dream amplifies its artefacts
const CONGESTED_MS = 50, CLEAR_MS = 20; // network delay above the shortest seen: lower the quality, raise it

// Close code -> state: the server does not want this page to reconnect.
export const CLOSE_STATES = {
  1008: "refused", 1013: "full", 4000: "ended", 4001: "idle", 4002: "time", 4003: "elsewhere", 1009: "refused",
};

export class LiveSocket {
  // handlers: {onFrame(number, blob, sent), onMessage(message), onState(state, detail)}; the detail of "lost" and "restart"
  // is {failures, since}, since when nothing came in ms of performance.now()
  constructor(url, handlers) {
    this.url = url;
    this.handlers = handlers;
    this.session = "";
    this.everOpened = false;
    this.error = "";
    this.failures = 0;
    this.interval = 33;             // milliseconds between two frames of the camera
    this.quality = 0.85;
    this.number = 0;                // of the last frame
    this.rate = 60;                 // frames per second that the server accepts
    this.nextSendAt = 0;
    this.reset();
    addEventListener("online", () => { if (this.active && !this.ready) this.connect(); });
  }

  // Forget the frames in flight and the delays measured.
  reset() {
    for (const sent of this.sent?.values() ?? []) sent.original?.close();
    this.sent = new Map();
    this.roundTrips = [];
    this.networkDelays = [];
  }

  // ``values()`` returns the settings to begin with, at each connection.
  open(values) {
    this.active = true;
    this.failures = 0;
    this.values = values;
    this.connect();
  }

  connect() {
    clearTimeout(this.retry);
    this.reset();
    this.error = "";
    const last = this.socket, socket = this.socket = new WebSocket(this.url);
    last?.close();                  // one that is still connecting
    socket.binaryType = "arraybuffer";
    const timeout = setTimeout(() => socket.close(), CONNECT_TIMEOUT_MS);
    socket.onopen = () => {
      clearTimeout(timeout);
      this.everOpened = true;
      this.sendMessage({ type: "hello", session: this.session, values: this.values() });
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heardAt = performance.now();
      if (typeof event.data === "string") this.onMessage(JSON.parse(event.data));
      else this.onFrame(event.data);
    };
    socket.onclose = (event) => {
      clearTimeout(timeout);
      if (socket === this.socket) this.onClose(event);
    };
  }

  onMessage(message) {
    if (message.rate) this.rate = message.rate;
    if (message.type === "error") this.error = message.message;   // a close reason is limited to 123 bytes
    if (message.type === "welcome") {
      this.session = message.session;
      this.failures = 0;
      this.ready = true;
      this.handlers.onState("live", message);
    } else if (message.type === "waiting") {
      this.failures = 0;
      this.handlers.onState("waiting", message);
    }
    this.handlers.onMessage(message);
  }

  onClose(event, since = performance.now()) {
    this.ready = false;
    this.reset();
    if (!this.active) return;
    if (event.code in CLOSE_STATES) {
      this.active = false;
      if (event.code !== 4003) this.session = "";
      this.handlers.onState(CLOSE_STATES[event.code], this.error || event.reason);
      return;
    }
    this.failures += 1;
    this.handlers.onState(event.code === 1012 ? "restart" : "lost", { failures: this.failures, since });
    if (!this.active) return;       // the handler closed the socket
    const backoff = Math.min(5000, 200 * 2 ** Math.min(this.failures, 5)) * (0.75 + Math.random() / 2);
    this.retry = setTimeout(() => this.connect(), this.failures === 1 ? FIRST_RETRY_MS : backoff);
  }

  // Call this each second: give up a connection on which nothing comes.
  check() {
    if (!this.ready || performance.now() - this.heardAt < SILENCE_MS) return;
    const silent = this.socket;
    this.socket = null;
    silent.close();
    this.onClose({ code: 1006 }, this.heardAt);
  }

  close() {
    this.active = false;
    this.ready = false;
    clearTimeout(this.retry);
    this.sendMessage({ type: "bye" });
    this.socket?.close(1000);
    this.session = "";
    this.reset();
  }

  // Return whether the message was sent.
  sendMessage(message) {
    const open = this.socket?.readyState === WebSocket.OPEN;
    if (open) this.socket.send(JSON.stringify(message));
    return open;
  }

  // --- frames

  // How many frames may be in flight: enough to fill the round trip.
  get window() {
    const shortest = this.roundTrips.length ? Math.min(...this.roundTrips) : 0;
    return Math.max(MIN_WINDOW, Math.min(MAX_WINDOW, Math.round(shortest / this.interval) + 2));
  }

  get canSend() {
    const now = performance.now();
    for (const [number, sent] of this.sent) {
      if (now - sent.at > FRAME_TIMEOUT_MS) this.drop(number);
    }
    if (now < this.nextSendAt - this.interval / 2) return false;
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return false;
    let inFlight = 0;
    for (const sent of this.sent.values()) inFlight += sent.inFlight;
    return inFlight < this.window && this.sent.size <= this.window;   // one more may be encoding
  }

  // Reserve a place in the window; the frame follows when it is encoded. ``at``: when it was captured.
  reserve(at) {
    const now = performance.now();
    this.nextSendAt = Math.max(now, this.nextSendAt) + 1000 / this.rate;
    if (this.nextSendAt > now + 2000 / this.rate) this.nextSendAt = now + 1000 / this.rate;
    this.number += 1;
    this.sent.set(this.number, { at, sentAt: now, original: null, inFlight: false });
    return this.number;
  }

  sendFrame(number, jpeg) {
    const sent = this.sent.get(number);
    if (!sent || !jpeg || this.socket.readyState !== WebSocket.OPEN) {
      this.drop(number);
      return;
    }
    const header = new DataView(new ArrayBuffer(HEADER_BYTES));
    header.setUint32(0, number, true);
    sent.sentAt = performance.now();
    sent.inFlight = true;
    this.socket.send(new Blob([header, jpeg]));
  }

  drop(number) {
    this.sent.get(number)?.original?.close();
    this.sent.delete(number);
  }

  onFrame(buffer) {
    const header = new DataView(buffer, 0, HEADER_BYTES);
    const number = header.getUint32(0, true), serverMs = header.getUint16(4, true);
    const sent = this.sent.get(number), now = performance.now();
    this.sent.delete(number);
    for (const older of [...this.sent.keys()]) if (older < number) this.drop(older); // the server skipped it
    if (!sent) return;
    addSample(this.roundTrips, now - sent.sentAt);
    addSample(this.networkDelays, Math.max(0, now - sent.sentAt - serverMs));
    this.adaptQuality();
    this.handlers.onFrame(number, new Blob([new Uint8Array(buffer, HEADER_BYTES)], { type: "image/jpeg" }), sent);
  }

  // Send smaller JPEGs while the network is congested.
  adaptQuality() {
    const usual = median(this.networkDelays.slice(-10)), best = Math.min(...this.networkDelays);
    if (usual > best + CONGESTED_MS) this.quality -= 0.02;
    else if (usual < best + CLEAR_MS) this.quality += 0.002;
    this.quality = Math.max(MIN_QUALITY, Math.min(MAX_QUALITY, this.quality));
  }
}

function addSample(list, value) {
  list.push(value);
  if (list.length > MAX_SAMPLES) list.shift();
}

export function median(list) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}
