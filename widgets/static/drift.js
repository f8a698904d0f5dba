// The strip below the errors: how far the mean has moved, grey at rounding level, red beyond.

import { path } from "./axes.js";
import { decade } from "./draw.js";

export function drawDrift(layer, state, scale, [top, tall]) {
  const values = state.curves[0].drifts;
  const { kept, moved, rounding, text } = state.drift;
  const worst = Math.max(...values.filter((value) => value !== null));
  const low = rounding - 2;
  const high = Math.max(rounding + 2, kept ? low : Math.ceil(worst));
  const y = (value) => top + (tall * (high - Math.min(Math.max(value, low), high))) / (high - low);
  const group = layer.group("drift");
  const [x, width] = [scale.left, scale.right - scale.left];
  const edge = y(rounding + 2);
  group.put("band", "rect", { x, y: edge, width, height: top + tall - edge, class: "band" });
  for (const power of [low, high]) {
    group.put(`line${power}`, "path", { d: `M${x},${y(power)} h${width}`, class: "grid" });
    const label = { x: x - 8, y: y(power) + 4, class: "muted end" };
    group.put(`tick${power}`, "text", label, decade(power));
  }
  const d = path({ x: scale.x, y }, state.curves[0].rounds, values);
  group.put("line", "path", { d, class: `drift${moved ? " moved" : ""}` });
  const at = { x: scale.right + 10, y: top + 14 };
  group.put("what", "text", { ...at, class: `bold${moved ? " moved" : ""}` }, "mean drift");
  const mark = { ...at, y: at.y + 17, class: moved ? "moved" : "muted" };
  group.put("value", "text", mark, `${moved ? "✕ " : kept ? "✓ " : ""}${text}`);
}
