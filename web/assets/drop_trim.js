// Trim of a video: two handles on one track. The video seeks to the handle that moves.
const SHORTEST_SECONDS = 0.1;

export function formatTime(seconds) {
  const tenths = Math.round(10 * seconds), minutes = Math.floor(tenths / 600);
  return minutes + ":" + ((tenths - 600 * minutes) / 10).toFixed(1).padStart(4, "0");
}

export class DropTrim {
  // `onSpan(start, end)` is told of each change, in seconds; `end` is null at the end of the video.
  constructor(box, video, onSpan) {
    Object.assign(this, { box, video, onSpan });
    this.first = box.querySelector(".sw-drop-first");
    this.last = box.querySelector(".sw-drop-last");
    for (const handle of [this.first, this.last]) handle.addEventListener("input", () => this.update(handle));
  }

  show(seconds, start = 0, end = null) {
    for (const [handle, value] of [[this.first, start], [this.last, end ?? seconds]]) {
      handle.max = seconds;
      handle.value = value;
    }
    this.box.hidden = false;
    this.update();
  }

  update(handle) {
    const length = Number(this.last.max), gap = Math.min(SHORTEST_SECONDS, length);
    let from = Number(this.first.value), to = Number(this.last.value);
    if (to - from < gap) {
      if (handle === this.first) from = Math.max(0, to - gap); else to = Math.min(length, from + gap);
      this.first.value = from;
      this.last.value = to;
    }
    this.box.querySelector(".sw-drop-span").textContent =
      formatTime(from) + " – " + formatTime(to) + "  (" + (to - from).toFixed(1) + " s)";
    for (const one of [this.first, this.last]) one.setAttribute("aria-valuetext", formatTime(Number(one.value)));
    this.box.style.setProperty("--from", 100 * from / length + "%");
    this.box.style.setProperty("--to", 100 * to / length + "%");
    if (handle && !this.video.hidden) { this.video.pause(); this.video.currentTime = Number(handle.value); }
    this.onSpan(from, to < length ? to : null);
  }
}
