// The graph of more ranks than one can draw: its matrix, and a histogram of distances.

import { decade } from "./draw.js";

const SIDE = 128; // rows and columns in the bits that arrive

function bit(text, row, column) {
  const place = row * SIDE + column;
  return (parseInt(text[place >> 2], 16) >> (3 - (place & 3))) & 1;
}

function drawBits(canvas, state, side) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * scale);
  canvas.style.width = canvas.style.height = `${side}px`;
  const style = getComputedStyle(canvas);
  const ink = (name) => style.getPropertyValue(`--ifog-${name}`);
  const pen = canvas.getContext("2d");
  pen.fillStyle = ink("grid");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const cell = canvas.width / state.bins;
  for (const [bits, colour] of [[state.declared, ink("idle")], [state.used, ink("transfer")]]) {
    pen.fillStyle = colour;
    for (let row = 0; row < state.bins; row += 1) {
      for (let column = 0; column < state.bins; column += 1) {
        if (bit(bits, row, column)) pen.fillRect(column * cell, row * cell, cell, cell);
      }
    }
  }
}

function drawHistogram(layer, state, side) {
  const known = state.distances.filter((d) => d !== null && d > 0).map(Math.log10);
  if (!known.length || !state.domain) return;
  const [low, high] = [Math.floor(Math.min(...known)), Math.ceil(Math.max(...known))];
  const end = Math.max(high, low + 1);
  const counts = new Array(24).fill(0);
  for (const d of known) {
    counts[Math.min(23, Math.floor((24 * (d - low)) / (end - low)))] += 1;
  }
  const most = Math.max(...counts);
  counts.forEach((count, index) => {
    const height = (36 * count) / most;
    const share = `${Math.round((100 * index) / 23)}%`;
    layer.put(`bin${index}`, "rect", {
      x: (index * side) / 24,
      y: 40 - height,
      width: side / 24 - 1,
      height,
      style: `fill: color-mix(in srgb, var(--ifog-value-1) ${share}, var(--ifog-value-0))`,
      "data-tip": `${count} ranks`,
    });
  });
  layer.put("low", "text", { x: 0, y: 56, class: "muted" }, decade(low));
  layer.put("high", "text", { x: side, y: 56, class: "muted end" }, decade(end));
  const middle = { x: side / 2, y: 56, class: "muted middle" };
  layer.put("what", "text", middle, "distance to the mean");
}

export function drawMatrix(frame, state, height) {
  const side = Math.min(frame.width, height - 84);
  const layer = frame.svg(height);
  const box = layer.put("box", "foreignObject", { x: 0, y: 18, width: side, height: side });
  let canvas = box.querySelector("canvas");
  if (!canvas) {
    canvas = document.createElement("canvas");
    box.append(canvas);
  }
  drawBits(canvas, state, side);
  layer.put("first", "text", { x: 0, y: 12, class: "muted" }, "to rank 0");
  layer.put("last", "text", { x: side, y: 12, class: "muted end" }, state.n - 1);
  const group = layer.group("histogram");
  group.parent.setAttribute("transform", `translate(0, ${side + 22})`);
  drawHistogram(group, state, side);
  layer.sweep();
}
