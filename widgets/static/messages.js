// Messages between lanes as arrows, and the critical path: back from the last finish, wait by wait.

const FAINT = 16; // lanes from which on only messages that ended a wait are drawn
const CHOSEN = 32; // lanes from which on only a selected rank's are
const CROWD = [260, 520]; // messages that ended a wait, and of any kind, that can be told apart
const HEAD = 5;

const short = (value) => value.toFixed(1);

function arrow(from, to) {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / length, dy / length];
  const size = Math.min(HEAD, length / 2);
  const neck = [to[0] - ux * size, to[1] - uy * size];
  const wing = (sign) => `${short(neck[0] - sign * uy * size * 0.45)},${short(neck[1] + sign * ux * size * 0.45)}`;
  return [`M${from.map(short)}L${neck.map(short)}`, `M${to.map(short)}L${wing(1)}L${wing(-1)}z`];
}

// Where a message leaves and meets the lanes: from the sender's edge to the receiver's edge.
function ends([u, sent, v, there], state, scale, rows) {
  const [a, b] = [rows.get(u), rows.get(v)];
  if (!a || !b) return null;
  const [x0, x1] = [scale.x(state.from + sent), scale.x(state.from + there)];
  if (x0 < scale.left || x1 > scale.right || x0 > scale.right || x1 < scale.left) return null;
  const down = b.y > a.y;
  return [[x0, down ? a.y + a.tall : a.y], [x1, down ? b.y : b.y + b.tall]];
}

export function drawArrows(layer, state, scale, rows, { chosen, path }) {
  const marks = { faint: ["", ""], strong: ["", ""] };
  const many = state.ranks.length;
  const inside = state.arrows.filter(([, sent, , there]) => state.from + there >= scale.first && state.from + sent <= scale.last);
  const crowd = [inside.filter((message) => message[4]).length, inside.length];
  const few = chosen !== null || path;
  const shown = crowd[0] > CROWD[0] && !few ? [] : inside;
  for (const message of shown) {
    const [u, , v, , strong] = message;
    if (!strong && (many >= FAINT || (crowd[1] > CROWD[1] && !few))) continue;
    if (many >= CHOSEN && chosen !== u && chosen !== v) continue;
    if (path && !path.includes(message)) continue;
    if (chosen !== null && chosen !== u && chosen !== v && !path) continue;
    const spots = ends(message, state, scale, rows);
    if (!spots) continue;
    const [line, head] = arrow(...spots);
    const mark = marks[strong ? "strong" : "faint"];
    mark[0] += line;
    mark[1] += head;
  }
  for (const [kind, [line, head]] of Object.entries(marks)) {
    layer.put(`line${kind}`, "path", { d: line, class: `message ${kind} quiet` });
    layer.put(`head${kind}`, "path", { d: head, class: `message-head ${kind} quiet` });
  }
  return shown.length > 0;
}

// The messages of the critical path and the stretches of lanes between them.
export function criticalPath(state) {
  const strong = state.arrows.filter((message) => message[4]).sort((a, b) => b[3] - a[3]);
  let [rank, until] = [-1, -Infinity];
  state.ops.forEach((ops, index) => {
    const last = ops[ops.length - 1];
    const end = last ? last[0] + last[1] + last[2] + last[3] : -Infinity;
    if (end > until) [rank, until] = [state.ranks[index], end];
  });
  const messages = [];
  const stretches = [];
  for (const message of strong) {
    const [u, sent, v, there] = message;
    if (v !== rank || there > until) continue;
    messages.push(message);
    stretches.push([rank, there, until]);
    [rank, until] = [u, sent];
  }
  if (rank >= 0) stretches.push([rank, 0, until]);
  return { messages, stretches };
}

export function drawCritical(layer, state, scale, rows, path) {
  const d = path.stretches
    .map(([rank, from, to]) => {
      const row = rows.get(rank);
      const x = (at) => Math.min(Math.max(scale.x(state.from + at), scale.left), scale.right);
      return row && to > from ? `M${short(x(from))},${short(row.y + row.tall + 2)}H${short(x(to))}` : "";
    })
    .join("");
  layer.put("critical", "path", { d, class: "critical quiet" });
}
