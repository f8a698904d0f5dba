// Where a replay is, and the way to anywhere else in it: pointer, keys, and its speed.

import { duration, html } from "./draw.js";

const RARE = 50; // milliseconds between two requests while the thumb is dragged
const SPACE = "\u00a0";

function clock(seconds, whole) {
  if (whole < 60) return seconds ? duration(seconds) : "0";
  const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  return `${Math.floor(seconds / 60)}:${rest}`;
}

function words(replay, at) {
  const begun = replay.ticks.filter(([begin]) => begin <= at + 1e-6);
  const cell = begun.length ? `, ${begun[begun.length - 1][1]}` : "";
  return `${clock(at, replay.seconds)} of ${clock(replay.seconds, replay.seconds)}${cell}`;
}

function nextSpeed(replay, by) {
  const place = replay.speeds.findIndex((speed) => speed >= replay.speed);
  return replay.speeds[Math.min(Math.max(place + by, 0), replay.speeds.length - 1)];
}

// What a key asks of a replay; null when nothing.
function asked(key, replay) {
  if (key === " ") return { play: !replay.playing };
  if (key === "ArrowRight" || key === "ArrowLeft") return { step: key === "ArrowRight" ? 1 : -1 };
  if (key === "Home" || key === "End") return { seek: key === "Home" ? 0 : replay.seconds };
  if (key === "+" || key === "-") return { speed: nextSpeed(replay, key === "+" ? 1 : -1) };
  return null;
}

// Returns {element, draw(replay), listen(scope), button, pill}; tell(request) asks the replay.
export function scrubber(tell) {
  const track = html("div", "ifog-scrub");
  const [rule, done, thumb] = ["rule", "done", "thumb"].map((name) => html("div", `ifog-${name}`));
  const ticks = html("div", "ifog-ticks");
  track.append(rule, done, ticks, thumb);
  track.tabIndex = 0;
  track.setAttribute("role", "slider");
  track.setAttribute("aria-label", "place in the run");
  track.setAttribute("aria-valuemin", "0");
  const button = html("button", "ifog-play");
  const pill = html("button", "ifog-pill");
  pill.title = "next speed; also the keys + and -";
  let replay = null;
  let held = null; // the place under the pointer while the thumb is dragged
  let told = 0;
  let drawnTicks = "";

  const place = (at) => `${replay.seconds ? (100 * at) / replay.seconds : 0}%`;

  function drawTicks() {
    const text = JSON.stringify([replay.ticks, replay.seconds]);
    if (text === drawnTicks) return;
    drawnTicks = text;
    const marks = replay.ticks.map(([at]) => {
      const mark = html("i");
      mark.style.left = place(at);
      return mark;
    });
    ticks.replaceChildren(...marks);
  }

  function draw(now) {
    replay = now;
    drawTicks();
    const at = held ?? replay.at;
    done.style.width = thumb.style.left = place(at);
    track.setAttribute("aria-valuemax", replay.seconds);
    track.setAttribute("aria-valuenow", at);
    track.setAttribute("aria-valuetext", words(replay, at));
    if (held !== null) track.dataset.tip = words(replay, at);
    button.className = `ifog-play ${replay.playing ? "playing" : ""}`;
    button.title = replay.playing ? "pause (space)" : "play (space)";
    button.setAttribute("aria-label", replay.playing ? "pause" : "play");
    const speed = `${replay.speed}${SPACE}×`;
    const paused = replay.speed === 1 ? "paused" : `paused, ${speed}`;
    pill.textContent = replay.playing ? `replay ${speed}` : paused;
  }

  const under = (event) => {
    const box = track.getBoundingClientRect();
    const share = (event.clientX - box.left) / Math.max(box.width, 1);
    return Math.min(Math.max(share, 0), 1) * replay.seconds;
  };
  const seek = (at) => {
    told = performance.now();
    tell({ seek: at });
  };
  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !replay) return;
    track.setPointerCapture(event.pointerId);
    seek((held = under(event)));
    draw(replay);
  });
  track.addEventListener("pointermove", (event) => {
    if (!replay) return;
    track.dataset.tip = words(replay, under(event));
    if (held === null) return;
    held = under(event);
    if (performance.now() - told > RARE) seek(held);
    draw(replay);
  });
  const release = () => {
    if (held === null) return;
    replay = { ...replay, at: held }; // until the replay says where it is
    seek(held);
    held = null;
  };
  track.addEventListener("pointerup", release);
  track.addEventListener("pointercancel", release);
  button.addEventListener("click", () => tell({ play: !replay.playing }));
  pill.addEventListener("click", () => {
    const last = replay.speeds[replay.speeds.length - 1];
    tell({ speed: replay.speed >= last ? replay.speeds[0] : nextSpeed(replay, 1) });
  });

  function onKey(event) {
    const target = event.target.closest?.("button, input, select, textarea, [contenteditable]");
    if (!replay || target || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const request = asked(event.key, replay);
    if (!request) return;
    event.preventDefault();
    event.stopPropagation();
    tell(request);
  }
  return { element: track, button, pill, draw, onKey };
}
