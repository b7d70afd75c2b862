/** What the last answer took. */

import { byId, bytes, element, milliseconds, whole } from "./dom.js";

/** @param report {ms, usage, extension}: what the stream ended with. */
export function showFigures({ usage, extension }) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const rate = extension.tokens_per_s;
  const figures = [
    ["First token", milliseconds(extension.timings_ms.ttft)],
    ["Speed", rate === null ? "one token" : `${whole(rate)} tokens/s`],
    ["Prompt", `${whole(usage.prompt_tokens)}, ${whole(cached)} cached`],
    ["Cache", bytes(extension.cache_bytes)],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

export function hideFigures() {
  byId("figures").replaceChildren();
}
