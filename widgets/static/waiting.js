// Who holds up whom: a sentence, then the ranks in columns by their distance from the cause.

import { Layer, html, svgRoot } from "./draw.js";
import { mount } from "./frame.js";
import { drawRing } from "./ring.js";
import { arrow, node } from "./waiters.js";

const PITCH = 55; // pixels between two ranks of a column, where there is room
const TALLEST = 360;
const APART = [40, 124]; // pixels between two columns, at least and at most
const LEFT = 34;

function stage(frame) {
  frame.show("waiting", (body) => {
    frame.memo.sentence = html("p", "ifog-sentence");
    body.append(frame.memo.sentence);
    frame.element = svgRoot(body);
    frame.layer = new Layer(frame.element);
    frame.memo.list = html("div", "ifog-list ifog-muted");
    body.append(frame.memo.list);
    frame.element.addEventListener("click", (event) => {
      const column = event.target.closest?.("[data-column]")?.dataset.column;
      if (column === undefined) return;
      frame.memo.opened = frame.memo.opened === column ? null : column;
      list(frame);
    });
  });
  return frame.layer;
}

// All the ranks of the column whose "+ 41 more" was clicked.
function list(frame) {
  const column = frame.memo.columns?.[frame.memo.opened];
  frame.memo.list.hidden = !column?.more.length;
  if (!column) return;
  frame.memo.list.textContent = `${column.name}, also: ${column.more.join(", ")}`;
}

function drawColumns(frame, layer, state) {
  const { columns } = state;
  const most = Math.max(...columns.map(({ nodes, more }) => nodes.length + (more.length ? 0.6 : 0)));
  const pitch = Math.min(PITCH, TALLEST / most);
  const wide = columns.length > 1 ? (frame.width - 2 * LEFT - 20) / (columns.length - 1) : 0;
  const apart = Math.min(Math.max(wide, APART[0]), APART[1]);
  const radius = Math.min(17, pitch / 2 - 3, apart / 2 - 9);
  const words = columns[0].nodes.some(({ label }) => label) && pitch > 44 ? 18 : 0;
  const tall = Math.max(...columns.map(({ nodes }) => nodes.length)) * pitch;
  const top = 24;
  const spots = new Map();
  columns.forEach(({ name, nodes, more }, index) => {
    const x = LEFT + index * apart;
    const short = apart < 90 ? name.replace(/through | for .*/, "") : name;
    layer.group("heads").put(`head${index}`, "text", { x, y: 12, class: "muted middle" }, short);
    const first = top + (tall - nodes.length * pitch) / 2 + pitch / 2;
    nodes.forEach((rank, row) => spots.set(rank.rank, { ...rank, x, y: first + row * pitch, radius }));
    if (!more.length) return;
    const text = { x, y: top + tall + 12, class: "muted middle pick", "data-column": index };
    layer.group("heads").put(`more${index}`, "text", text, `+ ${more.length} more`);
  });
  for (const [from, to, red] of state.arrows) {
    const dim = frame.selected !== null && frame.selected !== from && frame.selected !== to;
    arrow(layer.group("arrows"), spots.get(from), spots.get(to), { red, dim });
  }
  for (const spot of spots.values()) node(layer.group("nodes"), spot, frame.selected);
  labels(frame, layer, state, spots, words);
  return top + tall + (columns.some(({ more }) => more.length) ? 20 : 0) + words;
}

// What the cause did stands below it; where a lone column waits, its places stand at its right.
function labels(frame, layer, state, spots, words) {
  const group = layer.group("labels");
  const [causes, waiting] = state.columns;
  for (const { rank, look, label } of words ? causes.nodes : []) {
    const { x, y, radius } = spots.get(rank);
    const kind = look === "gone" ? "bold alarm" : "muted";
    const at = { x, y: y + radius + 16, class: `${kind} middle halo` };
    group.put(`word${rank}`, "text", at, label);
  }
  if (state.columns.length !== 2 || frame.width < 420) return;
  for (const { rank, label } of waiting.nodes) {
    const { x, y, radius } = spots.get(rank);
    group.put(`place${rank}`, "text", { x: x + radius + 10, y: y + 4, class: "muted" }, label);
  }
}

function draw(frame, state) {
  frame.key.textContent = state.key;
  const layer = stage(frame);
  if (frame.memo.sentence.textContent !== state.sentence) {
    frame.memo.sentence.textContent = state.sentence;
  }
  for (const name of ["heads", "arrows", "nodes", "labels"]) layer.group(name);
  frame.memo.columns = state.columns;
  const height = state.ring ? drawRing(frame, layer, state.ring) : drawColumns(frame, layer, state);
  frame.element.setAttribute("width", frame.width);
  frame.element.setAttribute("height", Math.ceil(height));
  layer.sweep();
  list(frame);
}

const view = {
  title: "Waiting",
  question: "who holds up whom?",
  line: "nothing has waited longer than 1 s",
  draw,
  table: (state) => [["rank", "does", "for", "in", "since"], state.rows],
};

export default { render: ({ model, el }) => mount(model, el, view) };
