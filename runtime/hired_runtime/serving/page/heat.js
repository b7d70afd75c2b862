/** Attention as colours: nearly black, violet, orange, pale yellow, each brighter than the last. */

const STOPS = [
  [0, 12, 8, 38],
  [0.2, 66, 10, 104],
  [0.4, 147, 38, 103],
  [0.6, 221, 81, 58],
  [0.8, 252, 165, 10],
  [1, 252, 255, 180],
];
const STEPS = 64;

const COLOURS = Array.from({ length: STEPS }, (_, step) => {
  const at = step / (STEPS - 1);
  const next = Math.max(1, STOPS.findIndex(([stop]) => stop >= at));
  const [from, to] = [STOPS[next - 1], STOPS[next]];
  const share = (at - from[0]) / (to[0] - from[0]);
  return `rgb(${from.slice(1).map((low, channel) => Math.round(low + share * (to[channel + 1] - low)))})`;
});

export const colour = (share) => COLOURS[Math.round(share * (STEPS - 1))];

/**
 * Every patch's place between the least and the most attended ones, 0 to 1. Few patches get most of the attention, so
 * the scale is of its square root, and ends where 99 % of the patches lie.
 */
export function shares(attention) {
  const roots = Float32Array.from(attention, Math.sqrt);
  const sorted = roots.slice().sort();
  const low = sorted[Math.floor(sorted.length * 0.01)];
  const high = sorted[Math.ceil(sorted.length * 0.99) - 1];
  return roots.map((root) => Math.min(1, Math.max(0, (root - low) / (high - low || 1))));
}

export function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = colour(x / (canvas.width - 1));
    context.fillRect(x, 0, 1, canvas.height);
  }
}
