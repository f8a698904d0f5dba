// Eigenvalues of a real matrix: Householder to Hessenberg form, then QR steps with complex shifts.
// (Golub and Van Loan, Matrix Computations, section 7.4 and 7.5.) And mixing matrices of links.

const EPS = 2 ** -52;
const TURNS = 60; // steps for one eigenvalue

function hessenberg(rows) {
  const n = rows.length;
  const A = rows.map((row) => [...row]);
  for (let k = 0; k < n - 2; k += 1) {
    const v = A.slice(k + 1).map((row) => row[k]);
    const norm = Math.hypot(...v);
    if (norm < 1e-300) continue;
    v[0] += v[0] < 0 ? -norm : norm;
    const size = Math.hypot(...v);
    v.forEach((value, i) => (v[i] = value / size));
    for (let j = 0; j < n; j += 1) {
      const dot = 2 * v.reduce((sum, value, i) => sum + value * A[k + 1 + i][j], 0);
      v.forEach((value, i) => (A[k + 1 + i][j] -= dot * value));
    }
    for (const row of A) {
      const dot = 2 * v.reduce((sum, value, i) => sum + value * row[k + 1 + i], 0);
      v.forEach((value, i) => (row[k + 1 + i] -= dot * value));
    }
  }
  return A;
}

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const minus = ([a, b], [c, d]) => [a - c, b - d];
const plus = ([a, b], [c, d]) => [a + c, b + d];
const conj = ([a, b]) => [a, -b];
const root = ([a, b]) => {
  const r = Math.sqrt(Math.hypot(a, b));
  const half = Math.atan2(b, a) / 2;
  return [r * Math.cos(half), r * Math.sin(half)];
};
const size = ([a, b]) => Math.hypot(a, b);

// The eigenvalue of the last 2 x 2 block that is closer to its last entry.
function shiftOf(H, end) {
  const [a, b, c, d] = [H[end - 1][end - 1], H[end - 1][end], H[end][end - 1], H[end][end]];
  const half = minus(a, d).map((value) => value / 2);
  const swing = root(plus(times(half, half), times(b, c)));
  const [one, two] = [plus(half, swing), minus(half, swing)];
  return plus(d, size(one) < size(two) ? one : two);
}

function step(H, start, end, shift) {
  const turns = [];
  for (let k = start; k <= end; k += 1) H[k][k] = minus(H[k][k], shift);
  for (let k = start; k < end; k += 1) {
    const [x, y] = [H[k][k], H[k + 1][k]];
    const r = Math.hypot(size(x), size(y)) || 1;
    const [c, s] = [[x[0] / r, x[1] / r], [y[0] / r, y[1] / r]];
    turns.push([c, s]);
    for (let j = k; j <= end; j += 1) {
      const [p, q] = [H[k][j], H[k + 1][j]];
      H[k][j] = plus(times(conj(c), p), times(conj(s), q));
      H[k + 1][j] = minus(times(c, q), times(s, p));
    }
  }
  turns.forEach(([c, s], index) => {
    const k = start + index;
    for (let i = start; i <= Math.min(k + 1, end); i += 1) {
      const [p, q] = [H[i][k], H[i][k + 1]];
      H[i][k] = plus(times(p, c), times(q, s));
      H[i][k + 1] = minus(times(q, conj(c)), times(p, conj(s)));
    }
  });
  for (let k = start; k <= end; k += 1) H[k][k] = plus(H[k][k], shift);
}

// [real, imaginary] each, the largest first.
export function eigenvalues(rows) {
  const H = hessenberg(rows).map((row) => row.map((value) => [value, 0]));
  const found = [];
  let [end, turn] = [H.length - 1, 0];
  while (end >= 0) {
    let start = end;
    while (start > 0) {
      const scale = size(H[start][start]) + size(H[start - 1][start - 1]) || 1;
      if (size(H[start][start - 1]) < EPS * scale) break;
      start -= 1;
    }
    if (start === end || turn > TURNS) {
      found.push(H[end][end]);
      [end, turn] = [end - 1, 0];
      continue;
    }
    turn += 1;
    const odd = turn % 11 === 10; // a shift from outside, should the others go in circles
    step(H, start, end, odd ? [size(H[end][end - 1]), 0] : shiftOf(H, end));
  }
  return found.sort((a, b) => size(b) - size(a));
}

// W of a set of links [u, v]: Metropolis weights where all go both ways, else even averages.
export function mixing(n, links) {
  const there = new Set(links.map(([u, v]) => u * n + v));
  const both = links.every(([u, v]) => there.has(v * n + u));
  const heard = new Array(n).fill(0);
  for (const [, v] of links) heard[v] += 1;
  const W = Array.from({ length: n }, () => new Array(n).fill(0));
  for (const [u, v] of links) W[v][u] = 1 / (1 + (both ? Math.max(heard[u], heard[v]) : heard[v]));
  W.forEach((row, v) => (row[v] = 1 - row.reduce((sum, weight) => sum + weight, 0)));
  return W;
}

// Ranks that 0 does not reach, or that do not reach it.
export function cutOff(n, links) {
  const reach = (ends) => {
    const seen = new Set([0]);
    const open = [0];
    while (open.length) {
      const here = open.pop();
      for (const [a, b] of links.map(ends)) {
        if (a === here && !seen.has(b)) open.push(b) && seen.add(b);
      }
    }
    return seen;
  };
  const [to, from] = [reach(([u, v]) => [u, v]), reach(([u, v]) => [v, u])];
  return Array.from({ length: n }, (_, rank) => rank).filter((rank) => !to.has(rank) || !from.has(rank));
}
