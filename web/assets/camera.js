// The camera: opens it, delivers its frames, and explains its errors.

import { scaleDown, scaleToField } from "./scale.js";

const FRAME_RATE = 30;
const ERRORS = {
  NotAllowedError: "Camera access was denied. Allow it in the browser's address bar, then start again.",
  NotFoundError: "No camera was found.",
  OverconstrainedError: "This camera is no longer connected. Choose another one.",
  NotReadableError: "Another program is using the camera.",
};

export class Camera {
  constructor(video) {
    this.video = video;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.small = document.createElement("canvas");
    this.smallContext = this.small.getContext("2d", { alpha: false });
    this.run = 0;                     // of ``follow``; a loop of an earlier run ends
    this.frame = null;
    this.requests = 0;
    this.pending = new Map();         // request id -> resolve
    this.startWorker();
  }

  async open(deviceId, height) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(window.isSecureContext
        ? "This browser does not support cameras."
        : "Browsers allow a camera only on https or localhost. The server's owner can start it with a certificate.");
    }
    this.close();
    const aspect = height >= 720 ? 16 / 9 : 4 / 3;
    const video = {
      height: { ideal: height }, width: { ideal: Math.round(height * aspect) }, frameRate: { ideal: FRAME_RATE },
    };
    if (deviceId) video.deviceId = { exact: deviceId };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(ERRORS[error.name] ?? `The camera cannot be opened: ${error.message}`);
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

  // Call onFrame(capturedAt) for each new frame until the next call of follow or close; not while the page is hidden.
  follow(onFrame) {
    const run = ++this.run;
    if (globalThis.MediaStreamTrackProcessor) this.readTrack(run, onFrame);
    else this.readVideo(run, onFrame);
  }

  // Read the track itself: a browser without a GPU spends more on painting a video element, however small, than on
  // showing the dream.
  async readTrack(run, onFrame) {
    const reader = new MediaStreamTrackProcessor({ track: this.stream.getVideoTracks()[0] }).readable.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || run !== this.run) {
        value?.close();
        break;
      }
      this.frame?.close();
      this.frame = value;
      if (!document.hidden) onFrame(value.metadata?.().captureTime ?? performance.now());
    }
    reader.cancel().catch(() => {});
  }

  readVideo(run, onFrame) {
    const video = this.video;
    let last = -1;
    const next = (now, metadata) => {
      if (run !== this.run) return;
      if (metadata || video.currentTime !== last) onFrame(metadata?.captureTime ?? now);
      last = video.currentTime;
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
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }
}
