// Who holds up whom: a sentence, then the ranks in columns by their distance from the cause.

import { lengthOf, mark, write } from "./draw.js";
import { mount } from "./frame.js";
import { drawRing } from "./ring.js";
import { arrow, node } from "./waiters.js";

const PITCH = 55; // pixels between two ranks of a column, where there is room
const TALLEST = 360;
const APART = [40, 124]; // pixels between two columns, at least and at most
const LEFT = 34;

// A text in lines of at most `width` pixels; returns the height they take.
function wrapped(layer, key, text, y, width, kind) {
  const probe = layer.put(`${key}probe`, "text", { class: kind, visibility: "hidden" }, text);
  const share = width / Math.max(lengthOf(probe), 1);
  const most = Math.max(Math.floor(text.length * share * 0.97), 12);
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (longer.length <= most) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  lines.forEach((line, k) => layer.put(`${key}${k}`, "text", { x: 0, y: y + 14 + k * 18, class: kind }, line));
  return lines.length * 18;
}

// All the ranks of the column whose "+ 41 more" was clicked.
function list(frame, layer, y) {
  const column = frame.memo.columns?.[frame.memo.opened];
  if (!column?.more.length) return 0;
  const text = `${column.name}, also: ${column.more.join(", ")}`;
  return wrapped(layer.group("list"), "list", text, y, frame.width, "muted");
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
  write(frame.key, state.key);
  const layer = frame.svg(20);
  for (const name of ["sentence", "picture", "list"]) layer.group(name);
  const top = wrapped(layer.group("sentence"), "line", state.sentence, 0, Math.min(frame.width, 640), "body sentence") + 10;
  const picture = layer.group("picture");
  mark(picture.parent, "transform", `translate(0, ${top})`);
  for (const name of ["heads", "arrows", "nodes", "labels"]) picture.group(name);
  frame.memo.columns = state.columns;
  const tall = state.ring ? drawRing(frame, picture, state.ring) : drawColumns(frame, picture, state);
  const end = top + Math.ceil(tall) + 4;
  frame.svg(end + list(frame, layer, end));
  layer.sweep();
  if (frame.element.dataset.opens) return;
  frame.element.dataset.opens = "true";
  frame.element.addEventListener("click", (event) => {
    const column = event.target.closest?.("[data-column]")?.dataset.column;
    if (column === undefined) return;
    frame.memo.opened = frame.memo.opened === column ? null : column;
    frame.ask();
  });
}

const view = {
  title: "Waiting",
  question: "who holds up whom?",
  line: "nothing has waited longer than 1 s",
  draw,
  table: (state) => [["rank", "does", "for", "in", "since"], state.rows],
};

export default { render: ({ model, el }) => mount(model, el, view) };
