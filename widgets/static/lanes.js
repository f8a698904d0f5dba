// One lane of the timeline: solid work, pale waits with a line in the colour of the rank waited for.

import { mark } from "./draw.js";
import { COMPUTE, STALL, TRANSFER, WAIT, box, placed, rankColour } from "./stretches.js";

const KINDS = { [COMPUTE]: "compute", [TRANSFER]: "transfer", [WAIT]: "wait-wash", [STALL]: "stall-wash" };

export function pitchOf(n) {
  return n <= 8 ? 30 : n <= 16 ? 20 : n <= 32 ? 10 : n <= 64 ? 5 : Math.max(320 / n, 0.5);
}

export function drawLane(group, lane, { rank, index, every, n, y, tall, scale, dim }) {
  const bars = placed(lane, scale);
  const paths = { compute: "", transfer: "", "wait-wash": "", "stall-wash": "" };
  const lines = new Map();
  const thick = Math.min(4, tall * 0.4);
  mark(group.parent, "opacity", dim ? 0.35 : 1);
  const texts = [];
  for (const { x0, x1, kind, whom, op } of bars) {
    const wide = x1 - x0;
    const gap = wide > 3 && kind < WAIT ? 0.5 : 0;
    paths[KINDS[kind]] += box(x0 + gap, x1 - gap, y, tall);
    if (kind >= WAIT && whom >= 0) {
      const line = `M${x0.toFixed(1)},${(y + tall / 2).toFixed(1)}H${x1.toFixed(1)}`;
      lines.set(whom, (lines.get(whom) ?? "") + line);
      const room = whom < 10 ? 16 : 24;
      if (tall >= 11 && wide >= room) texts.push([`${whom}`, (x0 + x1) / 2, `${kind === STALL ? "on-stall" : "on-wait"}`]);
    }
    if (kind === COMPUTE && index === 0 && op && tall >= 11 && wide >= 10 + 8 * String(op[5]).length) {
      texts.push([`${op[5]}`, (x0 + x1) / 2, "on-computing"]);
    }
  }
  for (const [kind, d] of Object.entries(paths)) group.put(kind, "path", { d, class: `bar-${kind}` });
  for (let whom = 0; whom < n; whom += 1) {
    if (!lines.has(whom)) continue;
    const style = `stroke: ${rankColour(whom, n)}; stroke-width: ${thick}`;
    group.put(`whom${whom}`, "path", { d: lines.get(whom), style, class: "whom" });
  }
  texts.forEach(([text, x, kind], k) => {
    group.put(`text${k}`, "text", { x: x.toFixed(1), y: y + tall / 2 + 4, class: `middle bold quiet ${kind}` }, text);
  });
  const names = group.group("name");
  if (index % every === 0) {
    const at = { x: 18, y: y + tall / 2 + 4, class: "bold end pick", "data-rank": rank };
    names.put("number", "text", at, rank);
  }
  const chip = { x: 22, y, width: 4, height: tall, style: `fill: ${rankColour(rank, n)}` };
  names.put("chip", "rect", chip);
}
