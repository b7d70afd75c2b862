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

const state = { settings: null, looked: null, file: null, uri: null };
const stage = new Stage();
const controls = new Controls(() => select(), () => stage.colour(controls.map));
const talk = new Talk(async () => ({
  model: state.settings.model,
  picture: state.file && (state.uri ??= await dataUri(state.file)),
  choice: state.file ? controls.choice : {},
  words: controls.words,
}));

const selections = new Latest(
  async ({ looked, choice }) => {
    try {
      return await (await postJson("api/selections", { picture: looked.picture, ...choice })).json();
    } catch (error) {
      if (error.code !== "no_picture" || looked !== state.looked) throw error;
      await upload(state.file); // the server keeps the latest pictures only
      return (await postJson("api/selections", { picture: looked.picture, ...choice })).json();
    }
  },
  (selection, { looked }) => {
    if (looked !== state.looked) return;
    tell(byId("selection-error"), "");
    stage.select(selection);
    showCounts(looked, selection);
  },
  (error, { looked }) => {
    if (looked !== state.looked) return;
    tell(byId("selection-error"), inWords(error));
    stage.select(null);
    hideCounts();
  },
);

function select() {
  if (state.looked) selections.ask({ looked: state.looked, choice: controls.choice });
}

const looks = new Latest(look, () => {}, (error) => {
  byId("stage").classList.remove("looking");
  tell(byId("stage-error"), inWords(error));
});

/** Another picture: a new conversation about it. */
async function look({ file, sample }) {
  tell(byId("stage-error"), "");
  byId("stage").classList.add("looking");
  const { picture_bytes: most, body_bytes: body } = state.settings.limits;
  const largest = Math.min(most, Math.floor((body - 65536) * 0.75)); // base64 takes a third more
  if (file.size > largest) {
    throw new ApiError(`A picture of ${bytes(file.size)}; this server takes up to ${bytes(largest)}.`);
  }
  const [looked, bitmap] = await Promise.all([upload(file), decode(file).catch(() => null)]);
  if (!bitmap) throw new ApiError("This browser cannot show the picture; save it as PNG, JPEG or WebP.");
  Object.assign(state, { looked, file, uri: null });
  byId("stage").classList.remove("looking");
  talk.clear();
  suggest(sample?.questions ?? [], (question) => talk.ask(question, { anew: true }));
  hideCounts();
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
  const chosen = (file, sample) => looks.ask({ file, sample });
  listSamples(settings.samples, chosen, refused);
  listenForPictures(chosen, refused);
}

start();
