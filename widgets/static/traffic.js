// Which links carry bytes: a matrix, rows send, columns receive, and what its colours cannot say.

import { cellPaths } from "./cells.js";
import { choose } from "./choice.js";
import { linesOf, mark, percent, size, write } from "./draw.js";
import { mount } from "./frame.js";

const TOP = 36;
const LEFT = 34;
const WIDEST = 300;
const LINE = 17;
const DOTS = 16; // ranks up to which links that are not there are dots
const SPREAD = 64; // pixels for the bars at the right and the ranks' numbers at the left
const BINS = 128;

const shade = (share) => `fill: color-mix(in srgb, var(--ifog-bytes-1) ${Math.round(100 * share)}%, var(--ifog-bytes-0))`;

function frameOf(frame, lines) {
  const around = TOP + 12 + LINE * lines;
  const wide = frame.width - SPREAD - 14;
  const side = Math.max(Math.min(wide, frame.look("height") ? frame.tall(0) - around : WIDEST), 60);
  return { tall: side + around, side, left: LEFT, top: TOP };
}

function axes(layer, n, { left, top, side }) {
  const group = layer.group("axes");
  const pitch = side / n;
  group.put("to", "text", { x: left + side / 2, y: 10, class: "muted middle" }, "to");
  const turned = `translate(8, ${top + side / 2}) rotate(-90)`;
  group.put("from", "text", { transform: turned, class: "muted middle" }, "from");
  const every = Math.max(1, Math.ceil((n * 20) / side));
  for (let rank = 0; rank < n; rank += every) {
    const place = (rank + 0.5) * pitch;
    group.put(`to${rank}`, "text", { x: left + place, y: top - 7, class: "middle quiet" }, rank);
    const at = { x: left - 7, y: top + place + 4, class: "end pick", "data-rank": rank };
    group.put(`from${rank}`, "text", at, rank);
  }
}

function cell(layer, [u, v, nbytes, messages, declared], { left, top, pitch, most, sum, dim }) {
  const gap = pitch > 8 ? Math.min(pitch * 0.08, 2) : 0;
  const at = { x: left + v * pitch + gap, y: top + u * pitch + gap, width: pitch - 2 * gap, height: pitch - 2 * gap, rx: pitch > 8 ? 1.5 : 0 };
  const key = `${u}-${v}`;
  const carried = nbytes ? `${size(nbytes)} in ${messages} messages, ${percent(nbytes / Math.max(sum, 1))}` : "";
  const note = !declared ? "\nnot in the graph" : nbytes || messages ? "" : "declared, never used";
  const tip = `${u} → ${v}\n${carried}${note}`;
  const pick = { "data-tip": tip, "data-rank": u };
  if (!messages) {
    layer.put(`cell${key}`, "rect", { ...at, ...pick, class: "unused pick" });
    return;
  }
  const style = `${shade(nbytes / Math.max(most, 1))}${dim ? "; opacity: 0.35" : ""}`;
  layer.put(`cell${key}`, "rect", { ...at, ...pick, class: "pick", style });
  if (declared || pitch < 9) return;
  const word = { x: at.x + at.width / 2, y: at.y + at.height / 2 + 4, class: "bold middle quiet odd-link" };
  layer.put(`odd${key}`, "text", word, "!");
}

function links(frame, layer, state, which, box) {
  const { left, top, side } = box;
  const pitch = side / state.n;
  const rows = state.edges.map(([u, v, a, b, c, d, declared]) => [u, v, which ? c : a, which ? d : b, declared]);
  const most = Math.max(...rows.map((row) => row[2]), 0);
  const sum = rows.reduce((total, row) => total + row[2], 0);
  const there = new Set(rows.map(([u, v]) => u * state.n + v));
  const marks = layer.group("marks");
  for (let u = 0; u < state.n; u += 1) {
    const [x, y] = [left + u * pitch, top + u * pitch];
    const d = `M${x + pitch * 0.3},${y + pitch * 0.7} L${x + pitch * 0.7},${y + pitch * 0.3}`;
    marks.put(`own${u}`, "path", { d, class: "hair" });
    for (let v = 0; v < state.n && state.n <= DOTS; v += 1) {
      if (u === v || there.has(u * state.n + v)) continue;
      marks.put(`dot${u}-${v}`, "circle", { cx: left + (v + 0.5) * pitch, cy: y + pitch / 2, r: 1, class: "dot" });
    }
  }
  for (const row of rows) {
    const dim = frame.selected !== null && frame.selected !== row[0] && frame.selected !== row[1];
    cell(layer.group("cells"), row, { left, top, pitch, most, sum, dim });
  }
  bars(layer, state, rows, box);
}

// What each rank sent, at the right of its row.
function bars(layer, state, rows, { left, top, side }) {
  const sent = new Array(state.n).fill(0);
  for (const [u, , nbytes] of rows) sent[u] += nbytes;
  const most = Math.max(...sent, 1);
  const pitch = side / state.n;
  const tall = Math.max(Math.min(pitch - 2, 14), 1);
  sent.forEach((nbytes, rank) => {
    const at = { x: left + side + 10, y: top + rank * pitch + (pitch - tall) / 2, width: (30 * nbytes) / most, height: tall };
    const tip = { "data-tip": `rank ${rank} sent ${size(nbytes)}`, "data-rank": rank };
    layer.group("bars").put(`sent${rank}`, "rect", { ...at, ...tip, class: "compute pick" });
  });
}

function binned(layer, state, which, { left, top, side }) {
  const digits = state.levels[which];
  const group = layer.group("cells");
  mark(group.parent, "transform", `translate(${left}, ${top})`);
  group.put("ground", "rect", { x: 0, y: 0, width: side, height: side, class: "band" });
  const bins = state.bins;
  const at = (row, column) => parseInt(digits[row * bins + column], 16);
  cellPaths(bins, side, at, (level, d) => group.put(`level${level}`, "path", { d, style: shade(level / 15) }));
  const axis = layer.group("axes");
  axis.put("first", "text", { x: left, y: top - 8, class: "muted" }, "to 0");
  axis.put("last", "text", { x: left + side, y: top - 8, class: "muted end" }, state.n - 1);
  axis.put("from", "text", { transform: `translate(${left - 10}, ${top + side / 2}) rotate(-90)`, class: "muted middle" }, "from");
}

function draw(frame, state) {
  const which = choose(frame, "since", [[0, "cell"], [1, "total"]], { fallback: 0 });
  write(frame.key, state.sums[which]);
  const layer = frame.svg(frame.memo.tall ?? WIDEST);
  for (const name of ["axes", "marks", "cells", "bars", "words"]) layer.group(name);
  const wide = frame.width - LEFT;
  const words = state.words[which].flatMap((text) => linesOf(layer.group("words"), text, wide, "muted"));
  const box = frameOf(frame, words.length);
  frame.memo.tall = box.tall;
  frame.svg(box.tall);
  if (state.n > 64) binned(layer, state, which, box);
  else {
    axes(layer, state.n, box);
    links(frame, layer, state, which, box);
  }
  words.forEach((text, k) => {
    const at = { x: box.left, y: box.top + box.side + 22 + k * LINE, class: "muted" };
    layer.group("words").put(`line${k}`, "text", at, text);
  });
  layer.sweep();
}

const table = (state) => [
  ["from", "to", "bytes", "messages", "bytes in total", "in the graph"],
  state.edges.map(([u, v, nbytes, messages, all, , declared]) => [u, v, nbytes, messages, all, declared ? "yes" : "no"]),
];

const view = {
  title: "Traffic",
  question: "which links carry bytes?",
  height: 130,
  empty: ["Nothing sent yet", "", "links fill as ranks exchange tensors"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
