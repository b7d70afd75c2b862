/** What a selection comes to, in numbers: a row for each partition, and the sum against the budget. */

import { byId, element, milliseconds, whole } from "./dom.js";

const QUIET = 600; // ms without another selection before it is said aloud

let waiting = 0;

export function showCounts(looked, selection) {
  const rows = selection.counts.map((kept, part) => {
    const most = looked.eligible[part];
    const bar = element("span", { className: "bar" });
    bar.style.setProperty("--share", most ? kept / most : 0);
    return element("tr", {},
      element("th", { scope: "row" }, part === 0 ? "base" : `tile ${part}`),
      element("td", {}, whole(kept)), element("td", {}, whole(most)), element("td", { className: "share" }, bar));
  });
  byId("partitions").replaceChildren(...rows);
  const kept = selection.counts.reduce((sum, count) => sum + count, 0);
  const sums = [
    ["tokens kept", whole(kept)],
    ["newlines", whole(selection.newlines)],
    ["positions", `${whole(selection.visual_tokens)} of ${whole(selection.budget)}`],
    ["selected in", milliseconds(selection.milliseconds)],
  ];
  byId("sum").replaceChildren(...sums.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  byId("counts").hidden = false;
  clearTimeout(waiting);
  const eligible = looked.eligible.reduce((sum, count) => sum + count, 0);
  const words = `Kept ${kept} of ${eligible} patches, ${selection.visual_tokens} of ${selection.budget} positions`;
  waiting = setTimeout(() => (byId("said").textContent = words), QUIET);
}

export function hideCounts() {
  clearTimeout(waiting);
  byId("counts").hidden = true;
}
