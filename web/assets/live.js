// The tab Live: connects the camera, the WebSocket and the settings panel with the buttons and the canvas.

import { Camera } from "./camera.js";
import { Composer } from "./compose.js";
import { LiveSocket, median } from "./live_socket.js";
import { Panel } from "./panel.js";

const SECOND = 1000;
const MAX_FIRST_TRIES = 2;          // of a page that has never had a connection
const MAX_INTERVALS = 30;           // camera intervals that are averaged
const MAX_LATENCIES = 60;
const KEYS = { z: "freeze", x: "reset", m: "mirror", c: "compare", s: "snapshot", r: "record", f: "fullscreen" };
const RECORDING_TYPES = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];
const TITLE = "Deep Dream on your camera", LEAVE_QUEUE = "Leave queue";
const MESSAGES = {
  restart: "The server is restarting. You will be reconnected in a moment.",
  lost: "Connection lost. Reconnecting…",
  refused: "The server refused the connection",
  full: "The queue is full. Please try again later.",
  ended: "The session has ended",
  idle: "Paused: no camera frames have arrived for a while.",
  time: "Your time is up because others are waiting. Start again to join the queue.",
  elsewhere: "This session continues in another window.",
  blocked: "This page needs a WebSocket, and none could be opened. A proxy or firewall may block it, or the server is down.",
};

export async function start(root) {
  const facts = await (await fetch(new URL("live/facts", document.baseURI))).json();
  const url = new URL("live", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  root.page = new Page(root, facts, url.href);   // for tests
}

class Page {
  constructor(root, facts, url) {
    this.root = root;
    this.facts = facts;
    this.canvas = this.find(".sd-canvas");
    this.composer = new Composer(this.canvas);
    this.split = this.find(".sd-split");
    this.camera = new Camera(this.find(".sd-video"));
    this.socket = new LiveSocket(url, {
      onFrame: (number, jpeg, sent) => this.onFrame(number, jpeg, sent),
      onMessage: (message) => this.onMessage(message),
      onState: (state, detail) => this.onState(state, detail),
    });
    this.panel = new Panel(this.find(".sd-panel"), facts, (values) => this.sendSettings(values));
    this.on = { mirror: readOption("mirror", true), compare: false, freeze: false, record: false, fullscreen: false };
    this.figures = { shownAt: [], latencies: [], capturedAt: [], dreams: null };
    this.lastShown = 0;                 // number of the frame on the canvas
    this.fieldHeight = 96;              // maximum height of the frames to send; the server sets it
    this.listen();
    this.updateSplit();
    this.showEngine({});
    setInterval(() => this.updateFigures(), SECOND);
    root.dataset.state = "idle";
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  listen() {
    this.find(".sd-start").addEventListener("click", () => this.begin());
    for (const button of this.root.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do));
    }
    this.split.addEventListener("input", () => this.updateSplit());
    const camera = this.find("#sd-camera"), height = this.find("#sd-camera-height");
    height.value = readOption("lines", "480");
    for (const select of [camera, height]) {
      select.addEventListener("change", () => {
        storeOption("lines", height.value);
        if (this.camera.stream) this.openCamera();
      });
    }
    document.addEventListener("keydown", (event) => this.onKey(event));
    document.addEventListener("fullscreenchange", () => {
      this.setPressed("fullscreen", document.fullscreenElement === this.find(".sd-stage"));
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.root.dataset.state === "idle-out") this.connect();
    });
    addEventListener("pagehide", () => this.socket.active && this.socket.sendMessage({ type: "bye" }));
    this.setPressed("mirror", this.on.mirror);
  }

  onKey(event) {
    const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]), textarea, select");
    const name = KEYS[event.key.toLowerCase()];
    if (!name || typing || event.ctrlKey || event.metaKey || event.altKey || !this.root.offsetParent) return;
    if (!["live", "lost", "restart"].includes(this.root.dataset.state)) return;
    event.preventDefault();
    this.act(name);
  }

  // --- a session, from start to end

  async begin() {
    this.setState("opening");
    this.showMessage("");
    try {
      await this.openCamera();
    } catch (error) {
      this.end(error.message);
      return;
    }
    this.connect();
  }

  async openCamera() {
    const chooser = this.find("#sd-camera");
    const track = await this.camera.open(chooser.value, Number(this.find("#sd-camera-height").value));
    const cameras = await this.camera.list();
    const id = track.getSettings().deviceId;
    chooser.replaceChildren(...cameras.map((camera, index) =>
      new Option(camera.label || `Camera ${index + 1}`, camera.deviceId)));
    chooser.value = id;
    this.camera.follow((at) => this.capture(at));
  }

  connect() {
    this.lastShown = this.socket.number;
    this.socket.open(() => ({ ...this.panel.values, look: this.panel.look }));
  }

  // What the socket reports; see LiveSocket.
  onState(state, detail) {
    if (state === "live") {
      this.showMessage("");
      this.panel.confirm(detail.values, Infinity);
      if (detail.frozen !== this.on.freeze) this.socket.sendMessage({ type: "freeze", on: this.on.freeze });
      this.setState("live");
    } else if (state === "waiting") {
      this.showQueue(detail);
    } else if (state === "lost" || state === "restart") {
      if (!this.socket.everOpened && detail >= MAX_FIRST_TRIES) {
        this.end(MESSAGES.blocked);
        return;
      }
      const shown = detail > 2 ? "restart" : state;  // several failures in a row: the server is probably restarting
      if (this.socket.everOpened) this.showMessage(MESSAGES[shown]);
      if (this.root.dataset.state !== "opening") this.setState(shown);
    } else {
      this.end(MESSAGES[state] + (detail && ["ended", "refused"].includes(state) ? `: ${detail}` : ""), state);
    }
  }

  showQueue({ place, sessions }) {
    const ahead = place ? `${place} ${place > 1 ? "people are" : "person is"} ahead of you.` : "You are next.";
    const places = sessions > 1 ? `All ${sessions} places are taken.` : "The only place is taken.";
    this.showOverlay("You are in the queue", `${places} ${ahead} It starts automatically.`, LEAVE_QUEUE);
    this.setState("waiting");
  }

  setState(state) {
    this.root.dataset.state = state;
    if (state === "live" && document.activeElement === this.find(".sd-start")) {
      this.find("[data-do=freeze]").focus({ preventScroll: true });
    }
  }

  end(text, state = "") {
    if (this.on.record) this.act("record");
    this.socket.close();
    if (state !== "idle") this.camera.close();
    this.setPressed("freeze", false);
    this.on.freeze = false;
    this.showOverlay(text ? "Stopped" : TITLE, text || "You can start again at any time.", "Start the camera");
    this.showMessage("");
    this.setState(state === "idle" ? "idle-out" : "idle");
  }

  showOverlay(title, text, button) {
    this.find(".sd-title").textContent = title;
    this.find(".sd-text").textContent = text;
    const start = this.find(".sd-start");
    start.textContent = button;
    start.onclick = button === LEAVE_QUEUE ? (event) => { event.stopImmediatePropagation(); this.end(""); } : null;
  }

  sendSettings(values) {
    return this.socket.sendMessage({ type: "settings", values });
  }

  // --- frames

  capture(at) {
    const times = this.figures.capturedAt, now = performance.now();
    times.push(now);
    if (times.length > MAX_INTERVALS + 1) times.shift();
    if (times.length > 10) this.socket.interval = Math.max(8, (times.at(-1) - times[0]) / (times.length - 1));
    if (!this.socket.canSend) return;
    const number = this.socket.reserve(Math.min(at, now));
    this.camera.take({
      shorterSide: Number(this.find("#sd-camera-height").value), fieldHeight: this.fieldHeight,
      mirrored: this.on.mirror, frozen: this.on.freeze, quality: this.socket.quality,
    }).then(({ jpeg, original }) => {
      const sent = this.socket.sent.get(number);
      if (sent) sent.original = original;
      else original?.close();
      this.socket.sendFrame(number, jpeg);
    }).catch(() => this.socket.drop(number));
  }

  async onFrame(number, jpeg, sent) {
    const residual = await createImageBitmap(jpeg, { colorSpaceConversion: "none" }).catch(() => null);
    if (residual && sent.original && number > this.lastShown) {
      this.lastShown = number;
      this.draw(residual, sent.original);
      const now = performance.now();
      this.figures.shownAt.push(now);
      this.figures.latencies.push(now - sent.at);
      if (this.figures.latencies.length > MAX_LATENCIES) this.figures.latencies.shift();
    }
    residual?.close();
    sent.original?.close();
  }

  draw(residual, original) {
    const { width, height } = original;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.find(".sd-stage").style.setProperty("--sd-aspect", `${width} / ${height}`);
    }
    this.composer.show(original, residual);
    const left = this.on.compare ? Math.round(width * this.split.value / 1000) : 0;
    if (left) this.composer.context.drawImage(original, 0, 0, left, height, 0, 0, left, height);
  }

  updateSplit() {
    this.find(".sd-stage").style.setProperty("--sd-split", `${this.split.value / 10}%`);
    this.split.setAttribute("aria-valuetext", `${Math.round(this.split.value / 10)} % original`);
  }

  // --- buttons

  act(name) {
    if (name === "stop") this.end("");
    else if (name === "reset") this.socket.sendMessage({ type: "reset" });
    else if (name === "snapshot") this.snapshot();
    else if (name === "fullscreen") this.toggleFullscreen();
    else if (name === "record") this.toggleRecording();
    else {
      this.on[name] = !this.on[name];
      this.setPressed(name, this.on[name]);
      if (name === "freeze") this.socket.sendMessage({ type: "freeze", on: this.on.freeze });
      if (name === "mirror") storeOption("mirror", this.on.mirror);
      if (name === "compare") this.split.hidden = !this.on.compare;
    }
  }

  setPressed(name, on) {
    this.find(`[data-do=${name}]`).setAttribute("aria-pressed", String(on));
  }

  snapshot() {
    this.canvas.toBlob((image) => this.save(image, "png"), "image/png");
  }

  toggleRecording() {
    if (this.on.record) {
      this.recorder.stop();
      return;
    }
    const mimeType = globalThis.MediaRecorder && RECORDING_TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    if (!mimeType) {
      this.showMessage("This browser cannot record video", 3 * SECOND);
      return;
    }
    const chunks = [], stream = this.canvas.captureStream(30);
    this.recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 8_000_000 });
    this.recorder.ondataavailable = (event) => event.data.size && chunks.push(event.data);
    this.recorder.onstop = () => {
      this.setRecording(false);
      for (const track of stream.getTracks()) track.stop();
      this.save(new Blob(chunks, { type: mimeType }), mimeType.startsWith("video/mp4") ? "mp4" : "webm");
    };
    this.recorder.start(SECOND);
    this.recordingSince = performance.now();
    this.setRecording(true);
  }

  setRecording(on) {
    this.on.record = on;
    this.setPressed("record", on);
    this.updateFigures();
  }

  toggleFullscreen() {
    const stage = this.find(".sd-stage");
    if (document.fullscreenElement) document.exitFullscreen();
    else if (stage.requestFullscreen) stage.requestFullscreen();
    else this.setPressed("fullscreen", stage.classList.toggle("sd-cover"));   // iPhone: cover the page instead
  }

  save(blob, suffix) {
    const name = `streamdream-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.${suffix}`;
    download(blob, name);
    this.showMessage(`Saved ${name}`, 2 * SECOND);
  }

  // --- figures and messages

  onMessage(message) {
    if (message.lines) this.fieldHeight = message.lines;   // of ``welcome`` and ``lines``
    if (message.type === "settings") this.panel.confirm(message.values, message.answers);
    if (message.type === "refused") {
      this.panel.confirm(message.values, message.answers);
      this.showMessage(message.message, 4 * SECOND);
    }
    if (message.type === "stats") {
      const now = performance.now(), last = this.figures.dreams;
      if (last) this.figures.rate = SECOND * (message.dreams - last.dreams) / (now - last.at);
      this.figures.dreams = { dreams: message.dreams, at: now };
      this.showEngine(message);
    }
  }

  updateFigures() {
    const { shownAt, latencies, rate } = this.figures, now = performance.now();
    while (shownAt.length && now - shownAt[0] > 2 * SECOND) shownAt.shift();
    const live = this.root.dataset.state === "live";
    const texts = {
      fps: live ? `${(shownAt.length / 2).toFixed(0)} fps` : "",
      latency: live && latencies.length ? `${median(latencies).toFixed(0)} ms` : "",
      dreams: live && rate >= 0 ? `${rate.toFixed(0)} dreams/s` : "",
      rec: this.on.record ? `● ${formatTime((now - this.recordingSince) / SECOND)}` : "",
    };
    for (const [name, text] of Object.entries(texts)) this.find(`[data-figure=${name}]`).textContent = text;
  }

  showEngine({ field, backend, precision, device }) {
    const parts = [this.facts.model, field && `${field} lines`, backend && `${backend} ${precision}`, device];
    this.find(".sd-engine").textContent = parts.filter(Boolean).join(" · ");
  }

  // ``ms``: how long it stays; 0 until the next one.
  showMessage(text, ms = 0) {
    const toast = this.find(".sd-toast");
    clearTimeout(this.messageTimer);
    if (toast.textContent !== text) toast.textContent = text;
    if (ms) this.messageTimer = setTimeout(() => { toast.textContent = ""; }, ms);
  }
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10 * SECOND);
}

function formatTime(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

// Options of this page in the browser's storage; a private window may have none.
function readOption(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`streamdream-${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

function storeOption(name, value) {
  try {
    localStorage.setItem(`streamdream-${name}`, JSON.stringify(value));
  } catch { /* no storage */ }
}
