/**
 * Conversations: turns of a question and its answers, streamed in. A question that is asked again gets one more answer;
 * one that begins anew knows nothing of what was said before, which stays to be compared.
 */

import { ApiError, completion } from "./api.js";
import { byId, element, milliseconds, whole } from "./dom.js";
import { hideFigures, showFigures } from "./figures.js";

const REMEMBER = "hired-edge-remember";

export class Talk {
  #turns = [];
  #running = null;

  /**
   * @param context gives {model, picture, choice, words}: what a question is asked with; picture is a data URI or null.
   * @param ready gives whether a typed question can be asked, once that is known.
   */
  constructor(context, ready) {
    this.context = context;
    [this.log, this.question, this.remember] = [byId("log"), byId("question"), byId("remember")];
    this.remember.checked = sessionStorage.getItem(REMEMBER) !== "no";
    this.remember.addEventListener("change", () =>
      sessionStorage.setItem(REMEMBER, this.remember.checked ? "yes" : "no"));
    byId("ask").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await ready()) this.ask(this.question.value.trim());
    });
    this.question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("ask").requestSubmit();
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.stop());
    byId("stop").addEventListener("click", () => this.stop());
    byId("clear").addEventListener("click", () => {
      this.clear();
      this.question.focus();
    });
  }

  stop() {
    this.#running?.abort();
  }

  clear() {
    this.stop();
    this.#turns = [];
    this.#busy(null); // whatever comes of the stopped answer, nobody waits for it
    this.log.replaceChildren(byId("log-words") ?? this.words);
    hideFigures();
  }

  /** Asks a question as the next turn, or by itself. Only one answer is made at a time. */
  ask(question, { anew = false } = {}) {
    if (!question || this.#running) return;
    this.question.value = "";
    this.words ??= byId("log-words");
    this.words.remove();
    const first = anew || !this.remember.checked || !this.#turns.length;
    const className = first ? "turn" : "turn follows";
    const turn = { question, first, answers: [], element: element("article", { className }) };
    turn.element.append(element("h3", {}, question));
    this.#turns.push(turn);
    this.log.append(turn.element);
    this.#answer(turn);
  }

  async #answer(turn) {
    const abort = new AbortController();
    const words = element("p", { className: "answer running" });
    const note = element("p", { className: "note" });
    this.#again?.remove();
    turn.element.append(words, note);
    this.#busy(abort);
    const report = {};
    let [text, problem] = ["", null];
    try {
      const { words: asked, body } = await this.#request(turn);
      note.textContent = asked;
      for await (const chunk of completion(body, abort.signal)) {
        text += chunk.choices[0]?.delta.content ?? "";
        words.textContent = text.trimStart();
        report.usage = chunk.usage ?? report.usage;
        report.extension = chunk.hired_edge ?? report.extension;
        this.log.scrollTop = this.log.scrollHeight;
      }
    } catch (error) {
      problem = error;
    }
    if (this.#running !== abort) return; // cleared
    words.classList.remove("running");
    this.#busy(null);
    this.#finish(turn, { text, words, note, problem, report });
  }

  #finish(turn, { text, words, note, problem, report }) {
    if (text || !problem) turn.answers.push(text.trim()); // as chat templates put it into the next prompt
    if (!text) words.textContent = problem ? "" : "(nothing)";
    words.hidden = !words.textContent;
    if (problem?.name === "AbortError") {
      note.append(", stopped");
    } else if (problem) {
      const told = problem instanceof ApiError ? problem.message : `The page failed: ${problem.message}`;
      turn.element.append(element("p", { className: "error", role: "alert" }, told));
    } else if (report.usage && report.extension) {
      const { timings_ms: times } = report.extension;
      const visual = report.usage.prompt_tokens_details?.image_tokens;
      if (visual !== undefined) note.append(`, ${whole(visual)} visual tokens`);
      note.append(`, first token in ${milliseconds(times.ttft)}`);
      showFigures(report);
    }
    if (this.#turns.at(-1) === turn) this.#offerAgain(turn, problem);
    this.log.scrollTop = this.log.scrollHeight;
  }

  /** The last question can be asked again: at another budget, say. */
  #offerAgain(turn, problem) {
    const full = problem?.code === "context_length_exceeded" && !turn.first;
    const words = full ? "Ask it in a new conversation" : problem ? "Try again" : "Ask again at the present budget";
    const button = element("button", { type: "button", className: "plain again" }, words);
    button.addEventListener("click", () => {
      if (this.#running) return;
      turn.element.querySelectorAll(".error").forEach((each) => each.remove());
      if (full || !this.remember.checked) {
        turn.first = true;
        turn.element.classList.remove("follows");
      }
      this.#answer(turn);
      this.question.focus();
    });
    turn.element.append(button);
  }

  get #again() {
    return this.log.querySelector(".again");
  }

  #busy(abort) {
    this.#running = abort;
    this.log.setAttribute("aria-busy", abort !== null);
    byId("stop").hidden = abort === null;
    byId("send").hidden = abort !== null;
    byId("clear").disabled = !this.#turns.length;
  }

  /** The request for a turn: what was said before it, with the picture in the first question. */
  async #request(turn) {
    const { model, picture, choice, words } = await this.context();
    const upTo = this.#turns.slice(0, this.#turns.indexOf(turn) + 1);
    const begin = upTo.findLastIndex((each) => each.first);
    const before = upTo.slice(begin, -1).filter((each) => each.answers.length);
    const messages = before.flatMap((each) => [
      { role: "user", content: each.question }, { role: "assistant", content: each.answers.at(-1) }]);
    messages.push({ role: "user", content: turn.question });
    if (picture) {
      const [first] = messages;
      first.content = [{ type: "image_url", image_url: { url: picture } }, { type: "text", text: first.content }];
    }
    const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...choice };
    return { words, body };
  }
}

/** Questions to choose from, each about the picture alone; `ask` is called with one. */
export function suggest(questions, ask) {
  const list = byId("suggestions");
  list.replaceChildren(...questions.map(({ prompt }) => {
    const button = element("button", { type: "button" }, prompt);
    button.addEventListener("click", () => ask(prompt));
    return element("li", {}, button);
  }));
  list.hidden = !questions.length;
}
