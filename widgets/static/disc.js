// Eigenvalues on the unit disc; what lies between the second one and the circle is the gap, tinted.

import { number } from "./draw.js";

// points are [real, imaginary, multiplicity], the largest first; before are hollow.
export function drawDisc(layer, { x, y, radius, points, rate, before = [] }) {
  const at = (re, im) => ({ cx: x + re * radius, cy: y - im * radius });
  const inner = Math.min(rate, 1) * radius;
  const ring = (r) => `M${x - r},${y} a${r},${r} 0 1 0 ${2 * r},0 a${r},${r} 0 1 0 ${-2 * r},0z`;
  const gap = rate < 1 ? ring(radius) + (inner > 0.5 ? ring(inner) : "") : "";
  layer.put("gap", "path", { d: gap, class: "gap", "fill-rule": "evenodd" });
  layer.put("cross", "path", { d: `M${x - radius},${y} h${2 * radius} M${x},${y - radius} v${2 * radius}`, class: "grid" });
  layer.put("circle", "circle", { cx: x, cy: y, r: radius, class: "unit" });
  layer.put("second", "circle", { cx: x, cy: y, r: inner, class: "second" });
  before.forEach(([re, im], k) => {
    layer.put(`before${k}`, "circle", { ...at(re, im), r: 5.5, class: "eigen-before" });
  });
  let second = false;
  points.forEach(([re, im, many], k) => {
    const first = k === 0;
    const blue = !first && !second && rate > 1e-12;
    second ||= blue;
    const kind = first ? "eigen-one" : blue || Math.abs(Math.hypot(re, im) - rate) < 1e-6 && rate > 1e-12 ? "eigen-second" : "eigen";
    const r = (first ? 5 : 5 * Math.sqrt(Math.min(many, 8))) * Math.min(1, radius / 60);
    const text = `λ = ${number(re)}${im ? ` ${im < 0 ? "−" : "+"} ${number(Math.abs(im))} i` : ""}\n|λ| = ${number(Math.hypot(re, im))}${many > 1 ? `, ${many} times` : ""}`;
    layer.put(`point${k}`, "circle", { ...at(re, im), r, class: kind, "data-tip": text });
    if (many >= 4) {
      const spot = at(re, im);
      layer.put(`many${k}`, "text", { x: spot.cx + r + 4, y: spot.cy - r, class: "quiet halo" }, `×${many}`);
    }
  });
  layer.put("one", "text", { x: x + radius + 10, y: y + 4, class: "bold quiet" }, "1");
}
