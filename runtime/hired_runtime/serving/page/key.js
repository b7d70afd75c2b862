/** The field for the server's key, shown when a request needs one. */

import { sendable } from "./api.js";
import { byId } from "./dom.js";

export function askForKey(wrong) {
  const [form, field] = [byId("key-form"), byId("key")];
  const note = (words, invalid) => {
    byId("key-note").textContent = words;
    field.setAttribute("aria-invalid", invalid);
  };
  note(wrong ? "That key is not this server's." : "It is kept until this tab is closed.", wrong);
  form.hidden = false;
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      const key = field.value.trim();
      if (!key) return;
      if (!sendable(key)) {
        note("A key has only letters, digits and signs of ASCII: no accents, no other scripts.", true);
        return;
      }
      field.value = "";
      form.hidden = true;
      resolve(key);
    };
  });
}
