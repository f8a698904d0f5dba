// Do the laws hold: a lamp, a name, one line and the worst residual for each; broken ones first.

import { lengthOf, textWidth, write } from "./draw.js";
import { mount } from "./frame.js";

const ROW = 42;
const MOST = 12;

function lamp(layer, key, kind, x, y) {
  if (kind === "ok") {
    layer.put(`lamp${key}`, "circle", { cx: x, cy: y, r: 9, class: "lamp-ok" });
    layer.put(`mark${key}`, "path", { d: `M${x - 4},${y} l3,3.5 l5.5,-6.5`, class: "lamp-check quiet" });
  } else if (kind === "broken") {
    layer.put(`lamp${key}`, "rect", { x: x - 9, y: y - 9, width: 18, height: 18, rx: 2, class: "lamp-broken" });
    const d = `M${x - 4},${y - 4} l8,8 m0,-8 l-8,8`;
    layer.put(`mark${key}`, "path", { d, class: "lamp-cross quiet" });
  } else layer.put(`lamp${key}`, "circle", { cx: x, cy: y, r: 8, class: "lamp-void" });
}

// A text cut to the room there is; the whole of it is in the tip.
function fitted(layer, text, kind, room) {
  let length = textWidth(layer, "probe", text, kind);
  let keep = text.length;
  let cut = text;
  while (length > room && keep > 4) {
    keep = Math.max(4, Math.min(keep - 1, Math.floor((keep * room) / length)));
    cut = `${text.slice(0, keep).trimEnd()}…`;
    length = textWidth(layer, "probe", cut, kind);
  }
  return cut;
}

function row(frame, layer, law, k) {
  const y = k * ROW;
  const broken = law.lamp === "broken";
  const value = { x: frame.width, y: y + 16, class: `end ${broken ? "alarm bold" : "muted"}` };
  const shown = layer.put(`value${k}`, "text", value, law.value);
  const room = frame.width - 36 - (law.value ? lengthOf(shown) + 12 : 0);
  const kind = law.lamp === "void" ? "muted" : "bold";
  layer.put(`name${k}`, "text", { x: 30, y: y + 16, class: kind }, fitted(layer, law.name, kind, room));
  const line = { x: 30, y: y + 33, class: broken ? "alarm" : "muted" };
  layer.put(`line${k}`, "text", line, fitted(layer, law.line, line.class, frame.width - 36));
  lamp(layer, `${k}${law.lamp}`, law.lamp, 10, y + 20);
  const tip = `${law.name}\n${law.line}\n${law.tip}`;
  layer.put(`sheet${k}`, "rect", { x: 0, y, width: frame.width, height: ROW, fill: "transparent", "data-tip": tip });
  if (k) layer.put(`rule${k}`, "path", { d: `M0,${y} H${frame.width}`, class: "rule" });
}

function draw(frame, state) {
  write(frame.key, state.key);
  frame.key.classList.toggle("ifog-alarm", state.broken > 0);
  const rows = state.rows.slice(0, MOST);
  const layer = frame.svg(rows.length * ROW);
  rows.forEach((law, k) => row(frame, layer, law, k));
  layer.sweep();
}

const table = (state) => [
  ["law", "", "", "worst"],
  state.rows.map((law) => [law.name, law.lamp === "ok" ? "holds" : law.lamp, law.line, law.value]),
];

const view = {
  title: "Watch",
  question: "do the laws hold?",
  height: 130,
  fixed: true,
  empty: ["No law to check", "", "the run has no W yet"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
