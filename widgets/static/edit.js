// Links to be dragged in and out: what is proposed is dotted, and nothing changes before Use.

import { place } from "./edges.js";

const OFF = 24; // pixels by which a link must be pulled away

const same = ([a, b], [c, d]) => a === c && b === d;
const without = (links, gone) => links.filter((link) => !gone.some((other) => same(link, other)));

// The links of the state with the edits: {links, added, removed, both}; both: all go both ways.
export function proposed(frame, state) {
  const now = state.weights.map(([u, v]) => [u, v]);
  const both = now.every(([u, v]) => now.some((link) => same(link, [v, u])));
  const edit = frame.look("edit") ?? {};
  const added = without(edit.added ?? [], now);
  const removed = (edit.removed ?? []).filter((link) => now.some((other) => same(link, other)));
  return { links: [...without(now, removed), ...added], now, added, removed, both };
}

function toggle(frame, state, u, v) {
  const edits = proposed(frame, state);
  const pair = edits.both ? [[u, v], [v, u]] : [[u, v]];
  const there = edits.links.some((link) => same(link, pair[0]));
  const declared = edits.now.some((link) => same(link, pair[0]));
  let { added, removed } = edits;
  if (there) [added, removed] = [without(added, pair), declared ? [...removed, ...pair] : removed];
  else [added, removed] = [declared ? added : [...added, ...pair], without(removed, pair)];
  frame.keep("edit", { on: true, added, removed });
}

function listen(frame) {
  const { element, memo } = frame;
  if (element.dataset.edits) return;
  element.dataset.edits = "true";
  let grabbed = null;
  const nodeAt = ([x, y]) => {
    const spots = memo.scene?.spots ?? [];
    return spots.findIndex((spot) => Math.hypot(spot.x - x, spot.y - y) < spot.radius + 5);
  };
  element.addEventListener("pointerdown", (event) => {
    if (!memo.scene) return;
    const at = frame.at(event);
    const node = nodeAt(at);
    const link = event.target.dataset?.link;
    if (node >= 0) grabbed = { node, at };
    else if (link) grabbed = { link: link.split("-").map(Number), at };
    else return;
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (!grabbed) return;
    memo.pulled = { ...grabbed, to: frame.at(event) };
    frame.ask();
  });
  const drop = (event) => {
    if (!grabbed || !memo.scene) return;
    const at = frame.at(event);
    const node = nodeAt(at);
    const { state } = memo.scene;
    const far = Math.hypot(at[0] - grabbed.at[0], at[1] - grabbed.at[1]);
    if (grabbed.link && far > OFF) toggle(frame, state, ...grabbed.link);
    if (grabbed.node >= 0 && node >= 0 && node !== grabbed.node) toggle(frame, state, grabbed.node, node);
    grabbed = memo.pulled = null;
    frame.ask();
  };
  element.addEventListener("pointerup", drop);
  element.addEventListener("pointerleave", () => (grabbed = memo.pulled = null));
}

export function drawEdit(frame, layer, state, edits, { y, width, height }) {
  const spots = place({ ...state, round_layout: state.round_layout }, width, height);
  spots.forEach((spot) => (spot.y += y));
  frame.memo.scene = { state, spots };
  listen(frame);
  const line = ([u, v], kind, key) => {
    if (edits.both && u > v) return;
    const d = `M${spots[u].x},${spots[u].y} L${spots[v].x},${spots[v].y}`;
    const words = kind === "plan-added" ? "proposed" : kind === "plan-removed" ? "to be removed" : "pull it away to remove it";
    layer.put(`${key}${u}-${v}`, "path", { d, class: kind });
    const tip = `${u} ${edits.both ? "↔" : "→"} ${v}\n${words}`;
    layer.put(`grab${u}-${v}`, "path", { d, class: "plan-grab", "data-link": `${u}-${v}`, "data-tip": tip });
  };
  for (const link of edits.links) if (!edits.added.some((other) => same(link, other))) line(link, "plan-link", "link");
  for (const link of edits.removed) line(link, "plan-removed", "gone");
  for (const link of edits.added) line(link, "plan-added", "new");
  const { pulled } = frame.memo;
  if (pulled) {
    const from = pulled.node >= 0 ? [spots[pulled.node].x, spots[pulled.node].y] : pulled.at;
    layer.put("pulled", "path", { d: `M${from} L${pulled.to}`, class: "plan-added quiet" });
  }
  spots.forEach((spot, rank) => {
    const at = { cx: spot.x, cy: spot.y, r: spot.radius };
    layer.group("nodes").put(`node${rank}`, "circle", { ...at, class: "plan-node" });
    if (spot.radius < 8) return;
    const name = { x: spot.x, y: spot.y + 4, class: "bold middle quiet" };
    layer.group("nodes").put(`name${rank}`, "text", name, rank);
  });
}
