/** Elements and words: what every other module of the page writes with. */

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings become text, never markup. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Shows a message in an element that is otherwise hidden; an empty one hides it. */
export function tell(target, message) {
  target.textContent = message;
  target.hidden = !message;
}

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const whole = (value) => NUMBER.format(value);

export function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const step = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 1024 ** step;
  return `${step === 0 || value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${units[step]}`;
}

export function milliseconds(value) {
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(2)} ms`;
}
