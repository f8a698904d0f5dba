// What a lane is made of: stretches of computing, moving bytes and waiting, and their shapes.

export const COMPUTE = 0;
export const TRANSFER = 1;
export const WAIT = 2;
export const STALL = 3;
const LONG = 1e6; // microseconds from which on a wait is red
const LEAST = 0.5; // pixels below which stretches are joined

// The stretches of every lane: {from, to, kind, whom, op}; times in microseconds since the cell began.
export function lanesOf(state) {
  const zero = state.from;
  const lanes = state.merged
    ? state.runs.map((runs) => runs.map(([at, length, kind, whom]) => stretch(zero + at, length, kind, whom)))
    : state.ops.map((ops) => ops.flatMap((op) => parts(zero, op)));
  for (const [rank, since, until, whom, told] of state.open) {
    const lane = lanes[state.ranks.indexOf(rank)];
    if (!lane) continue;
    const cut = !state.running || until - since > LONG;
    const kind = whom < 0 ? COMPUTE : cut ? STALL : WAIT;
    lane.push({ from: zero + since, to: zero + until, kind, whom, told });
  }
  return lanes;
}

function stretch(from, length, kind, whom, op) {
  return { from, to: from + length, kind: kind === WAIT && length > LONG ? STALL : kind, whom, op };
}

function parts(zero, op) {
  const [at, compute, wait, transfer, whom] = op;
  const made = [];
  if (compute) made.push(stretch(zero + at, compute, COMPUTE, -1, op));
  if (wait) made.push(stretch(zero + at + compute, wait, WAIT, whom, op));
  if (transfer) made.push(stretch(zero + at + compute + wait, transfer, TRANSFER, -1, op));
  return made;
}

// The stretches as {x0, x1, kind, whom, op} on the screen, tiny ones joined into what fills most.
export function placed(lane, scale) {
  const bars = [];
  let tiny = null;
  const flush = () => {
    if (tiny) {
      const kind = tiny.spent.indexOf(Math.max(...tiny.spent));
      bars.push({ x0: tiny.x0, x1: tiny.x1, kind, whom: tiny.whom });
    }
    tiny = null;
  };
  for (const { from, to, kind, whom, op } of lane) {
    if (to < scale.first || from > scale.last) continue;
    const x0 = Math.max(scale.x(from), scale.left);
    const x1 = Math.min(scale.x(to), scale.right);
    if (x1 - x0 >= LEAST) {
      flush();
      bars.push({ x0, x1, kind, whom, op });
      continue;
    }
    tiny ??= { x0, x1, spent: [0, 0, 0, 0], whom };
    tiny.spent[kind] += to - from;
    tiny.x1 = Math.max(x1, tiny.x1);
    if (kind >= WAIT) tiny.whom = whom;
    if (tiny.x1 - tiny.x0 >= LEAST) flush();
  }
  flush();
  return bars;
}

// A box as a path, its corners round where there is room.
export function box(x0, x1, y, tall) {
  const [wide, r] = [x1 - x0, x1 - x0 > 5 && tall > 6 ? 1.5 : 0];
  const at = (value) => value.toFixed(1);
  if (!r) return `M${at(x0)},${at(y)}h${at(wide)}v${at(tall)}h${at(-wide)}z`;
  const turn = (dx, dy) => `a${r},${r} 0 0 1 ${dx},${dy}`;
  const [w, h] = [at(wide - 2 * r), at(tall - 2 * r)];
  return `M${at(x0 + r)},${at(y)}h${w}${turn(r, r)}v${h}${turn(-r, r)}h-${w}${turn(-r, -r)}v-${h}${turn(r, -r)}z`;
}

// The colour of a rank, mixed between six anchors.
export function rankColour(rank, n) {
  const place = n > 1 ? (5 * rank) / (n - 1) : 0;
  const anchor = Math.min(Math.floor(place), 4);
  const share = Math.round(100 * (place - anchor));
  return `color-mix(in oklab, var(--ifog-rank-${anchor + 1}) ${share}%, var(--ifog-rank-${anchor}))`;
}
