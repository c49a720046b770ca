// One setting as a row of the panel: its name, its control, its value, and a "?" that opens what it does.

import strings from "./strings.js";
import { fill } from "./words.js";

const LOG_SCALE_RATIO = 100;        // a range whose ends are further apart gets a logarithmic slider
const SLIDER_MAX = 1000;
const KEY_STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };

export class SettingRow {
  // ``onChange(value)``: at each move of a slider; ``onEnd()``: the visitor lets go of it.
  constructor(field, id, { onChange, onEnd = () => {} }) {
    Object.assign(this, { field, onChange });
    this.value = field.default;
    this.input = createInput(field);
    Object.assign(this.input, { id, name: field.name });
    this.output = element("output");
    this.output.htmlFor = id;
    this.node = element("div", `sd-row sd-${field.kind}`);
    const label = element("label", "", field.label);
    label.htmlFor = id;
    this.node.append(label, this.createHelp(id), this.output, this.input, this.help);
    const isRange = field.kind === "range";
    this.input.addEventListener(isRange ? "input" : "change", () => onChange(readInput(field, this.input)));
    if (!isRange) return;
    this.input.addEventListener("keydown", (press) => this.onKey(press));
    for (const end of ["change", "keyup", "blur"]) this.input.addEventListener(end, onEnd);
  }

  // The "?" works by touch and keyboard. A screen reader reads the text with the control, also while it is hidden.
  createHelp(id) {
    const { field } = this, button = element("button", "sd-ask", "?");
    this.help = element("p", "sd-help", `${field.help} `);
    this.help.id = `${id}-help`;
    this.help.hidden = true;
    this.help.append(element("code", "", field.technical));
    Object.assign(button, { type: "button", ariaLabel: fill(strings.panel.help, { name: field.label }), ariaExpanded: "false" });
    button.setAttribute("aria-controls", this.help.id);
    this.input.setAttribute("aria-describedby", this.help.id);
    button.addEventListener("click", () => {
      this.help.hidden = !this.help.hidden;
      button.ariaExpanded = String(!this.help.hidden);
    });
    return button;
  }

  // An arrow key moves by one step of the field, not by one of the slider.
  onKey(event) {
    const { field } = this, steps = KEY_STEPS[event.key];
    if (!steps || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.onChange(clamp(field, round(field, this.value + steps * field.step)));
  }

  // Do not move a slider that is being dragged, nor overwrite a text that is being typed.
  show(value, isFocused) {
    const { field, input } = this;
    this.value = value;
    if (field.kind === "text" && isFocused) return;
    if (field.kind === "switch") input.checked = value;
    else if (field.kind === "range") this.showSlider(isFocused);
    else input.value = value;
  }

  showSlider(isFocused) {
    const { field, input, output, value } = this;
    const moved = Math.abs(readInput(field, input) - value) > field.step / 2;
    if (!isFocused || moved) input.value = toSlider(field, value);
    output.textContent = String(Number(value.toPrecision(3)));
    input.setAttribute("aria-valuetext", output.textContent + (field.unit ? ` ${field.unit}` : ""));
    input.style.setProperty("--sd-part", `${100 * input.value / SLIDER_MAX}%`);
  }
}

// The legal value of a field that is nearest to one from elsewhere: a link, the browser's storage, another tab.
export function legal(field, value) {
  if (field.kind === "switch") return value === true || value === "true";
  if (field.kind === "choice") return field.choices.includes(value) ? value : field.default;
  if (field.kind !== "range") return String(value).slice(0, field.length);
  const number = Number(value);
  return Number.isFinite(number) ? clamp(field, number) : field.default;
}

export function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
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

function clamp(field, number) {
  const within = Math.max(field.low, Math.min(field.high, number));
  return field.whole ? Math.round(within) : within;
}
