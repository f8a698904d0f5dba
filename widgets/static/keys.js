// What a reader does to a panel and to the page it stands on: select, pause, present, look at numbers.

// The page of a panel, or the panel itself when it stands alone.
export const scopeOf = (root) => root.closest(".ifog-dashboard") ?? root;

const spread = (root, what, detail) =>
  document.dispatchEvent(new CustomEvent("ifog", { detail: { scope: scopeOf(root), what, ...detail } }));

// A click on a rank selects it in all panels of the page, another one or Esc clears it.
export function select(root, chosen) {
  spread(root, "select", { chosen });
}

// Stops and goes on. While it stands still the arrow keys show the rounds before, which the kernel
// is asked for by the model of the panel that has the focus.
function pause(root, model) {
  const page = scopeOf(root).dataset;
  if (page.stepped) model.send({ step: 0 });
  delete page.stepped;
  if (page.paused) delete page.paused;
  else page.paused = "true";
  spread(root, "pause");
}

function step(root, model, by) {
  const page = scopeOf(root).dataset;
  const place = page.stepped ? {} : { cell: Number(page.cell ?? 0), round: Number(page.round ?? 0) };
  page.stepped = "true";
  model.send({ step: by, ...place });
}

// One panel fills the page, the others are their titles; the same again shows all.
function present(root) {
  const page = scopeOf(root);
  const on = !root.classList.contains("ifog-shown");
  for (const panel of page.querySelectorAll(".ifog-panel")) panel.classList.remove("ifog-shown");
  root.classList.toggle("ifog-shown", on);
  page.classList.toggle("ifog-presents", on);
  spread(root, "present");
}

// Keeps the id of this view in the model, so that a panel that no page shows any more can rest. A new
// view forgets all others, of which those that are still there name themselves again.
export function announce(model) {
  const mine = Math.random().toString(36).slice(2, 10);
  const tell = (ids) => {
    model.set("views", ids);
    model.save_changes();
  };
  const stay = () => {
    const known = model.get("views") ?? [];
    if (!known.includes(mine)) tell([...known, mine]);
  };
  tell([mine]);
  model.on("change:views", stay);
  return () => {
    model.off("change:views", stay);
    tell((model.get("views") ?? []).filter((id) => id !== mine));
  };
}

export function steer(frame, view) {
  const { root, body, title, model } = frame;
  const keep = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  frame.select = (rank) => select(root, rank === model.get("selected") ? null : rank);

  const keys = {
    Escape: () => {
      if (model.get("selected") !== null) select(root, null);
      else if (root.classList.contains("ifog-shown")) present(root);
    },
    t: () => {
      keep("table", !model.get("table"));
      frame.anew();
    },
    f: () => present(root),
    " ": () => pause(root, model),
    ArrowLeft: () => step(root, model, -1),
    ArrowRight: () => step(root, model, 1),
    ...Object.fromEntries(Object.entries(view.keys ?? {}).map(([key, act]) => [key, () => act(frame)])),
  };
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    const moves = event.key.startsWith("Arrow");
    if (moves && !scopeOf(root).dataset.paused) return; // the browser's
    if ((moves || event.key === " ") && scopeOf(root).querySelector(".ifog-played")) return; // the bar's
    event.preventDefault();
    keys[event.key]();
  };
  const onTold = ({ detail }) => {
    if (detail.scope !== scopeOf(root)) return;
    if (detail.what === "select") keep("selected", detail.chosen);
    frame.ask();
  };
  const onClick = (event) => {
    const rank = event.target.closest?.("[data-rank]")?.dataset.rank;
    if (rank !== undefined) frame.select(Number(rank));
  };
  root.addEventListener("keydown", onKey);
  body.addEventListener("click", onClick);
  title.addEventListener("dblclick", () => present(root));
  document.addEventListener("ifog", onTold);
  const leave = announce(model);
  return () => {
    document.removeEventListener("ifog", onTold);
    leave();
  };
}
