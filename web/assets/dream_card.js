// One dream in a list: its position in the queue, its progress and preview, its result, and what can be done with it.

import { comparePictures, compareVideos } from "./compare_views.js";
import { dreams, isEnded } from "./dreams.js";
import strings from "./strings.js";
import { openTab } from "./tabs.js";
import { fill } from "./words.js";

const WORDS = strings.dreams, MINUTE = 60, DONE_MS = 2500;

export class DreamCard {
  // ``open``: whether the result itself is shown, and not only a small picture of it.
  constructor(dream, open) {
    this.open = open;
    this.compared = false;
    this.element = element("article", "sw-dream");
    this.view = element("div", "sw-dream-view");
    this.name = element("h2", "sw-dream-name");
    this.name.id = `dream-${dream.token}-${Math.random().toString(36).slice(2, 8)}`;
    this.element.setAttribute("aria-labelledby", this.name.id);
    this.status = element("p", "sw-dream-status");
    this.bar = element("progress");
    this.bar.setAttribute("aria-labelledby", this.name.id);
    this.notes = element("ul", "sw-notes");
    this.actions = element("div", "sw-dream-actions");
    const text = element("div", "sw-dream-text");
    text.append(this.name, this.status, this.bar, this.notes, this.actions);
    this.element.append(this.view, text);
  }

  show(dream) {
    this.dream = dream;
    this.element.dataset.state = dream.state;
    this.element.classList.toggle("sw-dream-open", this.open);
    this.name.textContent = dream.name;
    setText(this.status, statusOf(dream));
    this.status.setAttribute("role", dream.state === "failed" ? "alert" : "note");
    this.bar.hidden = isEnded(dream);
    if (dream.total) this.bar.value = dream.share;
    else this.bar.removeAttribute("value");
    const notes = dream.warnings.join("\n");
    if (this.shownNotes !== notes) {
      this.shownNotes = notes;
      this.notes.replaceChildren(...dream.warnings.map((warning) => element("li", "", warning)));
      this.notes.hidden = !dream.warnings.length;
    }
    this.showActions();
    this.showView();
  }

  // --- the picture

  showView() {
    const { state, previews } = this.dream, shown = `${state} ${this.open} ${this.compared}`;
    if (this.shownView !== shown) {
      this.shownView = shown;
      this.shownPreview = undefined;
      this.close();
      this.view.replaceChildren(this.createView());
      this.view.hidden = state === "failed";
    }
    if (this.preview && this.shownPreview !== previews) this.showPreview(previews);
  }

  createView() {
    const { state, kind, token, name, start_seconds: start } = this.dream;
    this.preview = null;
    if (state === "failed") return document.createTextNode("");
    if (state === "done" && this.open) {
      if (kind === "picture") return comparePictures(url(`dreams/${token}/original`), url(`results/${token}`));
      if (this.compared) return this.videos = compareVideos(url(`dreams/${token}/original`), url(`results/${token}`), start);
      return createVideo(token, name);
    }
    this.preview = element("img", "sw-frame sw-frame-empty");
    this.preview.alt = fill(WORDS.preview, { name });
    return this.preview;
  }

  // The newest picture replaces the one before when it has come: no flicker, and with a slow network no queue.
  showPreview(previews) {
    if (!previews && !isEnded(this.dream)) return;
    this.shownPreview = previews;
    const image = this.preview, next = new Image();
    next.addEventListener("load", () => {
      image.src = next.src;
      image.classList.remove("sw-frame-empty");
    });
    next.addEventListener("error", () => { this.shownPreview = undefined; });
    next.src = url(`dreams/${this.dream.token}/preview?number=${previews}`);
  }

  // --- actions

  showActions() {
    const { state, own, kind } = this.dream, shown = `${state} ${this.open} ${this.compared}`;
    if (this.shownActions === shown) return;
    this.shownActions = shown;
    const hadFocus = this.actions.contains(document.activeElement), ended = isEnded(this.dream), done = state === "done";
    this.actions.replaceChildren(...[
      done && this.createDownload(),
      done && !this.open && this.createButton("open", () => this.toggle("open")),
      done && own && this.open && kind === "video" && this.createButton(this.compared ? "single" : "compare", () => this.toggle("compared")),
      ended && this.createButton("use", () => this.use()),
      state !== "failed" && this.createButton("share", (button) => this.share(button)),
      this.createButton(own ? (ended ? "delete" : "cancel") : "unlist", () => this.remove()),
    ].filter(Boolean));
    if (hadFocus) this.actions.querySelector("a, button")?.focus();
  }

  createDownload() {
    const link = element("a", "sw-save", WORDS.download);
    link.href = url(`results/${this.dream.token}?save=1`);
    link.download = this.dream.saved_name;
    return link;
  }

  createButton(name, onClick) {
    const button = element("button", "sw-dream-button", WORDS[name]);
    button.type = "button";
    button.dataset.do = name;
    button.addEventListener("click", () => onClick(button));
    return button;
  }

  toggle(name) {
    this[name] = !this[name];
    this.show(this.dream);
  }

  use() {
    const { kind, settings } = this.dream;
    openTab(kind);
    dispatchEvent(new CustomEvent("streamdream:use", { detail: { tab: kind, values: settings } }));
  }

  async share(button) {
    const link = dreams.linkOf(this.dream);
    try {
      if (navigator.share) await navigator.share({ title: this.dream.name, url: link });
      else {
        await navigator.clipboard.writeText(link);
        button.textContent = WORDS.copied;
      }
    } catch (error) {
      if (error.name !== "AbortError") window.prompt(WORDS.share, link);
    }
    setTimeout(() => { button.textContent = WORDS.share; }, DONE_MS);
  }

  remove() {
    const { own, name } = this.dream;
    if (own && isEnded(this.dream) && !window.confirm(fill(WORDS.confirm, { name }))) return;
    dreams.remove(this.dream);
  }

  close() {
    this.videos?.stop();
    this.videos = null;
  }
}

function createVideo(token, name) {
  const video = element("video", "sw-result");
  Object.assign(video, { src: url(`results/${token}`), controls: true, playsInline: true, loop: true, preload: "metadata" });
  video.poster = url(`dreams/${token}/preview`);
  video.setAttribute("aria-label", name);
  return video;
}

function statusOf(dream) {
  if (dream.state === "done") return WORDS.done;
  if (dream.state === "failed") return dream.error;
  if (dream.state === "waiting") {
    const place = dream.ahead > 1 ? fill(WORDS.ahead, { count: dream.ahead }) : WORDS.next;
    return dream.wait_seconds === null ? place : `${place} ${fill(WORDS.begins, { time: aboutTime(dream.wait_seconds) })}`;
  }
  const parts = [dream.total ? `${Math.floor(100 * dream.share)} %` : WORDS.loading];
  if (dream.total) parts.push(fill(WORDS[`of_${dream.kind}`], dream));
  if (dream.left_seconds !== null) parts.push(fill(WORDS.left, { time: aboutTime(dream.left_seconds) }));
  if (dream.spare_seconds !== null) parts.push(fill(WORDS.spare, { time: aboutTime(dream.spare_seconds) }));
  return parts.join(", ");
}

function aboutTime(seconds) {
  if (seconds < MINUTE) return WORDS.under_a_minute;
  const minutes = Math.round(seconds / MINUTE);
  return minutes === 1 ? WORDS.a_minute : fill(WORDS.minutes, { minutes });
}

function url(path) {
  return new URL(path, document.baseURI).href;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}
