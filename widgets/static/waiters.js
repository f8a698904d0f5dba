// Ranks that wait and are waited for: round nodes with their number, and arrows between them.

const HEAD = 9; // length of an arrow's head in pixels, where there is room
const GAP = 4; // between an arrow and a node

const short = (value) => value.toFixed(1);

// An arrow from the edge of one node to that of another, bent aside where its twin goes back.
export function arrow(layer, from, to, { red, dim = false, bent = false }) {
  const key = `${from.rank}-${to.rank}`;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / length, dy / length];
  const side = bent ? Math.min(6, from.radius / 2) : 0;
  const at = (far) => [from.x + ux * far - uy * side, from.y + uy * far + ux * side];
  const room = length - from.radius - to.radius;
  const gap = Math.min(GAP, room / 6);
  const size = Math.min(HEAD, room - 2 * gap);
  const start = at(from.radius + gap);
  const end = at(length - to.radius - gap);
  const neck = at(length - to.radius - gap - size);
  const kind = `${red ? "stalled" : "waiting"}${dim ? " dim" : ""}`;
  const line = `M${start.map(short)} L${neck.map(short)}`;
  layer.put(`line${key}`, "path", { d: line, class: `needs ${kind}` });
  const [wx, wy] = [(-uy * size) / 2, (ux * size) / 2];
  const wing = (sign) => `${short(neck[0] + sign * wx)},${short(neck[1] + sign * wy)}`;
  const tip = `M${end.map(short)} L${wing(1)} L${wing(-1)} Z`;
  layer.put(`head${key}`, "path", { d: tip, class: `head ${kind}` });
}

export function node(layer, spot, selected) {
  const { rank, look, tip, x, y, radius } = spot;
  const at = { cx: x, cy: y };
  const kind = `waiter pick ${look}${radius < 13 ? " small" : ""}`;
  const shape = { ...at, r: radius, class: kind, "data-rank": rank, "data-tip": tip };
  layer.put(`node${rank}`, "circle", shape);
  if (rank === selected) {
    layer.put(`chosen${rank}`, "circle", { ...at, r: radius + 3, class: "ring quiet chosen" });
  }
  if (radius < 8) return;
  const size = radius < 13 ? "" : " body";
  const name = { x, y: y + (size ? 5 : 4), class: `bold middle quiet${size} on-${look}` };
  layer.put(`name${rank}`, "text", name, rank);
}
