// Does it learn, everywhere: small multiples, a band over all ranks, their mean, the worst rank.

import { toggle } from "./choice.js";
import { decade, lengthOf, mark, number, textWidth, write } from "./draw.js";
import { mount } from "./frame.js";
import { nearest, overlay } from "./hover.js";
import { grown, niceTicks, roundAxis, tickText } from "./linear.js";

const HEIGHT = 216;
const LOW = 160; // of each line of charts, where there are several
const TOP = 34;
const LEAST = 190; // pixels of a small multiple
const APART = 15; // pixels between two labels at the ends

const positive = (values) => values.filter((value) => value > 0);

// Where values stand, and the ticks beside them.
function scaleOf(frame, state, figure, { y, tall, log }) {
  const all = [...figure.low, ...figure.high];
  const values = log ? positive(all).map(Math.log10) : all;
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const range = grown(frame.memo, `${figure.title}${log}`, state.cell, low, high);
  let ticks = niceTicks(range.low, range.high);
  if (log) {
    const [first, last] = [Math.floor(range.low), Math.max(Math.ceil(range.high), Math.floor(range.low) + 1)];
    const step = Math.ceil((last - first) / 5);
    ticks = [];
    for (let power = last; power > first - step; power -= step) ticks.unshift(power);
  }
  const [bottom, top] = [ticks[0], ticks[ticks.length - 1]];
  const place = (value) => y + (tall * (top - value)) / (top - bottom);
  const at = (value) => place(log ? (value > 0 ? Math.log10(value) : bottom) : value);
  return { at, place, ticks, text: log ? decade : tickText(ticks) };
}

const line = (xs, values, at) =>
  values.map((value, k) => `${k ? "L" : "M"}${xs[k].toFixed(1)},${at(value).toFixed(1)}`).join("");

// Labels at the ends of lines, kept apart.
function ends(layer, x, labels, [least, most]) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, k) => {
    label.y = Math.max(label.y, k ? labels[k - 1].y + APART : least);
  });
  for (let k = labels.length - 1; k >= 0; k -= 1) {
    const below = k + 1 < labels.length ? labels[k + 1].y - APART : most;
    labels[k].y = Math.min(labels[k].y, below);
    layer.put(`end${labels[k].text}`, "text", { x, y: labels[k].y + 4, class: labels[k].kind }, labels[k].text);
  }
}

function words(figure, k) {
  const lines = [`${figure.axis} ${figure.rounds[k]}, ${number(figure.seconds[k])}\u00a0s`, `mean ${number(figure.mean[k])}`];
  if (figure.many > 1) lines.push(`ranks ${number(figure.low[k])} to ${number(figure.high[k])}`);
  if (figure.worst) lines.push(`rank ${figure.worst[0]} ${number(figure.worst[1][k])}`);
  return lines.join("\n");
}

function chart(frame, layer, state, figure, { left, width, tall, logs, seconds }) {
  const log = logs || figure.log;
  const x0 = left + 40;
  const label = figure.worst ? `rank ${figure.worst[0]}` : "mean";
  const right = Math.max(left + width - textWidth(layer, "measure", label, "bold") - 8, x0 + 60);
  layer.put("title", "text", { x: x0, y: TOP - 18, class: "bold" }, figure.title);
  const scale = scaleOf(frame, state, figure, { y: TOP, tall, log });
  for (const tick of scale.ticks) {
    const y = scale.place(tick);
    layer.put(`grid${tick}`, "path", { d: `M${x0},${y} H${right}`, class: "grid" });
    layer.put(`tick${tick}`, "text", { x: x0 - 8, y: y + 4, class: "muted end" }, scale.text(tick));
  }
  const places = seconds ? figure.seconds : figure.rounds;
  const end = Math.max(places[places.length - 1] ?? 0, seconds ? 0 : (figure.broken?.[0] ?? 0));
  const word = seconds ? "s" : figure.axis;
  const axis = roundAxis(layer.group("rounds"), end, { left: x0, right, y: TOP + tall + 18, word });
  const xs = places.map(axis.x);
  const back = line([...xs].reverse(), [...figure.low].reverse(), scale.at).replace("M", "L");
  const wide = figure.many > 1 && xs.length > 1;
  const around = wide ? `${line(xs, figure.high, scale.at)}${back}Z` : "";
  layer.put("band", "path", { d: around, class: "train-band" });
  const labels = [];
  const last = xs.length - 1;
  const dot = (key, values, kind) => {
    if (last === 0) layer.put(key, "circle", { cx: xs[0], cy: scale.at(values[0]), r: 3, class: kind });
  };
  const drawn = line(xs, figure.mean, scale.at);
  layer.put("mean", "path", { d: drawn, class: "series train-mean" });
  dot("first", figure.mean, "train-dot");
  if (figure.worst) {
    const worst = { d: line(xs, figure.worst[1], scale.at), class: "chosen-line" };
    layer.put("worst", "path", worst);
    labels.push({ y: scale.at(figure.worst[1][last]), text: label, kind: "bold" });
  }
  if (last >= 0) labels.push({ y: scale.at(figure.mean[last]), text: "mean", kind: "bold train-name" });
  if (figure.broken) {
    const [round, rank] = figure.broken;
    const x = seconds ? (xs[last] ?? x0) : axis.x(round);
    const y = last >= 0 ? scale.at(figure.mean[last]) : TOP + tall / 2;
    const arm = `M${x - 5},${y - 5} l10,10 m0,-10 l-10,10`;
    layer.put("cross", "path", { d: arm, class: "nan-cross" });
    const name = layer.put("title", "text", {}, figure.title);
    const said = `NaN: rank ${rank}, ${figure.axis} ${round}`;
    const fits = lengthOf(name) + textWidth(layer, "said", said, "bold") + 12 < left + width - x0;
    const at = fits ? { x: left + width, y: TOP - 18, class: "alarm bold end" } : { x: x0, y: TOP - 3, class: "alarm bold halo" };
    layer.put("nan", "text", at, said);
  } else ends(layer, right + 6, labels, [TOP + 4, TOP + tall]);
  const read = (x) => {
    const k = nearest(xs, x);
    return xs.length ? [words(figure, k), xs[k]] : null;
  };
  const click = () => figure.worst && frame.select(figure.worst[0]);
  overlay(frame, layer, figure.title, { x: x0, y: TOP, width: right - x0, height: tall }, { read, click });
}

function draw(frame, state) {
  write(frame.key, state.key + (state.more.length ? `; not shown: ${state.more.join(", ")}` : ""));
  const [logs, seconds] = [toggle(frame, "log", "log"), toggle(frame, "seconds", "seconds")];
  const many = state.figures.length;
  const columns = Math.max(1, Math.min(many, Math.floor((frame.width + 24) / (LEAST + 24))));
  const lines = Math.ceil(many / columns);
  const height = frame.tall(lines > 1 ? LOW * lines : HEIGHT);
  const layer = frame.svg(height);
  const [wide, tall] = [(frame.width - 24 * (columns - 1)) / columns, height / lines];
  state.figures.forEach((figure, k) => {
    const group = layer.group(`chart${k}`);
    mark(group.parent, "transform", `translate(0, ${Math.floor(k / columns) * tall})`);
    const left = (k % columns) * (wide + 24);
    const box = { left, width: wide, tall: Math.max(tall - TOP - 28, 40), logs, seconds };
    chart(frame, group, state, figure, box);
  });
  layer.sweep();
}

const table = (state) => [
  ["figure", "round", "lowest", "mean", "highest"],
  state.figures.flatMap((figure) =>
    figure.rounds.map((round, k) => [figure.title, round, ...[figure.low, figure.mean, figure.high].map((row) => number(row[k]))]),
  ),
];

const view = {
  title: "Training",
  question: "does it learn, everywhere?",
  height: 130,
  empty: ["No metrics", "bf.log(loss=…, accuracy=…)", "on the ranks, once a step"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
