// The settings of a tab: controls made from the server's description of each field, looks, layers, undo and redo, two
// settings to switch between. The tab Live sends what changes; the tabs Video and Picture keep it for their next dream.

import { History } from "./history.js";
import { Intensity } from "./intensity.js";
import { withChannels } from "./layers_text.js";
import { LayerTiles } from "./layer_tiles.js";
import { Looks } from "./looks.js";
import { OwnLooksGallery } from "./own_looks_gallery.js";
import { legal, SettingRow } from "./setting_row.js";
import { copyLink, linkFragment, readLink, writeLink } from "./settings_link.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const CONTENT = ["layers", "channel", "style_layers", "style_weight", "model"];  // another look, and no drift of this one
const OF_FILES = ["field_height"];    // belongs to a file, not to a look
const TYPED = "input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select";
const WORDS = strings.panel;

export class Panel {
  // onChange(values): called with what the visitor changed; returns whether the server will answer it.
  constructor(root, facts, onChange, tab = "live") {
    Object.assign(this, { root, facts, onChange, tab });
    this.values = { model: facts.model };                 // a field exists for it only with several networks
    for (const { name } of facts.fields) this.values[name] = facts.values[name];
    this.rows = new Map();                                // field name -> SettingRow
    this.look = "";                                       // the last one chosen, until other layers are
    this.pending = {};
    this.unanswered = [];                                 // values that were sent, oldest first; the server answers each
    this.slots = { A: null, B: null };                    // what each shows, while the other is in use
    this.histories = { A: new History(), B: new History() };
    this.slot = "A";
    this.intensity = new Intensity(facts.intensity.points, facts.values);
    this.createControls();
    this.listen();
    if (tab === "live") {
      this.readLink(false);
      addEventListener("hashchange", () => this.readLink(true));
    }
    this.show();
    root.panel = this;
    dispatchEvent(new CustomEvent("streamdream:panel", { detail: { tab, panel: this } }));   // see use_settings.js
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  // --- create the controls

  createControls() {
    const { facts } = this, prefix = this.tab === "live" ? "sd" : `sd-${this.tab}`;
    this.slider = new SettingRow(facts.intensity.field, `${prefix}-intensity`, {
      onChange: (position) => this.set(this.intensity.at(position), { focused: true, gesture: "intensity" }),
      onEnd: () => this.history.endGesture(),
    });
    this.find(".sd-intensity").append(this.slider.node);
    this.createPresets(prefix);
    for (const field of facts.fields) {
      const row = new SettingRow(field, `${prefix}-${field.name}`, {
        onChange: (value) => this.set({ [field.name]: value }, { focused: true, gesture: field.kind === "range" ? field.name : "" }),
        onEnd: () => this.history.endGesture(),
      });
      this.rows.set(field.name, row);
      this.find(field.name === "model" ? ".sd-basic" : ".sd-more-fields").append(row.node);
    }
    this.tiles = new LayerTiles(this.find(".sd-layers"), this.rows.get("layers").input, {
      onChange: (layers) => this.set({ layers, channel: "" }),
      isMixing: () => this.find(".sd-looks-box .sd-modes input:checked")?.value === "mix",
    });
    this.createLooks();
  }

  createLooks() {
    const root = this.find(".sd-looks-box");
    if (!root) return;                // none is for this network
    this.looks = new Looks(root, {
      use: (name) => this.useLook(name),
      present: () => ({ layers: this.values.layers, model: this.values.model }),
      change: (layers, look) => this.set({ layers, channel: "" }, { gesture: `mix ${look}` }),
      layersOf: (name) => this.valuesOf(name).layers,
    });
    this.ownLooks = new OwnLooksGallery(root, {
      present: () => ({ values: this.changes(), canvas: shownDream() }),
      say: (problem) => this.looks.say(problem),
      onShow: () => this.looks.show(this.values.layers, this.shownLook()),
    });
  }

  // Presets that are no looks, for special purposes.
  createPresets(prefix) {
    const { presets } = this.facts;
    this.preset = new SettingRow({ name: "preset", kind: "choice", label: WORDS.preset, help: WORDS.preset_help,
      technical: "preset", choices: ["", ...presets.map(({ name }) => name)], default: "" }, `${prefix}-preset`, {
      onChange: (name) => this.set(this.valuesOfPreset(name), { focused: true }),
    });
    [WORDS.no_preset, ...presets.map(({ label }) => label)].forEach((label, index) => {
      this.preset.input.options[index].text = label;
    });
    this.find(".sd-more-fields").append(this.preset.node);
  }

  valuesOfPreset(name) {
    const preset = this.facts.presets.find((one) => one.name === name);
    return { ...this.facts.values, ...this.fitting(preset?.values ?? {}) };
  }

  listen() {
    const on = (name, act) => this.find(`.sd-${name}`)?.addEventListener("click", act);
    on("defaults", () => this.set(this.facts.values));
    on("undo", () => this.restore(this.history.undo(this.state)));
    on("redo", () => this.restore(this.history.redo(this.state)));
    on("keep", () => this.ownLooks.keep());
    on("copy", ({ currentTarget }) => copyLink(this.changes(), currentTarget));
    on("from-live", () => this.useLive());
    for (const button of this.root.querySelectorAll("[data-slot]")) {
      button.addEventListener("click", () => this.switchTo(button.dataset.slot));
    }
    this.find(".sd-channels").addEventListener("toggle", () => this.showChannels());
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  // --- undo and redo, two settings to switch between

  get history() {
    return this.histories[this.slot];
  }

  get state() {
    return { values: { ...this.values }, look: this.look };
  }

  restore(state) {
    if (state) this.set(state.values, { look: state.look, isStep: false });
  }

  onKey(event) {
    const key = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || event.altKey || !["z", "y"].includes(key)) return;
    if (event.target.closest?.(TYPED) || !this.root.checkVisibility()) return;
    event.preventDefault();
    this.restore(key === "y" || event.shiftKey ? this.history.redo(this.state) : this.history.undo(this.state));
  }

  switchTo(slot) {
    if (slot === this.slot) return;
    this.slots[this.slot] = this.state;
    this.slot = slot;
    const next = this.slots[slot] ?? this.state;
    this.set(next.values, { look: next.look, isStep: false });
  }

  // --- looks, and settings from elsewhere

  // All settings of a look.
  valuesOf(name) {
    const own = this.ownLooks?.valuesOf(name);
    const values = own ?? this.facts.looks.find((look) => look.name === name)?.values;
    return { ...this.facts.values, ...(own ? this.fitting(own) : values), ...this.ofFile() };
  }

  ofFile() {
    return Object.fromEntries(OF_FILES.filter((name) => this.rows.has(name)).map((name) => [name, this.values[name]]));
  }

  useLook(name) {
    const values = this.ownLooks.valuesOf(name);
    if (values && !this.knows(values.model)) return;
    this.set(this.valuesOf(name), { look: name });
  }

  // Take over settings of another tab, a result or a link: those that this tab has, as far as they are legal.
  use(values) {
    if (this.knows(values.model)) this.set(this.fitting(values));
  }

  useLive() {
    const live = document.querySelector(".sd .sd-panel")?.panel, note = this.find(".sd-from-live-note");
    note.textContent = live ? WORDS.from_live_done : WORDS.no_live;
    if (live) dispatchEvent(new CustomEvent("streamdream:use", { detail: { tab: this.tab, values: live.values } }));
  }

  knows(model) {
    const isKnown = !model || model in this.facts.networks;
    this.looks?.say(isKnown ? "" : fill(WORDS.network_missing, { name: model }));
    return isKnown;
  }

  // Those of ``values`` that this tab has, each within its limits. A tab for pictures has no extra steps at the first
  // frame: its steps are all; where no channels can be named beside the layers, they are named with them.
  fitting(values) {
    const isHere = !values.model || values.model in this.facts.networks;
    const taken = Object.entries(values).filter(([name]) => this.rows.has(name) && (isHere || !CONTENT.includes(name)));
    const fitting = Object.fromEntries(taken);
    if (values.warmup_steps && values.steps && !this.rows.has("warmup_steps")) fitting.steps *= 1 + Number(values.warmup_steps);
    if (values.channel && fitting.layers && !this.rows.has("channel")) fitting.layers = withChannels(fitting.layers, values.channel);
    return Object.fromEntries(Object.entries(fitting).map(([name, value]) => [name, legal(this.rows.get(name).field, value)]));
  }

  // What differs from the server's own settings.
  changes() {
    return Object.fromEntries(Object.entries(this.values).filter(([name, value]) =>
      value !== this.facts.values[name] && !OF_FILES.includes(name)));
  }

  readLink(isStep) {
    const values = readLink();
    if (!values || location.hash === this.written) return;
    this.set({ ...this.facts.values, ...this.fitting(values) }, { isStep });
  }

  // --- set values

  // ``focused``: do not overwrite the control that the visitor is using; ``look``: the one that has these values;
  // ``gesture``: changes of one gesture are one step of undo; ``isStep``: false for undo itself.
  set(values, { focused = false, look = "", gesture = "", isStep = true } = {}) {
    if (values.model && values.model !== this.values.model && !("layers" in values)) {
      values = { ...values, layers: this.facts.networks[values.model].start, channel: "" };
    }
    const known = Object.fromEntries(Object.entries(values).filter(([name]) => this.rows.has(name)));
    const before = this.state, isChange = Object.entries(known).some(([name, value]) => value !== before.values[name]);
    if (isStep && isChange) this.history.record(before, gesture);
    Object.assign(this.values, known);
    Object.assign(this.pending, known);
    if ("step_size" in known && gesture !== "intensity") this.intensity.learn(this.values);
    if (CONTENT.some((name) => name in known)) this.pending.look = this.look = look;
    this.show(focused ? document.activeElement : null);
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

  writeLink() {
    if (this.tab !== "live") return;
    this.written = linkFragment(this.changes());
    writeLink(this.written);
  }

  // --- show them

  show(focused = null) {
    for (const [name, row] of this.rows) row.show(this.values[name], row.input === focused);
    this.slider.show(this.intensity.position(this.values), this.slider.input === focused);
    this.preset.show(this.presentPreset());
    const { model, layers } = this.values;
    if (this.facts.networks[model]) this.tiles.show(model, this.facts.networks[model], layers);
    this.looks?.show(layers, this.shownLook());
    this.find(".sd-undo").disabled = !this.history.past.length;
    this.find(".sd-redo").disabled = !this.history.future.length;
    for (const button of this.root.querySelectorAll("[data-slot]")) button.ariaPressed = String(button.dataset.slot === this.slot);
    if (this.told === `${model} ${layers}`) return;
    this.told = `${model} ${layers}`;
    this.showChannels();
    if (this.tab === "live") dispatchEvent(new CustomEvent("streamdream:live", { detail: { model, layers } }));
  }

  presentPreset() {
    if (this.has(this.facts.values)) return "";
    return this.facts.presets.find(({ name }) => this.has(this.valuesOfPreset(name)))?.name ?? "";
  }

  // The look that was chosen, or the one that has all present settings.
  shownLook() {
    if (this.look) return this.look;
    const names = [...this.root.querySelectorAll(".sd-look")].map((button) => button.dataset.look);
    return names.find((name) => this.has(this.valuesOf(name))) ?? "";
  }

  has(values) {
    return [...this.rows.keys()].every((name) => values[name] === this.values[name]);
  }

  // Load the picker of channels when it is first opened, and what it shows with another network.
  async showChannels() {
    if (!this.find(".sd-channels").open) return;
    this.loading ??= import("./channel_picker.js");
    const { ChannelPicker } = await this.loading, { model, layers } = this.values;
    this.picker ??= new ChannelPicker(this.find(".sd-picker"), (chosen) => this.set({ layers: chosen, channel: "" }));
    if (this.picker.model !== model) await this.picker.open(model, layers, this.facts.values.layers);
    else this.picker.setLayers(layers);
  }
}

// The canvas of the live dream, once it shows one.
function shownDream() {
  const live = document.querySelector(".sd[data-state=live]");
  return live?.page?.lastShown ? live.querySelector(".sd-canvas") : null;
}
