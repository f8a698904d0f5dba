// The colours of the nodes, and what they and the edges mean.

import { decade } from "./draw.js";

const STEPS = 9;
const NARROW = 330; // pixels below which the legend takes a line more

export const legendHeight = (width) => (width < NARROW ? 56 : 40);

export function mix(share) {
  const part = `${(100 * share).toFixed(0)}%`;
  return `color-mix(in srgb, var(--ifog-value-1) ${part}, var(--ifog-value-0))`;
}

export function drawLegend(layer, state, width, height) {
  const legend = layer.group("legend");
  const y = height - 18;
  if (state.domain) {
    for (let step = 0; step < STEPS; step += 1) {
      const style = `fill: ${mix(step / (STEPS - 1))}`;
      legend.put(`step${step}`, "rect", { x: step * 8, y: y - 8, width: 8, height: 8, style });
    }
    legend.put("low", "text", { x: 0, y: y + 14, class: "muted" }, decade(state.domain[0]));
    const end = { x: STEPS * 8, y: y + 14, class: "muted end" };
    legend.put("high", "text", end, decade(state.domain[1]));
    const place = width < NARROW ? { x: 0, y: y - 14 } : { x: STEPS * 8 + 8, y };
    legend.put("what", "text", { ...place, class: "muted" }, "distance to mean");
  }
  const x = width - 122;
  const taper = `M${x},${y - 8} l22,4 l-22,4 z`;
  legend.put("taper", "path", { d: taper, class: "edge", style: "opacity: 1" });
  legend.put("sent", "text", { x: x + 30, y, class: "muted" }, "sent this round");
  legend.put("hair", "path", { d: `M${x},${y + 10} h22`, class: "idle" });
  legend.put("declared", "text", { x: x + 30, y: y + 14, class: "muted" }, "declared, idle");
}
