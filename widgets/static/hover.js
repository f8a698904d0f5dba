// Reading a chart: what is under the pointer in words, a line through it, and clicks.

export const nearest = (places, place) => {
  let best = 0;
  for (let index = 1; index < places.length; index += 1) {
    if (Math.abs(places[index] - place) < Math.abs(places[best] - place)) best = index;
  }
  return best;
};

// Puts a sheet over a plot. read(x, y) gives the words and where the line stands, or nothing;
// click(x, y) is called with drawing coordinates.
export function overlay(frame, layer, key, { x, y, width, height }, { read, click }) {
  const sheet = layer.put(`sheet${key}`, "rect", { x, y, width, height, fill: "transparent", class: "sheet" });
  const cursors = (frame.memo.cursors ??= {});
  const drawn = cursors[key] === undefined ? "" : `M${cursors[key]},${y} v${height}`;
  const cursor = layer.put(`cursor${key}`, "path", { class: "cursor quiet", d: drawn });
  sheet.hovered = { read, click, y, height };
  if (sheet.dataset.ready) return sheet;
  sheet.dataset.ready = "true";
  const leave = () => {
    delete cursors[key];
    cursor.setAttribute("d", "");
  };
  sheet.addEventListener("pointermove", (event) => {
    const now = sheet.hovered;
    const [text, at] = now.read(...frame.at(event)) ?? [];
    if (text) sheet.dataset.tip = text;
    else delete sheet.dataset.tip;
    if (at === undefined) return leave();
    cursors[key] = at;
    return cursor.setAttribute("d", `M${at},${now.y} v${now.height}`);
  });
  sheet.addEventListener("pointerleave", leave);
  sheet.addEventListener("click", (event) => sheet.hovered.click?.(...frame.at(event)));
  return sheet;
}
