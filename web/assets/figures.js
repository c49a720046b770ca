// The figures over the picture: frames and dreams per second, latency, length of the recording.

import { median } from "./live_socket.js";

const SECOND = 1000;
const MAX_INTERVALS = 30;           // intervals of the camera that are averaged
const MIN_INTERVALS = 10;
const MAX_LATENCIES = 60;

export class Figures {
  // ``find(name)`` returns the element of a figure.
  constructor(find) {
    this.find = find;
    this.shownAt = [];
    this.latencies = [];
    this.capturedAt = [];
    this.dreams = null;               // {dreams: so far, at}
  }

  // A frame was captured. Return the mean interval of the camera in ms; null at first.
  captured(now) {
    const times = this.capturedAt;
    times.push(now);
    if (times.length > MAX_INTERVALS + 1) times.shift();
    return times.length > MIN_INTERVALS ? (times.at(-1) - times[0]) / (times.length - 1) : null;
  }

  // A frame that was captured at ``capturedAt`` is shown.
  shown(capturedAt) {
    const now = performance.now();
    this.shownAt.push(now);
    this.latencies.push(now - capturedAt);
    if (this.latencies.length > MAX_LATENCIES) this.latencies.shift();
  }

  // The server has computed so many dreams; another server counts anew.
  countDreams(dreams) {
    const now = performance.now(), last = this.dreams;
    if (last && dreams >= last.dreams) this.dreamRate = SECOND * (dreams - last.dreams) / (now - last.at);
    this.dreams = { dreams, at: now };
  }

  get latencyMs() {
    return median(this.latencies);
  }

  // ``recordedMs``: length of the recording; null without one.
  show(live, recordedMs) {
    const now = performance.now(), { shownAt, latencies, dreamRate } = this;
    while (shownAt.length && now - shownAt[0] > 2 * SECOND) shownAt.shift();
    const texts = {
      fps: live ? `${(shownAt.length / 2).toFixed(0)} fps` : "",
      latency: live && latencies.length ? `${this.latencyMs.toFixed(0)} ms` : "",
      dreams: live && dreamRate >= 0 ? `${dreamRate.toFixed(0)} dreams/s` : "",
      rec: recordedMs === null ? "" : `● ${formatTime(recordedMs / SECOND)}`,
    };
    for (const [name, text] of Object.entries(texts)) this.find(name).textContent = text;
  }
}

function formatTime(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
