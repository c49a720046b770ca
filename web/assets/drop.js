// A file drop: one file that is chosen, dropped, pasted, or an example; uploaded, previewed, trimmed or drawn on, and
// found again when the page is opened anew. Its value is JSON, {token, start, end, mask}, or "" without a file. What
// visitors name is only ever set as text.
import { DropMask } from "./drop_mask.js";
import { DropTrim, formatTime } from "./drop_trim.js";
import { keep, readKept } from "./kept_file.js";
import { Refused, ResumableUpload, ask, reasonOf } from "./resumable_upload.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.file_drop;
const ANNOUNCED_SHARE = 0.25, RETRY_MS = 5000;
const SUFFIXES = { "image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/heic": ".heic",
  "video/mp4": ".mp4", "video/quicktime": ".mov", "video/webm": ".webm" };  // of files that a phone gives no suffix
const homes = {};     // The drop of each tab, "video" and "picture",
const handedOver = {};  // and a file that waits until that tab is first opened.

const suffixOf = (name) => (/\.[^.]+$/.exec(name)?.[0] ?? "").toLowerCase();

export class FileDrop {
  // `props` are those of pages/file_drop.py; `setValue(text)` and `trigger(event)` go to Gradio.
  constructor(element, props, setValue, trigger) {
    Object.assign(this, { element, props, setValue, trigger, state: null, upload: null, objectUrl: "", unfinished: null });
    for (const name of ["zone", "input", "preview", "name", "note", "bar", "problem", "retry", "elsewhere", "video", "image",
      "status", "remove", "hint", "examples"]) this[name] = this.find(name);
    const trim = this.find("trim"), tools = this.find("tools");
    this.trim = trim && new DropTrim(trim, this.video, (start, end) => this.change({ start, end }));
    this.mask = tools && new DropMask(tools, this.find("canvas"), this.image,
      (mask, drawing) => this.change({ mask, drawing }));
    this.listen();
    this.restore();
    this.choose(this.input.files[0]);  // one that was chosen while this script was loaded
    if (!props.home) return;
    homes[props.home] = this;
    this.choose(handedOver[props.home]);
    delete handedOver[props.home];
  }

  find(name) { return this.element.querySelector(".sw-drop-" + name); }

  listen() {
    this.input.addEventListener("change", () => this.choose(this.input.files[0]));
    this.remove.addEventListener("click", () => { this.clear(); this.input.focus(); });
    this.retry.addEventListener("click", () => this.upload?.wakeUp());
    const box = this.element.querySelector(".sw-drop");
    box.addEventListener("dragover", (event) => { event.preventDefault(); this.zone.classList.add("sw-dragover"); });
    box.addEventListener("dragleave", () => this.zone.classList.remove("sw-dragover"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      this.zone.classList.remove("sw-dragover");
      this.choose(event.dataTransfer.files[0]);
    });
    const target = this.props.home ? document : box;  // the drop of a tab takes what is pasted anywhere in it
    target.addEventListener("paste", (event) => {
      if (box.offsetParent) this.choose(event.clipboardData.files[0]);
    });
    for (const part of [this.video, this.image]) part?.addEventListener("error", () => this.onPreviewError(part));
    this.examples?.addEventListener("click", (event) => {
      const name = event.target.closest("button")?.dataset.example;
      if (name) this.takeExample(name);
    });
  }

  // --- the value

  change(more) {
    if (!this.state) return;
    this.state = { ...this.state, ...more };
    const { drawing, ...kept } = this.state;
    if (!kept.mask) delete kept.mask;
    this.setValue(JSON.stringify({ ...kept, facts: undefined }));
    keep(this.props.drop_id, this.state && { ...this.state, mask: undefined });
  }

  clear() {
    this.upload?.cancel();
    this.upload = null;
    const had = this.state;
    this.state = this.unfinished = null;
    if (this.objectUrl) URL.revokeObjectURL(this.objectUrl);
    this.objectUrl = "";
    for (const part of [this.video, this.image]) { if (part) { part.removeAttribute("src"); part.hidden = true; } }
    this.video?.load();
    if (this.trim) this.trim.box.hidden = true;
    this.mask?.hide();
    this.preview.hidden = this.bar.hidden = this.retry.hidden = true;
    this.zone.hidden = false;
    if (this.examples) this.examples.hidden = false;
    this.hint.textContent = this.props.hint;
    this.input.value = "";
    this.say("");
    this.setValue("");
    keep(this.props.drop_id, null);
    if (had) this.trigger("clear");
  }

  // --- words

  say(problem, elsewhere = null) {
    this.problem.textContent = problem;
    this.problem.hidden = !problem;
    this.elsewhere.hidden = !elsewhere;
    this.elsewhere.onclick = elsewhere;
    if (problem) this.announce("");
  }

  announce(text) { if (this.status.textContent !== text) this.status.textContent = text; }

  fail(problem) {
    const hadFocus = this.preview.contains(document.activeElement);
    this.clear();
    this.say(problem);
    if (hadFocus) this.input.focus();
  }

  // --- a new file

  choose(file) {
    if (!file) return;
    this.example = "";
    if (!suffixOf(file.name) && SUFFIXES[file.type]) {
      file = new File([file], file.name + SUFFIXES[file.type], { type: file.type, lastModified: file.lastModified });
    }
    const suffix = suffixOf(file.name);
    if (!this.props.kinds.includes(suffix) && this.props.other_kinds.includes(suffix)) { this.offerElsewhere(file); return; }
    if (file.size > this.props.max_mb * 1e6) {
      this.clear();
      this.say(fill(WORDS.too_large, { size: (file.size / 1e6).toFixed(1), limit: this.props.max_mb }));
      return;
    }
    const earlier = this.unfinished;
    this.clear();
    this.objectUrl = URL.createObjectURL(file);
    this.showPreview(file.name, this.objectUrl, file.type.startsWith("image/"));
    this.note.textContent = WORDS.uploading;
    this.announce(WORDS.uploading);
    this.bar.hidden = false;
    this.bar.value = 0;
    this.setValue(JSON.stringify({ uploading: true }));  // so that Start does not say that there is no file
    const isSame = earlier && earlier.name === file.name && earlier.bytes === file.size
      && earlier.modified === file.lastModified;
    this.send(file, isSame ? earlier.token : "");
  }

  async send(file, token) {
    let announced = 0;
    const { name, size: bytes, lastModified: modified } = file;
    const upload = this.upload = new ResumableUpload(file, {
      begun: (token) => keep(this.props.drop_id, { unfinished: { token, name, bytes, modified } }),
      sent: (sent, total) => {
        const share = sent / total, percent = Math.floor(100 * share);
        this.bar.value = share;
        this.retry.hidden = true;
        this.note.textContent = fill(WORDS.percent, { percent });
        if (share >= announced + ANNOUNCED_SHARE) { announced = share; this.announce(this.note.textContent); }
      },
      checking: () => { this.note.textContent = WORDS.checking; this.announce(WORDS.checking); },
      waiting: (reason) => {
        this.note.textContent = fill(WORDS.waiting, { reason });
        this.announce(this.note.textContent);
        this.retry.hidden = false;
      },
    }, token);
    try {
      const facts = await upload.run();
      if (this.upload !== upload || !facts) return;
      this.upload = null;
      if (facts.video === this.props.is_video) this.onFile(facts);
      else this.offerElsewhere(file);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (this.upload === upload) this.fail(error.message);
    }
  }

  // The file is for the other tab: say so, and offer to take it there.
  offerElsewhere(file) {
    this.fail(this.props.is_video ? WORDS.is_picture : WORDS.is_video);
    const name = this.props.is_video ? "picture" : "video", tab = document.getElementById(`tab-${name}-button`);
    if (!tab) return;
    this.elsewhere.textContent = this.props.is_video ? WORDS.to_picture : WORDS.to_video;
    this.say(this.problem.textContent, () => {
      this.say("");
      if (homes[name]?.element.isConnected) homes[name].choose(file); else handedOver[name] = file;
      tab.click();
    });
  }

  async takeExample(name) {
    this.say("");
    this.example = name;              // until another one, or a file, is chosen
    const result = await ask("POST", "examples/" + name);
    if (this.example !== name) return;
    if (result.status !== 200) { this.say(reasonOf(result)); return; }
    this.clear();
    this.onFile(result.answer);
  }

  // --- the file is on the server

  onFile(facts, earlier = {}) {
    const url = "uploads/" + facts.token + "/file";
    const shown = facts.video && facts.type !== "image/gif" ? this.video : this.image;
    if (!shown.getAttribute("src") || shown.hidden) this.showPreview(facts.name, url, shown === this.image);
    this.bar.hidden = this.retry.hidden = true;
    const size = facts.width + " × " + facts.height;
    this.note.textContent = facts.video
      ? fill(facts.sound ? WORDS.with_sound : WORDS.without_sound, { size, time: formatTime(facts.seconds) }) : size;
    this.announce(fill(WORDS.ready, { name: facts.name, facts: this.note.textContent }));
    this.state = { token: facts.token };
    this.change({ facts });
    if (this.trim && facts.video) this.trim.show(facts.seconds, earlier.start, earlier.end);
    this.mask?.show(facts.width, facts.height, earlier.drawing);
    this.trigger("upload");
  }

  showPreview(name, url, isPicture) {
    const hadFocus = this.zone.contains(document.activeElement) || this.examples?.contains(document.activeElement);
    this.find("name").textContent = name;
    const part = isPicture ? this.image : this.video;
    if (part) {
      part.src = new URL(url, document.baseURI);
      part.hidden = false;
    }
    this.preview.hidden = false;
    this.zone.hidden = true;
    if (this.examples) this.examples.hidden = true;
    if (hadFocus) this.remove.focus();
  }

  // A browser shows no HEIC file; the server has made a PNG of it.
  onPreviewError(part) {
    if (!part.getAttribute("src")) return;
    const facts = this.state?.facts;
    if (part === this.image && facts && this.objectUrl && part.src === this.objectUrl) {
      part.src = new URL("uploads/" + facts.token + "/file", document.baseURI);
      return;
    }
    part.hidden = true;
    this.sayIfUnplayable();
  }

  sayIfUnplayable() {
    const isShown = [this.video, this.image].some((part) => part && !part.hidden);
    if (this.state && !isShown && !this.note.textContent.endsWith(WORDS.unplayable)) {
      this.note.textContent += ". " + WORDS.unplayable;
    }
  }

  // --- what the drop held before

  async restore() {
    const kept = readKept(this.props.drop_id), token = kept?.token ?? kept?.unfinished?.token;
    if (!token) return;
    const { status, answer } = await ask("GET", "uploads/" + encodeURIComponent(token));
    if (this.state || this.upload) return;  // a file was chosen meanwhile
    if (status === 200 && answer.offset === undefined) {
      this.onFile(answer, kept);
      // a guide or a style picture steers the dream: its closed section opens
      this.element.closest(".gr-accordion")?.querySelector(".label-wrap[aria-expanded=false]")?.click();
    }
    else if (status === 200) this.offerToGoOn(kept.unfinished, answer);
    else if (status === 404) keep(this.props.drop_id, null);
    else setTimeout(() => this.restore(), RETRY_MS);
  }

  // Only the visitor can give a browser the file again.
  offerToGoOn(unfinished, { offset, size }) {
    if (!unfinished) return;
    this.unfinished = unfinished;
    this.hint.textContent = fill(WORDS.unfinished, { name: unfinished.name, percent: Math.floor(100 * offset / size) });
  }
}
