// Records the canvas as a video in this browser, with the microphone's sound if the visitor wants it.

import strings from "./strings.js";

const WORDS = strings.recorder;
const SECOND = 1000;
const MESSAGE_MS = 5000;
const FRAME_RATE = 30, BITS_PER_SECOND = 8_000_000;
const MAX_DELAY_SECONDS = 2;
const RESUME_MS = 1000;
const TYPES = {
  silent: ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"],
  sound: ["video/mp4;codecs=avc1,mp4a.40.2", "video/mp4;codecs=avc1,opus", "video/webm;codecs=vp9,opus",
    "video/webm;codecs=vp8,opus", "video/webm", "video/mp4"],
};

export class Recorder {
  // latencyMs(): from the camera to the screen; onChange(): a recording began or ended; onDone(blob, suffix).
  constructor(canvas, toast, { latencyMs, onChange, onDone }) {
    Object.assign(this, { canvas, toast, latencyMs, onChange, onDone });
    this.recorder = null;
    this.isStarting = false;          // waits for the permission to use the microphone
    this.startedAt = 0;
    this.askBeforeLeaving = (event) => event.preventDefault();
  }

  get isOn() {
    return !!this.recorder;
  }

  // Length so far; null without a recording.
  get recordedMs() {
    return this.recorder ? performance.now() - this.startedAt : null;
  }

  async toggle(withSound) {
    if (this.isOn || this.isStarting) {
      this.stop();
      return;
    }
    this.isStarting = true;
    const microphone = withSound ? await this.openMicrophone() : null;
    if (this.isStarting) this.start(microphone);
    else microphone?.close();
    this.isStarting = false;
  }

  start(microphone) {
    const kind = microphone ? "sound" : "silent";
    const mimeType = globalThis.MediaRecorder && TYPES[kind].find((type) => MediaRecorder.isTypeSupported(type));
    if (!mimeType) {
      microphone?.close();
      this.toast.show(WORDS.unsupported, MESSAGE_MS);
      return;
    }
    const chunks = [], stream = this.canvas.captureStream(FRAME_RATE);
    if (microphone) stream.addTrack(microphone.track);
    const recorder = this.recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: BITS_PER_SECOND });
    recorder.ondataavailable = (event) => event.data.size && chunks.push(event.data);
    recorder.onstop = () => {
      for (const track of stream.getTracks()) track.stop();
      microphone?.close();
      this.recorder = null;
      removeEventListener("beforeunload", this.askBeforeLeaving);
      this.onChange();
      const [type] = mimeType.split(";");
      this.onDone(new Blob(chunks, { type }), type === "video/mp4" ? "mp4" : "webm");
    };
    recorder.start(SECOND);
    this.startedAt = performance.now();
    addEventListener("beforeunload", this.askBeforeLeaving);
    this.onChange();
  }

  stop() {
    this.isStarting = false;
    if (this.recorder?.state === "recording") this.recorder.stop();
  }

  // Return {track, close()}; null, with words, when there is no microphone.
  async openMicrophone() {
    let input;
    try {
      // not made for calls: music and the room as they are
      input = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
    } catch (error) {
      this.toast.show(WORDS[error.name] ?? WORDS.silent, MESSAGE_MS);
      return null;
    }
    const [track] = input.getAudioTracks();
    const { delayed, close } = await this.delay(input);
    track.addEventListener("ended", () => this.toast.show(WORDS.lost, MESSAGE_MS));
    return {
      track: delayed ?? track,
      close: () => {
        track.stop();
        close();
      },
    };
  }

  // Return {delayed, close()}: a track that is as late as the dream, so that both are in step; null on a computer that
  // cannot play sound, as an audio context never begins there.
  async delay(input) {
    const context = new AudioContext(), output = context.createMediaStreamDestination();
    const delay = context.createDelay(MAX_DELAY_SECONDS);
    delay.delayTime.value = Math.min(MAX_DELAY_SECONDS, this.latencyMs() / SECOND);
    context.createMediaStreamSource(input).connect(delay).connect(output);
    const patience = new Promise((resolve) => setTimeout(resolve, RESUME_MS));
    await Promise.race([context.resume(), patience]);
    const delayed = context.state === "running" ? output.stream.getAudioTracks()[0] : null;
    return { delayed, close: () => context.close() };
  }
}
