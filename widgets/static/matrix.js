// The graph of more ranks than one can draw: its matrix, and a histogram of distances.

import { cellPaths } from "./cells.js";
import { count, decade, mark } from "./draw.js";

const SIDE = 128; // rows and columns in the digits that arrive
const LEVELS = 15;

const digit = (text, place) => {
  const code = text.charCodeAt(place);
  return code < 58 ? code - 48 : code - 87;
};

// Dark where many edges meet: a bin of a large graph has several.
const faint = (level) => `opacity: ${(0.25 + (0.75 * level) / LEVELS).toFixed(2)}`;

function drawHistogram(layer, state, side) {
  if (!state.histogram) return;
  const [low, high, counts] = state.histogram;
  const most = Math.max(...counts, 1);
  const wide = side / counts.length;
  counts.forEach((many, index) => {
    const height = (36 * many) / most;
    const share = `${Math.round((100 * index) / (counts.length - 1))}%`;
    layer.put(`bin${index}`, "rect", {
      x: index * wide,
      y: 40 - height,
      width: Math.max(wide - 1, 0.5),
      height,
      style: `fill: color-mix(in srgb, var(--ifog-value-1) ${share}, var(--ifog-value-0))`,
      "data-tip": `${count(many)} ranks`,
    });
  });
  layer.put("ground", "path", { d: `M0,40 H${side}`, class: "rule" });
  layer.put("low", "text", { x: 0, y: 56, class: "muted" }, decade(low));
  layer.put("high", "text", { x: side, y: 56, class: "muted end" }, decade(high));
  const middle = { x: side / 2, y: 56, class: "muted middle" };
  layer.put("what", "text", middle, side > 220 ? "distance to the mean" : "distance");
}

export function drawMatrix(frame, state, height) {
  const side = Math.min(frame.width, height - 84);
  const layer = frame.svg(height);
  layer.put("first", "text", { x: 0, y: 12, class: "muted" }, "to rank 0");
  layer.put("last", "text", { x: side, y: 12, class: "muted end" }, count(state.n - 1));
  const bits = layer.group("bits");
  mark(bits.parent, "transform", "translate(0, 18)");
  bits.put("ground", "rect", { x: 0, y: 0, width: side, height: side, class: "band" });
  // Kinds 1 to 15 are declared and idle, those above are used in this round.
  const kind = (row, column) => {
    const place = row * SIDE + column;
    const used = digit(state.used, place);
    return used ? LEVELS + used : digit(state.declared, place);
  };
  cellPaths(state.bins, side, kind, (of, d) => {
    const name = of > LEVELS ? "bits-used" : "bits-idle";
    bits.put(`kind${of}`, "path", { d, class: name, style: faint(((of - 1) % LEVELS) + 1) });
  });
  const group = layer.group("histogram");
  mark(group.parent, "transform", `translate(0, ${side + 22})`);
  drawHistogram(group, state, side);
  layer.sweep();
}
