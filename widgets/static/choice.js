// Small words in a panel's head of which one is chosen, or several.

import { html } from "./draw.js";

// options: [value, word] each; the chosen ones are kept in the panel's look under `name`.
// With `most` several can be chosen; the oldest gives way.
export function choose(frame, name, options, { fallback, most = 1 }) {
  const chosen = [frame.look(name) ?? fallback].flat();
  const known = chosen.filter((value) => options.some(([option]) => option === value));
  const kept = known.length ? known : [fallback].flat();
  const made = JSON.stringify([name, options, kept]);
  if (frame.memo[name] !== made || !frame.tools.childElementCount) {
    frame.memo[name] = made;
    let group = frame.tools.querySelector(`[data-choice="${name}"]`);
    if (!group) {
      group = html("span", "ifog-choice");
      group.dataset.choice = name;
      frame.tools.append(group);
    }
    group.replaceChildren();
    for (const [value, word] of options) {
      const button = html("button", kept.includes(value) ? "chosen" : "", word);
      button.setAttribute("aria-pressed", String(kept.includes(value)));
      button.addEventListener("click", () => frame.keep(name, next(kept, value, most)));
      group.append(button);
    }
  }
  return most === 1 ? kept[0] : kept;
}

function next(kept, value, most) {
  if (most === 1) return value;
  const without = kept.filter((other) => other !== value);
  if (without.length < kept.length) return without.length ? without : kept;
  return [...kept, value].slice(-most);
}

// A word that is on or off.
export function toggle(frame, name, word) {
  const on = Boolean(frame.look(name));
  let button = frame.tools.querySelector(`[data-choice="${name}"]`);
  if (!button) {
    button = html("button", "", word);
    button.dataset.choice = name;
    button.addEventListener("click", () => frame.keep(name, !frame.look(name)));
    frame.tools.append(button);
  }
  button.classList.toggle("chosen", on);
  button.setAttribute("aria-pressed", String(on));
  return on;
}
