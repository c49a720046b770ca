// The camera: which one, its pictures as they come, and what goes wrong with it in words.

import { fit, shrink } from "./fit.js";

const RATE = 30;

export class Camera {
  constructor(video) {
    this.video = video;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.small = document.createElement("canvas");
    this.smallContext = this.small.getContext("2d", { alpha: false });
    this.running = 0;
    this.picture = null;
    this.asked = 0;
    this.answers = new Map();
    this.hire();
  }

  async open(deviceId, lines) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(window.isSecureContext
        ? "This browser gives no access to a camera."
        : "Browsers open a camera on https or localhost only. Whoever runs this server can start it with a certificate.");
    }
    this.close();
    const video = { height: { ideal: lines }, width: { ideal: Math.round(lines * 4 / 3) }, frameRate: { ideal: RATE } };
    if (lines >= 720) video.width = { ideal: Math.round(lines * 16 / 9) };
    if (deviceId) video.deviceId = { exact: deviceId };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(inWords(error));
    }
    if (!globalThis.MediaStreamTrackProcessor) {
      this.video.srcObject = this.stream;
      await this.video.play();
    }
    return this.stream.getVideoTracks()[0];
  }

  async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput");
  }

  // take(capturedAt) is called for each new picture of the camera, until the next call of follow or close; not while the
  // page is out of sight.
  follow(take) {
    const run = ++this.running;
    if (globalThis.MediaStreamTrackProcessor) this.read(run, take);
    else this.watch(run, take);
  }

  // From the camera itself. A video, however small, is painted for each picture, and that costs a browser without a GPU
  // more than the dream that it shows.
  async read(run, take) {
    const reader = new MediaStreamTrackProcessor({ track: this.stream.getVideoTracks()[0] }).readable.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || run !== this.running) {
        value?.close();
        break;
      }
      this.picture?.close();
      this.picture = value;
      if (!document.hidden) take(value.metadata?.().captureTime ?? performance.now());
    }
    reader.cancel().catch(() => {});
  }

  watch(run, take) {
    const video = this.video;
    let last = -1;
    const next = (now, meta) => {
      if (run !== this.running) return;
      if (meta || video.currentTime !== last) take(meta ? meta.captureTime ?? now : now);
      last = video.currentTime;
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
      else requestAnimationFrame((time) => next(time));
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
    else requestAnimationFrame((time) => next(time));
  }

  // The newest picture, a VideoFrame or the video that shows it; null before there is one.
  get newest() {
    return this.picture ?? (this.video.videoWidth ? this.video : null);
  }

  // The picture of now, ``before`` it is dreamed, and what is dreamed on: ``jpeg``, of at most ``field`` lines. ``frozen``
  // takes the last one again. ``before`` is a bitmap or, where ``raw`` is set and it can be had, its pixels; to be closed.
  async take({ lines, field, mirrored, frozen, quality, raw }) {
    const newest = this.newest;
    if (!newest) throw new Error("no picture yet");
    if (this.worker) {
      const frame = frozen ? null : new VideoFrame(newest), id = ++this.asked;
      this.worker.postMessage({ id, frame, lines, field, mirrored, quality, raw }, frame ? [frame] : []);
      return new Promise((done) => this.answers.set(id, done));
    }
    if (!frozen) {
      const [width, height] = sizeOf(newest);
      fit(this.canvas, this.context, newest, width, height, lines, mirrored);
    }
    shrink(this.small, this.smallContext, this.canvas, field);
    const encoded = new Promise((done) => this.small.toBlob(done, "image/jpeg", quality));
    const [jpeg, before] = await Promise.all([encoded, createImageBitmap(this.canvas)]);
    return { jpeg, before };
  }

  // Where the browser can, pictures are encoded beside the page.
  hire() {
    if (!(globalThis.Worker && globalThis.OffscreenCanvas?.prototype.convertToBlob && globalThis.VideoFrame)) return;
    this.worker = new Worker(new URL("./encoder.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data: { id, jpeg, before, raw } }) => {
      const close = () => this.worker?.postMessage({ spare: raw.pixels.buffer }, [raw.pixels.buffer]);
      const answer = this.answers.get(id);
      if (answer) answer({ jpeg, before: raw ? { ...raw, close } : before });
      else before?.close();
      this.answers.delete(id);
    };
    this.worker.onerror = () => { this.worker = null; };
  }

  close() {
    this.running += 1;
    this.answers.clear();
    this.picture?.close();
    this.picture = null;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }
}

function sizeOf(picture) {
  return [picture.displayWidth ?? picture.videoWidth, picture.displayHeight ?? picture.videoHeight];
}

function inWords(error) {
  return {
    NotAllowedError: "The camera was not allowed. Allow it beside the address of this page, then start again.",
    NotFoundError: "No camera was found.",
    OverconstrainedError: "This camera is not there any more; choose another one.",
    NotReadableError: "The camera is in use elsewhere.",
  }[error.name] ?? `The camera cannot be opened: ${error.message}`;
}
