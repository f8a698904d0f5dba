// The states of all panels of a page, which come in one message, on their way to the panels.

const letters = new TextDecoder();

// Hands on what comes for the page that `model` belongs to; returns what ends it.
export function carry(model) {
  const onMessage = (content, buffers) => {
    for (const [index, id] of (content.states ?? []).entries()) {
      const state = letters.decode(buffers[index]);
      // As what the kernel says of a model, so that it is not sent back with the next change.
      const hand = (panel) => panel.set_state({ state });
      model.widget_manager.get_model(id).then(hand, () => {}); // a panel that is closed gets none
    }
  };
  model.on("msg:custom", onMessage);
  return () => model.off("msg:custom", onMessage);
}
