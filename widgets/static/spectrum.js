// How fast can W mix: its eigenvalues on the unit disc, and what another link would change.

import { drawDisc } from "./disc.js";
import { html, number } from "./draw.js";
import { drawEdit, proposed } from "./edit.js";
import { cutOff, eigenvalues, mixing } from "./eigen.js";
import { mount } from "./frame.js";

const HEIGHT = 310;
const WORDS = 80;
const BESIDE = 500; // pixels from which on the links stand beside the disc

const modulus = ([re, im]) => Math.hypot(re, im);

function halfLife(rate) {
  return rate > 1e-12 && rate < 1 - 1e-12 ? Math.log(0.5) / Math.log(rate) : null;
}

// How many ranks one effectively averages with, for a symmetric W; see effective_neighbors.
function near(values, decay = 0.9) {
  const sum = values.reduce((all, value) => all + modulus(value) ** 2 / (1 - decay * modulus(value) ** 2), 0);
  return 1 / (1 - decay) / (sum / values.length);
}

// What the edits make of the graph, remembered until they change.
function outcome(frame, state, edits) {
  const made = JSON.stringify([state.weights, edits.links]);
  if (frame.memo.outcome?.made === made) return frame.memo.outcome;
  const W = mixing(state.n, edits.links);
  const values = eigenvalues(W);
  const rate = state.n > 1 ? modulus(values[1]) : 0;
  const cut = cutOff(state.n, edits.links);
  const symmetric = W.every((row, v) => row.every((weight, u) => Math.abs(weight - W[u][v]) < 1e-12));
  frame.memo.outcome = { made, rate, values, cut, near: symmetric ? near(values) : null };
  return frame.memo.outcome;
}

function words(state, edits, result) {
  const messages = edits.links.length - edits.now.length;
  const [added, removed] = [edits.added, edits.removed].map((links) => links.length / (edits.both ? 2 : 1));
  const count = (many, what) => (many ? [`${many} link${many > 1 ? "s" : ""} ${what}`] : []);
  const [before, after] = [halfLife(state.rate), halfLife(result.rate)];
  const lines = [`gap ${state.gap} → ${number(1 - Math.min(result.rate, 1))}`];
  lines.push([...count(added, "added"), ...count(removed, "removed")].join(", ") || "drag from rank to rank, or pull a link away");
  if (result.cut.length) lines.push(`rank ${result.cut[0]} is cut off: this cannot be used`);
  else if (before && after && (added || removed)) lines.push(`half-life ${number(before)} → ${number(after)} rounds`);
  if (messages) lines.push(`${Math.abs(messages)} ${messages > 0 ? "more" : "fewer"} messages a round, ${edits.links.length} instead of ${edits.now.length}`);
  if (result.near && (added || removed)) lines.push(`${number(result.near)} effective neighbours of ${state.n}`);
  return lines;
}

function tools(frame, state, edits, result) {
  const on = Boolean(frame.look("edit")?.on);
  const changed = on && edits.added.length + edits.removed.length > 0;
  const used = frame.look("edit")?.used;
  const made = JSON.stringify([on, changed, used, result?.cut.length, result?.made, state.weights.length > 0]);
  if (frame.memo.tools === made) return;
  frame.memo.tools = made;
  frame.tools.replaceChildren();
  const button = (text, act, kind = "") => {
    const made = html("button", `ifog-pill ${kind}`, text);
    made.addEventListener("click", act);
    frame.tools.append(made);
    return made;
  };
  if (!on) {
    if (state.weights.length) button("edit", () => frame.keep("edit", { on: true }));
    return;
  }
  if (changed) {
    const use = button(used ? "chosen" : "Use", () => {
      frame.model.set("proposal", { n: state.n, edges: edits.links });
      frame.keep("edit", { ...frame.look("edit"), used: true });
    }, "strong");
    use.disabled = Boolean(used || result.cut.length);
    if (result.cut.length) use.title = `rank ${result.cut[0]} is cut off`;
    button("Discard", () => {
      frame.model.set("proposal", {});
      frame.keep("edit", { on: true });
    });
  }
  button("done", () => frame.keep("edit", { ...frame.look("edit"), on: false }));
}

function draw(frame, state) {
  const editing = Boolean(frame.look("edit")?.on) && state.weights.length > 0;
  const edits = editing ? proposed(frame, state) : null;
  const changed = editing && edits.added.length + edits.removed.length > 0;
  const result = editing ? outcome(frame, state, edits) : null;
  tools(frame, state, edits, result);
  const beside = editing && frame.width >= BESIDE;
  const lines = editing ? words(state, edits, result) : [state.head, state.title, ...state.lines];
  if (frame.look("edit")?.used && changed) lines.push("to use it: %bf topology --from-widget");
  const text = Math.max(WORDS, lines.length * 18 + 10);
  const tall = frame.tall(HEIGHT + (text - WORDS) + (editing && !beside ? 230 : 0));
  const layer = frame.svg(tall);
  for (const name of ["edit", "disc", "words"]) layer.group(name);
  const half = beside ? frame.width / 2 : frame.width;
  const above = editing && !beside ? 230 : 0;
  if (editing) drawEdit(frame, layer.group("edit"), state, edits, { y: 0, width: half, height: beside ? tall : 220 });
  else frame.memo.scene = null;
  const room = tall - above - text;
  const radius = Math.max(Math.min(half / 2 - 24, room / 2 - 10), 30);
  const left = beside ? half : 0;
  const x = left + (beside ? half / 2 : Math.min(half / 2, radius + 34));
  const centre = beside ? x : left + half / 2;
  const spot = { x: centre, y: above + room / 2, radius };
  const shown = changed ? result.values.map(([re, im]) => [Number(re.toFixed(6)), Number(im.toFixed(6)), 1]) : state.points;
  if (shown.length) {
    const before = changed ? state.points : [];
    drawDisc(layer.group("disc"), { ...spot, points: shown, rate: changed ? result.rate : state.rate, before });
  } else layer.group("disc").put("none", "text", { x: left, y: spot.y, class: "muted" }, "too many ranks for dots; |λ₂| was iterated");
  lines.forEach((line, k) => {
    const alarm = line.includes("cut off") ? " alarm" : "";
    const at = { x: left, y: above + room + 18 + k * 18, class: k ? `muted${alarm}` : "bold body" };
    layer.group("words").put(`line${k}`, "text", at, line);
  });
  layer.sweep();
}

const table = (state) => [
  ["real", "imaginary", "modulus", "times"],
  state.points.map(([re, im, many]) => [number(re), number(im), number(Math.hypot(re, im)), many]),
];

const view = {
  title: "Spectrum",
  question: "how fast can W mix?",
  height: 130,
  empty: ["No matrix yet", "bf.set_topology(…)", "or run a cell"],
  draw,
  table,
};

export default { render: ({ model, el }) => mount(model, el, view) };
