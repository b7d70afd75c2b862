/** Puts the page together: a picture goes to the stage, the controls' choice to a selection, a question to the API. */

import { ApiError, call, getJson, postJson, whenKeyIsNeeded } from "./api.js";
import { Controls } from "./controls.js";
import { hideCounts, showCounts } from "./counts.js";
import { byId, bytes, element, tell, whole } from "./dom.js";
import { askForKey } from "./key.js";
import { Latest } from "./latest.js";
import { dataUri, decode, listenForPictures, listSamples } from "./pictures.js";
import { Stage } from "./stage.js";
import { suggest, Talk } from "./talk.js";

/** `shown`: the picture on the stage, {file, looked, uri}. What is awaited for it is kept with it, never with the next. */
const state = { settings: null, shown: null };
const stage = new Stage();
const controls = new Controls(() => select(), () => stage.colour(controls.map));
const talk = new Talk(context, pictureSettled);

async function context() {
  const { settings: { model }, shown } = state;
  if (!shown) return { model, picture: null, choice: {}, words: "without a picture" };
  const { choice, words } = controls;
  shown.uri ??= await dataUri(shown.file);
  return { model, picture: shown.uri, choice, words };
}

/** Waits for a picture that was chosen; whether it, or else none, is what a question is about. */
async function pictureSettled() {
  if (!looks.busy) return true;
  const before = state.shown;
  await looks.idle;
  return state.shown !== before;
}

const selections = new Latest(
  async ({ shown, choice }) => {
    const asked = { picture: shown.looked.picture, ...choice };
    try {
      return await (await postJson("api/selections", asked)).json();
    } catch (error) {
      if (error.code !== "no_picture" || shown !== state.shown) throw error;
      await upload(shown.file); // the server keeps the latest pictures only
      return (await postJson("api/selections", asked)).json();
    }
  },
  (selection, { shown }) => {
    if (shown !== state.shown) return;
    tell(byId("selection-error"), "");
    stage.select(selection);
    showCounts(shown.looked, selection);
  },
  (error, { shown }) => {
    if (shown !== state.shown) return;
    tell(byId("selection-error"), inWords(error));
    stage.select(null);
    hideCounts();
  },
);

function select() {
  if (state.shown) selections.ask({ shown: state.shown, choice: controls.choice });
}

const looks = new Latest(look, show, (error) => {
  byId("stage").classList.remove("looking");
  tell(byId("stage-error"), inWords(error));
});

/** What there is to show of a picture. */
async function look({ load }) {
  tell(byId("stage-error"), "");
  byId("stage").classList.add("looking");
  const file = await load();
  const { picture_bytes: most, body_bytes: body } = state.settings.limits;
  const largest = Math.min(most, Math.floor((body - 65536) * 0.75)); // base64 takes a third more
  if (file.size > largest) {
    throw new ApiError(`A picture of ${bytes(file.size)}; this server takes up to ${bytes(largest)}.`);
  }
  const [looked, bitmap] = await Promise.all([upload(file), decode(file).catch(() => null)]);
  if (!bitmap) throw new ApiError("This browser cannot show the picture; save it as PNG, JPEG or WebP.");
  return { file, looked, bitmap };
}

/** Another picture: a new conversation about it. */
function show({ file, looked, bitmap }, { sample }) {
  if (looks.overtaken) {
    bitmap.close();
    return;
  }
  state.shown = { file, looked, uri: null };
  byId("stage").classList.remove("looking");
  talk.clear();
  suggest(sample?.questions ?? [], (question) => talk.ask(question, { anew: true }));
  hideCounts();
  tell(byId("selection-error"), "");
  controls.measure(looked);
  stage.show(looked, bitmap);
  select();
}

async function upload(file) {
  const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "image/unknown" };
  return (await call("api/pictures", { method: "POST", headers, body: file })).json();
}

const inWords = (error) => (error instanceof ApiError ? error.message : `The page failed: ${error.message}`);

async function start() {
  whenKeyIsNeeded(askForKey);
  try {
    state.settings = await getJson("api/settings");
  } catch (error) {
    tell(byId("trouble"), inWords(error));
    byId("model").textContent = "not connected";
    return;
  }
  const { settings } = state;
  const { limits } = settings;
  byId("model").textContent = settings.model;
  document.title = `${settings.model}, hired-edge`;
  const facts = [
    settings.engine,
    `up to ${whole(limits.visual_tokens)} visual tokens`,
    `cache ${bytes(settings.cache_bytes)}`,
  ];
  byId("facts").replaceChildren(...facts.map((fact) => element("li", {}, fact)));
  controls.offer(settings);
  const refused = (message) => tell(byId("stage-error"), message);
  const chosen = (load, sample) => looks.ask({ load, sample });
  listSamples(settings.samples, chosen);
  listenForPictures(chosen, refused);
}

start();
