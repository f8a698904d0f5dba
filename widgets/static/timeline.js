// Who waits for whom: a lane a rank, arrows from send to receive, waits in the colour of the cause.

import { duration, html, lengthOf, percent, size, write } from "./draw.js";
import { mount } from "./frame.js";
import { overlay } from "./hover.js";
import { drawLane, pitchOf } from "./lanes.js";
import { criticalPath, drawArrows, drawCritical } from "./messages.js";
import { STALL, WAIT, lanesOf } from "./stretches.js";
import { addWindow, held, zoom } from "./window.js";
import { niceTicks } from "./linear.js";

const [LEFT, TOP, AXIS] = [34, 6, 24];
const LEGEND = 20;
const ITEMS = [["compute", "compute"], ["transfer", "transfer"], ["wait", "wait, in the colour of the rank waited for"], ["strong", "the message that ended a wait"], ["faint", "other messages"]];

function timeAxis(layer, scale, state, bottom, live) {
  const span = scale.last - scale.first;
  const [unit, word] = span >= 2e6 ? [1e6, "s"] : span >= 2000 ? [1e3, "ms"] : [1, "µs"];
  const zero = live ? scale.last : 0;
  const low = (scale.first - zero) / unit;
  const high = (scale.last - zero) / unit;
  const wanted = Math.max(3, Math.min(7, Math.floor((scale.right - scale.left) / 80)));
  const ticks = niceTicks(low, high, wanted).filter((tick) => tick >= low - 1e-9 && tick <= high + 1e-9);
  const words = ticks.map((tick) => (live && tick === 0 ? "now" : `${Number(tick.toFixed(6))}`.replace("-", "\u2212")));
  const first = words.findIndex((text) => text !== "now" && text !== "0");
  if (first >= 0) words[first] += `\u00a0${word}`;
  ticks.forEach((tick, k) => {
    const x = scale.x(tick * unit + zero);
    layer.put(`grid${k}`, "path", { d: `M${x},${TOP} V${bottom}`, class: "grid" });
    const anchor = x > scale.right - 20 ? "end" : x < scale.left + 20 ? "" : "middle";
    layer.put(`tick${k}`, "text", { x: x > scale.right - 20 ? scale.right : x, y: bottom + 16, class: `muted ${anchor}` }, words[k]);
  });
}

// Messages that are there but too many to be told apart are promised instead of drawn.
function legend(layer, y, width, arrows, hidden) {
  let [x, line] = [0, y];
  for (const [kind, text] of ITEMS) {
    const message = kind === "strong" || kind === "faint";
    if (message && !arrows && (kind === "faint" || !hidden)) continue;
    const words = message && !arrows ? "zoom in to see messages" : text;
    const label = layer.put(`text${kind}`, "text", { x: x + 26, y: line, class: "muted" }, words);
    const wide = 26 + lengthOf(label);
    if (x + wide > width && x > 0) {
      [x, line] = [0, line + 17];
      label.setAttribute("x", 26);
      label.setAttribute("y", line);
    }
    const mid = line - 4;
    if (kind === "compute" || kind === "transfer") layer.put(kind, "rect", { x, y: line - 9, width: 20, height: 10, rx: 1.5, class: `bar-${kind}` });
    else if (kind === "wait") {
      layer.put("wash", "rect", { x, y: line - 9, width: 20, height: 10, class: "bar-wait-wash" });
      layer.put("whom", "path", { d: `M${x},${mid} h20`, class: "whom", style: "stroke: var(--ifog-rank-3); stroke-width: 3" });
    } else layer.put(kind, "path", { d: `M${x},${mid + 4} l17,-8 m-5,-0.5 l5,0.5 l-3,4`, class: `message ${kind}` });
    x += wide + 18;
  }
  return line + 6;
}

// Words for what is under the pointer.
function words(state, lanes, rows, scale, x, y) {
  const index = [...rows.values()].findIndex((row) => y >= row.y - row.tall * 0.4 && y <= row.y + row.tall * 1.4);
  const at = scale.first + ((x - scale.left) / (scale.right - scale.left)) * (scale.last - scale.first);
  const found = lanes[index]?.find(({ from, to }) => at >= from && at < to);
  if (!found) return null;
  const { kind, whom, op, told, from, to } = found;
  const doing = kind >= WAIT ? `waits for rank ${whom}` : kind ? "moves bytes" : "computes";
  const lines = [`rank ${state.ranks[index]} ${doing}, ${duration((to - from) / 1e6)}`];
  if (op) lines.push(`${state.names[op[6]]}, round ${op[5]}${op[8] ? `, line ${op[8]}` : ""}`);
  if (told) lines.push(told);
  if (op && op[7]) lines.push(`sends ${size(op[7])}`);
  if (state.merged) lines.push("many operations in one; zoom in to tell them apart");
  return [lines.join("\n")];
}

function tools(frame, state, zoomed) {
  const text = zoomed ? (state.running ? "back to now" : "show all") : "";
  if (frame.memo.tools === text) return;
  frame.memo.tools = text;
  frame.tools.replaceChildren();
  if (!text) return;
  const pill = html("button", "ifog-pill", text);
  pill.addEventListener("click", () => frame.keep("window", null));
  frame.tools.append(pill);
}

function marks(layer, state, scale, rows, bottom) {
  for (const [rank, at, word] of state.marks) {
    const row = rows.get(rank);
    const x = scale.x(state.from + at);
    if (!row || x < scale.left || x > scale.right + 1) continue;
    const [half, y] = [Math.min(row.tall / 2, 8), row.y + row.tall / 2];
    layer.put(`raised${rank}`, "rect", { x: x - half, y: y - half, width: 2 * half, height: 2 * half, rx: 2, class: "state-dead" });
    const arm = half * 0.5;
    layer.put(`cross${rank}`, "path", { d: `M${x - arm},${y - arm} l${2 * arm},${2 * arm} m0,${-2 * arm} l${-2 * arm},${2 * arm}`, class: "mark" });
    const beyond = x > scale.right - 80;
    layer.put(`word${rank}`, "text", { x: beyond ? x - half - 6 : x + half + 6, y: y + 4, class: `alarm bold halo${beyond ? " end" : ""}` }, word);
  }
  const x = state.release === null ? -1 : scale.x(state.from + state.release);
  if (x < scale.left || x > scale.right + 1) return;
  layer.put("release", "path", { d: `M${x},${TOP} V${bottom}`, class: "release" });
  layer.put("released", "text", { x: x - 5, y: TOP + 4, class: "alarm bold halo end" }, "released");
}

function draw(frame, given) {
  const [state, [first, last]] = held(frame, given);
  frame.memo.shown = state;
  const zoomed = Boolean(frame.look("window"));
  write(frame.key, zoomed ? duration((last - first) / 1e6) : given.key);
  tools(frame, given, zoomed);
  const n = state.ranks.length;
  const pitch = frame.look("height") ? Math.max((frame.tall(0) - TOP - AXIS - LEGEND) / n, 1) : pitchOf(n);
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find((step) => step * pitch >= 14) ?? 256;
  const tall = Math.min(pitch * 0.56, 16 * Math.max(pitch / 30, 1));
  const right = frame.width - 2;
  const x = (time) => LEFT + ((time - first) / (last - first)) * (right - LEFT);
  const scale = { first, last, left: LEFT, right, x };
  frame.memo.scale = scale;
  const rows = new Map(state.ranks.map((rank, k) => [rank, { y: TOP + pitch * k + (pitch - tall) / 2, tall }]));
  const bottom = TOP + pitch * n + 2;
  const layer = frame.svg(bottom + AXIS + LEGEND);
  for (const name of ["axis", "lanes", "arrows", "marks", "legend", "sheet"]) layer.group(name);
  timeAxis(layer.group("axis"), scale, state, bottom, given.live && !zoomed);
  const path = frame.memo.critical && !state.merged ? criticalPath(state) : null;
  const lanes = lanesOf(state);
  state.ranks.forEach((rank, index) => {
    const dim = path !== null || (frame.selected !== null && frame.selected !== rank);
    const at = { rank, index, every, n: Math.max(state.n, n), ...rows.get(rank), scale, dim };
    drawLane(layer.group("lanes").group(`lane${rank}`), lanes[index], at);
  });
  const arrows = drawArrows(layer.group("arrows"), state, scale, rows, { chosen: frame.selected, path: path?.messages });
  if (path) drawCritical(layer.group("arrows"), state, scale, rows, path);
  marks(layer.group("marks"), state, scale, rows, bottom);
  const end = legend(layer.group("legend"), bottom + AXIS + 14, frame.width, arrows, state.merged || state.arrows.length > 0);
  const click = (px, py) => {
    if (frame.memo.dragged) return;
    const rank = [...rows].find(([, row]) => py >= row.y - 4 && py <= row.y + row.tall + 4)?.[0];
    if (rank !== undefined) frame.select(rank);
  };
  const read = (px, py) => words(state, lanes, rows, scale, px, py);
  const sheet = overlay(frame, layer.group("sheet"), "", { x: LEFT, y: TOP, width: right - LEFT, height: bottom - TOP }, { read, click });
  addWindow(frame, sheet);
  frame.svg(end);
  layer.sweep();
}

function table(state) {
  const rows = lanesOf(state).map((lane, k) => {
    const spent = [0, 0, 0, 0];
    for (const { from, to, kind } of lane) spent[kind] += to - from;
    spent[WAIT] += spent[STALL];
    return [state.ranks[k], ...spent.slice(0, 3).map((time) => duration(time / 1e6)), percent(1 - spent[WAIT] / state.span)];
  });
  return [["rank", "computed", "moved bytes", "waited", "busy"], rows];
}

const toggle = (frame) => {
  frame.memo.critical = !frame.memo.critical;
  frame.ask();
};
const view = {
  title: "Timeline",
  question: "who waits for whom?",
  height: 130,
  empty: ["No operations yet", "", "run a %%bf cell"],
  keys: { c: toggle, i: (frame) => zoom(frame, 0.8), o: (frame) => zoom(frame, 1.25), 0: (frame) => frame.keep("window", null) },
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
