// Where the nodes of a graph stand, and the shape of an edge between two of them.

// Node centres and radii in a box; state.positions are in [-1, 1], rank 0 on top of a circle.
export function place(state, width, height) {
  const usual = state.n <= 8 ? 17 : state.n <= 16 ? 13 : state.n <= 32 ? 9 : 6;
  const room = state.n > 20 ? 22 : 6;
  const half = Math.max(Math.min(width, height) / 2 - usual - room, 20);
  const radius = Math.min(usual, (0.85 * Math.PI * half) / Math.max(state.n, 2));
  const [x, y] = [width / 2, height / 2];
  const wide = state.round_layout ? half : Math.max(width / 2 - radius - 24, 20);
  const spot = state.positions.map(([px, py]) => ({
    x: x + px * Math.min(wide, half * 1.4),
    y: y + py * half,
    radius,
  }));
  return Object.assign(spot, { x, y, round: state.round_layout });
}

const at = (a, control, b, t) => {
  const [p, q, r] = [(1 - t) * (1 - t), 2 * t * (1 - t), t * t];
  return [p * a[0] + q * control[0] + r * b[0], p * a[1] + q * control[1] + r * b[1]];
};

const short = (value) => value.toFixed(1);

// The middle line from u to v and the taper around it, both clear of the nodes.
export function edgeShape(spot, u, v, { bent, width, inward }) {
  const [from, to] = [spot[u], spot[v]];
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy) || 1;
  let control = [(from.x + to.x) / 2, (from.y + to.y) / 2];
  if (inward && spot.round) {
    control = [control[0] + (spot.x - control[0]) * 0.25, control[1] + (spot.y - control[1]) * 0.25];
  }
  if (bent) {
    const bow = Math.min(0.12 * length, 22);
    control = [control[0] + (dy / length) * 2 * bow, control[1] - (dx / length) * 2 * bow];
  }
  const gap = from.radius + 4;
  const clear = (a, b) => {
    const far = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    return [a[0] + ((b[0] - a[0]) * gap) / far, a[1] + ((b[1] - a[1]) * gap) / far];
  };
  const a = clear([from.x, from.y], control);
  const b = clear([to.x, to.y], control);
  const middle = `M${a.map(short)} Q${control.map(short)} ${b.map(short)}`;
  const steps = bent || inward ? 10 : 1;
  const [left, right] = [[], []];
  for (let step = 0; step <= steps; step += 1) {
    const t = step / steps;
    const here = at(a, control, b, t);
    const ahead = at(a, control, b, t + 0.01);
    const slope = Math.hypot(ahead[0] - here[0], ahead[1] - here[1]) || 1;
    const half = ((1 - t) * width + t * 0.9) / 2;
    const side = [(-(ahead[1] - here[1]) / slope) * half, ((ahead[0] - here[0]) / slope) * half];
    left.push(`${short(here[0] + side[0])},${short(here[1] + side[1])}`);
    right.unshift(`${short(here[0] - side[0])},${short(here[1] - side[1])}`);
  }
  return { middle, taper: `M${left.join("L")}L${right.join("L")}Z` };
}
