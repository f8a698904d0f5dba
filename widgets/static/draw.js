// Elements that stay while their numbers change, and numbers as people read them.

const probe = document.createElement("div");
probe.innerHTML = "<svg></svg>"; // its namespace is the one SVG elements need
const SVG = probe.firstChild.namespaceURI;

export function html(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function svgRoot(parent) {
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("aria-hidden", "true");
  parent.append(root);
  return root;
}

// One drawing's elements by key: put() makes or changes one, sweep() removes what was not put.
export class Layer {
  constructor(parent) {
    this.parent = parent;
    this.elements = new Map();
    this.groups = new Map();
    this.seen = new Set();
  }

  group(key) {
    if (!this.groups.has(key)) {
      const element = document.createElementNS(SVG, "g");
      this.parent.append(element);
      this.groups.set(key, new Layer(element));
    }
    return this.groups.get(key);
  }

  put(key, tag, attributes, text) {
    let element = this.elements.get(key);
    if (!element) {
      element = document.createElementNS(SVG, tag);
      this.elements.set(key, element);
      this.parent.append(element);
    }
    this.seen.add(key);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined) element.removeAttribute(name);
      else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
    }
    if (text !== undefined && element.textContent !== String(text)) element.textContent = text;
    return element;
  }

  sweep() {
    for (const [key, element] of this.elements) {
      if (!this.seen.has(key)) {
        element.remove();
        this.elements.delete(key);
      }
    }
    this.seen.clear();
    for (const group of this.groups.values()) group.sweep();
  }
}

// What a panel shows, which travels as a text.
export function stateOf(model) {
  const given = model.get("state") ?? {};
  return typeof given === "string" ? JSON.parse(given) : given;
}

const SPACE = "\u00a0";

// Three significant digits; exponent form below 1e-3 and from 1e6; an exact zero is 0.
export function number(value, digits = 3) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return String(value);
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const power = Number(exponent);
  if (power < -3 || power >= 6) return `${mantissa}e${power}`;
  const text = Number(`${mantissa}e${power}`).toFixed(Math.max(0, digits - 1 - power));
  return power < 4 ? text : text.replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

// The number whose decimal logarithm arrived; below -300 it was an exact zero.
export function fromLog(log) {
  return log === null || log === undefined ? "not finite" : number(log < -300 ? 0 : 10 ** log);
}

export function count(whole) {
  const text = String(Math.round(whole));
  return text.length < 5 ? text : text.replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function size(nbytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (nbytes >= 999.5 && unit + 1 < units.length) {
    nbytes /= 1000;
    unit += 1;
  }
  return `${unit ? number(nbytes) : Math.round(nbytes)}${SPACE}${units[unit]}`;
}

export function duration(seconds) {
  if (seconds >= 99.95) {
    const whole = Math.round(seconds);
    return `${Math.floor(whole / 60)}${SPACE}min ${String(whole % 60).padStart(2, "0")}${SPACE}s`;
  }
  return seconds >= 0.1 ? `${number(seconds)}${SPACE}s` : `${number(seconds * 1e3)}${SPACE}ms`;
}

export function percent(share) {
  return `${Math.round(100 * share)}${SPACE}%`;
}

export function decade(power) {
  return power === 0 ? "1" : `1e${power}`;
}

// Ticks from 0 in steps of 1, 2 or 5 times a power of ten, at most five, the last at or past `end`.
export function wholeTicks(end) {
  let step = 1;
  for (let power = 1; ; power *= 10) {
    const found = [1, 2, 5].map((m) => m * power).find((s) => Math.ceil(end / s) <= 4);
    if (found) {
      step = found;
      break;
    }
  }
  const last = Math.max(Math.ceil(end / step), 1);
  return Array.from({ length: last + 1 }, (_, index) => index * step);
}

// Reading a length makes the browser lay out the whole page, so each is read once; all digits are
// of one width, so that a number which changes is read once, too.
const lengths = new Map();
const alike = (className, text) => `${className}|${String(text).replace(/\d/g, "0")}`;

export function lengthOf(element) {
  const name = alike(element.getAttribute("class"), element.textContent);
  let length = lengths.get(name);
  if (length === undefined) {
    length = element.getComputedTextLength();
    if (lengths.size > 3000) lengths.clear();
    if (length) lengths.set(name, length);
  }
  return length;
}

export function textWidth(layer, key, text, className) {
  const known = lengths.get(alike(className, text));
  if (known !== undefined) return known;
  return lengthOf(layer.put(key, "text", { class: className, visibility: "hidden" }, text));
}

// A text in lines of at most `width` pixels, broken between words.
export function linesOf(layer, text, width, className) {
  if (textWidth(layer, "probe", text, className) <= width) return [text];
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && textWidth(layer, "probe", longer, className) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

// Changes only what is different: the browser takes any other change for one, too.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}
