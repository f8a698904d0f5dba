// A recorded run as a page of its own: the panels of a dashboard, fed from the page itself.

import { Track } from "./changes.js";
import { html } from "./draw.js";
import { unpack } from "./inflate.js";

const REDRAW = 50; // milliseconds between two looks at the clock while playing
const LONGEST = 0.5; // seconds that may go by at once, as after the computer slept

// What a panel's module knows as its model.
class Model {
  constructor(traits, ask) {
    Object.assign(this, { traits, send: ask, listeners: new Map() });
  }

  get(name) {
    return this.traits[name];
  }

  set(name, value) {
    if (this.traits[name] === value) return;
    this.traits[name] = value;
    for (const listener of this.listeners.get(`change:${name}`) ?? []) listener();
  }

  save_changes() {}

  on(names, listener) {
    for (const name of names.split(" ")) {
      if (!this.listeners.has(name)) this.listeners.set(name, new Set());
      this.listeners.get(name).add(listener);
    }
  }

  off(names, listener) {
    for (const name of names.split(" ")) this.listeners.get(name)?.delete(listener);
  }
}

// Moves the present, answers what the bar asks for, and gives every panel its state.
class Player {
  constructor(data) {
    this.data = data;
    this.shown = [];
    this.bar = null;
    this.at = data.replay.seconds;
    this.playing = false;
    this.speed = data.replay.speed;
    this.looked = 0;
  }

  add(model, track) {
    this.shown.push([model, track]);
    this.bar ??= model;
  }

  show() {
    const { at, playing, speed } = this;
    for (const [model, track] of this.shown) model.set("state", track.at(at));
    this.bar.set("replay", { ...this.data.replay, at, playing, speed });
  }

  ask(request) {
    const { seconds } = this.data.replay;
    if (request.seek !== undefined) this.at = Math.min(Math.max(request.seek, 0), seconds);
    if (request.speed !== undefined) this.speed = request.speed;
    if (request.play !== undefined) this.play(request.play);
    if (request.step !== undefined) {
      this.playing = false;
      const ahead = this.data.steps.find((step) => step > this.at + 1e-6);
      const before = this.data.steps.filter((step) => step < this.at - 1e-6).pop();
      this.at = request.step > 0 ? ahead ?? seconds : before ?? 0;
    }
    this.show();
  }

  play(on) {
    if (on && this.at >= this.data.replay.seconds) this.at = 0;
    if (on && !this.playing) requestAnimationFrame(() => this.look());
    this.playing = on;
    this.looked = performance.now();
  }

  look() {
    if (!this.playing) return;
    const now = performance.now();
    if (now - this.looked >= REDRAW) {
      const gone = Math.min((now - this.looked) / 1000, LONGEST);
      this.looked = now;
      this.at = Math.min(this.at + gone * this.speed, this.data.replay.seconds);
      this.playing = this.at < this.data.replay.seconds;
      this.show();
    }
    requestAnimationFrame(() => this.look());
  }
}

// The theme is the reader's; canvases read their colours when they are drawn.
function follow(shown) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    document.body.dataset.jpThemeLight = String(!dark.matches);
    for (const [model] of shown) model.set("state", { ...model.get("state") });
  };
  dark.addEventListener("change", paint);
  paint();
}

async function place(panel, player, files) {
  const track = new Track(JSON.parse(await unpack(panel.track)));
  const ask = (content) => content.replay && player.ask(content.replay);
  const model = new Model({ ...panel.traits, state: track.states[0] }, ask);
  const element = html("div", panel.span ? `ifog-span-${panel.span}` : "");
  player.add(model, track);
  return { element, start: () => files[panel.module].render({ model, el: element }) };
}

export async function start(files) {
  const data = JSON.parse(document.getElementById("run").textContent);
  const player = new Player(data);
  const page = html("main", "ifog-dashboard jupyter-widgets");
  const grid = html("div", "ifog-grid jupyter-widgets");
  const placed = [];
  for (const panel of data.panels) placed.push(await place(panel, player, files));
  const [bar, ...panels] = placed.map(({ element }) => element);
  grid.append(...panels);
  page.append(bar, grid);
  document.getElementById("words").before(page);
  player.ask({ seek: data.replay.seconds });
  for (const { start: draw } of placed) draw();
  follow(player.shown);
  document.addEventListener("keydown", (event) => {
    if (page.contains(event.target)) return;
    page.dispatchEvent(new KeyboardEvent("keydown", { key: event.key, cancelable: true })) ||
      event.preventDefault();
  });
  const wanted = Number.parseFloat(window.location.hash.slice(1));
  if (Number.isFinite(wanted)) player.ask({ seek: wanted });
  if (window.location.hash.endsWith("play")) player.ask({ seek: wanted || 0, play: true });
}
