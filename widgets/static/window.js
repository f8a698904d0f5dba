// The stretch of time on the screen: wheel with Ctrl zooms at the pointer, a drag moves it.

const LEAST = 20; // microseconds
const STEP = 1.25;

// What to draw: with a chosen window the state it was chosen on, until one that was made for it.
export function held(frame, state) {
  const chosen = frame.look("window");
  if (!chosen) {
    frame.memo.held = null;
    return [state, [state.from, state.from + state.span]];
  }
  const wanted = chosen.map((edge) => edge * 1e6);
  const made = Math.abs(state.from - wanted[0]) < 2 && Math.abs(state.from + state.span - wanted[1]) < 2;
  if (made || !frame.memo.held || state.cell !== frame.memo.held.cell) frame.memo.held = state;
  return [frame.memo.held, wanted];
}

function choose(frame, first, last) {
  const [low, high] = frame.memo.held?.whole ?? frame.memo.shown.whole;
  const span = Math.min(Math.max(last - first, LEAST), Math.max(high - low, LEAST));
  const from = Math.min(Math.max(first, low), high - span);
  frame.keep("window", [from / 1e6, (from + span) / 1e6]);
}

export function addWindow(frame, sheet) {
  if (sheet.dataset.moves) return;
  sheet.dataset.moves = "true";
  let grabbed = null;
  const scale = () => frame.memo.scale;
  sheet.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const { first, last, left, right } = scale();
    const share = Math.min(Math.max((frame.at(event)[0] - left) / (right - left), 0), 1);
    const factor = event.deltaY > 0 ? STEP : 1 / STEP;
    const at = first + share * (last - first);
    choose(frame, at - share * (last - first) * factor, at + (1 - share) * (last - first) * factor);
  }, { passive: false });
  sheet.addEventListener("pointerdown", (event) => {
    grabbed = { ...scale(), x: frame.at(event)[0], moved: false };
  });
  sheet.addEventListener("pointermove", (event) => {
    if (!grabbed || !event.buttons) return;
    const far = frame.at(event)[0] - grabbed.x;
    if (!grabbed.moved && Math.abs(far) < 4) return;
    if (!grabbed.moved) sheet.setPointerCapture(event.pointerId);
    grabbed.moved = true;
    const shift = (far * (grabbed.last - grabbed.first)) / (grabbed.right - grabbed.left);
    choose(frame, grabbed.first - shift, grabbed.last - shift);
  });
  sheet.addEventListener("pointerup", () => {
    frame.memo.dragged = grabbed?.moved;
    grabbed = null;
  });
}

// Keys: i and o zoom in and out at the middle.
export function zoom(frame, factor) {
  const { first, last } = frame.memo.scale ?? {};
  if (first === undefined) return;
  const [middle, half] = [(first + last) / 2, ((last - first) / 2) * factor];
  choose(frame, middle - half, middle + half);
}
