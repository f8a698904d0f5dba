// A small text beside the pointer, taken from the element under it.

import { html } from "./draw.js";

const EDGE = 28; // pixels at the lower edge of the window, where a front end has its status line

export function addTips(root) {
  const tip = html("div", "ifog-tip");
  tip.hidden = true;
  root.append(tip);
  root.addEventListener("pointermove", (event) => {
    const target = event.target.closest?.("[data-tip]");
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = target.dataset.tip;
    const box = root.getBoundingClientRect();
    const left = event.clientX - box.left + 14;
    tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
    const below = event.clientY + 16 + tip.offsetHeight < window.innerHeight - EDGE;
    tip.style.top = `${event.clientY - box.top + (below ? 16 : -12 - tip.offsetHeight)}px`;
  });
  root.addEventListener("pointerleave", () => (tip.hidden = true));
}
