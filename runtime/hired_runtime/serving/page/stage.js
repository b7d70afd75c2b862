/** The stage: a picture's panels side by side, or below each other where that makes them larger. */

import { byId, element } from "./dom.js";
import { shares } from "./heat.js";
import { Panel } from "./panel.js";

const GAP = 16;
const HIGHEST = 0.45; // of the window, where the page does not scroll
const WIDE = "(min-width: 62.01rem)"; // as in style.css

export class Stage {
  #panels = [];
  #looked = null;
  #selection = null;
  #map = "none";
  #heat = {};

  constructor() {
    this.holder = byId("panels");
    new ResizeObserver(() => this.#resize()).observe(this.holder);
    window.addEventListener("resize", () => this.#resize());
  }

  /** Shows a picture that was looked at; nothing is selected yet. */
  show(looked, bitmap) {
    this.#looked = looked;
    this.#selection = null;
    this.#heat = Object.fromEntries(Object.entries(looked.maps).map(([name, map]) => [name, shares(map.flat())]));
    this.#panels.forEach((panel) => panel.bitmap !== bitmap && panel.bitmap.close());
    this.#panels = looked.panels.map((layout) => new Panel(looked, layout, bitmap));
    const figures = this.#panels.map((panel) => element("figure", {},
      element("figcaption", {}, panel.layout.name, " ", element("span", { className: "count" })), panel.canvas));
    this.holder.replaceChildren(...figures);
    byId("stage").classList.remove("empty");
    this.#moveSamples();
    this.#resize();
  }

  /** From the middle of the empty stage to its side. */
  #moveSamples() {
    const [list, focused] = [byId("samples"), document.activeElement];
    if (list.parentElement === byId("source")) return;
    byId("source").append(list);
    if (list.contains(focused)) focused.focus();
  }

  select(selection) {
    this.#selection = selection;
    this.#draw();
  }

  colour(map) {
    this.#map = map;
    this.#draw();
  }

  #resize() {
    if (!this.#panels.length) return;
    const [width, height] = this.#looked.size;
    const room = this.holder.clientWidth;
    const highest = window.matchMedia(WIDE).matches ? HIGHEST * window.innerHeight : Infinity;
    const fit = (columns, rows) => Math.min((room - GAP * (columns - 1)) / columns / width, highest / rows / height);
    const count = this.#panels.length;
    // One below the other where the page scrolls, unless that is higher than the window.
    const below = highest === Infinity && fit(1, count) * height < 0.8 * window.innerHeight;
    const largest = Math.max(fit(count, 1), fit(1, count));
    const scale = below ? fit(1, count) : Math.min(largest, 0.9 * window.innerHeight / height);
    const size = [Math.floor(width * scale), Math.floor(height * scale)];
    if (size[0] < 1 || this.size?.join() === size.join() && this.shown === this.#looked) return;
    [this.size, this.shown] = [size, this.#looked];
    this.#panels.forEach((panel) => panel.resize(...size));
    this.#draw();
  }

  #draw() {
    if (!this.size || this.shown !== this.#looked) return;
    const { eligible, patches, maps } = this.#looked;
    const counts = this.#selection?.counts;
    const labels = eligible.map((most, part) => `tile ${part}${counts ? `  ${counts[part]}/${most}` : ""}`);
    const kept = this.#selection && this.#mask(patches, maps.selection[0].length);
    this.#panels.forEach((panel, place) => {
      panel.draw(kept, this.#heat[this.#map] ?? null, labels);
      const parts = panel.layout.parts.map((part) => part.partition);
      const sum = (values) => parts.reduce((total, part) => total + values[part], 0);
      const words = counts ? `${sum(counts)}/${sum(eligible)}` : "";
      this.holder.children[place].querySelector(".count").textContent = words;
      const what = place === 0 ? "The whole picture" : `The picture in ${panel.layout.name}`;
      const heat = this.#map === "none" ? "" : `, under a heat map of ${this.#map} attention`;
      const how = counts ? `${sum(counts)} of ${sum(eligible)} patches kept` : "nothing selected yet";
      panel.canvas.setAttribute("aria-label", `${what}${heat}: ${how}`);
    });
  }

  #mask(patches, perTile) {
    const kept = new Uint8Array(patches);
    this.#selection.indices.forEach((indices, part) => indices.forEach((patch) => (kept[part * perTile + patch] = 1)));
    return kept;
  }
}
