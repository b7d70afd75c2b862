/** The field for the server's key, shown when a request needs one. */

import { byId } from "./dom.js";

export function askForKey(wrong) {
  const [form, field] = [byId("key-form"), byId("key")];
  byId("key-note").textContent = wrong ? "That key is not this server's." : "It is kept until this tab is closed.";
  field.setAttribute("aria-invalid", wrong);
  form.hidden = false;
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      const key = field.value.trim();
      if (!key) return;
      field.value = "";
      form.hidden = true;
      resolve(key);
    };
  });
}
