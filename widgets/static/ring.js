// A cycle of waits: its ranks on a circle, every arrow red, and what each of them waits in.

import { arrow, node } from "./waiters.js";

const ROW = 20;
const BESIDE = 520; // pixels from which on the list stands at the right of the circle

// Returns the height it takes.
export function drawRing(frame, layer, ring) {
  const n = ring.nodes.length;
  const far = n === 1 ? 0 : n === 2 ? 70 : n <= 8 ? 88 : 112;
  const share = n > 24 ? 0.4 : 0.62; // of the circle, for the nodes
  const radius = n === 1 ? 17 : Math.max(Math.min(17, (share * Math.PI * far) / n), 2);
  const [x, y] = [far + 40, n === 2 ? 24 : far + 24];
  const spots = ring.nodes.map((rank, index) => {
    const turn = (2 * Math.PI * index) / n - (n === 2 ? Math.PI / 2 : 0);
    return { ...rank, x: x + far * Math.sin(turn), y: y - far * Math.cos(turn), radius };
  });
  spots.forEach((spot, index) => {
    if (n > 1) arrow(layer.group("arrows"), spot, spots[(index + 1) % n], { red: true, bent: n === 2 });
  });
  for (const spot of spots) {
    node(layer.group("nodes"), spot, frame.selected);
    if (radius < 8 && spot.rank % 8 === 0) outside(layer.group("labels"), spot, x, y);
  }
  const beside = frame.width >= BESIDE;
  const bottom = Math.max(...spots.map((spot) => spot.y)) + 26;
  const lines = words(ring);
  const left = beside ? 2 * x + 20 : 0;
  const high = (bottom - lines.length * ROW) / 2;
  const top = beside ? Math.max(high, 0) + 12 : bottom + 16;
  lines.forEach(([text, kind], index) => {
    const at = { x: left, y: top + index * ROW + 4, class: `${kind} body` };
    layer.group("labels").put(`line${index}`, "text", at, text);
  });
  return Math.max(bottom, top + lines.length * ROW);
}

function outside(layer, spot, x, y) {
  const [dx, dy] = [spot.x - x, spot.y - y];
  const out = 1 + 15 / Math.hypot(dx, dy);
  const at = { x: x + dx * out, y: y + dy * out + 4, class: "middle quiet" };
  layer.put(`name${spot.rank}`, "text", at, spot.rank);
}

function words(ring) {
  const lines = ring.lines.map(([edge, where, odd]) => [`${edge}  ${where}`, odd ? "bold" : ""]);
  if (ring.more) lines.push([`+ ${ring.more} more`, "muted"]);
  if (ring.others) lines.push([ring.others, "muted"]);
  return lines;
}
