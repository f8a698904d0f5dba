// Where does the time go: rates as figures, one bar a rank, waiting left hollow.

import { lengthOf, mark, percent } from "./draw.js";
import { mount } from "./frame.js";

const PARTS = ["compute", "transfer", "wait"];

const BIG = 52; // pixels that the figures take

// Three figures side by side, each as wide as it needs.
function figures(layer, state, width) {
  let x = 0;
  const apart = Math.max(width / state.figures.length, 0);
  state.figures.forEach(([value, name], index) => {
    const big = layer.put(`big${index}`, "text", { x, y: 24, class: "bold figure" }, value);
    layer.put(`small${index}`, "text", { x, y: 41, class: "muted" }, name);
    x = Math.max(apart * (index + 1), x + lengthOf(big) + 14);
  });
}

// Returns the height it takes: "busy" gets a line of its own where both do not fit.
function legend(layer, left, right) {
  const group = layer.group("legend");
  mark(group.parent, "transform", `translate(0, ${BIG})`);
  let x = left;
  for (const part of PARTS) {
    group.put(`box${part}`, "rect", { x, y: 3, width: 10, height: 10, rx: 1.5, class: part });
    const text = group.put(part, "text", { x: x + 16, y: 12, class: "muted" }, part);
    x += 34 + lengthOf(text);
  }
  if (!right) return 24;
  const busy = group.put("busy", "text", { x: right, y: 12, class: "muted end" }, "busy");
  const fits = x - 8 + lengthOf(busy) <= right;
  busy.setAttribute("y", fits ? 12 : 28);
  return fits ? 24 : 40;
}

function bar(layer, state, index, geometry) {
  const rank = state.ranks[index];
  const { left, width, y, tall, dim, rounded } = geometry;
  const shares = state.shares[index];
  let x = left;
  const [rounds, sent] = state.rates[index];
  const split = PARTS.map((part, k) => `${part} ${percent(shares[k])}`).join(", ");
  const tip = `rank ${rank}\n${split}\n${rounds} rounds/s, sent ${sent}`;
  PARTS.forEach((part, k) => {
    const edge = part === "wait" && rounded ? 0.6 : 0;
    layer.put(`${part}${rank}`, "rect", {
      x: x + edge,
      y: y + edge,
      width: Math.max(shares[k] * width - (rounded ? 1 : 0) - 2 * edge, 0),
      height: tall - 2 * edge,
      rx: rounded ? 1.5 : 0,
      class: `part pick ${part}`,
      style: `opacity: ${dim ? 0.35 : 1}${rounded ? "" : "; stroke: none"}${shares[k] * width < 1.5 ? "; display: none" : ""}`,
      "data-tip": tip,
      "data-rank": rank,
    });
    x += shares[k] * width;
  });
}

// Loss and culprit, on two lines where one is too short; returns the height they take.
function words(layer, state, left, y, width) {
  const loss = layer.put("loss", "text", { x: left, y, class: "bold" }, state.loss);
  const after = left + (state.loss ? lengthOf(loss) + 8 : 0);
  const at = { x: after, y, class: "muted" };
  const culprit = layer.put("culprit", "text", at, state.culprit);
  const fits = after + lengthOf(culprit) <= width;
  if (fits) return 16;
  culprit.setAttribute("x", left);
  culprit.setAttribute("y", y + 16);
  return 32;
}

function draw(frame, state) {
  const many = state.ranks.length > 16;
  const pitch = many ? Math.min(4, 256 / state.ranks.length) : 19;
  const tall = many ? Math.max(pitch - 1, 0.75 * pitch) : 14;
  const left = many ? 0 : 22;
  const right = frame.width - (many ? 0 : 44);
  const layer = frame.svg(BIG);
  for (const name of ["figures", "legend", "bars", "names", "words"]) layer.group(name);
  figures(layer.group("figures"), state, frame.width);
  const top = BIG + legend(layer, left, many ? 0 : frame.width);
  const bottom = top + pitch * state.ranks.length;
  state.ranks.forEach((rank, index) => {
    const y = top + pitch * index;
    const dim = frame.selected !== null && frame.selected !== rank;
    const geometry = { left, width: right - left, y, tall, dim, rounded: !many };
    bar(layer.group("bars"), state, index, geometry);
    if (many) return;
    const names = layer.group("names");
    const name = { x: 4, y: y + 11, class: "bold pick", "data-rank": rank };
    names.put(`name${rank}`, "text", name, rank);
    const bold = rank === state.busiest && state.ranks.length > 1 ? " bold" : "";
    const busy = { x: frame.width, y: y + 11, class: bold ? "end bold" : "end muted" };
    names.put(`busy${rank}`, "text", busy, percent(1 - state.shares[index][2]));
  });
  let end = bottom + words(layer.group("words"), state, left, bottom + 15, frame.width);
  if (many) {
    const slow = `most compute: ranks ${state.slowest.join(", ")}`;
    layer.group("words").put("slow", "text", { x: left, y: end + 16, class: "muted" }, slow);
    end += 16;
  }
  frame.svg(end + 6);
  layer.sweep();
}

const table = (state) => [
  ["rank", "rounds/s", "sent", ...PARTS],
  state.ranks.map((rank, index) => [rank, ...state.rates[index], ...state.shares[index].map(percent)]),
];

const view = {
  title: "Throughput",
  question: "where does the time go?",
  height: 130,
  fixed: true,
  empty: ["No rounds yet", "", "rates appear after the second round"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
