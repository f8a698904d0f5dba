// When pictures are redrawn: all of a page in the same moments, each of which lays it out once.

const REDRAW = 33; // milliseconds between two of them, four a second with reduced motion

// Calls `draw` at the next of these moments; `still` asks for the slow ones.
export function soon(draw, still = false) {
  const pace = still ? 250 : REDRAW;
  // On a grid of time, because panels know nothing of each other.
  setTimeout(() => requestAnimationFrame(draw), pace - (performance.now() % pace));
}
