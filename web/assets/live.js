// The tab Live: connects the camera, the WebSocket and the settings panel with the buttons and the canvas.

import { Camera } from "./camera.js";
import { Figures } from "./figures.js";
import { Frames } from "./frames.js";
import { LinkCode } from "./link_code.js";
import { LiveSocket } from "./live_socket.js";
import { blockedWords, connectionWords, queueWords, showIntro } from "./live_words.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { Recorder } from "./recorder.js";
import { save } from "./share.js";
import { readOption, storeOption } from "./stored_options.js";
import strings from "./strings.js";
import { Toast } from "./toast.js";
import { Toolbar } from "./toolbar.js";
import { fill } from "./words.js";

const WORDS = strings.live;
const SECOND = 1000;
const MAX_FIRST_TRIES = 2;          // of a page that has never had a connection
const MIN_INTERVAL_MS = 8;
const REFUSED_MS = 4000, BACK_MS = 2000;
const HINT_AFTER_MS = 2500, HINT_MS = 8000;
const UNNOTICED_MS = 1000;          // a connection that is back sooner was not missed, as when a server is replaced
const NO_DREAM_WIDTH = 8;           // of the residual before the first dream of a session
const WITH_PICTURE = ["live", "lost", "restart"];   // states

export async function start(root) {
  const answer = await fetch(new URL("live/facts", document.baseURI));
  if (!answer.ok) throw new Error(`live/facts: ${answer.status}`);
  const facts = await answer.json();
  const url = new URL("live", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  root.page = new Page(root, facts, url.href);   // for tests
}

class Page {
  constructor(root, facts, url) {
    this.root = root;
    this.facts = facts;
    this.stage = this.find(".sd-stage");
    this.picture = new Picture(this.stage);
    this.canvas = this.picture.canvas;
    this.size = this.find("#sd-camera-height");
    this.toast = new Toast(this.find(".sd-toast"));
    this.figures = new Figures((name) => this.find(`[data-figure=${name}]`));
    this.frames = new Frames(this.find(".sd-video"), (at) => this.capture(at));
    this.camera = new Camera(this.frames, this.find("#sd-camera"), this.toast, (words) => this.end(words));
    this.recorder = new Recorder(this.canvas, this.toast, {
      latencyMs: () => this.figures.latencyMs,
      onChange: () => this.onRecording(),
      onDone: (blob, suffix) => save(blob, suffix, this.toast),
    });
    this.socket = new LiveSocket(url, {
      onFrame: (number, jpeg, sent) => this.onFrame(number, jpeg, sent),
      onMessage: (message) => this.onMessage(message),
      onState: (state, detail) => this.onState(state, detail),
    });
    this.toolbar = new Toolbar(root, (name) => this.act(name), () => WITH_PICTURE.includes(this.state));
    this.panel = new Panel(this.find(".sd-panel"), facts, (values) => this.sendSettings(values));
    this.on = { mirror: readOption("mirror", true), sound: false, compare: false, freeze: false };
    this.lastShown = 0;                 // number of the frame on the canvas
    this.fieldHeight = 96;              // maximum height of the frames to send; the server sets it
    this.lostAt = 0;
    this.loss = "lost";                 // or "restart"
    this.dream = null;                  // the last residual
    this.listen();
    this.showEngine({});
    setInterval(() => this.onSecond(), SECOND);
    root.dataset.state = "idle";
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  get state() {
    return this.root.dataset.state;
  }

  // --- events of the page

  listen() {
    this.find(".sd-start").addEventListener("click", () => this.beginCamera());
    this.find(".sd-clip").addEventListener("click", () => this.beginVideo(new URL("live/clip", document.baseURI)));
    const own = this.find(".sd-own-file");
    this.find(".sd-own").addEventListener("click", () => own.click());
    own.addEventListener("change", () => this.beginOwnVideo(own));
    this.find(".sd-leave").addEventListener("click", () => this.end(""));
    this.size.value = readOption("lines", "480");
    for (const select of [this.camera.chooser, this.size]) {
      select.addEventListener("change", () => this.changeCamera());
    }
    addEventListener("pagehide", () => this.end(""));
    const code = new LinkCode(this.find(".sd-code"), this.toast);
    this.root.addEventListener("click", ({ target }) => {    // the panel copies it, and keeps the address up to date
      if (target.closest(".sd-copy")) code.show(location.origin + location.pathname + location.hash);
    });
    document.addEventListener("scroll", () => this.onScroll(), { capture: true, passive: true });
    this.toolbar.setPressed("mirror", this.on.mirror);
  }

  // On a phone the picture, which stays in view, shrinks while the settings scroll under it; see live.css.
  onScroll() {
    this.stage.style.setProperty("--sd-scrolled", `${Math.max(0, -this.root.getBoundingClientRect().top)}px`);
  }

  onSecond() {
    this.socket.check();
    this.camera.check();
    this.figures.show(this.state === "live", this.recorder.recordedMs);
    this.sayConnection();
  }

  // --- a session, from start to end

  beginCamera() {
    return this.begin("camera", () => this.camera.open(this.camera.chooser.value, Number(this.size.value)));
  }

  beginOwnVideo(input) {
    const [file] = input.files;
    input.value = "";               // else the same file cannot be chosen again
    if (!file) return;
    URL.revokeObjectURL(this.ownUrl);
    this.ownUrl = URL.createObjectURL(file);
    this.beginVideo(this.ownUrl);
  }

  // Dream on a video instead of the camera; its address may be that of a file of the visitor, which stays here.
  beginVideo(url) {
    return this.begin("video", async () => {
      this.camera.close();            // one that was paused
      try {
        await this.frames.playFile(url);
        return true;
      } catch (error) {
        if (error.name === "AbortError") return false;   // the visitor has stopped it meanwhile
        throw new Error(WORDS.unplayable, { cause: error });
      }
    });
  }

  // ``open()`` returns whether frames will come; throws an Error with words.
  async begin(source, open) {
    if (this.state === "opening" && source === "camera") return;   // while a camera is asked for, a video may begin
    this.setState("opening");
    this.toast.clear();
    this.root.dataset.source = source;
    this.picture.describe(WORDS[`${source}_label`]);
    this.on.mirror = source === "camera" && readOption("mirror", true);
    this.toolbar.setPressed("mirror", this.on.mirror);
    try {
      if (!await open()) return;
    } catch (error) {
      this.end(error.message);
      return;
    }
    this.connect();
  }

  async changeCamera() {
    storeOption("lines", this.size.value);    // of videos, too: ``capture`` reads it
    if (!this.camera.stream) return;
    try {
      await this.camera.change(this.camera.chooser.value, Number(this.size.value));
    } catch (error) {
      this.end(error.message);
    }
    this.size.value = String(this.camera.height);   // which it may have gone back to
    storeOption("lines", this.size.value);
  }

  connect() {
    this.setState("opening");
    this.lastShown = this.socket.number;
    this.dream?.close();
    this.dream = null;
    this.socket.open(() => ({ ...this.panel.values, look: this.panel.look }));
  }

  // What the socket reports; see LiveSocket.
  onState(state, detail) {
    if (state === "live") {
      this.onLive(detail);
    } else if (state === "waiting") {
      this.lostAt = 0;
      this.sayConnection();
      showIntro(this.root, WORDS.queued, queueWords(detail));
      this.setState("waiting");
    } else if (state === "lost" || state === "restart") {
      if (!this.socket.everOpened && detail.failures >= MAX_FIRST_TRIES) {
        blockedWords().then((words) => this.end(words));
        return;
      }
      if (!this.lostAt || state === "restart") this.loss = state;
      this.lostAt ||= detail.since;
      this.sayConnection();
    } else {
      this.end(WORDS[state] + (detail && ["ended", "refused"].includes(state) ? `: ${detail}` : ""), state);
    }
  }

  onLive({ values, frozen }) {
    const before = this.state;
    this.lostAt = 0;
    this.sayConnection();
    if (["lost", "restart"].includes(before)) this.toast.show(WORDS.back, BACK_MS);
    this.panel.confirm(values, Infinity);
    if (frozen !== this.on.freeze) this.socket.sendMessage({ type: "freeze", on: this.on.freeze });
    this.setState("live");
    if (!WITH_PICTURE.includes(before)) this.stage.scrollIntoView({ block: "nearest" });
    if (this.root.dataset.source === "camera" && !readOption("hinted", false)) this.hint();
  }

  // For how long there has been no connection, and why, once it is noticed.
  sayConnection() {
    const lostMs = this.lostAt ? performance.now() - this.lostAt : 0;
    const isNoticed = this.socket.everOpened && lostMs >= UNNOTICED_MS;
    if (isNoticed && this.state !== "opening") this.setState(this.loss);
    this.toast.keep("connection", isNoticed ? connectionWords(this.loss, lostMs / SECOND) : "");
  }

  // In a moving picture all looks look alike at first: a dream needs a second in the same place.
  hint() {
    clearTimeout(this.hintTimer);
    this.hintTimer = setTimeout(() => {
      if (this.state !== "live" || this.on.freeze) return;
      if (this.toast.passing) {
        this.hint();
        return;
      }
      storeOption("hinted", true);
      this.toast.show(WORDS.hint, HINT_MS);
      this.hinting = true;
    }, HINT_AFTER_MS);
  }

  setState(state) {
    this.root.dataset.state = state;
    this.find(".sd-start").ariaDisabled = String(state === "opening");
    if (state === "live" && this.find(".sd-overlay").contains(document.activeElement)) {
      this.toolbar.find("freeze").focus({ preventScroll: true });
    }
  }

  end(text, state = "") {
    this.recorder.stop();
    this.socket.close();
    if (state !== "idle") this.camera.close();
    this.toolbar.setPressed("freeze", false);
    this.on.freeze = false;
    this.lostAt = 0;
    showIntro(this.root, text ? WORDS.stopped : WORDS.title, text || WORDS.again);
    this.toast.clear();
    this.setState(state === "idle" ? "idle-out" : "idle");
  }

  sendSettings(values) {
    return this.socket.sendMessage({ type: "settings", values });
  }

  // --- frames

  capture(at) {
    const now = performance.now(), interval = this.figures.captured(now);
    if (interval) this.socket.interval = Math.max(MIN_INTERVAL_MS, interval);
    if (!this.socket.active && this.state === "idle-out") this.connect();   // frames come again
    if (!this.socket.canSend) return;
    const number = this.socket.reserve(Math.min(at, now));
    this.frames.take({
      shorterSide: Number(this.size.value), fieldHeight: this.fieldHeight,
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
      this.draw(this.keep(residual), sent.original);
      this.figures.shown(sent.at);
    } else {
      residual?.close();
    }
    sent.original?.close();
  }

  // Return the residual to show. Another server has no dream at first: until then the last one stays.
  keep(residual) {
    if (this.dream && residual.width === NO_DREAM_WIDTH) {
      residual.close();
    } else {
      this.dream?.close();
      this.dream = residual;
    }
    return this.dream;
  }

  draw(residual, original) {
    this.picture.draw(residual, original);
  }

  // --- buttons

  act(name) {
    if (name === "stop") this.end("");
    else if (name === "reset") this.socket.sendMessage({ type: "reset" });
    else if (name === "snapshot") this.canvas.toBlob((image) => save(image, "png", this.toast), "image/png");
    else if (name === "record") this.recorder.toggle(this.on.sound);
    else this.toggle(name);
  }

  toggle(name) {
    this.on[name] = !this.on[name];
    this.toolbar.setPressed(name, this.on[name]);
    if (name === "freeze") {
      this.socket.sendMessage({ type: "freeze", on: this.on.freeze });
      if (this.hinting) this.toast.pass();
      this.hinting = false;
    }
    if (name === "mirror" && this.root.dataset.source === "camera") storeOption("mirror", this.on.mirror);
    if (name === "compare") this.picture.compare(this.on.compare);
  }

  onRecording() {
    this.toolbar.setPressed("record", this.recorder.isOn);
    this.toolbar.find("sound").disabled = this.recorder.isOn;   // a recording cannot get another track
    this.onSecond();
  }

  // --- messages of the server

  onMessage(message) {
    if (message.lines) this.fieldHeight = message.lines;   // of ``welcome`` and ``lines``
    if (message.type === "settings") this.panel.confirm(message.values, message.answers);
    if (message.type === "refused") {
      this.panel.confirm(message.values, message.answers);
      this.toast.show(message.message, REFUSED_MS);
    }
    if (message.type === "stats") {
      this.figures.countDreams(message.dreams);
      this.showEngine(message);
    }
  }

  showEngine({ field, backend, precision, device }) {
    const lines = field && fill(WORDS.lines, { count: field });
    const parts = [this.facts.model, lines, backend && `${backend} ${precision}`, device];
    this.find(".sd-engine").textContent = parts.filter(Boolean).join(" · ");
  }
}
