// Do the ranks agree: error over rounds on a log axis, prediction dashed, drift of the mean below.

import { axes, path } from "./axes.js";
import { choose } from "./choice.js";
import { drawDrift } from "./drift.js";
import { fromLog, lengthOf, textWidth, write } from "./draw.js";
import { mount } from "./frame.js";
import { nearest, overlay } from "./hover.js";

const HEIGHT = 300;
const TOP = 6;
const PLOT = 206;
const DRIFT = [248, 36]; // top and height of the strip below
const MOST = 4; // curves drawn at once
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

function drawCurves(layer, state, scale, plot) {
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
  const over = Math.max(0, floor + (tall - 16) - (TOP + plot));
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

// Where the newest cell begins when a run goes over several: the axis counts the rounds of all.
function drawCell(layer, state, scale, plot) {
  if (!state.begun) return;
  const [round, name] = state.begun;
  const x = scale.x(round);
  const group = layer.group("cell");
  group.put("line", "path", { d: `M${x},${TOP} V${TOP + plot}`, class: "begun" });
  const word = group.put("word", "text", { x: x + 6, y: TOP + 12, class: "muted halo" }, name);
  const beyond = x + 6 + lengthOf(word) > scale.right;
  word.setAttribute("x", beyond ? x - 6 : x + 6);
  word.setAttribute("class", `muted halo${beyond ? " end" : ""}`);
}

function words(state, round) {
  const first = state.curves[0];
  const index = nearest(first.rounds, round);
  const lines = [`round ${first.rounds[index]}`];
  for (const curve of state.curves) {
    const here = nearest(curve.rounds, first.rounds[index]);
    lines.push(`${curve.name}  error ${fromLog(curve.errors[here])}`);
  }
  if (state.prediction) {
    const here = nearest(state.prediction.rounds, first.rounds[index]);
    lines.push(`predicted ${fromLog(state.prediction.errors[here])}`);
  }
  lines.push(`mean drift ${fromLog(first.drifts[index])}`);
  return [lines.join("\n"), first.rounds[index]];
}

function reading(frame, layer, state, scale, height) {
  const roundAt = (x) => ((x - scale.left) / (scale.right - scale.left)) * scale.end;
  const read = (x) => {
    const [text, round] = words(state, roundAt(x));
    return [text, scale.x(round)];
  };
  const click = (x, y) => {
    const index = nearest(state.at, roundAt(x));
    const away = state.lines.map((line) => Math.abs(scale.y(line[index] ?? scale.low) - y));
    const closest = away.indexOf(Math.min(...away));
    if (closest >= 0 && away[closest] < 12) frame.select(state.ranks[closest]);
  };
  const box = { x: scale.left, y: TOP, width: scale.right - scale.left, height };
  overlay(frame, layer.group("overlay"), "", box, { read, click });
}

// With more watched tensors than can be drawn at once, words in the head choose among them.
function chosen(frame, state) {
  if (state.curves.length < 2) return state;
  const names = state.curves.map(({ name }) => name);
  const options = names.map((name) => [name, name]);
  const kept = choose(frame, "tensors", options, { fallback: names.slice(0, MOST), most: MOST });
  const curves = state.curves.filter(({ name }) => kept.includes(name));
  const own = curves[0] === state.curves[0]; // the ranks' lines and the prediction are the first's
  const none = { lines: [], at: [], spread: null, prediction: null };
  return own ? { ...state, curves } : { ...state, ...none, curves };
}

function draw(frame, given) {
  const state = chosen(frame, given);
  write(frame.key, state.key);
  const part = state.begun ? `; ${state.begun[1]} begins at round ${state.begun[0]}` : "";
  frame.key.title = `${state.hint}${part}`;
  frame.key.classList.toggle("ifog-alarm", state.alarm);
  const tall = frame.tall(HEIGHT);
  const plot = tall - (HEIGHT - PLOT);
  const layer = frame.svg(tall);
  for (const name of ["band", "grid", "cell", "ranks", "curves", "prediction", "drift", "overlay"]) layer.group(name);
  const measure = layer.group("measure");
  const texts = state.curves.map(({ name, value }) => `${name} ${value}`);
  const widths = [...texts, "mean drift", `error of ${state.curves[0].name}`].map((text, index) =>
    textWidth(measure, index, text, "bold body"),
  );
  const right = Math.max(frame.width - Math.min(Math.max(...widths), 150) - 12, 160);
  const scale = axes(layer, state, { left: 44, right, top: TOP, height: plot });
  drawCell(layer, state, scale, plot);
  drawRanks(layer, state, scale, frame.selected);
  drawCurves(layer, state, scale, plot);
  drawDrift(layer, state, scale, [plot + DRIFT[0] - PLOT, DRIFT[1]]);
  reading(frame, layer, state, scale, plot);
  layer.sweep();
}

const table = (state) => [
  ["round", ...state.curves.map((curve) => curve.name), "mean drift"],
  state.curves[0].rounds.map((round, index) => [
    round,
    ...state.curves.map((curve) => {
      const k = curve.rounds.indexOf(round);
      return k < 0 ? "" : fromLog(curve.errors[k]);
    }),
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
