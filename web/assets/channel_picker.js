// The picker of channels: the sheet of a block, a cell for each channel; a search by name; a tray of what is chosen.
// The sheets are those of streamdream/models/channel_sheets.py. The result is the text of layers.

import { formatLayers, isSame, parseLayers } from "./layers_text.js";
import { element } from "./setting_row.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const MORE = 1, LESS = -0.5;              // weights of "more like this" and "not this"
const WEIGHT_STEP = 0.25, MAX_WEIGHT = 4;
const MAX_CHARACTERS = 1000, MAX_PARTS = 64;  // as in web/core/limits.py
const SEARCH_MS = 150, PENDING_MS = 5000;
const BASE = document.baseURI;
const WORDS = strings.channels;
const FRAME = `
<div class="sd-tray" role="group" aria-label="${WORDS.chosen}"></div>
<div class="sd-picker-bar">
  <input class="sd-search" type="search" placeholder="${WORDS.search}" aria-label="${WORDS.search_label}" maxlength="100">
  <div class="sd-modes" role="radiogroup" aria-label="${WORDS.modes}">
    <label><input type="radio" value="1" checked><span>${WORDS.more}</span></label>
    <label title="${WORDS.less_title}"><input type="radio" value="-1"><span>${WORDS.less}</span></label>
  </div>
</div>
<div class="sd-blocks" role="group" aria-label="${WORDS.layers}"></div>
<p class="sd-status" role="status"></p>
<div class="sd-cells" role="group" aria-label="${WORDS.cells}"></div>`;
let pickers = 0;

export class ChannelPicker {
  // onChange(text): the visitor has chosen other layers.
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.parts = [];
    this.blocks = [];
    root.innerHTML = FRAME;
    pickers += 1;
    for (const radio of root.querySelectorAll("input[type=radio]")) radio.name = `sd-picker-${pickers}`;
    this.cells = this.find(".sd-cells");
    this.search = this.find(".sd-search");
    this.search.addEventListener("input", () => {
      clearTimeout(this.searching);
      this.searching = setTimeout(() => this.showFound(), SEARCH_MS);
    });
    this.cells.addEventListener("click", (event) => {
      const cell = event.target.closest(".sd-cell");
      if (cell) this.toggle(cell, event.shiftKey ? -1 : Number(this.find("input[type=radio]:checked").value));
    });
    this.cells.addEventListener("keydown", (event) => this.onKey(event));
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  // Show the channels of a network, and these layers. ``start`` is what is dreamed before anything is chosen.
  async open(model, layers, start = "") {
    this.model = model;
    this.start = formatLayers(parseLayers(start));
    this.parts = parseLayers(layers);
    await this.load();
    const first = this.blocks.find(({ name }) => this.parts.some(({ layer }) => layer === name));
    this.showBlock((first ?? this.blocks.at(-1)).name);
    this.showParts();
  }

  async load() {
    const facts = await (await fetch(new URL(`channels/${this.model}`, BASE))).json();
    if (facts.model !== this.model) return;
    this.blocks = facts.blocks;
    this.say(facts.status);
    this.find(".sd-blocks").replaceChildren(...this.blocks.map(({ name, words }) => {
      const button = element("button", "sd-chip", name);
      button.type = "button";
      button.dataset.layer = name;
      button.append(element("small", "", words));
      button.addEventListener("click", () => { this.search.value = ""; this.showBlock(name); });
      return button;
    }));
    this.markBlock();
    clearTimeout(this.waiting);
    if (facts.pending) this.waiting = setTimeout(() => this.loadAgain(), PENDING_MS);
  }

  // Sheets are being made: show the new ones.
  async loadAgain() {
    if (!this.root.isConnected) return;
    const before = this.blocks.map(({ sheet }) => sheet).join();
    if (this.root.offsetParent) await this.load();
    else this.waiting = setTimeout(() => this.loadAgain(), PENDING_MS);
    if (this.blocks.map(({ sheet }) => sheet).join() !== before && !this.search.value) this.showBlock(this.block);
  }

  setLayers(text) {
    if (text === formatLayers(this.parts)) return;
    this.parts = parseLayers(text);
    this.showParts();
  }

  // --- cells

  showBlock(name) {
    const block = this.blocks.find((other) => other.name === name);
    this.block = name;
    this.markBlock();
    this.showCells(Array.from({ length: block.channels }, (_, channel) => [name, channel]));
  }

  markBlock() {
    for (const button of this.find(".sd-blocks").children) {
      button.setAttribute("aria-pressed", String(!this.search.value.trim() && button.dataset.layer === this.block));
    }
  }

  async showFound() {
    const words = this.search.value.trim();
    if (!words) {
      this.say("");
      this.showBlock(this.block);
      return;
    }
    const query = new URLSearchParams({ q: words });
    const found = await (await fetch(new URL(`channels/${this.model}/search?${query}`, BASE))).json();
    if (words !== this.search.value.trim()) return;
    this.markBlock();
    this.say(fill([WORDS.none, WORDS.found_one][found.length] ?? WORDS.found, { count: found.length }));
    this.showCells(found);
  }

  showCells(list) {
    this.cells.replaceChildren(...list.map(([layer, channel], index) => {
      const cell = element("button", "sd-cell"), picture = this.picture(layer, channel);
      cell.type = "button";
      cell.tabIndex = index ? -1 : 0;     // one stop of the Tab key; arrow keys move within
      Object.assign(cell.dataset, { layer, channel });
      if (picture) cell.style.cssText = picture;
      else cell.textContent = channel;
      cell.title = cell.ariaLabel = this.label({ layer, channel }, true);
      return cell;
    }));
    this.cells.scrollTop = 0;
    this.markCells();
  }

  // The style of an element that shows the picture of a channel, "" while there is none.
  picture(layer, channel) {
    const block = this.blocks.find(({ name }) => name === layer);
    if (!block?.sheet || channel === null) return "";
    const columns = block.columns, rows = Math.ceil(block.channels / columns);
    const part = (position, count) => 100 * position / Math.max(1, count - 1);
    return `background-image:url("${new URL(block.sheet, BASE)}");background-size:${100 * columns}% ${100 * rows}%;`
      + `background-position:${part(channel % columns, columns)}% ${part(Math.floor(channel / columns), rows)}%`;
  }

  label({ layer, channel }, whole = false) {
    const number = channel === null ? layer : `${layer} ${channel}`;
    const name = this.blocks.find((block) => block.name === layer)?.names[channel];
    return name ? name + (whole ? ` (${number})` : "") : number;
  }

  markCells() {
    for (const cell of this.cells.children) {
      const { layer, channel } = cell.dataset;
      const weight = this.parts.find((part) => isSame(part, { layer, channel: Number(channel) }))?.weight ?? 0;
      cell.setAttribute("aria-pressed", String(weight !== 0));
      if (weight) cell.dataset.sign = weight > 0 ? "+" : "−";
      else delete cell.dataset.sign;
    }
  }

  onKey(event) {
    const cells = [...this.cells.children], index = cells.indexOf(document.activeElement);
    const columns = getComputedStyle(this.cells).gridTemplateColumns.split(" ").length;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -index,
      End: cells.length - 1 - index };
    if (event.key === "-") this.toggle(cells[index], -1);
    else if (event.key === "+") this.toggle(cells[index], 1);
    else if (event.key in moves) {
      const next = cells[index + moves[event.key]];
      if (!next) return;
      cells[index].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else return;
    event.preventDefault();
  }

  // --- what is chosen

  // More (``sign`` 1) or less of a channel; the same again takes it away. The first channel replaces whole layers and
  // what nobody has chosen.
  toggle(cell, sign) {
    const chosen = { layer: cell.dataset.layer, channel: Number(cell.dataset.channel), weight: sign > 0 ? MORE : LESS };
    const old = this.parts.find((part) => isSame(part, chosen));
    let parts = formatLayers(this.parts) === this.start && sign > 0 && !old ? [] : this.parts.filter((part) => part !== old);
    if (!old && sign > 0) parts = parts.filter(({ channel, weight }) => channel !== null || weight < 0);
    if (Math.sign(old?.weight) !== sign) parts = [...parts, chosen];
    this.change(parts);
  }

  change(parts) {
    if (!parts.length) {
      this.say(WORDS.one_stays);
    } else if (parts.length > MAX_PARTS || formatLayers(parts).length > MAX_CHARACTERS) {
      this.say(WORDS.full);
    } else {
      this.parts = parts;
      this.showParts();
      this.onChange(formatLayers(parts));
    }
  }

  showParts() {
    const tray = this.find(".sd-tray"), focused = tray.contains(document.activeElement) && document.activeElement.ariaLabel;
    tray.replaceChildren(...this.parts.map((part) => this.createPart(part)));
    if (focused) (tray.querySelector(`[aria-label="${CSS.escape(focused)}"]`) ?? tray.querySelector("button"))?.focus();
    this.markCells();
  }

  createPart(part) {
    const box = element("div", "sd-part"), picture = this.picture(part.layer, part.channel), label = this.label(part);
    const set = (weight) => this.change(this.parts.map((other) => (other === part ? { ...part, weight } : other)));
    box.dataset.sign = part.weight > 0 ? "+" : "−";
    box.title = this.label(part, true);
    if (picture) box.append(Object.assign(element("i"), { style: picture }));
    box.append(element("span", "", label));
    const weight = element("output", "", String(Number(part.weight.toPrecision(3))).replace("-", "−"));
    box.append(
      button("−", fill(WORDS.less_of, { name: label }), () => set(stepped(part.weight, -1))), weight,
      button("+", fill(WORDS.more_of, { name: label }), () => set(stepped(part.weight, 1))),
      button("×", fill(WORDS.remove, { name: label }), () => this.change(this.parts.filter((other) => other !== part))),
    );
    return box;
  }

  say(text) {
    this.find(".sd-status").textContent = text;
  }
}

// The next weight, never 0.
function stepped(weight, sign) {
  const next = Math.round((weight + sign * WEIGHT_STEP) / WEIGHT_STEP) * WEIGHT_STEP;
  return Math.max(-MAX_WEIGHT, Math.min(MAX_WEIGHT, next || sign * WEIGHT_STEP));
}

function button(text, label, onClick) {
  const made = Object.assign(element("button", "", text), { type: "button", ariaLabel: label });
  made.addEventListener("click", onClick);
  return made;
}
