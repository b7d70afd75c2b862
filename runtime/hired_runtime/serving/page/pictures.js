/** Where pictures come from: the file dialog, a drop, the clipboard, the samples. Knows nothing of what becomes of them. */

import { call } from "./api.js";
import { byId, element } from "./dom.js";

const MOST_SHOWN = 2048;

/**
 * @param chosen called with a function that gives the File or Blob, and with the sample that it is, if it is one.
 * @param refused called with a message.
 */
export function listenForPictures(chosen, refused) {
  const taken = (file) => chosen(() => file);
  const first = (files) => [...files].find((file) => file.type.startsWith("image/")) ?? files[0];
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) taken(first(event.target.files));
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    taken(file);
  });
  const carriesFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const mark = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    mark(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  document.addEventListener("drop", (event) => {
    mark(false);
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const file = first(event.dataTransfer.files);
    file ? taken(file) : refused("What was dropped is no file.");
  });
}

/** Buttons with the sample pictures; `chosen` as above. */
export function listSamples(samples, chosen) {
  const buttons = samples.map((sample) => {
    const button = element("button", { type: "button", title: sample.words },
      element("img", { src: sample.file, alt: `Sample: ${sample.words}`, height: 44 }));
    button.addEventListener("click", () => chosen(async () => (await call(sample.file)).blob(), sample));
    return element("li", {}, button);
  });
  byId("samples").replaceChildren(...buttons);
}

/** The picture, upright, no larger than a screen needs. */
export async function decode(file) {
  const bitmap = await createImageBitmap(file);
  const scale = MOST_SHOWN / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const resized = (side) => Math.max(1, Math.round(side * scale));
  const size = { resizeWidth: resized(bitmap.width), resizeHeight: resized(bitmap.height) };
  const smaller = await createImageBitmap(bitmap, { ...size, resizeQuality: "high" });
  bitmap.close();
  return smaller;
}

export function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
