// An original and its dream: two pictures under a slider, two videos side by side.

import strings from "./strings.js";

const WORDS = strings.compare, MAX_DRIFT_SECONDS = 0.08;

export function comparePictures(original, dream) {
  const box = document.createElement("div");
  box.className = "sw-compare";
  box.style.setProperty("--cut", "50%");
  for (const [src, alt, className] of [[dream, WORDS.dream, ""], [original, WORDS.original, "sw-before"]]) {
    const image = document.createElement("img");
    Object.assign(image, { src, alt, className, decoding: "async" });
    box.append(image);
  }
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: 100, step: 0.5, value: 50, ariaLabel: WORDS.slider });
  slider.addEventListener("input", () => box.style.setProperty("--cut", `${slider.value}%`));
  box.append(slider);
  return box;
}

// ``start``: where the dream begins in the original, in seconds. The element has ``stop()``.
export function compareVideos(original, dream, start) {
  const box = document.createElement("div");
  box.className = "sw-side-by-side";
  const [before, after] = [[original, WORDS.original, false], [dream, WORDS.dream, true]].map(([src, label, controls]) => {
    const figure = document.createElement("figure"), video = document.createElement("video");
    Object.assign(video, { src, controls, playsInline: true, muted: !controls, preload: "auto", ariaLabel: label });
    const caption = document.createElement("figcaption");
    caption.textContent = label;
    figure.append(video, caption);
    box.append(figure);
    return video;
  });
  before.addEventListener("error", () => { before.parentElement.lastChild.textContent = WORDS.unplayable; });
  const follow = () => {
    const due = after.currentTime + start;
    if (Math.abs(before.currentTime - due) > MAX_DRIFT_SECONDS) before.currentTime = due;
  };
  after.loop = true;
  before.addEventListener("loadedmetadata", follow);
  for (const name of ["timeupdate", "seeking", "seeked", "play"]) after.addEventListener(name, follow);
  after.addEventListener("play", () => before.play().catch(() => {}));
  after.addEventListener("pause", () => before.pause());
  after.addEventListener("ratechange", () => { before.playbackRate = after.playbackRate; });
  box.stop = () => { for (const video of [before, after]) video.pause(); };
  return box;
}
