// The gallery of looks, whose HTML is made by pages/looks.py. A click uses a look; with "Mix" its layers are added to
// the present ones, with "Subtract" they get negative weights, and a slider says how much.

import { rove } from "./roving.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const SIGNS = { mix: "+", subtract: "−" };
const WORDS = strings.looks;

export class Looks {
  // ``use(name)``: take over all settings of a look; ``present()``: {layers, model}; ``change(text, name)``: use
  // these layers, mixed with that look; ``layersOf(name)``: the layers of a look.
  constructor(root, { use, present, change, layersOf }) {
    Object.assign(this, { root, use, present, change, layersOf });
    this.mixed = null;          // the last mix: {look, mode, base: the layers before it, result: those after it}
    this.amount = root.querySelector(".sd-amount");
    this.slider = this.amount.querySelector("input");
    root.addEventListener("click", (event) => {
      const button = event.target.closest(".sd-look");
      if (button) this.choose(button.dataset.look, event.shiftKey);
    });
    root.addEventListener("change", (event) => {
      if (event.target.type === "radio") this.setMixed(null);
    });
    this.slider.addEventListener("input", () => this.mix());
    this.updateStop = rove(root.querySelector(".sd-looks"), ".sd-look", true);
  }

  choose(look, shift) {
    let mode = this.root.querySelector("input[type=radio]:checked").value;
    if (shift && mode === "use") mode = "mix";
    if (mode === "use") {
      this.setMixed(null);
      this.mark(look);
      this.use(look);
      return;
    }
    const { layers, model } = this.present(), goesOn = this.mixed?.mode === mode && this.mixed.result === layers;
    this.slider.value = 50;
    this.setMixed({ look, mode, model, base: goesOn ? this.mixed.base : layers });
    this.mix();
  }

  // One request at a time; a slider that moved meanwhile makes another.
  async mix() {
    const mixed = this.mixed, value = this.slider.value;
    this.amount.querySelector("output").textContent = `${value} %`;
    if (!mixed || mixed.busy) return;
    mixed.busy = true;
    const query = new URLSearchParams({ model: mixed.model, layers: mixed.base, other: this.layersOf(mixed.look),
      mode: mixed.mode, amount: value / 100 });
    const answer = await fetch(new URL(`looks/mix?${query}`, document.baseURI)).then((response) => response.json())
      .catch(() => ({ problem: WORDS.no_answer }));
    mixed.busy = false;
    if (mixed !== this.mixed) return;
    if (value !== this.slider.value) { this.mix(); return; }
    this.say(answer.problem);
    if (answer.problem) return;
    mixed.result = answer.layers;
    this.change(answer.layers, mixed.look);
  }

  setMixed(mixed) {
    this.mixed = mixed;
    this.amount.hidden = !mixed;
    this.say("");
    for (const button of this.root.querySelectorAll(".sd-look")) {
      if (button.dataset.look === mixed?.look) {
        button.dataset.sign = SIGNS[mixed.mode];
        const look = button.querySelector("span").textContent;
        this.amount.querySelector("span").textContent = fill(mixed.mode === "mix" ? WORDS.how_much : WORDS.less, { look });
      } else delete button.dataset.sign;
    }
  }

  // Show which look is in use, "" for none.
  mark(look) {
    for (const button of this.root.querySelectorAll(".sd-look")) {
      button.setAttribute("aria-pressed", String(button.dataset.look === look));
    }
    this.updateStop();
  }

  // The present layers and the look that has all present settings: while a mix is in use, its first look stays marked.
  show(layers, look) {
    if (this.mixed?.result && this.mixed.result !== layers && !this.mixed.busy) this.setMixed(null);
    if (!this.mixed) this.mark(look);
  }

  say(problem) {
    const line = this.root.querySelector(".sd-problem");
    line.textContent = problem ?? "";
    line.hidden = !problem;
  }
}
