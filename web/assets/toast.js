// Messages over the picture. One passes by itself; others stay, one for each cause, until they are taken back.

export class Toast {
  constructor(root) {
    this.root = root;
    this.kept = new Map();            // cause -> text
    this.passing = null;              // {text, action}
  }

  // Show a text for ``ms``. ``action``: {label, run}, a button beside it.
  show(text, ms, action = null) {
    clearTimeout(this.timer);
    this.passing = { text, action };
    this.timer = setTimeout(() => this.pass(), ms);
    this.render();
  }

  // Show a text, when nothing passes, until this is called again for its cause; "" takes it back.
  keep(cause, text) {
    if ((this.kept.get(cause) ?? "") === text) return;
    this.kept.delete(cause);
    if (text) this.kept.set(cause, text);
    this.render();
  }

  // End the message that passes.
  pass() {
    clearTimeout(this.timer);
    this.passing = null;
    this.render();
  }

  clear() {
    this.kept.clear();
    this.pass();
  }

  render() {
    const { text, action } = this.passing ?? { text: [...this.kept.values()].at(-1) ?? "" };
    if (this.root.textContent === text && !action) return;   // else a screen reader says it again
    this.root.textContent = text;
    if (!action) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      this.pass();
      action.run();
    });
    this.root.append(button);
  }
}
