// Linear scales whose ends are whole ticks, and which only grow while a run goes on.

import { count, number, wholeTicks } from "./draw.js";

// Ticks in steps of 1, 2 or 5 times a power of ten that hold low..high, about `most` of them.
export function niceTicks(low, high, most = 5) {
  const span = Math.max(high - low, Math.abs(high) * 1e-6, 1e-12);
  const rough = span / (most - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(12)));
}

// The range of values so far, remembered under a key that changes when a run starts.
export function grown(memo, name, run, low, high) {
  const ranges = (memo.ranges ??= {});
  const known = ranges[name];
  const fresh = !known || known.run !== run;
  ranges[name] = {
    run,
    low: fresh ? low : Math.min(known.low, low),
    high: fresh ? high : Math.max(known.high, high),
  };
  return ranges[name];
}

// Ticks with as many decimals as their step needs, so that they do not jump about.
export function tickText(ticks) {
  const step = ticks[1] - ticks[0];
  const large = Math.max(...ticks.map(Math.abs));
  if (large >= 1e5 || (large < 1e-3 && large > 0)) return (tick) => number(tick, 2);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return (tick) => (large >= 10000 ? count(tick) : tick.toFixed(Math.min(digits, 6)));
}

// The axis of rounds below a plot; words as "call" or "round" stand before the zero.
export function roundAxis(layer, end, { left, right, y, word = "round", from = 0 }) {
  const ticks = from ? [from, end] : wholeTicks(Math.max(end, 4));
  const last = ticks[ticks.length - 1];
  const x = (round) => left + ((right - left) * (round - from)) / Math.max(last - from, 1);
  const room = right - left;
  const wanted = room < 200 ? [ticks[0], last] : ticks;
  for (const tick of wanted) {
    if (tick !== ticks[0] && x(tick) - left < 76 && tick !== last) continue;
    const anchor = tick === ticks[0] ? "" : tick === last ? "end" : "middle";
    const text = tick === ticks[0] ? `${word} ${count(tick)}` : tick >= 1e6 ? number(tick) : count(tick);
    layer.put(`round${tick}`, "text", { x: x(tick), y, class: `muted ${anchor}` }, text);
  }
  return { x, last };
}
