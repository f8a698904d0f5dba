// Unpacks gzip: by the browser where it can, else by the few lines below (RFC 1951 and 1952).

const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

// The symbols of a Huffman code by length and first code of each length.
function huffman(lengths) {
  const counts = new Uint16Array(16);
  for (const length of lengths) counts[length] += 1;
  counts[0] = 0;
  const places = new Uint16Array(16);
  for (let length = 1; length < 15; length += 1) places[length + 1] = places[length] + counts[length];
  const symbols = new Uint16Array(lengths.length);
  lengths.forEach((length, symbol) => {
    if (length) symbols[places[length]++] = symbol;
  });
  return { counts, symbols };
}

// Base and extra bits of lengths from 3 on, or of distances from 1 on.
function ranges(first, same, count, most) {
  const table = [];
  let base = first;
  for (let index = 0; index < count; index += 1) {
    const extra = Math.max(Math.floor(index / same) - 1, 0);
    table.push([base, extra]);
    base += 1 << extra;
  }
  if (most) table.push([most, 0]);
  return table;
}

const LENGTHS = ranges(3, 4, 28, 258);
const DISTANCES = ranges(1, 2, 30, 0);
const filled = (parts) => parts.flatMap(([count, value]) => new Array(count).fill(value));
const FIXED = [
  huffman(filled([[144, 8], [112, 9], [24, 7], [8, 8]])),
  huffman(filled([[30, 5]])),
];

class Bits {
  constructor(bytes, place) {
    Object.assign(this, { bytes, place, held: 0, count: 0 });
  }

  take(count) {
    while (this.count < count) {
      this.held |= this.bytes[this.place++] << this.count;
      this.count += 8;
    }
    const value = this.held & ((1 << count) - 1);
    this.held >>>= count;
    this.count -= count;
    return value;
  }

  symbol({ counts, symbols }) {
    let [code, first, place] = [0, 0, 0];
    for (let length = 1; length < 16; length += 1) {
      code |= this.take(1);
      if (code - counts[length] < first) return symbols[place + code - first];
      place += counts[length];
      first = (first + counts[length]) << 1;
      code <<= 1;
    }
    throw new Error("the data are damaged");
  }

  tables() {
    const [literals, distances, codes] = [this.take(5) + 257, this.take(5) + 1, this.take(4) + 4];
    const short = new Array(19).fill(0);
    for (let index = 0; index < codes; index += 1) short[ORDER[index]] = this.take(3);
    const table = huffman(short);
    const lengths = [];
    while (lengths.length < literals + distances) {
      const symbol = this.symbol(table);
      if (symbol < 16) lengths.push(symbol);
      else {
        const value = symbol === 16 ? lengths[lengths.length - 1] : 0;
        const times = symbol === 16 ? 3 + this.take(2) : symbol === 17 ? 3 + this.take(3) : 11 + this.take(7);
        for (let count = 0; count < times; count += 1) lengths.push(value);
      }
    }
    return [huffman(lengths.slice(0, literals)), huffman(lengths.slice(literals))];
  }
}

function block(bits, out, end) {
  const kind = bits.take(2);
  if (kind === 0) {
    bits.held = bits.count = 0;
    const size = bits.bytes[bits.place] | (bits.bytes[bits.place + 1] << 8);
    out.set(bits.bytes.subarray(bits.place + 4, bits.place + 4 + size), end);
    bits.place += 4 + size;
    return end + size;
  }
  const [literals, distances] = kind === 1 ? FIXED : bits.tables();
  for (let place = end; ; ) {
    const symbol = bits.symbol(literals);
    if (symbol === 256) return place;
    if (symbol < 256) {
      out[place++] = symbol;
      continue;
    }
    const [size, more] = LENGTHS[symbol - 257];
    const until = place + size + bits.take(more);
    const [back, far] = DISTANCES[bits.symbol(distances)];
    const distance = back + bits.take(far);
    for (; place < until; place += 1) out[place] = out[place - distance];
  }
}

// The bytes of a gzip file that has no name and no comment in its head.
export function inflate(bytes) {
  const tail = bytes.length - 4;
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(tail, true);
  const out = new Uint8Array(size);
  const bits = new Bits(bytes, 10);
  let [end, last] = [0, 0];
  while (!last) {
    last = bits.take(1);
    end = block(bits, out, end);
  }
  return out;
}

export async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  if (typeof DecompressionStream === "undefined") return new TextDecoder().decode(inflate(bytes));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
