// Matrices too large for one element a cell: a path for each kind of cell, rows joined into bars.

// at(row, column) tells the kind of a cell, 0 for none; calls put(kind, path).
export function cellPaths(bins, side, at, put) {
  const size = side / bins;
  const paths = new Map();
  for (let row = 0; row < bins; row += 1) {
    let begun = 0;
    let kind = at(row, 0);
    for (let column = 1; column <= bins; column += 1) {
      const next = column < bins ? at(row, column) : -1;
      if (next === kind) continue;
      if (kind > 0) {
        const [x, y] = [begun * size, row * size].map((value) => value.toFixed(1));
        const bar = `M${x},${y}h${((column - begun) * size).toFixed(1)}v${size.toFixed(1)}H${x}z`;
        if (!paths.has(kind)) paths.set(kind, []);
        paths.get(kind).push(bar);
      }
      begun = column;
      kind = next;
    }
  }
  for (const [kind, bars] of paths) put(kind, bars.join(""));
}
