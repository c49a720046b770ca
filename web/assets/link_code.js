// The link of the settings as a QR code, beside the picture when the link is copied: a phone opens it with its camera.

import { share } from "./share.js";
import strings from "./strings.js";

const WORDS = strings.link_code;
const QUIET_ZONE = 4;               // modules around a code that must stay white
const LOCAL = /^(localhost|127\.|\[::1\])/;

export class LinkCode {
  // ``root``: the popover.
  constructor(root, toast) {
    this.root = root;
    const find = (name) => root.querySelector(`.sd-code-${name}`);
    Object.assign(this, { canvas: find("picture"), text: find("text"), note: find("note") });
    find("close").addEventListener("click", () => root.hidePopover());
    const button = find("share");
    button.hidden = !navigator.share;
    button.addEventListener("click", () => share({ title: document.title, url: this.link }, toast));
  }

  // Without popovers the link is copied all the same.
  async show(link) {
    if (!this.root.showPopover) return;
    const { generate } = await import("./lean_qr.js");
    this.link = link;
    this.text.textContent = link;
    this.note.textContent = LOCAL.test(location.hostname) ? WORDS.local : WORDS.scan;
    this.canvas.hidden = false;
    try {
      generate(link).toCanvas(this.canvas, {
        on: [0, 0, 0], off: [255, 255, 255], pad: QUIET_ZONE,
      });
    } catch {                         // it holds at most 2953 bytes
      this.canvas.hidden = true;
      this.note.textContent = WORDS.long;
    }
    this.root.showPopover();
  }
}
