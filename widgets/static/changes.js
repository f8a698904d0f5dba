// The states of a panel over a run: the first one, and what changed from each to the next.

// [value] replaces, {key: change} changes entries, [start, removed, items, ...] replaces stretches.
export function changed(old, change) {
  if (change === null) return old;
  if (!Array.isArray(change)) {
    const entries = Object.entries(change).map(([key, part]) => [key, changed(old[key], part)]);
    return Object.assign(Array.isArray(old) ? [...old] : { ...old }, Object.fromEntries(entries));
  }
  if (change.length === 1) return change[0];
  let list = old;
  for (let index = 0; index < change.length; index += 3) {
    const [start, removed, items] = change.slice(index, index + 3);
    list = list.slice(0, start).concat(items, list.slice(start + removed));
  }
  return list;
}

export class Track {
  constructor([seconds, first, changes]) {
    this.seconds = seconds;
    this.states = [first];
    this.changes = changes;
  }

  // The newest state at a time; states share what did not change, so all of them are kept.
  at(time) {
    let [low, high] = [0, this.seconds.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.seconds[middle] <= time + 1e-6) low = middle;
      else high = middle - 1;
    }
    while (this.states.length <= low) {
      const last = this.states.length - 1;
      this.states.push(changed(this.states[last], this.changes[last]));
    }
    return this.states[low];
  }
}
