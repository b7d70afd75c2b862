/** Requests to this server: the key if it asks for one, and its errors in words. */

import { events } from "./events.js";

const KEY = "hired-edge-key";

/** Whether a key can be sent: a header takes no more than printable ASCII. */
export const sendable = (key) => /^[\x20-\x7e]+$/.test(key);

/** What went wrong, as a person is told it; `code` and `status` are the API's, where it answered. */
export class ApiError extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Where several servers stand behind one address (docs/scaling.md), a tab's requests are to reach the same one. */
const session = crypto.getRandomValues(new Uint32Array(4)).join("-");

let askForKey = null;
let asking = null;

/** `ask(wrong)` gets a key from the person; requests that need one wait for it. */
export function whenKeyIsNeeded(ask) {
  askForKey = ask;
}

/** The tab's key, or null; one that cannot be sent is forgotten. */
function keptKey() {
  const key = sessionStorage.getItem(KEY);
  if (key === null || sendable(key)) return key;
  sessionStorage.removeItem(KEY);
  return null;
}

export async function call(path, options = {}) {
  for (;;) {
    const key = keptKey();
    const headers = {
      "X-Session-Id": session,
      ...options.headers,
      ...(key && { Authorization: `Bearer ${key}` }),
    };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw await inWords(response);
    if (keptKey() === key) {
      asking ??= askForKey(key !== null).finally(() => (asking = null));
      sessionStorage.setItem(KEY, await asking);
    }
  }
}

async function inWords(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    // no JSON: a proxy's page, say
  }
  let message = told.message || `The server answered ${response.status} ${response.statusText}`;
  const seconds = response.headers.get("Retry-After");
  if (seconds) message += ` (in ${seconds} s)`;
  return new ApiError(message, response.status, told.code);
}

export async function getJson(path) {
  return (await call(path)).json();
}

export async function postJson(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** Streams a chat completion: yields its chunks. */
export async function* completion(body, signal) {
  const response = await postJson("v1/chat/completions", body, signal);
  for await (const data of received(events(response.body))) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 0, chunk.error.code);
    yield chunk;
  }
  throw new ApiError("The answer broke off: the server closed the connection.");
}

async function* received(stream) {
  try {
    yield* stream;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The answer broke off: the connection to the server was lost.");
  }
}
