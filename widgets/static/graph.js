// Who talks to whom, who is off: nodes that never move, edges thick at the sender.

import { count, number, size, write } from "./draw.js";
import { edgeShape, place } from "./edges.js";
import { mount } from "./frame.js";
import { drawLegend, legendHeight, mix } from "./legend.js";
import { drawMatrix } from "./matrix.js";
import { drawPulses } from "./pulses.js";

const HEIGHT = 300;
const TALL = 372; // from 33 ranks on

function shade(state, distance) {
  if (distance === null || !state.domain) return "var(--ifog-grid)";
  if (distance < 0) return "var(--ifog-stall-wash)";
  const [low, high] = state.domain;
  const share = distance > 0 ? (Math.log10(distance) - low) / (high - low) : 0;
  return mix(Math.min(Math.max(share, 0), 1));
}

function drawEdges(layer, state, spot, chosen) {
  const used = new Map();
  const idle = new Map();
  const lacking = new Set((state.missing ?? []).map(([u, v]) => u * state.n + v));
  const lasts = new Map();
  for (const [index, [u, v, weight, on]] of state.edges.entries()) {
    const key = u * state.n + v;
    (on && !lacking.has(key) ? used : idle).set(key, weight);
    lasts.set(key, state.last[index]);
  }
  const all = new Set([...used.keys(), ...idle.keys()]);
  const back = (key) => (key % state.n) * state.n + Math.floor(key / state.n);
  const plain = [...used].every(([key, weight]) => used.get(back(key)) === weight);
  const dense = used.size > 4 * state.n && state.n > 20;
  const lines = [];
  for (const [key, weight] of [...idle, ...used]) {
    const [u, v] = [Math.floor(key / state.n), key % state.n];
    const on = used.has(key);
    const twice = all.has(back(key));
    if (u > v && twice && (on ? plain : idle.has(back(key)) && state.n > 20)) continue;
    const bent = twice && (on ? !plain : state.n <= 20);
    const width = (3.2 + 8 * weight) * (state.n > 20 ? 0.4 : 1) * (dense ? 0.5 : 1);
    const shape = edgeShape(spot, u, v, { bent, width, inward: state.n > 20 });
    const line = on && plain;
    const name = on ? (line ? "link" : "edge") : "idle";
    const dim = chosen !== null && u !== chosen && v !== chosen ? " dim" : "";
    const arrow = line ? "↔" : "→";
    const sent = `${size(state.message[u])} a message`;
    const last = lasts.get(key) ? `last in round ${count(lasts.get(key))}` : "not used in this cell";
    const tip = [`${u} ${arrow} ${v}`, `weight ${number(weight)}`, ...(on ? [sent] : []), last].join("\n");
    layer.group(on ? "used" : "idle").put(`${u}-${v}-${name}`, "path", {
      class: name + dim,
      d: on && !line ? shape.taper : shape.middle,
      style: `${line && state.n > 20 ? "stroke-width: 1.5;" : ""}${on && dense ? "opacity: 0.5" : ""}`,
      "data-tip": tip,
    });
    if (on) lines.push(shape.middle);
  }
  return lines;
}

function nodeTip(state, rank) {
  const near = state.edges.filter(([, , , on]) => on).length
    ? state.edges.filter(([, , , on]) => on)
    : state.edges;
  const row = near.filter(([, v]) => v === rank).map(([u, , w]) => `${u} × ${number(w)}`);
  const column = near.filter(([u]) => u === rank).map(([, v, w]) => `${v} × ${number(w)}`);
  const some = (list) => (list.length > 6 ? [...list.slice(0, 6), "…"] : list).join(", ") || "–";
  const distance = state.distances[rank];
  return [
    `rank ${rank}, ${state.fates?.[rank] ?? state.states[rank]}`,
    distance === null ? "" : `distance to the mean ${number(distance)}`,
    `keeps × ${number(state.selves[rank])}`,
    `hears ${some(row)}`,
    `tells ${some(column)}`,
    `sent ${size(state.out[rank])}, received ${size(state.in[rank])}`,
  ].filter(Boolean).join("\n");
}

// Red dots on the way from a rank that should have sent to one that waits for it.
function drawMissing(layer, state, spot) {
  for (const [u, v] of state.missing ?? []) {
    const bent = state.edges.some(([from, to]) => from === v && to === u) && state.n <= 20;
    const shape = edgeShape(spot, u, v, { bent, width: 1, inward: state.n > 20 });
    const tip = `${u} → ${v}\nexpected, not sent`;
    layer.group("missing").put(`${u}-${v}`, "path", { class: "missing", d: shape.middle, "data-tip": tip });
  }
}

function drawNode(layer, state, rank, spot, chosen) {
  const { x, y, radius } = spot[rank];
  const doing = state.states[rank];
  const done = doing === "finished" && state.live;
  const gone = doing === "dead" || doing === "absent" || done;
  const at = { cx: x, cy: y };
  const nodes = layer.group("nodes");
  nodes.put(`node${rank}`, "circle", {
    ...at,
    r: radius,
    class: `node pick${state.distances[rank] === null || gone ? " unknown" : ""}${done ? " done" : ""}`,
    style: `fill: ${gone ? "var(--ifog-bg)" : shade(state, state.distances[rank])}`,
    "data-rank": rank,
    "data-tip": nodeTip(state, rank),
  });
  if (doing === "waiting" || doing === "stalled") {
    nodes.put(`ring${rank}`, "circle", { ...at, r: radius, class: `ring quiet ${doing}` });
  }
  if (rank === chosen) {
    nodes.put(`chosen${rank}`, "circle", { ...at, r: radius + 3, class: "ring quiet chosen" });
  }
  if (doing === "dead") {
    const arm = radius * 0.707;
    const d = `M${x - arm},${y - arm} l${2 * arm},${2 * arm} m0,${-2 * arm} l${-2 * arm},${2 * arm}`;
    layer.group("marks").put(`cross${rank}`, "path", { d, class: "cross quiet" });
    layer.group("marks").put(`ring${rank}`, "circle", { ...at, r: radius, class: "ring quiet gone" });
  }
  const names = layer.group("names");
  if (state.n <= 20) {
    const text = { x, y: y + 5, class: `bold body middle quiet${doing === "dead" ? " halo" : ""}` };
    names.put(`name${rank}`, "text", text, rank);
  }
  if (state.n > 20 && rank % 8 === 0 && spot.round) {
    const [dx, dy] = [x - spot.x, y - spot.y];
    const far = 1 + 18 / Math.hypot(dx, dy);
    const text = { x: spot.x + dx * far, y: spot.y + dy * far + 4, class: "middle quiet" };
    names.put(`name${rank}`, "text", text, rank);
  }
}

function draw(frame, state) {
  write(frame.key, state.n > 64 ? "rows send" : "");
  if (state.n > 64) return drawMatrix(frame, state, frame.tall(TALL));
  const height = frame.tall(state.n > 32 ? TALL : HEIGHT);
  const layer = frame.svg(height);
  const spot = place(state, frame.width, height - legendHeight(frame.width));
  const groups = ["idle", "used", "missing", "pulses", "nodes", "marks", "names", "legend"];
  for (const name of groups) layer.group(name);
  const lines = drawEdges(layer, state, spot, frame.selected);
  drawMissing(layer, state, spot);
  for (let rank = 0; rank < state.n; rank += 1) {
    drawNode(layer, state, rank, spot, frame.selected);
  }
  drawPulses(frame, layer, state, lines);
  drawLegend(layer, state, frame.width, height);
  layer.sweep();
}

const table = (state) => [
  ["rank", "state", "distance", "self", "sent", "received"],
  (state.states ?? []).map((doing, rank) => [
    rank,
    state.fates?.[rank] ?? doing,
    state.distances[rank] === null ? "" : number(state.distances[rank]),
    number(state.selves[rank]),
    size(state.out[rank]),
    size(state.in[rank]),
  ]),
];

const view = {
  title: "Graph",
  question: "who talks to whom, who is off?",
  height: 130,
  empty: ["No topology set", "bf.set_topology(…)", "or run a cell"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
