// A list of dreams: in the tab Dreams all of them, in Video and Picture those that run, and the newest one.

import { DreamCard } from "./dream_card.js";
import { dreams, isEnded } from "./dreams.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.dreams, HOUR = 3600;

export class DreamsList {
  constructor(root) {
    this.kind = root.dataset.kind;
    this.cards = new Map();           // token -> DreamCard
    this.status = document.createElement("p");
    this.status.className = "sw-hint";
    this.status.setAttribute("role", "status");
    this.list = document.createElement("div");
    this.list.className = "sw-dreams-list";
    root.append(this.status, this.list);
    dreams.addEventListener("change", () => this.show());
    if (dreams.list) this.show();
  }

  // Those to show, the newest first.
  get chosen() {
    if (!this.kind) return dreams.list;
    const own = dreams.list.filter((dream) => dream.own && dream.kind === this.kind);
    return own.filter((dream, index) => index === 0 || !isEnded(dream));
  }

  show() {
    this.say(this.statusText);
    if (!dreams.list) return;
    const shown = this.chosen, tokens = new Set(shown.map((dream) => dream.token));
    for (const [token, card] of this.cards) {
      if (tokens.has(token)) continue;
      card.close();
      card.element.remove();
      this.cards.delete(token);
    }
    shown.forEach((dream, index) => {
      if (!this.cards.has(dream.token)) this.cards.set(dream.token, new DreamCard(dream, this.isOpen(dream)));
      const card = this.cards.get(dream.token);
      if (this.list.children[index] !== card.element) this.list.insertBefore(card.element, this.list.children[index]);
      card.show(dream);
    });
  }

  isOpen(dream) {
    return Boolean(this.kind) || dream.token === dreams.opened;
  }

  get statusText() {
    if (dreams.problem) return WORDS[dreams.problem];
    if (!dreams.list) return "";
    if (this.kind) return this.chosen.length ? "" : WORDS[`idle_${this.kind}`];
    if (dreams.opened && !dreams.list.some((dream) => dream.token === dreams.opened)) return WORDS.gone;
    if (!dreams.list.length) return WORDS.none;
    const hours = dreams.keepSeconds / HOUR;
    return hours < 1 ? WORDS.kept_minutes : fill(WORDS.kept, { hours: Math.round(hours) });
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.hidden = !text;
  }
}
