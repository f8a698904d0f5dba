// The scales of a chart over rounds with whole decades, their grid, and lines drawn on them.

import { count, decade, number, wholeTicks } from "./draw.js";

const ZERO = -300; // logarithms below stand for an exact zero

// Whole decades that hold every value so far: they only grow while a run goes on.
function decades(state) {
  const values = [...state.curves.map((curve) => curve.errors), ...state.lines].flat();
  if (state.spread) values.push(...state.spread[0], ...state.spread[2]);
  const known = values.filter((value) => value !== null && value > ZERO);
  const high = known.length ? Math.ceil(Math.max(...known)) : 0;
  // Where all ranks begin at the same point the first error is an exact zero, which is no end of it.
  const ended = state.curves.flatMap((curve) => curve.errors.slice(1));
  const zero = ended.some((value) => value !== null && value <= ZERO);
  const least = zero || !known.length ? state.band[0] : Math.min(...known);
  let low = high - 6;
  while (low > least) low -= 3;
  const floor = high - 3 * Math.ceil((high - state.band[0]) / 3);
  return [Math.max(low, floor), high];
}

export function axes(layer, state, { left, right, top, height: tall }) {
  const [low, high] = decades(state);
  const step = high - low > 6 ? 3 : 1;
  const y = (value) => top + (tall * (high - Math.max(value, low))) / (high - low);
  const grid = layer.group("grid");
  for (let power = high; power >= low; power -= step) {
    grid.put(`line${power}`, "path", { d: `M${left},${y(power)} H${right}`, class: "grid" });
    const label = { x: left - 8, y: y(power) + 4, class: "muted end" };
    grid.put(`tick${power}`, "text", label, decade(power));
  }
  const ticks = wholeTicks(Math.max(state.round, 4));
  const end = ticks[ticks.length - 1];
  const x = (round) => left + ((right - left) * round) / end;
  const crowded = x(ticks[1]) - left < 76; // "round 0" needs the place of the first number
  for (const tick of ticks) {
    if (crowded && tick === ticks[1] && ticks.length > 2) continue;
    const text = tick === 0 ? "round 0" : count(tick);
    const anchor = tick === 0 ? "" : tick === end ? "end" : "middle";
    const label = { x: x(tick), y: top + tall + 18, class: `muted ${anchor}` };
    grid.put(`round${tick}`, "text", label, tick >= 1e6 ? number(tick) : text);
  }
  if (state.band[1] > low) {
    const height = y(low) - y(state.band[1]);
    layer.group("band").put("band", "rect", {
      x: left, y: y(state.band[1]), width: right - left, height, class: "band",
    });
    if (height > 14) {
      const { rounds, errors } = state.curves[0];
      const inside = errors.findIndex((value) => value !== null && value < state.band[1]);
      const early = inside >= 0 && x(rounds[inside]) < (left + right) / 2;
      const place = early ? { x: right - 8, class: "muted end" } : { x: left + 8, class: "muted" };
      const label = { ...place, y: y(low) - height / 2 + 4 };
      layer.group("band").put("word", "text", label, "rounding");
    }
  }
  return { x, y, low, end, left, right };
}

export function path(scale, rounds, values) {
  let pen = "M";
  let text = "";
  values.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    text += `${pen}${scale.x(rounds[index]).toFixed(1)},${scale.y(value).toFixed(1)}`;
    pen = "L";
  });
  return text;
}
