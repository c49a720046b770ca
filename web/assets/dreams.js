// The visitor's dreams: what the server says of them. It is asked again and again, also after a lost network, so a
// reload, another tab and a restarted server change nothing.

import { readOption, storeOption } from "./stored_options.js";

const BUSY_MS = 1000, IDLE_MS = 20_000, HIDDEN_MS = 10_000, MAX_RETRY_MS = 4000, TIMEOUT_MS = 10_000;
const MAX_LINKED = 20;                // as in pages/dreams.py
const LINK = "dream";                 // of the address of the page: ?dream=TOKEN
const ENDED = ["done", "failed", "cancelled"];
const TITLE = document.title || "streamdream";

export const isEnded = (dream) => ENDED.includes(dream.state);

class Dreams extends EventTarget {
  constructor() {
    super();
    this.list = null;                 // null until the first answer
    this.keepSeconds = 0;
    this.problem = "";                // "lost" or "login": why nothing new is known
    this.failures = 0;
    this.linked = readOption("linked-dreams", []);
    this.opened = new URLSearchParams(location.search).get(LINK);
    if (this.opened && !this.linked.includes(this.opened)) this.link([this.opened, ...this.linked]);
    for (const event of ["online", "pageshow", "focus"]) addEventListener(event, () => this.ask());
    document.addEventListener("visibilitychange", () => document.hidden || this.ask());
    this.ask();
  }

  get busy() {
    return this.list?.some((dream) => !isEnded(dream)) ?? true;
  }

  link(tokens) {
    this.linked = tokens.slice(0, MAX_LINKED);
    storeOption("linked-dreams", this.linked);
  }

  linkOf(dream) {
    const link = new URL(document.baseURI);
    link.search = new URLSearchParams({ [LINK]: dream.token });
    link.hash = "";
    return link.href;
  }

  async ask() {
    this.isStale = this.asking;       // what is on its way may be older than what the caller has done
    if (this.asking) return;
    this.asking = true;
    clearTimeout(this.timer);
    const query = this.linked.length ? `?with=${this.linked.join(",")}` : "";
    try {
      const answer = await fetch(new URL(`dreams${query}`, document.baseURI),
        { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (answer.status === 401) this.problem = "login";
      else if (!answer.ok) throw new Error(`status ${answer.status}`);
      else this.take(await answer.json());
    } catch {
      this.failures += 1;
      this.problem = "lost";
    }
    this.asking = false;
    this.dispatchEvent(new Event("change"));
    this.showTitle();
    if (this.isStale) { await this.ask(); return; }
    this.timer = setTimeout(() => this.ask(), this.pauseMs);
  }

  take({ dreams, keep_seconds: keepSeconds }) {
    this.list = dreams;
    this.keepSeconds = keepSeconds;
    this.failures = 0;
    this.problem = "";
  }

  get pauseMs() {
    if (this.failures) return Math.min(MAX_RETRY_MS, BUSY_MS * 2 ** (this.failures - 1));
    if (document.hidden) return HIDDEN_MS;
    return this.busy ? BUSY_MS : IDLE_MS;
  }

  // Cancel a dream, delete it, or take one of a link off the list.
  async remove(dream) {
    if (dream.own) {
      const url = new URL(`dreams/${dream.token}`, document.baseURI);
      await fetch(url, { method: "DELETE" }).catch(() => {});
    } else {
      this.link(this.linked.filter((token) => token !== dream.token));
    }
    await this.ask();
  }

  showTitle() {
    const running = this.list?.find((dream) => dream.own && dream.state === "running" && dream.total);
    document.title = running ? `${Math.floor(100 * running.share)} % – ${TITLE}` : TITLE;
  }
}

export const dreams = new Dreams();
