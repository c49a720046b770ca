// "My looks" in the gallery: the looks that a visitor keeps, each with a row to rename, delete and link it.

import { MAX_LOOKS, MAX_NAME, onLooksChange, ownLooks, storeLooks } from "./own_looks.js";
import { element } from "./setting_row.js";
import { copyLink } from "./settings_link.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.own_looks;
const OWN = "own:";                 // before the id of an own look, in the place of a look's name
const WIDTH = 200, HEIGHT = 130, QUALITY = 0.7;

export class OwnLooksGallery {
  // ``root``: the gallery; ``present()``: {values, canvas}: the settings to keep, and what shows their dream, if any;
  // ``say(problem)``; ``onShow()``: the buttons are new.
  constructor(root, { present, say, onShow }) {
    Object.assign(this, { root, present, say, onShow });
    this.edited = "";               // the id of the look whose row is open
    this.looks = [];
    this.heading = element("h3", "", WORDS.title);
    this.box = root.querySelector(".sd-looks");
    onLooksChange(() => this.show());
    this.show();
  }

  // The values of an own look, by its name in the gallery.
  valuesOf(name) {
    return this.looks.find(({ id }) => OWN + id === name)?.values;
  }

  keep() {
    const looks = ownLooks(), { values, canvas } = this.present();
    if (looks.length >= MAX_LOOKS) { this.say(fill(WORDS.full, { count: MAX_LOOKS })); return; }
    const id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const name = fill(WORDS.new, { number: looks.length + 1 });
    this.edited = id;
    this.store([...looks, { id, name, values, picture: canvas ? thumbnail(canvas) : "" }]);
    this.box.querySelector(".sd-my-name")?.select();
  }

  store(looks) {
    this.say(storeLooks(looks) ? "" : WORDS.no_storage);
  }

  show() {
    const looks = this.looks = ownLooks();
    for (const old of this.box.querySelectorAll(".sd-my-look, .sd-my-edit")) old.remove();
    this.heading.remove();
    if (looks.length) this.box.prepend(this.heading, ...looks.flatMap((look) => this.createTile(look)));
    this.onShow?.();
  }

  createTile(look) {
    const tile = element("div", "sd-my-look"), use = element("button", "sd-look"), edit = element("button", "sd-my-more", "⋯");
    use.type = edit.type = "button";
    use.dataset.look = OWN + look.id;
    use.ariaPressed = "false";
    if (look.picture) use.append(Object.assign(element("img"), { src: look.picture, alt: "" }));
    use.append(element("span", "", look.name));
    edit.ariaLabel = fill(WORDS.edit, { look: look.name });
    edit.ariaExpanded = String(this.edited === look.id);
    edit.addEventListener("click", () => {
      this.edited = this.edited === look.id ? "" : look.id;
      this.show();
      this.box.querySelector(this.edited ? ".sd-my-name" : ".sd-my-more")?.focus();
    });
    tile.append(use, edit);
    return this.edited === look.id ? [tile, this.createEdit(look)] : [tile];
  }

  createEdit(look) {
    const row = element("form", "sd-my-edit"), name = element("input", "sd-my-name");
    Object.assign(name, { value: look.name, maxLength: MAX_NAME, ariaLabel: WORDS.name, autocomplete: "off" });
    const button = (text, act) => {
      const made = Object.assign(element("button", "", text), { type: "button" });
      made.addEventListener("click", act);
      return made;
    };
    const done = Object.assign(element("button", "", WORDS.done), { type: "submit" });
    row.addEventListener("submit", (event) => {
      event.preventDefault();
      this.edited = "";
      const changed = { ...look, name: name.value.trim() || look.name };
      this.store(ownLooks().map((other) => (other.id === look.id ? changed : other)));
    });
    row.append(name, done, button(WORDS.copy, ({ currentTarget }) => copyLink(look.values, currentTarget)),
      button(WORDS.delete, () => { this.edited = ""; this.store(ownLooks().filter(({ id }) => id !== look.id)); }));
    return row;
  }
}

// The middle of a canvas as a small JPEG.
function thumbnail(canvas) {
  const small = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
  const scale = Math.max(WIDTH / canvas.width, HEIGHT / canvas.height);
  const width = canvas.width * scale, height = canvas.height * scale;
  small.getContext("2d").drawImage(canvas, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
  return small.toDataURL("image/jpeg", QUALITY);
}
