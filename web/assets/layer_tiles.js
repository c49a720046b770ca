// A tile for each layer of the network: a picture, its name, and what it tends to dream.

import { layerNames } from "./layers_text.js";
import { element } from "./setting_row.js";
import strings from "./strings.js";
import { fill } from "./words.js";

const PICTURE_RETRY_MS = 10_000, PICTURE_RETRIES = 30;
let lists = 0;

export class LayerTiles {
  // ``input``: the text of layers, which gets the names of all layers to choose from; ``onChange(text)``;
  // ``isMixing()``: whether a click adds a layer, as with Shift.
  constructor(root, input, { onChange, isMixing }) {
    Object.assign(this, { root, onChange, isMixing, model: "", layers: "" });
    this.list = element("datalist");
    this.list.id = `sd-layer-names-${++lists}`;
    input.setAttribute("list", this.list.id);
    input.after(this.list);
  }

  // ``network``: {layers: [{name, channels}], sheet, taps: {name: words}}; ``layers``: those that are dreamed.
  show(model, network, layers) {
    this.layers = layers;
    if (model !== this.model) {
      this.model = model;
      this.root.replaceChildren(...network.layers.map((layer) => this.createTile(layer, network.taps[layer.name])));
      addPictures([...this.root.children], new URL(network.sheet, document.baseURI));
      this.list.replaceChildren(...Object.entries(network.taps).map(([name, words]) => new Option(`${name}: ${words}`, name)));
    }
    const selected = layerNames(layers);
    for (const tile of this.root.children) tile.ariaPressed = String(selected.includes(tile.dataset.layer));
  }

  createTile({ name, channels }, words) {
    const tile = element("button", "sd-tile sd-plain"), label = element("span", "", name);
    tile.type = "button";
    tile.title = fill(strings.panel.layer_channels, { layer: name, words, count: channels });
    tile.dataset.layer = name;
    label.append(element("small", "", words));
    tile.append(label);
    tile.addEventListener("click", (event) => this.select(name, event.shiftKey || event.ctrlKey || event.metaKey || this.isMixing()));
    return tile;
  }

  // ``mix``: add the layer to the current ones, or remove it.
  select(name, mix) {
    const current = layerNames(this.layers);
    let next = [name];
    if (mix) next = current.includes(name) ? current.filter((other) => other !== name) : [...current, name];
    if (next.length) this.onChange(next.join(","));
  }
}

// Show the thumbnails in their tiles: one sheet holds all of them, side by side. The server sends a single pixel while they
// are being made: retry later.
function addPictures(tiles, url, retries = PICTURE_RETRIES) {
  const sheet = new Image();
  sheet.addEventListener("load", () => {
    if (sheet.naturalWidth > 1) {
      for (const [index, tile] of tiles.entries()) {
        const picture = element("i"), place = 100 * index / Math.max(1, tiles.length - 1);
        picture.style.background = `url("${sheet.src}") ${place}% 50% / ${100 * tiles.length}%`;
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
