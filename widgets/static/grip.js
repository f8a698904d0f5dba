// The lower edge of a panel: dragged it gives the panel another height, double-clicked its own again.

import { html } from "./draw.js";

const LEAST = 120;

export function addGrip(frame, view) {
  if (view.line || view.fixed) return () => {};
  const grip = html("div", "ifog-grip");
  grip.dataset.tip = "drag: height; double-click: as it was";
  frame.root.append(grip);
  let begun = null;
  grip.addEventListener("pointerdown", (event) => {
    begun = { y: event.clientY, height: frame.body.clientHeight / frame.scale };
    grip.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  grip.addEventListener("pointermove", (event) => {
    if (!begun) return;
    const height = begun.height + (event.clientY - begun.y) / frame.scale;
    frame.keep("height", Math.round(Math.max(height, LEAST)));
  });
  grip.addEventListener("pointerup", () => (begun = null));
  grip.addEventListener("dblclick", () => frame.keep("height", null));
  return () => {};
}
