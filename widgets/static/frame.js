// What all panels share: head, redraw, selection, tips, table, and one line when drawing fails.

import { Layer, html, svgRoot } from "./draw.js";
import { addTips } from "./tips.js";

const REDRAW = 50; // milliseconds between two redraws, four a second with reduced motion
const SPEAK = 5000;

// view: {title, question, height, draw(frame, state), table(state), empty: [noun, code, rest]};
// one with a line instead of empty and height is that one line while there is nothing to draw.
export function mount(model, el, view) {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const root = html("section", "ifog ifog-panel");
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";
  const head = html("header", "ifog-head");
  const key = html("span", "ifog-key");
  head.append(html("span", "ifog-title", view.title));
  const question = html("span", "ifog-question", view.question);
  head.append(question, key);
  const body = html("div", "ifog-body");
  body.setAttribute("role", "img");
  root.append(head, body);
  el.append(root);
  addTips(root);

  const frame = { root, body, key, still: false, width: 0, selected: null, memo: {}, layer: null };
  let asked = false;
  let drawn = 0;
  let spoken = -SPEAK;
  let visible = true;
  let mode = "";

  // Replaces the body's content when its kind changes; true if it did.
  frame.show = (kind, fill) => {
    if (mode === kind) return false;
    mode = kind;
    body.replaceChildren();
    frame.layer = null;
    fill(body);
    return true;
  };
  frame.svg = (height) => {
    frame.show("svg", () => {
      frame.element = svgRoot(body);
      frame.layer = new Layer(frame.element);
    });
    frame.element.setAttribute("width", frame.width);
    frame.element.setAttribute("height", height);
    return frame.layer;
  };
  frame.select = (rank) => {
    const scope = root.closest(".ifog-dashboard") ?? root;
    const chosen = rank === frame.selected ? null : rank;
    document.dispatchEvent(new CustomEvent("ifog-select", { detail: { scope, chosen } }));
  };

  function fault(reason) {
    mode = "";
    frame.show(`fault ${reason}`, () => {
      const line = html("div", "ifog-fault", reason);
      const again = html("button", "", "retry");
      again.addEventListener("click", () => {
        mode = "";
        model.send({ retry: true });
        ask();
      });
      line.append(again);
      body.append(line);
    });
  }

  function empty(state) {
    key.textContent = state.key ?? "";
    if (view.line) return frame.show("line", () => {});
    const [noun, code, rest] = view.empty;
    return frame.show("empty", () => {
      const box = html("div", "ifog-empty");
      box.style.height = `${view.height}px`;
      const line = html("span");
      if (code) line.append(html("code", "", code), " ");
      line.append(rest);
      box.append(html("b", "", noun), line);
      body.append(box);
    });
  }

  function rows(state) {
    const [names, lines] = view.table(state);
    mode = "table";
    const table = html("table");
    for (const cells of [names, ...lines]) {
      const row = html("tr");
      for (const cell of cells) row.append(html(cells === names ? "th" : "td", "", String(cell)));
      table.append(row);
    }
    const scrolled = body.firstChild?.scrollTop ?? 0;
    body.replaceChildren(table);
    table.scrollTop = scrolled;
  }

  function draw() {
    asked = false;
    if (!root.isConnected || !visible || document.hidden) return;
    drawn = performance.now();
    const state = model.get("state") ?? {};
    frame.width = body.clientWidth;
    frame.still = still.matches;
    frame.selected = model.get("selected");
    const idle = state.empty !== false && !state.error;
    question.hidden = idle && !view.line;
    question.textContent = idle && view.line ? view.line : view.question;
    if (view.line) root.className = `ifog ifog-panel ifog-${idle ? "folded" : "risen"}`;
    if (!frame.width) return;
    try {
      if (state.error) fault(state.error);
      else if (state.empty !== false) empty(state);
      else if (model.get("table")) rows(state);
      else view.draw(frame, state);
    } catch (error) {
      fault(`${view.title} could not be drawn: ${error.message}`);
    }
    if (drawn - spoken > SPEAK) {
      spoken = drawn;
      body.setAttribute("aria-label", `${view.title}. ${state.say ?? ""}`);
    }
  }

  function ask() {
    if (asked) return;
    asked = true;
    const rest = drawn + (still.matches ? 250 : REDRAW) - performance.now();
    if (rest > 0) setTimeout(() => requestAnimationFrame(draw), rest);
    else requestAnimationFrame(draw);
  }

  function keep(name, value) {
    model.set(name, value);
    model.save_changes();
  }

  const onSelect = (event) => {
    if (event.detail.scope !== (root.closest(".ifog-dashboard") ?? root)) return;
    keep("selected", event.detail.chosen);
    ask();
  };
  const onKey = (event) => {
    if (event.key === "Escape" && model.get("selected") !== null) frame.select(frame.selected);
    if (event.key === "t") {
      mode = "";
      keep("table", !model.get("table"));
    }
  };
  const onClick = (event) => {
    const rank = event.target.closest?.("[data-rank]")?.dataset.rank;
    if (rank !== undefined) frame.select(Number(rank));
  };
  root.addEventListener("keydown", onKey);
  body.addEventListener("click", onClick);
  document.addEventListener("ifog-select", onSelect);
  document.addEventListener("visibilitychange", ask);
  model.on("change:state change:selected change:table", ask);
  const resized = new ResizeObserver(ask);
  resized.observe(body);
  const seen = new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
    ask();
  });
  seen.observe(root);
  ask();
  return () => {
    document.removeEventListener("ifog-select", onSelect);
    document.removeEventListener("visibilitychange", ask);
    model.off("change:state change:selected change:table", ask);
    resized.disconnect();
    seen.disconnect();
  };
}
