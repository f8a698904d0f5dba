// What all panels share: head, redraw, tips, table, and one line when drawing fails.

import { Layer, html, mark, stateOf, svgRoot, write } from "./draw.js";
import { addGrip } from "./grip.js";
import { scopeOf, steer } from "./keys.js";
import { heldBy, soon } from "./pace.js";
import { showEmpty, showFault, showTable } from "./states.js";
import { addTips } from "./tips.js";

const SPEAK = 5000;
const BIG = 1.5; // how much larger a presented panel is drawn

// view: {title, question, height, draw(frame, state), table(state), empty: [noun, code, rest]};
// one with a line instead of empty and height is that one line while there is nothing to draw;
// keys: {letter: what it does to the frame}.
export function mount(model, el, view) {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const root = html("section", "ifog ifog-panel");
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";
  root.dataset.view = view.title.toLowerCase();
  const head = html("header", "ifog-head");
  const [title, key, tools] = [html("span", "ifog-title", view.title), html("span", "ifog-key"), html("span", "ifog-tools")];
  const question = html("span", "ifog-question", view.question);
  head.append(title, question, tools, key);
  const body = html("div", "ifog-body");
  body.setAttribute("role", "img");
  root.append(head, body);
  el.append(root);
  addTips(root);

  const frame = { root, body, key, title, tools, model, still: false, width: 0, scale: 1, selected: null, memo: {}, layer: null };
  let asked = false;
  let drawn = 0;
  let spoken = -SPEAK;
  let visible = true;
  let room = null; // pixels of width, as the observer tells: asking for it lays out the page
  let mode = "";
  let shown = null; // the state on the screen, which stays while the page is paused

  // Replaces the body's content when its kind changes; true if it did.
  frame.show = (kind, fill) => {
    if (mode === kind) return false;
    mode = kind;
    body.replaceChildren();
    frame.layer = null;
    fill(body);
    return true;
  };
  frame.anew = () => {
    mode = "";
    frame.ask();
  };
  frame.svg = (height) => {
    frame.show("svg", () => {
      frame.element = svgRoot(body);
      frame.layer = new Layer(frame.element);
    });
    mark(frame.element, "width", frame.width * frame.scale);
    mark(frame.element, "height", height * frame.scale);
    mark(frame.element, "viewBox", `0 0 ${frame.width} ${height}`);
    return frame.layer;
  };
  // The height the reader has given to the panel, or else the natural one.
  frame.tall = (natural) => Math.max(frame.look("height") ?? natural, 80);
  frame.look = (name) => (model.get("look") ?? {})[name];
  frame.keep = (name, value) => {
    model.set("look", { ...model.get("look"), [name]: value });
    model.save_changes();
    frame.ask();
  };
  // Where a pointer is, in the coordinates of the drawing.
  frame.at = (event) => {
    const box = frame.element.getBoundingClientRect();
    return [(event.clientX - box.left) / frame.scale, (event.clientY - box.top) / frame.scale];
  };

  // The question gives way where the head has no room for it beside what must be said.
  function fit(idle) {
    const asks = `${frame.width} ${key.textContent.length} ${tools.childElementCount}`;
    if (idle || frame.memo.fitted === asks) return;
    frame.memo.fitted = asks;
    question.classList.remove("ifog-away");
    const below = (part) => part.offsetWidth > 0 && part.offsetTop > title.offsetTop + 8;
    if (below(key) || below(tools)) question.classList.add("ifog-away");
  }

  function draw() {
    asked = false;
    if (!root.isConnected || !visible || document.hidden) return;
    drawn = performance.now();
    const page = scopeOf(root).dataset;
    const state = (shown = heldBy(page, shown, stateOf(model)));
    frame.scale = root.classList.contains("ifog-shown") ? BIG : 1;
    room ??= body.clientWidth;
    frame.width = room / frame.scale;
    frame.still = still.matches;
    frame.selected = model.get("selected");
    const idle = state.empty !== false && !state.error;
    question.hidden = idle && !view.line;
    write(question, idle && view.line ? view.line : view.question);
    if (view.line) for (const [name, on] of [["folded", idle], ["risen", !idle]]) root.classList.toggle(`ifog-${name}`, on);
    if (!frame.width) return;
    root.dataset.draws = Number(root.dataset.draws ?? 0) + 1;
    try {
      if (state.error) showFault(frame, state.error);
      else if (state.empty !== false) showEmpty(frame, view, state);
      else if (model.get("table")) showTable(frame, view, state);
      else view.draw(frame, state);
    } catch (error) {
      showFault(frame, `${view.title} could not be drawn: ${error.message}`);
    }
    fit(idle);
    if (drawn - spoken > SPEAK) {
      spoken = drawn;
      body.setAttribute("aria-label", `${view.title}. ${state.say ?? ""}`);
    }
  }

  frame.ask = () => {
    if (asked) return;
    asked = true;
    if (drawn) soon(draw, still.matches);
    else requestAnimationFrame(draw);
  };

  const release = [steer(frame, view), addGrip(frame, view)];
  const changes = "change:state change:selected change:table change:look";
  document.addEventListener("visibilitychange", frame.ask);
  model.on(changes, frame.ask);
  const resized = new ResizeObserver((entries) => {
    room = entries[entries.length - 1].contentRect.width;
    frame.ask();
  });
  resized.observe(body);
  const seen = new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
    frame.ask();
  });
  seen.observe(root);
  frame.ask();
  return () => {
    for (const end of release) end();
    document.removeEventListener("visibilitychange", frame.ask);
    model.off(changes, frame.ask);
    resized.disconnect();
    seen.disconnect();
  };
}
