// Do the ranks agree: error over rounds on a log axis, prediction dashed, drift of the mean below.

import { axes, path } from "./axes.js";
import { decade, fromLog, textWidth } from "./draw.js";
import { mount } from "./frame.js";
import { overlay } from "./hover.js";

const HEIGHT = 300;
const TOP = 6;
const PLOT = 206;
const DRIFT = [248, 36]; // top and height of the strip below
const COLOURS = ["--ifog-series-1", "--ifog-series-2", "--ifog-compute", "--ifog-ink"];

function drawRanks(layer, state, scale, chosen) {
  const group = layer.group("ranks");
  state.lines.forEach((line, index) => {
    const mine = state.ranks[index] === chosen;
    const d = path(scale, state.at, line);
    group.put(`rank${index}`, "path", { d, class: mine ? "chosen-line" : "thin" });
  });
  if (!state.spread) return;
  const [least, middle, most] = state.spread;
  const down = path(scale, [...state.at].reverse(), [...least].reverse()).replace("M", "L");
  group.put("spread", "path", { d: `${path(scale, state.at, most)}${down}Z`, class: "spread" });
  group.put("median", "path", { d: path(scale, state.at, middle), class: "thin" });
}

function drawCurves(layer, state, scale) {
  const group = layer.group("curves");
  const labels = [];
  state.curves.forEach((curve, index) => {
    const style = `stroke: var(${COLOURS[index]})`;
    const kind = index === 0 ? "series main" : "series";
    const d = path(scale, curve.rounds, curve.errors);
    group.put(`curve${index}`, "path", { d, class: kind, style });
    const known = curve.errors.filter((value) => value !== null);
    const ended = curve.errors[curve.errors.length - 1] === null;
    const y = known.length ? scale.y(known[known.length - 1]) : scale.y(scale.low);
    labels.push({ y, index, curve, ended });
  });
  if (state.prediction) {
    const { rounds, errors } = state.prediction;
    const over = { d: path(scale, rounds, errors), class: "predicted" };
    layer.group("prediction").put("predicted", "path", over);
  }
  labels.sort((a, b) => a.y - b.y || a.index - b.index);
  let floor = -Infinity;
  const tall = state.curves.length > 1 ? 16 : 32;
  labels.forEach((label) => (label.y = floor = Math.max(label.y - 2, floor + tall, TOP + 8)));
  const over = Math.max(0, floor + (tall - 16) - (TOP + PLOT));
  for (const { y, index, curve, ended } of labels) {
    const style = `fill: var(${ended ? "--ifog-stall" : COLOURS[index]})`;
    const at = { x: scale.right + 10, y: y - over, class: "bold body", style };
    const value = ended ? "✕ not finite" : curve.value;
    const text = state.curves.length > 1 ? `${curve.name} ${value}` : value;
    group.put(`value${index}`, "text", at, text);
    if (state.curves.length === 1) {
      const under = { x: at.x, y: at.y + 16, class: "muted" };
      group.put("name", "text", under, `error of ${curve.name}`);
    }
  }
}

function drawDrift(layer, state, scale) {
  const [top, tall] = DRIFT;
  const values = state.curves[0].drifts;
  const { kept, moved, rounding, text } = state.drift;
  const worst = Math.max(...values.filter((value) => value !== null));
  const low = rounding - 2;
  const high = Math.max(rounding + 2, kept ? low : Math.ceil(worst));
  const y = (value) => top + (tall * (high - Math.min(Math.max(value, low), high))) / (high - low);
  const group = layer.group("drift");
  const [x, width] = [scale.left, scale.right - scale.left];
  const edge = y(rounding + 2);
  group.put("band", "rect", { x, y: edge, width, height: top + tall - edge, class: "band" });
  for (const power of [low, high]) {
    group.put(`line${power}`, "path", { d: `M${x},${y(power)} h${width}`, class: "grid" });
    const label = { x: x - 8, y: y(power) + 4, class: "muted end" };
    group.put(`tick${power}`, "text", label, decade(power));
  }
  const d = path({ x: scale.x, y }, state.curves[0].rounds, values);
  group.put("line", "path", { d, class: `drift${moved ? " moved" : ""}` });
  const at = { x: scale.right + 10, y: top + 14 };
  group.put("what", "text", { ...at, class: `bold${moved ? " moved" : ""}` }, "mean drift");
  const mark = { ...at, y: at.y + 17, class: moved ? "moved" : "muted" };
  group.put("value", "text", mark, `${moved ? "✕ " : kept ? "✓ " : ""}${text}`);
}

// Where the newest cell begins when a run goes over several: the axis counts the rounds of all.
function drawCell(layer, state, scale) {
  if (!state.begun) return;
  const [round, name] = state.begun;
  const x = scale.x(round);
  const group = layer.group("cell");
  group.put("line", "path", { d: `M${x},${TOP} V${TOP + PLOT}`, class: "begun" });
  const word = group.put("word", "text", { x: x + 6, y: TOP + 12, class: "muted halo" }, name);
  const beyond = x + 6 + word.getComputedTextLength() > scale.right;
  word.setAttribute("x", beyond ? x - 6 : x + 6);
  word.setAttribute("class", `muted halo${beyond ? " end" : ""}`);
}

function draw(frame, state) {
  frame.key.textContent = state.key;
  const more = state.more.length ? `; also watched: ${state.more.join(", ")}` : "";
  const part = state.begun ? `; ${state.begun[1]} begins at round ${state.begun[0]}` : "";
  frame.key.title = `${state.hint}${part}${more}`;
  frame.key.classList.toggle("ifog-alarm", state.alarm);
  const layer = frame.svg(HEIGHT);
  for (const name of ["band", "grid", "cell", "ranks", "curves", "prediction", "drift", "overlay"]) layer.group(name);
  const measure = layer.group("measure");
  const texts = state.curves.map(({ name, value }) => `${name} ${value}`);
  const widths = [...texts, "mean drift", `error of ${state.curves[0].name}`].map((text, index) =>
    textWidth(measure, index, text, "bold body"),
  );
  const right = Math.max(frame.width - Math.min(Math.max(...widths), 150) - 12, 160);
  const scale = axes(layer, state, { left: 44, right, top: TOP, height: PLOT });
  drawCell(layer, state, scale);
  drawRanks(layer, state, scale, frame.selected);
  drawCurves(layer, state, scale);
  drawDrift(layer, state, scale);
  overlay(frame, layer, state, scale, { top: TOP, height: PLOT });
  layer.sweep();
}

const table = (state) => [
  ["round", ...state.curves.map((curve) => curve.name), "mean drift"],
  state.curves[0].rounds.map((round, index) => [
    round,
    ...state.curves.map((curve) => fromLog(curve.errors[curve.rounds.indexOf(round)])),
    fromLog(state.curves[0].drifts[index]),
  ]),
];

const view = {
  title: "Consensus",
  question: "do the ranks agree?",
  height: 130,
  empty: ["Nothing watched", "bf.watch(x, \"x\")", "or average a named tensor"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
