/** Budget, policy and heat map: what is chosen, and the words beside it. */

import { byId, element, whole } from "./dom.js";
import { drawScale } from "./heat.js";

const FIRST_PERCENT = 20;

export class Controls {
  #settings = null;
  #looked = null;

  /** `changed()` after another budget or policy, `coloured()` after another heat map. */
  constructor(changed, coloured) {
    [this.slider, this.policies] = [byId("budget"), byId("policy")];
    this.slider.addEventListener("input", () => (this.#describe(), changed()));
    this.policies.addEventListener("change", () => (this.#describe(), changed()));
    byId("maps").addEventListener("change", () => (this.#describeMap(), coloured()));
    drawScale(byId("scale-bar"));
  }

  /** What api/settings answered. */
  offer(settings) {
    this.#settings = settings;
    const options = settings.policies.map(({ name }) => element("option", { value: name, textContent: name }));
    this.policies.replaceChildren(...options);
    this.policies.value = settings.policy;
    this.#describe();
    this.#describeMap();
  }

  /** A picture's own range of budgets; the percentage stays if it can. */
  measure(looked) {
    const before = this.percent ?? FIRST_PERCENT;
    this.#looked = looked;
    this.slider.max = Math.max(0, looked.percents.length - 1);
    const nearest = looked.percents.findLastIndex(([percent]) => percent <= before);
    this.slider.value = Math.max(0, nearest);
    const ends = [looked.percents[0], looked.percents.at(-1)];
    ["budget-least", "budget-most"].forEach((id, end) => (byId(id).textContent = ends[end] ? `${ends[end][0]} %` : ""));
    const stock = looked.percents.at(-1)?.[0] === 100;
    for (const [place, { stock: all }] of this.#settings.policies.entries()) {
      this.policies.options[place].disabled = all && !stock;
    }
    this.#describe();
  }

  get percent() {
    return this.#looked?.percents[this.slider.value]?.[0];
  }

  get map() {
    return document.querySelector("input[name=map]:checked").value;
  }

  /** The request fields that say which tokens are kept. A policy that keeps them all has no budget. */
  get choice() {
    const policy = this.policies.value;
    if (this.#policy?.stock) return { policy };
    return { policy, ...(this.percent && { visual_tokens: `${this.percent}%` }) };
  }

  /** The same in words. */
  get words() {
    const { policy, visual_tokens: tokens } = this.choice;
    return tokens ? `${tokens.replace("%", " %")} ${policy}` : policy;
  }

  get #policy() {
    return this.#settings?.policies.find(({ name }) => name === this.policies.value);
  }

  #describe() {
    byId("policy-words").textContent = this.#policy?.summary ?? "";
    byId("budget-field").disabled = !this.#looked?.percents.length || Boolean(this.#policy?.stock);
    if (!this.#looked) return;
    const [percent, tokens] = this.#policy?.stock
      ? this.#looked.percents.at(-1) ?? [] : this.#looked.percents[this.slider.value] ?? [];
    if (percent === undefined) return;
    byId("budget-words").replaceChildren(element("b", {}, `${percent} %`), ` ${whole(tokens)} tokens`);
    this.slider.setAttribute("aria-valuetext", `${percent} percent, ${tokens} tokens`);
  }

  #describeMap() {
    const layer = this.#settings?.layers[this.map];
    const shared = this.#settings?.tiles > 1 ? "shares the budget among the tiles" : "without tiles, nothing to share";
    const words = {
      none: "kept tokens lit, dropped ones dark",
      allocation: `layer ${layer}: ${shared}`,
      selection: `layer ${layer}: says which patches stay`,
    };
    byId("map-words").textContent = words[this.map];
    byId("scale").hidden = this.map === "none";
  }
}
