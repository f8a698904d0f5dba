// A few dots travel along the edges of each new round; the browser moves them.

export function drawPulses(frame, layer, state, lines) {
  const fresh = state.live && frame.memo.round !== state.round;
  frame.memo.round = state.round;
  const pulses = (frame.memo.pulses ??= new Set());
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
    pulses.add(dot);
    const run = dot.animate([{ offsetDistance: "0%" }, { offsetDistance: "100%" }], 400);
    run.onfinish = () => {
      dot.remove();
      pulses.delete(dot);
    };
  }
}
