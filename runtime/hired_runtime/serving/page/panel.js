/**
 * One panel on its canvas: kept patches clear, dropped ones dark and grey, a heat map over them, tiles outlined.
 *
 * The same picture as `hired-edge show` draws: where patches lie comes from the server (hired_runtime/panels.py).
 */

import { colour } from "./heat.js";

// What is left of a dropped patch's brightness and of its colour, and of the brightness where no patch lies.
const DROPPED = 0.4;
const COLOUR = 0.25;
const UNSEEN = 0.14;
// How much a heat map covers where there is least and most attention, and how dark dropped patches then are.
const HEAT = [0.12, 0.8];
const DROPPED_UNDER_HEAT = 0.2;
const LABEL = 12; // px, and a tile is to be this many labels high to get one
const LABELS = 5.5;

export class Panel {
  /**
   * @param looked what api/pictures answered.
   * @param layout one of its panels.
   * @param bitmap the picture.
   */
  constructor(looked, layout, bitmap) {
    Object.assign(this, { looked, layout, bitmap, canvas: document.createElement("canvas") });
    this.canvas.setAttribute("role", "img");
  }

  /** Gives the canvas a size, in CSS px. */
  resize(width, height) {
    const scale = window.devicePixelRatio || 1;
    this.scale = scale;
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    this.clear = this.#picture();
    this.dim = this.#dimmed();
    const { rows, columns } = this.layout;
    this.rows = rows.map((edges) => edges.map((share) => Math.round(share * this.canvas.height)));
    this.columns = columns.map((edges) => edges.map((share) => Math.round(share * this.canvas.width)));
  }

  /**
   * @param kept whether each patch is, by its flat index; null before anything is selected.
   * @param heat shares of every patch by its flat index, or null.
   * @param labels of the parts, by partition.
   */
  draw(kept, heat, labels) {
    const context = this.canvas.getContext("2d");
    context.drawImage(this.dim, 0, 0);
    const lit = kept ?? new Uint8Array(this.looked.patches).fill(1);
    this.#runs((patch) => lit[patch] === 1, (x, y, width, height) => {
      context.drawImage(this.clear, x, y, width, height, x, y, width, height);
    });
    if (heat) this.#heat(context, lit, heat);
    if (kept) this.#outlineKept(context, lit);
    this.#outlineParts(context, labels);
  }

  /** The part of the picture that the panel shows, over its padding. */
  #picture() {
    const canvas = new OffscreenCanvas(this.canvas.width, this.canvas.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const { frame, padding } = this.looked;
    context.fillStyle = padding ? `rgb(${padding})` : "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    const across = canvas.width / (frame[2] - frame[0]);
    const down = canvas.height / (frame[3] - frame[1]);
    const [width, height] = this.looked.pixels;
    context.drawImage(this.bitmap, -frame[0] * across, -frame[1] * down, width * across, height * down);
    return canvas;
  }

  #dimmed() {
    const { width, height } = this.canvas;
    const image = this.clear.getContext("2d").getImageData(0, 0, width, height);
    const [left, top, right, bottom] = this.#seen();
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at += 4) {
        const [red, green, blue] = [image.data[at], image.data[at + 1], image.data[at + 2]];
        const brightness = x >= left && x < right && y >= top && y < bottom ? DROPPED : UNSEEN;
        const grey = (1 - COLOUR) * (0.299 * red + 0.587 * green + 0.114 * blue);
        image.data[at] = brightness * (COLOUR * red + grey);
        image.data[at + 1] = brightness * (COLOUR * green + grey);
        image.data[at + 2] = brightness * (COLOUR * blue + grey);
      }
    }
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  /** What the tower sees of the panel, px. */
  #seen() {
    const { rows, columns } = this.layout;
    const { width, height } = this.canvas;
    return [columns[0][0] * width, rows[0][0] * height, columns.at(-1)[1] * width, rows.at(-1)[1] * height];
  }

  /** Calls `each(x, y, width, height)` for runs of neighbouring patches in a row that pass the test. */
  #runs(test, each) {
    this.layout.index.forEach((patches, row) => {
      const [top, bottom] = this.rows[row];
      for (let column = 0; column < patches.length; column++) {
        if (!test(patches[column])) continue;
        const first = column;
        while (column + 1 < patches.length && test(patches[column + 1])
            && this.columns[column + 1][0] === this.columns[column][1]) column++;
        const [left, right] = [this.columns[first][0], this.columns[column][1]];
        if (right > 0 && left < this.canvas.width && bottom > 0 && top < this.canvas.height) {
          each(left, top, right - left, bottom - top);
        }
      }
    });
  }

  #heat(context, lit, heat) {
    this.layout.index.forEach((patches, row) => patches.forEach((patch, column) => {
      const [[left, right], [top, bottom]] = [this.columns[column], this.rows[row]];
      context.globalAlpha = HEAT[0] + (HEAT[1] - HEAT[0]) * heat[patch];
      context.fillStyle = colour(heat[patch]);
      context.fillRect(left, top, right - left, bottom - top);
    }));
    context.globalAlpha = DROPPED_UNDER_HEAT;
    context.fillStyle = "#0b0c10";
    this.#runs((patch) => lit[patch] === 0, (...box) => context.fillRect(...box));
    context.globalAlpha = 1;
  }

  /** Along every edge between a kept patch and one that is not, or else a kept dark patch would look dropped. */
  #outlineKept(context, lit) {
    const { index } = this.layout;
    const path = new Path2D();
    index.forEach((patches, row) => patches.forEach((patch, column) => {
      if (!lit[patch]) return;
      const [[left, right], [top, bottom]] = [this.columns[column], this.rows[row]];
      const edges = [
        [index[row - 1]?.[column], left, top, right, top],
        [index[row + 1]?.[column], left, bottom, right, bottom],
        [patches[column - 1], left, top, left, bottom],
        [patches[column + 1], right, top, right, bottom],
      ];
      for (const [neighbour, x0, y0, x1, y1] of edges) {
        if (neighbour !== undefined && lit[neighbour]) continue;
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
      }
    }));
    context.strokeStyle = "rgb(255 255 255 / 0.6)";
    context.lineWidth = Math.max(1, Math.round(this.scale));
    context.stroke(path);
  }

  #outlineParts(context, labels) {
    const [across, down] = [this.canvas.width / this.looked.size[0], this.canvas.height / this.looked.size[1]];
    const size = LABEL * this.scale;
    context.font = `600 ${size}px ${getComputedStyle(this.canvas).fontFamily}`;
    context.textBaseline = "middle";
    for (const { partition, box } of this.layout.parts) {
      const [left, top, right, bottom] = box.map((edge, side) => Math.round(edge * (side % 2 ? down : across)));
      if (right - left < 2 || bottom - top < 2) continue;
      context.lineWidth = Math.max(1, Math.round(this.scale));
      context.strokeStyle = "rgb(0 0 0 / 0.5)";
      context.strokeRect(left + 1.5, top + 1.5, right - left - 3, bottom - top - 3);
      context.strokeStyle = "rgb(255 255 255 / 0.75)";
      context.strokeRect(left + 0.5, top + 0.5, right - left - 1, bottom - top - 1);
      if (this.layout.parts.length > 1) this.#label(context, labels[partition], left, top, right, bottom, size);
    }
  }

  #label(context, words, left, top, right, bottom, size) {
    const [width, height, inset] = [context.measureText(words).width + size, size * 1.6, size / 2];
    if (width + 2 * inset > right - left || height * LABELS > bottom - top) return;
    context.fillStyle = "rgb(20 22 27 / 0.85)";
    context.fillRect(left + inset, top + inset, width, height);
    context.fillStyle = "#eceef2";
    context.fillText(words, left + inset + size / 2, top + inset + height / 2);
  }
}
