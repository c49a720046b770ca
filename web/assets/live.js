// The page of the live dream: ties the camera, the link and the panel to the buttons and to the canvas.

import { Adder } from "./adder.js";
import { Camera } from "./camera.js";
import { Composer } from "./compose.js";
import { Link, median } from "./link.js";
import { Panel } from "./panel.js";

const SECOND = 1000;
const MAX_FIRST_TRIES = 2;          // of a page that never had a connection
const KEYS = { z: "freeze", x: "reset", m: "mirror", c: "compare", s: "snapshot", r: "record", f: "full" };
const SAYINGS = {
  restart: "The server starts anew. Your dream goes on in a moment.",
  lost: "The connection broke. Coming back…",
  refused: "The server refused this connection",
  full: "Very many wait already. Please come back later.",
  ended: "The dream has ended",
  idle: "Paused, as nothing came from the camera for a while.",
  time: "Others were waiting, so your time was over. You can get in line again.",
  elsewhere: "This dream goes on in another window.",
  blocked: "This page needs a WebSocket, and none could be opened: a proxy or firewall may block it, or the server is gone.",
};

export async function start(root) {
  const base = new URL(".", import.meta.url);
  const ask = async () => (await fetch(new URL("../live/facts", base))).json();
  const facts = await ask();
  const url = new URL("../live", base);
  url.protocol = url.protocol.replace("http", "ws");
  const adder = await Adder.hire().catch(() => null);
  const page = new Page(root, facts, url.href, adder);
  for (let tries = 0; tries < 30 && !page.panel.illustrated; tries += 1) { // the server dreams them while it is idle
    await new Promise((done) => setTimeout(done, 10 * SECOND));
    page.panel.illustrate((await ask().catch(() => facts)).networks[facts.model].layers);
  }
}

class Page {
  constructor(root, facts, url, adder) {
    this.root = root;
    this.facts = facts;
    this.canvas = this.find(".sd-canvas");
    this.composer = new Composer(this.canvas, adder);
    this.split = this.find(".sd-split");
    this.camera = new Camera(this.find(".sd-video"));
    this.link = new Link(url, {
      picture: (number, jpeg, sent) => this.picture(number, jpeg, sent),
      word: (word) => this.word(word),
      state: (name, detail) => this.became(name, detail),
    });
    this.panel = new Panel(this.find(".sd-panel"), facts, (values) => this.link.say({ type: "settings", values }));
    this.on = { mirror: read("mirror", true), compare: false, freeze: false, record: false, full: false };
    this.figures = { shown: [], latencies: [], camera: [], dreams: null };
    this.drawn = 0;
    this.field = 96;                    // lines that are dreamed; the server says how many
    this.buttons();
    this.setSplit();
    this.engine({});
    setInterval(() => this.tell(), SECOND);
    root.dataset.state = "idle";
    root.page = this;                   // for tests and for the curious
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  buttons() {
    this.find(".sd-start").addEventListener("click", () => this.begin());
    for (const button of this.root.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do));
    }
    this.split.addEventListener("input", () => this.setSplit());
    const camera = this.find("#sd-camera"), lines = this.find("#sd-lines");
    lines.value = read("lines", "480");
    for (const select of [camera, lines]) {
      select.addEventListener("change", () => {
        keep("lines", lines.value);
        if (this.camera.stream) this.openCamera();
      });
    }
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]), textarea, select");
      const name = KEYS[event.key.toLowerCase()];
      if (!name || typing || event.ctrlKey || event.metaKey || event.altKey || !this.root.offsetParent) return;
      if (!["live", "lost", "restart"].includes(this.root.dataset.state)) return;
      event.preventDefault();
      this.act(name);
    });
    document.addEventListener("fullscreenchange", () => {
      this.press("full", document.fullscreenElement === this.find(".sd-stage"));
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.root.dataset.state === "idle-out") this.connect();
    });
    addEventListener("pagehide", () => this.link.wanted && this.link.say({ type: "bye" }));
    this.press("mirror", this.on.mirror);
  }

  // --- from the start to the end

  async begin() {
    this.become("opening");
    this.say("");
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
    const track = await this.camera.open(chooser.value, Number(this.find("#sd-lines").value));
    const cameras = await this.camera.list();
    const id = track.getSettings().deviceId;
    chooser.replaceChildren(...cameras.map((one, place) => new Option(one.label || `Camera ${place + 1}`, one.deviceId)));
    chooser.value = id;
    this.camera.follow((at) => this.capture(at));
  }

  connect() {
    this.drawn = this.link.number;
    this.link.open(() => ({ ...this.panel.values }));
  }

  // What the link says of itself.
  became(state, detail) {
    if (state === "live") {
      this.say("");
      this.panel.confirm(detail.values, Infinity);
      if (detail.frozen !== this.on.freeze) this.link.say({ type: "freeze", on: this.on.freeze });
      this.become("live");
    } else if (state === "waiting") {
      const before = detail.place ? `${detail.place} ${detail.place > 1 ? "are" : "is"} before you.` : "You are next.";
      this.curtain("A moment of patience", `${detail.sessions} dream here at once, and all places are taken. ${before} `
        + "It starts by itself.", "Leave the line");
      this.become("waiting");
    } else if (state === "lost" || state === "restart") {
      if (!this.link.everOpened && detail >= MAX_FIRST_TRIES) {
        this.end(SAYINGS.blocked);
        return;
      }
      const told = detail > 2 ? "restart" : state;  // whom several tries do not reach is starting, one hopes
      if (this.link.everOpened) this.say(SAYINGS[told]);
      if (this.root.dataset.state !== "opening") this.become(told);
    } else {
      this.end(SAYINGS[state] + (detail && ["ended", "refused"].includes(state) ? `: ${detail}` : ""), state);
    }
  }

  become(state) {
    this.root.dataset.state = state;
    if (state === "live" && document.activeElement === this.find(".sd-start")) {
      this.find("[data-do=freeze]").focus({ preventScroll: true });
    }
  }

  end(text, state = "") {
    if (this.on.record) this.act("record");
    this.link.close();
    if (state !== "idle") this.camera.close();
    this.press("freeze", false);
    this.on.freeze = false;
    this.curtain(text ? "The dream rests" : "See yourself dream", text || "Start whenever you like.", "Start the camera");
    this.say("");
    this.become(state === "idle" ? "idle-out" : "idle");
  }

  curtain(title, text, button) {
    this.find(".sd-title").textContent = title;
    this.find(".sd-text").textContent = text;
    const start = this.find(".sd-start");
    start.textContent = button;
    start.onclick = button === "Leave the line" ? (event) => { event.stopImmediatePropagation(); this.end(""); } : null;
  }

  // --- pictures

  capture(at) {
    const figures = this.figures, now = performance.now();
    figures.camera.push(now);
    if (figures.camera.length > 31) figures.camera.shift();
    const span = figures.camera.at(-1) - figures.camera[0];
    if (figures.camera.length > 10) this.link.interval = Math.max(8, span / (figures.camera.length - 1));
    if (!this.link.maysend) return;
    const number = this.link.reserve(Math.min(at, now));
    this.camera.take({
      lines: Number(this.find("#sd-lines").value), field: this.field, mirrored: this.on.mirror,
      frozen: this.on.freeze, quality: this.link.quality, raw: Boolean(this.composer.adder) && !this.on.compare,
    }).then(({ jpeg, before }) => {
      const sent = this.link.sent.get(number);
      if (sent) sent.before = before;
      else before?.close();
      this.link.send(number, jpeg);
    }).catch(() => this.link.drop(number));
  }

  async picture(number, jpeg, sent) {
    const dream = await createImageBitmap(jpeg, { colorSpaceConversion: "none" }).catch(() => null);
    if (dream && sent.before && number > this.drawn) {
      this.drawn = number;
      this.draw(dream, sent.before);
      const now = performance.now();
      this.figures.shown.push(now);
      this.figures.latencies.push(now - sent.at);
      if (this.figures.latencies.length > 60) this.figures.latencies.shift();
    }
    dream?.close();
    sent.before?.close();
  }

  draw(dream, before) {
    const { width, height } = before;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.find(".sd-stage").style.setProperty("--sd-aspect", `${width} / ${height}`);
    }
    this.composer.show(before, dream);
    const part = this.on.compare && !before.pixels ? Math.round(width * this.split.value / 1000) : 0;
    if (part) this.composer.context.drawImage(before, 0, 0, part, height, 0, 0, part, height);
  }

  setSplit() {
    this.find(".sd-stage").style.setProperty("--sd-split", `${this.split.value / 10}%`);
    this.split.setAttribute("aria-valuetext", `${Math.round(this.split.value / 10)} % camera`);
  }

  // --- what the buttons do

  act(name) {
    if (name === "stop") this.end("");
    else if (name === "reset") this.link.say({ type: "reset" });
    else if (name === "snapshot") this.snapshot();
    else if (name === "full") this.full();
    else if (name === "record") this.record();
    else {
      this.on[name] = !this.on[name];
      this.press(name, this.on[name]);
      if (name === "freeze") this.link.say({ type: "freeze", on: this.on.freeze });
      if (name === "mirror") keep("mirror", this.on.mirror);
      if (name === "compare") this.split.hidden = !this.on.compare;
    }
  }

  press(name, on) {
    this.find(`[data-do=${name}]`).setAttribute("aria-pressed", String(on));
  }

  snapshot() {
    this.canvas.toBlob((picture) => save(picture, "png"), "image/png");
    this.say("Kept as a picture", 1500);
  }

  record() {
    if (this.on.record) {
      this.recorder.stop();
      return;
    }
    const kinds = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];
    const mimeType = globalThis.MediaRecorder && kinds.find((kind) => MediaRecorder.isTypeSupported(kind));
    if (!mimeType) {
      this.say("This browser cannot record", 3000);
      return;
    }
    const parts = [], stream = this.canvas.captureStream(30);
    this.recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 8_000_000 });
    this.recorder.ondataavailable = (event) => event.data.size && parts.push(event.data);
    this.recorder.onstop = () => {
      this.on.record = false;
      this.press("record", false);
      this.tell();
      for (const track of stream.getTracks()) track.stop();
      save(new Blob(parts, { type: mimeType }), mimeType.startsWith("video/mp4") ? "mp4" : "webm");
    };
    this.recorder.start(SECOND);
    this.on.record = true;
    this.recordedFrom = performance.now();
    this.press("record", true);
    this.tell();
  }

  full() {
    const stage = this.find(".sd-stage");
    if (document.fullscreenElement) document.exitFullscreen();
    else if (stage.requestFullscreen) stage.requestFullscreen();
    else this.press("full", stage.classList.toggle("sd-cover"));   // an iPhone: the whole page, at least
  }

  // --- figures and sayings

  word(word) {
    if (word.lines) this.field = word.lines;
    if (word.type === "settings") this.panel.confirm(word.values, word.answers);
    if (word.type === "refused") {
      this.panel.confirm(word.values, word.answers);
      this.say(word.message, 4000);
    }
    if (word.type === "stats") {
      const now = performance.now(), last = this.figures.dreams;
      if (last) this.figures.rate = SECOND * (word.dreams - last.dreams) / (now - last.at);
      this.figures.dreams = { dreams: word.dreams, at: now };
      this.engine(word);
    }
  }

  tell() {
    const { shown, latencies, rate } = this.figures, now = performance.now();
    while (shown.length && now - shown[0] > 2 * SECOND) shown.shift();
    const live = this.root.dataset.state === "live";
    const text = {
      fps: live ? `${(shown.length / 2).toFixed(0)} fps` : "",
      latency: live && latencies.length ? `${median(latencies).toFixed(0)} ms` : "",
      dreams: live && rate >= 0 ? `${rate.toFixed(0)} dreams/s` : "",
      rec: this.on.record ? `● ${clock((now - this.recordedFrom) / SECOND)}` : "",
    };
    for (const [name, words] of Object.entries(text)) this.find(`[data-figure=${name}]`).textContent = words;
  }

  engine({ field, backend, precision, device }) {
    const parts = [this.facts.model, field && `${field} lines`, backend && `${backend} ${precision}`, device];
    this.find(".sd-engine").textContent = parts.filter(Boolean).join(" · ");
  }

  say(text, ms = 0) {
    const toast = this.find(".sd-toast");
    clearTimeout(this.saying);
    if (toast.textContent !== text) toast.textContent = text;
    if (ms) this.saying = setTimeout(() => { toast.textContent = ""; }, ms);
  }
}

function save(blob, suffix) {
  const link = document.createElement("a"), stamp = new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-");
  link.href = URL.createObjectURL(blob);
  link.download = `streamdream-${stamp}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

// Small wishes of the visitor, kept in this browser; without storage they are forgotten.
function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`streamdream-${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`streamdream-${name}`, JSON.stringify(value));
  } catch { /* a private window */ }
}
