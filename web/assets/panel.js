// The settings of the live dream: controls made from what the server says of each field, and the link that holds them.

export class Panel {
  // change(values) is told what the visitor has set; whether the server will answer it.
  constructor(root, facts, change) {
    this.root = root;
    this.facts = facts;
    this.change = change;
    this.values = { model: facts.model };                 // there is a field for it only where there are several
    for (const { name } of facts.fields) this.values[name] = facts.values[name];
    this.rows = new Map();
    this.pending = {};
    this.unanswered = [];                                 // what was sent, oldest first: the server answers each
    const basic = root.querySelector(".sd-basic"), more = root.querySelector(".sd-more-fields");
    for (const field of facts.fields) (field.basic ? basic : more).append(this.row(field));
    this.looks(root.querySelector(".sd-looks"));
    this.layers();
    root.querySelector(".sd-defaults").addEventListener("click", () => this.set(facts.values));
    root.querySelector(".sd-copy").addEventListener("click", (event) => this.copy(event.currentTarget));
    this.fromLink();
    addEventListener("hashchange", () => this.fromLink());
    addEventListener("streamdream:layer", ({ detail }) => {  // picked in the tab Layers
      if (detail.everywhere && detail.model === this.facts.model) this.set({ layers: detail.layer, channel: "" });
    });
    this.show();
  }

  // --- making

  row(field) {
    const row = element("div", `sd-row sd-${field.kind}`), id = `sd-${field.name}`;
    const label = element("label", "", field.label);
    label.htmlFor = id;
    label.title = field.help + (field.unit ? ` (${field.unit})` : "");
    let input;
    if (field.kind === "choice") {
      input = element("select");
      for (const choice of field.choices) input.append(new Option(choice, choice));
    } else {
      input = element("input");
      input.type = { range: "range", switch: "checkbox", text: "text" }[field.kind];
    }
    input.id = id;
    input.name = field.name;
    const output = element("output");
    output.htmlFor = id;
    if (field.kind === "range") Object.assign(input, { min: 0, max: 1000, step: 1 });
    if (field.kind === "text") Object.assign(input, { maxLength: 200, spellcheck: false, autocomplete: "off" });
    const event = field.kind === "range" ? "input" : "change";
    input.addEventListener(event, () => this.set({ [field.name]: read(field, input) }, true));
    if (field.kind === "range") {       // a notch of the arrow keys is a step of the field, not of the slider
      input.addEventListener("keydown", (press) => {
        const turn = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[press.key];
        if (!turn) return;
        press.preventDefault();
        const value = round(field, this.values[field.name] + turn * field.step);
        this.set({ [field.name]: Math.max(field.low, Math.min(field.high, value)) }, true);
      });
    }
    row.append(label, output, input);
    this.rows.set(field.name, { field, input, output });
    return row;
  }

  looks(box) {
    for (const look of this.facts.looks) {
      const chip = element("button", "sd-chip", look.label);
      chip.type = "button";
      chip.title = look.about;
      chip.dataset.look = look.name;
      chip.addEventListener("click", () => this.set({ ...this.facts.values, ...look.values }));
      box.append(chip);
    }
    box.hidden = !this.facts.looks.length;
  }

  // The tiles of the network of now; made anew when it is another.
  layers() {
    const box = this.root.querySelector(".sd-layers"), network = this.facts.networks[this.values.model];
    this.network = this.values.model;
    box.replaceChildren();
    for (const layer of network.layers) {
      const tile = element("button", "sd-tile");
      tile.type = "button";
      tile.title = `${layer.name}, ${layer.channels} channels`;
      tile.dataset.layer = layer.name;
      tile.append(element("span", "", layer.name));
      tile.addEventListener("click", (event) => this.pick(layer.name, event.shiftKey || event.ctrlKey || event.metaKey));
      box.append(tile);
    }
    this.illustrate(network.layers);
    const text = this.rows.get("layers").input, list = element("datalist");
    list.id = "sd-layer-names";
    for (const name of network.taps) list.append(new Option(name, name));
    text.setAttribute("list", list.id);
    box.append(list);
  }

  illustrate(layers) {
    this.illustrated = layers.every((layer) => layer.picture);
    for (const layer of layers) {
      const tile = this.root.querySelector(`[data-layer="${CSS.escape(layer.name)}"]`);
      if (!tile) continue;              // of another network than the one of now
      tile.classList.toggle("sd-plain", !layer.picture);
      if (!layer.picture || tile.querySelector("img")) continue;
      const image = element("img");
      Object.assign(image, { src: layer.picture, alt: "", loading: "lazy" });
      tile.prepend(image);
    }
  }

  pick(name, beside) {
    const now = names(this.values.layers);
    let next = [name];
    if (beside) next = now.includes(name) ? now.filter((other) => other !== name) : [...now, name];
    if (next.length) this.set({ layers: next.join(","), channel: "" });
  }

  // --- setting

  set(values, quiet = false) {
    if (values.model && values.model !== this.values.model && !("layers" in values)) {
      values = { ...values, layers: this.facts.networks[values.model].start, channel: "" };
    }
    const known = Object.entries(values).filter(([name]) => this.rows.has(name));
    Object.assign(this.values, Object.fromEntries(known));
    Object.assign(this.pending, Object.fromEntries(known));
    this.show(quiet ? document.activeElement : null);
    this.toLink();
    cancelAnimationFrame(this.flush);
    this.flush = requestAnimationFrame(() => {
      const changed = this.pending;
      this.pending = {};
      if (this.change(changed)) this.unanswered.push(changed);
    });
  }

  // What the server says that is set now, in answer to so many messages: the truth, but for what the visitor has changed
  // since. A connection that has just opened answers nothing that was sent before.
  confirm(values, answers) {
    this.unanswered.splice(0, answers);
    const newer = Object.assign({}, ...this.unanswered, this.pending);
    for (const name of this.rows.keys()) if (!(name in newer)) this.values[name] = values[name];
    this.show(document.activeElement);
    this.toLink();
  }

  show(busy = null) {
    for (const [name, { field, input, output }] of this.rows) {
      const value = this.values[name];
      if (input === busy && field.kind === "text") continue;
      if (field.kind === "switch") input.checked = value;
      else if (field.kind !== "range") input.value = value;
      else {
        if (input !== busy || Math.abs(read(field, input) - value) > field.step / 2) input.value = place(field, value);
        output.textContent = String(Number(value.toPrecision(3)));
        input.setAttribute("aria-valuetext", output.textContent + (field.unit ? ` ${field.unit}` : ""));
        input.style.setProperty("--sd-part", `${input.value / 10}%`);
      }
    }
    if (this.values.model !== this.network && this.facts.networks[this.values.model]) this.layers();
    const chosen = names(this.values.layers);
    for (const tile of this.root.querySelectorAll(".sd-tile")) {
      tile.setAttribute("aria-pressed", String(chosen.includes(tile.dataset.layer)));
    }
    for (const chip of this.root.querySelectorAll(".sd-chip")) {
      const look = this.facts.looks.find((one) => one.name === chip.dataset.look);
      const wanted = { ...this.facts.values, ...look.values };
      chip.setAttribute("aria-pressed", String([...this.rows.keys()].every((name) => wanted[name] === this.values[name])));
    }
  }

  // --- the link

  changed() {
    return Object.fromEntries(Object.entries(this.values).filter(([name, value]) => value !== this.facts.values[name]));
  }

  get hash() {
    const changed = this.changed();
    return Object.keys(changed).length ? `#dream?${new URLSearchParams(changed)}` : "";
  }

  toLink() {
    this.written = this.hash;
    history.replaceState(history.state, "", location.pathname + location.search + this.hash);
  }

  fromLink() {
    if (!location.hash.startsWith("#dream?") || location.hash === this.written) return;
    const values = { ...this.facts.values };
    for (const [name, text] of new URLSearchParams(location.hash.slice(7))) {
      const row = this.rows.get(name);
      if (row) values[name] = parse(row.field, text);
    }
    this.set(values);
  }

  async copy(button) {
    const link = location.origin + location.pathname + this.hash;
    try {
      await navigator.clipboard.writeText(link);
      button.dataset.done = "Copied";
    } catch {
      button.dataset.done = "It is in the address bar";
    }
    setTimeout(() => delete button.dataset.done, 2000);
  }
}

// --- values and places on a slider; what spans several powers of ten gets as much room for each

function bent(field) {
  return field.low > 0 && field.high / field.low > 100;
}

function place(field, value) {
  const { low, high } = field;
  return 1000 * (bent(field) ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
}

function read(field, input) {
  if (field.kind === "switch") return input.checked;
  if (field.kind !== "range") return input.value;
  const part = input.value / 1000, { low, high } = field;
  return round(field, bent(field) ? low * (high / low) ** part : low + part * (high - low));
}

function round(field, value) {
  const whole = Math.round((value - field.low) / field.step) * field.step + field.low;
  return Number(Math.min(field.high, whole).toPrecision(6));
}

function parse(field, text) {
  if (field.kind === "switch") return text === "true";
  if (field.kind !== "range") return text.slice(0, 200);
  const value = Number(text);
  return Number.isFinite(value) ? Math.max(field.low, Math.min(field.high, value)) : field.default;
}

function names(layers) {
  return layers.split(",").map((part) => part.split(":")[0].trim()).filter(Boolean);
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
