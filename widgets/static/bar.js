// The line above the panels: run, graph, what every rank does, round, seconds.

import { Layer, count, duration, html, stateOf, svgRoot, write } from "./draw.js";
import { announce, scopeOf, select } from "./keys.js";
import { heldBy, soon } from "./pace.js";
import { carry } from "./porter.js";
import { scrubber } from "./scrubber.js";
import { addTips } from "./tips.js";

const CHANGES = "change:state change:title change:replay change:modelled";
const SILENCE = 6000; // milliseconds without news of a live run before it is called lost

function glyph(layer, doing, rank, x, side) {
  const tip = { "data-rank": rank, "data-tip": `rank ${rank}, ${doing}` };
  const shape = { ...tip, class: `pick state-${doing}` };
  const half = side / 2;
  if (doing === "stalled") {
    const d = `M${x + half},0 L${x + side},${side} H${x} Z`;
    layer.put(`stalled${rank}`, "path", { ...shape, d });
    return;
  }
  const hollow = ["waiting", "finished", "absent"].includes(doing) ? 0.9 : 0;
  layer.put(`box${rank}`, "rect", {
    ...shape,
    x: x + hollow,
    y: hollow,
    width: side - 2 * hollow,
    height: side - 2 * hollow,
    rx: 2,
  });
  const [a, b] = [side * 0.28, side * 0.72];
  if (doing === "transferring") {
    const arrow = `M${x + a - 1},${half} H${x + b + 0.6} M${x + half + 0.4},${a} L${x + b + 0.6},${half} L${x + half + 0.4},${b}`;
    layer.put(`mark${rank}`, "path", { class: "mark quiet", d: arrow });
  } else if (doing === "dead") {
    const cross = `M${x + a},${a} L${x + b},${b} M${x + b},${a} L${x + a},${b}`;
    layer.put(`mark${rank}`, "path", { class: "mark quiet", d: cross });
  }
}

// From 17 ranks on ticks in groups of eight, troubled ones taller.
function ticks(layer, states) {
  states.forEach((doing, rank) => {
    const trouble = doing === "stalled" || doing === "dead";
    layer.put(`tick${rank}`, "rect", {
      x: rank * 5 + Math.floor(rank / 8) * 4,
      y: trouble ? 0 : 2,
      width: 4,
      height: trouble ? 12 : 8,
      class: `pick state-${doing}`,
      "stroke-width": 0.8,
      "data-rank": rank,
      "data-tip": `rank ${rank}, ${doing}`,
    });
  });
  return states.length * 5 + Math.floor((states.length - 1) / 8) * 4;
}

function render({ model, el }) {
  const root = html("div", "ifog");
  const bar = html("div", "ifog-bar");
  const banner = html("div", "ifog-banner");
  const [title, graph] = [html("span", "ifog-title"), html("span", "ifog-muted")];
  const right = html("div", "ifog-right");
  const [round, time] = [html("span"), html("span", "ifog-muted")];
  const pill = html("span", "ifog-pill");
  const modelled = html("span", "ifog-pill", "modelled");
  modelled.title = "times are those of a model: no clock was read";
  pill.setAttribute("role", "status");
  const [word, figure] = [html("span", "ifog-muted"), html("b")];
  round.append(word, figure);
  const strip = svgRoot(right);
  const player = scrubber((request) => model.send({ replay: request }));
  right.append(round, time, player.button, player.pill, pill, modelled);
  bar.append(title, graph, right);
  banner.hidden = true;
  root.append(bar, player.element, banner);
  root.dataset.lmSuppressShortcuts = "true";
  el.append(root);
  addTips(root);
  const layer = new Layer(strip);
  let news = performance.now();
  let scope = null;
  let asked = false;
  let shown = null; // the state on the screen, which stays while the page is paused

  // In a replay the scrubber stands for the rule under the bar; keys work on the whole page.
  function drawPlayer() {
    const replay = model.get("replay");
    const played = Boolean(replay?.ticks);
    for (const part of [player.element, player.button, player.pill]) part.hidden = !played;
    bar.classList.toggle("ifog-played", played);
    pill.hidden = played;
    modelled.hidden = !model.get("modelled");
    if (!played) return "";
    if (!scope && root.isConnected) {
      scope = root.closest(".ifog-dashboard") ?? root;
      scope.addEventListener("keydown", player.onKey);
    }
    player.draw(replay);
    return replay.note;
  }

  function draw() {
    asked = false;
    const state = (shown = heldBy(scopeOf(root).dataset, shown, stateOf(model)));
    const n = state.n ?? 0;
    const fresh = state.cell === null || state.cell === undefined;
    const early = fresh && !model.get("replay")?.ticks;
    const cell = fresh ? "No cell yet" : `Cell ${state.cell}`;
    write(title, early ? "No run yet" : model.get("title") || cell);
    const ranks = `${n} rank${n === 1 ? "" : "s"}`;
    write(graph, state.label ? `${state.label} graph · ${ranks}` : "");
    const states = state.states ?? [];
    let width = 0;
    if (n <= 16) {
      states.forEach((doing, rank) => glyph(layer, doing, rank, rank * 17, 12));
      width = Math.max(states.length * 17 - 5, 0);
    } else if (n <= 64) width = ticks(layer, states);
    else graph.textContent += `: ${state.counts}`;
    layer.sweep();
    strip.setAttribute("width", width);
    strip.setAttribute("height", 12);
    write(word, fresh ? (n ? `${ranks} ready` : "") : "round\u00a0");
    write(figure, fresh ? "" : count(state.round));
    write(time, fresh ? "" : duration(state.elapsed));
    const paused = scopeOf(root).dataset.paused;
    write(pill, paused ? "paused" : (state.pill ?? "idle"));
    pill.className = `ifog-pill ${paused ? "" : (state.pill ?? "")}`;
    const note = drawPlayer();
    const gone = !bar.classList.contains("ifog-played") && state.pill === "live" &&
      performance.now() - news > SILENCE;
    root.closest(".ifog-dashboard")?.classList.toggle("ifog-stale", gone);
    const known = [state.lost, note].filter(Boolean).join("; ");
    const text = gone ? "no connection for 6 s; last state kept" : state.error || known;
    write(banner, text);
    banner.hidden = !text;
    banner.className = `ifog-banner${gone || state.error ? " red" : ""}`;
  }

  const onState = () => {
    news = performance.now();
    if (asked) return;
    asked = true;
    soon(draw);
  };
  const onClick = (event) => {
    const rank = event.target.closest?.("[data-rank]")?.dataset.rank;
    if (rank === undefined) return;
    const chosen = Number(rank);
    select(root, chosen === model.get("selected") ? null : chosen);
  };
  const onTold = ({ detail }) => {
    if (detail.scope !== scopeOf(root)) return;
    if (detail.what === "select") model.set("selected", detail.chosen);
    if (detail.what === "pause") {
      const { cell, round } = shown ?? {};
      Object.assign(scopeOf(root).dataset, { cell: cell ?? 0, round: round ?? 0 });
    }
    draw();
  };
  document.addEventListener("ifog", onTold);
  const stop = carry(model);
  const leave = announce(model);
  root.addEventListener("click", onClick);
  model.on(CHANGES, onState);
  const watch = setInterval(draw, 2000);
  requestAnimationFrame(draw);
  return () => {
    clearInterval(watch);
    document.removeEventListener("ifog", onTold);
    leave();
    stop();
    model.off(CHANGES, onState);
    scope?.removeEventListener("keydown", player.onKey);
  };
}

export default { render };
