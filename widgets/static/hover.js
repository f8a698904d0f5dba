// Reading a chart: the round under the pointer, its values, and the rank whose line is clicked.

import { fromLog } from "./draw.js";

const nearest = (rounds, round) => {
  let best = 0;
  for (let index = 1; index < rounds.length; index += 1) {
    if (Math.abs(rounds[index] - round) < Math.abs(rounds[best] - round)) best = index;
  }
  return best;
};

function words(state, round) {
  const first = state.curves[0];
  const index = nearest(first.rounds, round);
  const lines = [`round ${first.rounds[index]}`];
  for (const curve of state.curves) {
    const here = nearest(curve.rounds, first.rounds[index]);
    lines.push(`${curve.name}  error ${fromLog(curve.errors[here])}`);
  }
  if (state.prediction) {
    const here = nearest(state.prediction.rounds, first.rounds[index]);
    lines.push(`predicted ${fromLog(state.prediction.errors[here])}`);
  }
  lines.push(`mean drift ${fromLog(first.drifts[index])}`);
  return { text: lines.join("\n"), at: first.rounds[index] };
}

// Puts a sheet over the plot that answers the pointer.
export function overlay(frame, layer, state, scale, { top, height }) {
  const group = layer.group("overlay");
  const [x, width] = [scale.left, scale.right - scale.left];
  const sheet = group.put("sheet", "rect", { x, y: top, width, height, fill: "transparent" });
  const cursor = group.put("cursor", "path", { class: "cursor quiet", d: frame.memo.cursor ?? "" });
  frame.memo.scene = { state, scale };
  if (sheet.dataset.ready) return;
  sheet.dataset.ready = "true";
  const roundAt = (event) => {
    const { scale: now } = frame.memo.scene;
    const from = frame.element.getBoundingClientRect().left;
    return ((event.clientX - from - now.left) / (now.right - now.left)) * now.end;
  };
  sheet.addEventListener("pointermove", (event) => {
    const { state: shown, scale: now } = frame.memo.scene;
    const { text, at } = words(shown, roundAt(event));
    sheet.dataset.tip = text;
    frame.memo.cursor = `M${now.x(at)},${top} v${height}`;
    cursor.setAttribute("d", frame.memo.cursor);
  });
  sheet.addEventListener("pointerleave", () => {
    frame.memo.cursor = "";
    cursor.setAttribute("d", "");
  });
  sheet.addEventListener("click", (event) => {
    const { state: shown, scale: now } = frame.memo.scene;
    const index = nearest(shown.at, roundAt(event));
    const y = event.clientY - frame.element.getBoundingClientRect().top;
    const away = shown.lines.map((line) => Math.abs(now.y(line[index] ?? now.low) - y));
    const closest = away.indexOf(Math.min(...away));
    if (closest >= 0 && away[closest] < 12) frame.select(shown.ranks[closest]);
  });
}
