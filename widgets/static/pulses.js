// A few dots travel along the edges of each new round.

const TRAVEL = 400; // milliseconds a dot takes
const OFTEN = 150; // between two redraws: below it dots move when the graph is redrawn

// Where rounds are rare the browser moves the dots. It then draws the page sixty times a second, so
// where the graph is redrawn often anyway that is when they move.
export function drawPulses(frame, layer, state, lines) {
  const fresh = state.live && frame.memo.round !== state.round;
  const now = performance.now();
  const often = now - (frame.memo.pulsed ?? -OFTEN) < OFTEN;
  frame.memo.round = state.round;
  frame.memo.pulsed = now;
  const pulses = (frame.memo.pulses ??= new Map()); // by dot: when it began, null if it moves itself
  for (const [dot, begun] of pulses) if (begun !== null) move(pulses, dot, (now - begun) / TRAVEL);
  if (!fresh || frame.still || !frame.root.animate) return;
  const parent = layer.group("pulses").parent;
  const count = Math.min(lines.length, Math.max(1, Math.ceil(lines.length / 12)), 64 - pulses.size);
  for (let index = 0; index < count; index += 1) {
    const dot = parent.ownerDocument.createElementNS(parent.namespaceURI, "circle");
    dot.setAttribute("class", "pulse quiet");
    dot.setAttribute("r", state.n > 20 ? 2.5 : 3.5);
    const line = lines[Math.floor(Math.random() * lines.length)];
    dot.style.offsetPath = `path("${line}")`;
    parent.append(dot);
    pulses.set(dot, often ? now : null);
    if (often) setTimeout(() => move(pulses, dot, 1), 2 * TRAVEL); // if nothing is redrawn any more
    else dot.animate([{ offsetDistance: "0%" }, { offsetDistance: "100%" }], TRAVEL).onfinish = () => move(pulses, dot, 1);
  }
}

function move(pulses, dot, share) {
  if (share < 1) {
    dot.style.offsetDistance = `${Math.round(100 * share)}%`;
    return;
  }
  dot.remove();
  pulses.delete(dot);
}
