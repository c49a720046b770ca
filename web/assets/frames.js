// The frames of a camera or a video: delivers each one, and encodes the newest.

import { scaleDown, scaleToField } from "./scale.js";

export class Frames {
  // onFrame(capturedAt): called for each new frame, not while the page is hidden.
  constructor(video, onFrame) {
    this.video = video;
    this.onFrame = onFrame;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.small = document.createElement("canvas");
    this.smallContext = this.small.getContext("2d", { alpha: false });
    this.run = 0;                     // a loop that reads frames of an earlier run ends
    this.frame = null;
    this.lastAt = 0;                  // when the newest frame came
    this.requests = 0;
    this.pending = new Map();         // request id -> resolve
    this.startWorker();
  }

  // Deliver the frames of a camera.
  async playStream(stream) {
    this.close();
    const run = this.run;
    if (globalThis.MediaStreamTrackProcessor) {
      this.readTrack(run, stream.getVideoTracks()[0]);
      return;
    }
    this.video.srcObject = stream;
    await this.video.play();
    this.readVideo(run);
  }

  // Deliver the frames of the video at an address, over and over. Throws what HTMLMediaElement.play throws.
  async playFile(url) {
    this.close();
    const run = this.run;
    this.video.src = url;
    await this.video.play();
    this.readVideo(run);
  }

  // Read the track itself: a browser without a GPU spends more on painting a video element, however small, than on
  // showing the dream.
  async readTrack(run, track) {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || run !== this.run) {
        value?.close();
        break;
      }
      this.frame?.close();
      this.frame = value;
      this.lastAt = performance.now();
      if (!document.hidden) this.onFrame(value.metadata?.().captureTime ?? performance.now());
    }
    reader.cancel().catch(() => {});
  }

  readVideo(run) {
    const video = this.video;
    let last = -1;
    const next = (now, metadata) => {
      if (run !== this.run) return;
      if (!document.hidden && (metadata || video.currentTime !== last)) this.onFrame(metadata?.captureTime ?? now);
      last = video.currentTime;
      this.lastAt = performance.now();
      schedule();
    };
    const schedule = () => {
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
      else requestAnimationFrame((time) => next(time));
    };
    schedule();
  }

  // The newest frame, a VideoFrame or the video element; null before the first.
  get newest() {
    return this.frame ?? (this.video.videoWidth ? this.video : null);
  }

  // Return {jpeg, original}: the newest frame, at most ``fieldHeight`` high, as JPEG; and with a shorter side of at most
  // ``shorterSide``, as a bitmap, which the caller closes. ``frozen`` takes the last one again.
  async take({ shorterSide, fieldHeight, mirrored, frozen, quality }) {
    const newest = this.newest;
    if (!newest) throw new Error("no frame yet");
    if (this.worker) {
      const frame = frozen ? null : new VideoFrame(newest), id = ++this.requests;
      this.worker.postMessage({ id, frame, shorterSide, fieldHeight, mirrored, quality }, frame ? [frame] : []);
      return new Promise((resolve) => this.pending.set(id, resolve));
    }
    if (!frozen) {
      const width = newest.displayWidth ?? newest.videoWidth, height = newest.displayHeight ?? newest.videoHeight;
      scaleDown(this.canvas, this.context, newest, width, height, shorterSide, mirrored);
    }
    scaleToField(this.small, this.smallContext, this.canvas, fieldHeight);
    const encoded = new Promise((resolve) => this.small.toBlob(resolve, "image/jpeg", quality));
    const [jpeg, original] = await Promise.all([encoded, createImageBitmap(this.canvas)]);
    return { jpeg, original };
  }

  // Encode in a worker where the browser can.
  startWorker() {
    if (!(globalThis.Worker && globalThis.OffscreenCanvas?.prototype.convertToBlob && globalThis.VideoFrame)) return;
    this.worker = new Worker(new URL("./encoder.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data: { id, jpeg, original } }) => {
      const resolve = this.pending.get(id);
      if (resolve) resolve({ jpeg, original });
      else original?.close();
      this.pending.delete(id);
    };
    this.worker.onerror = () => { this.worker = null; };
  }

  close() {
    this.run += 1;
    this.pending.clear();
    this.frame?.close();
    this.frame = null;
    if (this.video.src) {
      this.video.removeAttribute("src");
      this.video.load();
    }
    this.video.srcObject = null;
  }
}
