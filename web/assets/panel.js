// The settings of the live dream: controls made from the server's description of each field, and the link that holds them.

import { layerNames } from "./layers_text.js";
import { Looks } from "./looks.js";

const PICTURE_RETRY_MS = 10_000, PICTURE_RETRIES = 30;
const LOG_SCALE_RATIO = 100;        // a range whose ends are further apart gets a logarithmic slider
const SLIDER_MAX = 1000;
const LINK_PREFIX = "#dream?";
const CONTENT = ["layers", "channel", "style_layers", "style_weight", "model"];  // another look, and no drift of this one
const KEY_STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };

export class Panel {
  // onChange(values): called with what the visitor changed; returns whether the server will answer it.
  constructor(root, facts, onChange) {
    this.root = root;
    this.facts = facts;
    this.onChange = onChange;
    this.values = { model: facts.model };                 // a field exists for it only with several networks
    for (const { name } of facts.fields) this.values[name] = facts.values[name];
    this.rows = new Map();                                // field name -> {field, input, output}
    this.look = "";                                       // the last one chosen, until other layers are
    this.pending = {};
    this.unanswered = [];                                 // values that were sent, oldest first; the server answers each
    const basic = root.querySelector(".sd-basic"), more = root.querySelector(".sd-more-fields");
    for (const field of facts.fields) (field.basic ? basic : more).append(this.createRow(field));
    const looks = root.querySelector(".sd-looks-box");
    this.looks = looks && new Looks(looks, {
      use: (name) => this.set(this.valuesOf(name), false, name),
      present: () => ({ layers: this.values.layers, model: this.values.model }),
      change: (layers) => this.set({ layers, channel: "" }),
    });
    this.createTiles();
    root.querySelector(".sd-channels").addEventListener("toggle", () => this.showChannels());
    root.querySelector(".sd-defaults").addEventListener("click", () => this.set(facts.values));
    root.querySelector(".sd-copy").addEventListener("click", (event) => this.copyLink(event.currentTarget));
    this.readLink();
    addEventListener("hashchange", () => this.readLink());
    addEventListener("streamdream:layer", ({ detail }) => {  // selected in the tab Layers
      if (detail.allTabs && detail.model === this.facts.model) this.set({ layers: detail.layer, channel: "" });
    });
    this.show();
  }

  // --- create the controls

  createRow(field) {
    const row = element("div", `sd-row sd-${field.kind}`), id = `sd-${field.name}`;
    const label = element("label", "", field.label);
    label.htmlFor = id;
    label.title = field.help + (field.unit ? ` (${field.unit})` : "");
    const input = createInput(field), output = element("output");
    input.id = id;
    input.name = field.name;
    output.htmlFor = id;
    const event = field.kind === "range" ? "input" : "change";
    input.addEventListener(event, () => this.set({ [field.name]: readInput(field, input) }, true));
    if (field.kind === "range") input.addEventListener("keydown", (press) => this.onSliderKey(field, press));
    row.append(label, output, input);
    this.rows.set(field.name, { field, input, output });
    return row;
  }

  // An arrow key moves by one step of the field, not by one of the slider.
  onSliderKey(field, event) {
    const steps = KEY_STEPS[event.key];
    if (!steps) return;
    event.preventDefault();
    const value = round(field, this.values[field.name] + steps * field.step);
    this.set({ [field.name]: Math.max(field.low, Math.min(field.high, value)) }, true);
  }

  // All settings of a look.
  valuesOf(name) {
    return { ...this.facts.values, ...this.facts.looks.find((look) => look.name === name).values };
  }

  // Load the picker of channels when it is first opened, and what it shows with another network.
  async showChannels() {
    if (!this.root.querySelector(".sd-channels").open) return;
    this.loading ??= import("./channel_picker.js");
    const { ChannelPicker } = await this.loading, { model, layers } = this.values;
    this.picker ??= new ChannelPicker(this.root.querySelector(".sd-picker"),
      (chosen) => this.set({ layers: chosen, channel: "" }));
    if (this.picker.model !== model) await this.picker.open(model, layers, this.facts.values.layers);
    else this.picker.setLayers(layers);
  }

  // Create a tile for each layer of the current network.
  createTiles() {
    const box = this.root.querySelector(".sd-layers"), network = this.facts.networks[this.values.model];
    this.network = this.values.model;
    box.replaceChildren();
    for (const layer of network.layers) {
      const tile = element("button", "sd-tile sd-plain");
      tile.type = "button";
      tile.title = `${layer.name}, ${layer.channels} channels`;
      tile.dataset.layer = layer.name;
      tile.append(element("span", "", layer.name));
      tile.addEventListener("click", (event) =>
        this.selectLayer(layer.name, event.shiftKey || event.ctrlKey || event.metaKey));
      box.append(tile);
    }
    addPictures([...box.children], new URL(network.sheet, document.baseURI));
    const text = this.rows.get("layers").input, list = element("datalist");
    list.id = "sd-layer-names";
    for (const name of network.taps) list.append(new Option(name, name));
    text.setAttribute("list", list.id);
    box.append(list);
  }

  // ``mix``: add the layer to the current ones, or remove it.
  selectLayer(name, mix) {
    const current = layerNames(this.values.layers);
    let next = [name];
    if (mix) next = current.includes(name) ? current.filter((other) => other !== name) : [...current, name];
    if (next.length) this.set({ layers: next.join(","), channel: "" });
  }

  // --- set values

  // ``keepFocused``: do not overwrite the control that the visitor is using; ``look``: the one that has these values.
  set(values, keepFocused = false, look = "") {
    if (values.model && values.model !== this.values.model && !("layers" in values)) {
      values = { ...values, layers: this.facts.networks[values.model].start, channel: "" };
    }
    const known = Object.fromEntries(Object.entries(values).filter(([name]) => this.rows.has(name)));
    Object.assign(this.values, known);
    Object.assign(this.pending, known);
    if (CONTENT.some((name) => name in known)) this.pending.look = this.look = look;
    this.show(keepFocused ? document.activeElement : null);
    this.writeLink();
    cancelAnimationFrame(this.flush);
    this.flush = requestAnimationFrame(() => {
      const changed = this.pending;
      this.pending = {};
      if (this.onChange(changed)) this.unanswered.push(changed);
    });
  }

  // Take over the server's values, which answer so many messages, except what the visitor has changed since. A new
  // connection answers none of the messages of the last one: pass Infinity.
  confirm(values, answers) {
    this.unanswered.splice(0, answers);
    const newer = Object.assign({}, ...this.unanswered, this.pending);
    for (const name of this.rows.keys()) if (!(name in newer)) this.values[name] = values[name];
    this.show(document.activeElement);
    this.writeLink();
  }

  show(focused = null) {
    for (const [name, { field, input, output }] of this.rows) {
      const value = this.values[name];
      if (input === focused && field.kind === "text") continue;
      if (field.kind === "switch") input.checked = value;
      else if (field.kind === "range") showSlider(field, input, output, value, input === focused);
      else input.value = value;
    }
    if (this.values.model !== this.network && this.facts.networks[this.values.model]) this.createTiles();
    const selected = layerNames(this.values.layers);
    for (const tile of this.root.querySelectorAll(".sd-tile")) {
      tile.setAttribute("aria-pressed", String(selected.includes(tile.dataset.layer)));
    }
    const look = this.look || this.facts.looks.find(({ name }) => this.has(this.valuesOf(name)))?.name;
    this.looks?.show(this.values.layers, look ?? "");
    const { model, layers } = this.values;
    if (this.told === `${model} ${layers}`) return;
    this.told = `${model} ${layers}`;
    this.showChannels();
    dispatchEvent(new CustomEvent("streamdream:live", { detail: { model, layers } }));
  }

  has(values) {
    return [...this.rows.keys()].every((name) => values[name] === this.values[name]);
  }

  // --- the link

  get hash() {
    const changed = Object.entries(this.values).filter(([name, value]) => value !== this.facts.values[name]);
    return changed.length ? LINK_PREFIX + new URLSearchParams(changed) : "";
  }

  writeLink() {
    this.written = this.hash;
    history.replaceState(history.state, "", location.pathname + location.search + this.hash);
  }

  readLink() {
    if (!location.hash.startsWith(LINK_PREFIX) || location.hash === this.written) return;
    const values = { ...this.facts.values };
    for (const [name, text] of new URLSearchParams(location.hash.slice(LINK_PREFIX.length))) {
      const row = this.rows.get(name);
      if (row) values[name] = parse(row.field, text);
    }
    this.set(values);
  }

  async copyLink(button) {
    const link = location.origin + location.pathname + this.hash;
    try {
      await navigator.clipboard.writeText(link);
      button.dataset.done = "Copied";
    } catch {
      button.dataset.done = "The link is in the address bar";
    }
    setTimeout(() => delete button.dataset.done, 2000);
  }
}

function createInput(field) {
  if (field.kind === "choice") {
    const select = element("select");
    for (const choice of field.choices) select.append(new Option(choice, choice));
    return select;
  }
  const input = element("input");
  input.type = { range: "range", switch: "checkbox", text: "text" }[field.kind];
  if (field.kind === "range") Object.assign(input, { min: 0, max: SLIDER_MAX, step: 1 });
  if (field.kind === "text") Object.assign(input, { maxLength: field.length, spellcheck: false, autocomplete: "off" });
  return input;
}

function showSlider(field, input, output, value, focused) {
  const moved = Math.abs(readInput(field, input) - value) > field.step / 2;
  if (!focused || moved) input.value = toSlider(field, value);
  output.textContent = String(Number(value.toPrecision(3)));
  input.setAttribute("aria-valuetext", output.textContent + (field.unit ? ` ${field.unit}` : ""));
  input.style.setProperty("--sd-part", `${100 * input.value / SLIDER_MAX}%`);
}

// Show the thumbnails in their tiles: one sheet holds all of them, side by side. The server sends a single pixel while they
// are being made: retry later.
function addPictures(tiles, url, retries = PICTURE_RETRIES) {
  const sheet = new Image();
  sheet.addEventListener("load", () => {
    if (sheet.naturalWidth > 1) {
      for (const [index, tile] of tiles.entries()) {
        const picture = element("i");
        picture.style.background = `url("${sheet.src}") ${100 * index / Math.max(1, tiles.length - 1)}% 50% / ${100 * tiles.length}%`;
        tile.classList.remove("sd-plain");
        tile.prepend(picture);
      }
    } else if (retries) {
      setTimeout(() => { if (tiles[0].isConnected) addPictures(tiles, url, retries - 1); }, PICTURE_RETRY_MS);
    }
  });
  url.search = retries === PICTURE_RETRIES ? "" : `retry=${retries}`;
  sheet.src = url;
}

// --- slider positions and values

function isLogScale(field) {
  return field.low > 0 && field.high / field.low > LOG_SCALE_RATIO;
}

function toSlider(field, value) {
  const { low, high } = field;
  return SLIDER_MAX * (isLogScale(field) ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
}

function readInput(field, input) {
  if (field.kind === "switch") return input.checked;
  if (field.kind !== "range") return input.value;
  const part = input.value / SLIDER_MAX, { low, high } = field;
  return round(field, isLogScale(field) ? low * (high / low) ** part : low + part * (high - low));
}

function round(field, value) {
  const whole = Math.round((value - field.low) / field.step) * field.step + field.low;
  return Number(Math.min(field.high, whole).toPrecision(6));
}

function parse(field, text) {
  if (field.kind === "switch") return text === "true";
  if (field.kind !== "range") return text.slice(0, field.length);
  const value = Number(text);
  return Number.isFinite(value) ? Math.max(field.low, Math.min(field.high, value)) : field.default;
}

function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
