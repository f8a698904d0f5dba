// When pictures change: all of a page in the same moments, each of which lays it out once.

const REDRAW = 33; // milliseconds between two of them, four a second with reduced motion

// Calls `draw` at the next of these moments; `still` asks for the slow ones.
export function soon(draw, still = false) {
  const pace = still ? 250 : REDRAW;
  // On a grid of time, because panels know nothing of each other.
  setTimeout(() => requestAnimationFrame(draw), pace - (performance.now() % pace));
}

// What a page shows of what is known now: one that is paused keeps what it shows, until the kernel,
// which may be busy, has gone to the past that the page was stepped to.
export const heldBy = (page, shown, now) => (shown && page.paused && !(page.stepped && now.past) ? shown : now);
