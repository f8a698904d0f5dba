// What stands in a panel's place when there is nothing to draw, when it failed, or numbers are wanted.

import { html, write } from "./draw.js";

export function showFault(frame, reason) {
  frame.show(`fault ${reason}`, (body) => {
    const line = html("div", "ifog-fault", reason);
    const again = html("button", "", "retry");
    again.addEventListener("click", () => {
      frame.model.send({ retry: true });
      frame.anew();
    });
    line.append(again);
    body.append(line);
  });
}

// A bold noun, and the line of code that fills the panel; state.why says more where it is known.
export function showEmpty(frame, view, state) {
  write(frame.key, state.key ?? "");
  frame.tools.replaceChildren();
  frame.memo.tools = "";
  if (view.line) return frame.show("line", () => {});
  const [noun, code, rest] = state.why ? [state.why[0], "", state.why[1]] : view.empty;
  return frame.show(`empty ${noun}`, (body) => {
    const box = html("div", "ifog-empty");
    box.style.height = `${view.height}px`;
    const line = html("span");
    if (code) line.append(html("code", "", code), " ");
    line.append(rest);
    box.append(html("b", "", noun), line);
    body.append(box);
  });
}

export function showTable(frame, view, state) {
  const [names, lines] = view.table(state);
  const table = html("table");
  for (const cells of [names, ...lines]) {
    const row = html("tr");
    for (const cell of cells) row.append(html(cells === names ? "th" : "td", "", String(cell)));
    table.append(row);
  }
  const scrolled = frame.body.firstChild?.scrollTop ?? 0;
  frame.show("table", () => {});
  frame.body.replaceChildren(table);
  table.scrollTop = scrolled;
}
