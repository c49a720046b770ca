// The camera: opens it, explains what is wrong with it, and opens it again when it stops.

import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.camera;
const FRAME_RATE = 30;
const MESSAGE_MS = 5000;
const RETRY_MS = 1000;              // a driver that restarts, or a computer that wakes up, needs a moment
const SILENT_MS = 4000;             // without a frame; some browsers call each camera muted until its first one

export class Camera {
  // ``frames``: where the pictures go; ``chooser``: the <select> of all cameras; gone(words): no camera is left.
  constructor(frames, chooser, toast, gone) {
    Object.assign(this, { frames, chooser, toast, gone });
    this.run = 0;                     // of ``open``; an earlier one that is still waiting ends
    this.stream = null;
    this.known = new Map();           // device id -> name
    this.silentSince = 0;
    this.reopened = false;            // because no frame came
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.onDeviceChange());
  }

  // Open a camera, "" for any, with about ``height`` lines. Return its track; null when another ``open`` or ``close``
  // came meanwhile. Throws an Error with words for the visitor.
  async open(deviceId, height) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(window.isSecureContext ? WORDS.unsupported : WORDS.insecure);
    }
    this.release();
    const run = this.run, aspect = height >= 720 ? 16 / 9 : 4 / 3;
    const video = {
      height: { ideal: height }, width: { ideal: Math.round(height * aspect) }, frameRate: { ideal: FRAME_RATE },
    };
    if (deviceId) video.deviceId = { exact: deviceId };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      if (run === this.run) await this.frames.playStream(stream);
    } catch (error) {
      stop(stream);
      if (run !== this.run) return null;
      throw new Error(WORDS[error.name] ?? fill(WORDS.failed, { reason: error.message }), { cause: error });
    }
    if (run !== this.run) {
      stop(stream);
      return null;
    }
    const [track] = stream.getVideoTracks();
    Object.assign(this, { stream, height, deviceId: track.getSettings().deviceId });
    this.toast.keep("camera", "");
    this.watch(track);
    await this.updateChooser();
    return track;
  }

  // As ``open``. Where it fails, go back to what was open before, and say so; throws when that fails, too.
  async change(deviceId, height) {
    const before = [this.deviceId, this.height];
    try {
      return await this.open(deviceId, height);
    } catch (error) {
      const track = await this.open(...before);
      this.toast.show(fill(WORDS.kept, { reason: error.message }), MESSAGE_MS);
      return track;
    }
  }

  watch(track) {
    const run = this.run;
    const listen = (event, act) => track.addEventListener(event, () => { if (run === this.run) act(); });
    listen("ended", () => this.reopen());
    listen("mute", () => this.toast.keep("camera", WORDS.muted));
    listen("unmute", () => this.toast.keep("camera", ""));
    this.silentSince = performance.now();
  }

  // Call this each second: a camera may be open and send nothing, without a word. Open it once more, then say so.
  check() {
    const now = performance.now();
    if (!this.stream || document.hidden) this.silentSince = now;
    if (this.frames.lastAt > this.silentSince) {
      this.silentSince = this.frames.lastAt;
      this.reopened = false;
    }
    if (now - this.silentSince < SILENT_MS) return;
    this.toast.keep("camera", WORDS.muted);
    if (this.reopened || this.stream.getVideoTracks()[0].muted) return;
    this.reopened = true;
    this.reopen();
  }

  // The camera has stopped by itself: try it again, then another.
  async reopen() {
    const { deviceId, height } = this;
    this.toast.keep("camera", WORDS.stopped);
    let problem = null;
    for (const [id, pauseMs] of [[deviceId, 0], [deviceId, RETRY_MS], ["", 0]]) {
      if (problem?.cause.name === "NotAllowedError") break;
      const run = this.run;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      if (run !== this.run) return;   // the visitor was faster
      try {
        const track = await this.open(id, height);
        if (track) this.sayReopened(track, deviceId);
        return;
      } catch (error) {
        problem = error;
      }
    }
    this.gone(problem.message);
  }

  sayReopened(track, before) {
    const words = this.deviceId === before ? WORDS.back : fill(WORDS.other, { name: track.label });
    this.toast.show(words, MESSAGE_MS);
  }

  // --- all cameras

  async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return new Map(devices.filter(({ kind }) => kind === "videoinput").map(({ deviceId, label }, index) =>
      [deviceId, label || fill(WORDS.unnamed, { number: index + 1 })]));
  }

  async updateChooser() {
    this.known = await this.list();
    this.chooser.replaceChildren(...Array.from(this.known, ([id, name]) => new Option(name, id)));
    this.chooser.value = this.deviceId;
  }

  // Browsers name cameras only to a page that may use one.
  async onDeviceChange() {
    if (!this.stream) return;
    const before = this.known;
    await this.updateChooser();
    const added = [...this.known].filter(([id]) => !before.has(id));
    const removed = [...before].filter(([id]) => !this.known.has(id) && id !== this.deviceId);
    if (added.length) this.toast.show(fill(WORDS.connected, { name: added[0][1] }), MESSAGE_MS);
    else if (removed.length) this.toast.show(fill(WORDS.disconnected, { name: removed[0][1] }), MESSAGE_MS);
  }

  close() {
    this.toast.keep("camera", "");
    this.release();
  }

  release() {
    this.run += 1;
    stop(this.stream);
    this.stream = null;
    this.frames.close();
  }
}

function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
