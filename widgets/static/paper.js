// A document without a browser: of its kind only what the panels ask for, to draw them into an SVG.

const WIDE = "mwMW@%"; // letters by their width in DejaVu Sans, the widest usual face
const THIN = "iljI.,:;|!'f()[] \u00a0\u202ft/";

function textWidth(text, size, bold) {
  let sum = 0;
  for (const letter of text) {
    if (WIDE.includes(letter)) sum += 0.92;
    else if (THIN.includes(letter)) sum += 0.34;
    else if (letter >= "A" && letter <= "Z") sum += 0.7;
    else sum += letter > "\u02ff" ? 0.7 : 0.625;
  }
  return sum * size * (bold ? 1.1 : 1);
}

const dashed = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

class Paper {
  constructor(tag, width) {
    Object.assign(this, { tag, width, children: [], parent: null, marks: new Map(), text: "", listeners: [] });
    this.namespaceURI = "";
    this.ownerDocument = document;
    this.isConnected = true;
    this.offsetTop = this.offsetWidth = this.offsetHeight = this.scrollTop = 0;
    const marks = this.marks;
    this.dataset = new Proxy({}, {
      get: (_, name) => marks.get(`data-${dashed(name)}`),
      set: (_, name, value) => Boolean(marks.set(`data-${dashed(name)}`, String(value))),
      deleteProperty: (_, name) => marks.delete(`data-${dashed(name)}`) || true,
    });
    this.style = {};
    const words = () => new Set((marks.get("class") ?? "").split(" ").filter(Boolean));
    const put = (all) => marks.set("class", [...all].join(" "));
    this.classList = {
      contains: (name) => words().has(name),
      add: (name) => put(words().add(name)),
      remove: (name) => put([...words()].filter((word) => word !== name)),
      toggle: (name, on = !words().has(name)) => (on ? this.classList.add(name) : this.classList.remove(name)),
    };
  }
  get className() { return this.marks.get("class") ?? ""; }
  set className(name) { this.marks.set("class", name); }
  get textContent() { return this.text + this.children.map((child) => child.textContent).join(""); }
  set textContent(text) {
    this.children = [];
    this.text = String(text);
  }
  set innerHTML(_) { this.append(new Paper("svg", this.width)); }
  get firstChild() { return this.children[0] ?? null; }
  get childElementCount() { return this.children.length; }
  get clientWidth() { return this.width; }
  get clientHeight() { return 0; }
  setAttribute(name, value) { this.marks.set(name, String(value)); }
  getAttribute(name) { return this.marks.get(name) ?? null; }
  removeAttribute(name) { this.marks.delete(name); }
  append(...parts) {
    for (const part of parts) {
      const child = part instanceof Paper ? part : Object.assign(new Paper("", this.width), { text: String(part) });
      child.parent = this;
      this.children.push(child);
    }
  }
  replaceChildren(...parts) {
    this.children = [];
    this.text = "";
    this.append(...parts);
  }
  remove() {
    if (this.parent) this.parent.children = this.parent.children.filter((child) => child !== this);
  }
  find(fits) {
    for (const child of this.children) {
      if (fits(child)) return child;
      const found = child.find(fits);
      if (found) return found;
    }
    return null;
  }
  querySelector(what) {
    const [, name, value] = /^\[([\w-]+)="(.*)"\]$/.exec(what) ?? [];
    return name ? this.find((child) => child.marks.get(name) === value) : null;
  }
  querySelectorAll() { return []; }
  closest() { return null; }
  addEventListener() {}
  removeEventListener() {}
  setPointerCapture() {}
  getBoundingClientRect() { return { left: 0, top: 0, right: this.width, bottom: 0, width: this.width, height: 0 }; }
  getComputedTextLength() {
    const kind = this.className.split(" ");
    const size = kind.includes("figure") ? 20 : kind.includes("body") ? 13 : 12;
    return textWidth(this.textContent, size, kind.includes("bold"));
  }
}

const waiting = [];
const nothing = () => {};
class Observer {
  observe() {}
  disconnect() {}
}
globalThis.document = {
  hidden: false,
  createElement: (tag) => new Paper(tag, document.width ?? 0),
  createElementNS: (_, tag) => new Paper(tag, document.width ?? 0),
  addEventListener: nothing,
  removeEventListener: nothing,
  dispatchEvent: nothing,
};
globalThis.window = { matchMedia: () => ({ matches: true }) };
globalThis.performance = { now: () => 1e6 };
globalThis.requestAnimationFrame = (act) => waiting.push(act);
globalThis.setTimeout = (act) => waiting.push(act);
globalThis.setInterval = globalThis.clearInterval = nothing;
globalThis.ResizeObserver = globalThis.IntersectionObserver = Observer;
globalThis.CustomEvent = class {};

const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

function written(part) {
  if (part.marks.get("visibility") === "hidden" || part.marks.get("fill") === "transparent") return "";
  const marks = [...part.marks].filter(([name]) => !name.startsWith("data-") && name !== "aria-hidden");
  const text = marks.map(([name, value]) => ` ${name}="${escape(value)}"`).join("");
  return `<${part.tag}${text}>${escape(part.text)}${part.children.map(written).join("")}</${part.tag}>`;
}

// Draws a panel's module once: {title, question, key, empty, body, height} of what it shows.
globalThis.onPaper = (panel, traits, width) => {
  document.width = width;
  const el = new Paper("div", width);
  const model = { get: (name) => traits[name], set: nothing, save_changes: nothing, on: nothing, off: nothing, send: nothing };
  panel.render({ model, el });
  for (let turn = 0; waiting.length && turn < 20; turn += 1) waiting.shift()();
  const named = (name) => el.find((part) => part.classList.contains(name));
  const svg = named("ifog-body").find((part) => part.tag === "svg");
  const fault = named("ifog-fault");
  if (fault) throw new Error(fault.textContent);
  const empty = named("ifog-empty");
  return JSON.stringify({
    title: named("ifog-title").textContent,
    question: named("ifog-question").textContent,
    key: named("ifog-key").textContent,
    alarm: named("ifog-key").classList.contains("ifog-alarm"),
    empty: empty ? empty.children.map((part) => part.textContent) : [],
    body: svg ? svg.children.map(written).join("") : "",
    height: svg ? Number(svg.getAttribute("height")) : 0,
  });
};
