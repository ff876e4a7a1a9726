// Line charts in SVG: a few series over iterations, with bands, a crosshair for pointer and arrow keys, and a legend.

import { h, s, fill } from "./dom.js";
import { number } from "./format.js";

const HEIGHT = 190;
const MARGIN = { top: 10, right: 18, bottom: 24, left: 46 };

/**
 * A chart that is drawn anew by `update`. A series is { label, colour, points: [[x, y], …], band: [[x, low, high], …],
 * dots } with points in order of x; colour is a CSS colour.
 */
export class Chart {
  constructor(title, { format = number, tick = format, range = null, fromZero = false } = {}) {
    Object.assign(this, { title, format, tick, range, fromZero, series: [], at: null });
    this.readout = h("output", { class: "readout" });
    this.legend = h("div", { class: "legend" });
    this.svg = s("svg", { role: "img", tabindex: "0", height: String(HEIGHT), class: "plot" });
    this.element = h(
      "figure",
      { class: "chart" },
      h("figcaption", {}, h("span", { class: "title" }, title), this.readout),
      this.svg,
      this.legend,
    );
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#mark(null));
    this.svg.addEventListener("blur", () => this.#mark(null));
    this.svg.addEventListener("keydown", (event) => this.#step(event));
    new ResizeObserver(() => this.#draw()).observe(this.svg);
  }

  update(series) {
    this.series = series.filter((one) => one.points.length > 0);
    this.element.hidden = this.series.length === 0;
    this.#draw();
  }

  #draw() {
    const width = this.svg.clientWidth;
    if (!width || this.series.length === 0) return;
    const xs = this.series.flatMap(({ points }) => [points[0][0], points.at(-1)[0]]);
    this.x = scale([Math.min(...xs), Math.max(...xs)], [MARGIN.left, width - MARGIN.right]);
    this.y = scale(this.#heights(), [HEIGHT - MARGIN.bottom, MARGIN.top]);
    this.cursor = s("g", { class: "cursor" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("aria-label", this.#inWords());
    const plotWidth = width - MARGIN.left - MARGIN.right;
    fill(
      this.svg,
      this.#axes(width),
      this.series.map((one) => bandOf(one, this.x, this.y)),
      this.series.map((one) => lineOf(one, this.x, this.y, plotWidth)),
      this.cursor,
    );
    const named = this.series.length > 1 ? this.series : [];
    fill(this.legend, ...named.map(({ label, colour }) => h("span", { "--colour": colour }, label)));
    this.#mark(this.at);
  }

  /** The range of y: what was asked for, or what the data has, with room around it. */
  #heights() {
    if (this.range) return this.range;
    let [low, high] = [this.fromZero ? 0 : Infinity, -Infinity];
    for (const { points, band = [] } of this.series) {
      for (const [, y] of points) [low, high] = [Math.min(low, y), Math.max(high, y)];
      for (const [, from, to] of band) [low, high] = [Math.min(low, from), Math.max(high, to)];
    }
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return [this.fromZero ? low : low - room, high + room];
  }

  #axes(width) {
    const across = ticks(this.y.domain, 4).map((value) => [
      s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(value), y2: this.y(value), class: "grid" }),
      s("text", { x: MARGIN.left - 6, y: this.y(value) + 4, "text-anchor": "end" }, this.tick(value)),
    ]);
    const along = ticks(this.x.domain, Math.max(2, Math.floor(width / 90)))
      .filter(Number.isInteger)
      .map((value) => s("text", { x: this.x(value), y: HEIGHT - 6, "text-anchor": "middle" }, String(value)));
    return s("g", { class: "axes" }, ...across.flat(), ...along);
  }

  #inWords() {
    const parts = this.series.map(({ label, points }) => {
      const [first, last] = [points[0][1], points.at(-1)[1]];
      return `${label}: ${this.format(first)} at first, ${this.format(last)} at iteration ${points.at(-1)[0]}`;
    });
    return `${this.title}. ${parts.join("; ")}. Arrow keys move along the curve.`;
  }

  #point(event) {
    if (!this.x) return; // nothing is drawn yet
    const left = this.svg.getBoundingClientRect().left;
    this.#mark(Math.round(this.x.invert(event.clientX - left)));
  }

  #step(event) {
    if (!this.x) return;
    const [first, last] = this.x.domain;
    const big = Math.max(1, Math.round((last - first) / 10));
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -big, PageUp: big, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.#mark(Math.min(last, Math.max(first, (this.at ?? last) + steps[event.key])));
  }

  /** Shows the values nearest to an iteration; null shows the last ones. */
  #mark(iteration) {
    this.at = iteration;
    if (!this.x) return;
    const nearest = this.series.map((one) => ({ ...one, point: nearestTo(one.points, iteration ?? Infinity) }));
    const values = nearest.map(({ point, label }) =>
      this.series.length > 1 ? `${label} ${this.format(point[1])}` : this.format(point[1]),
    );
    this.readout.textContent = `${iteration === null ? "" : `at ${nearest[0].point[0]}: `}${values.join(" · ")}`;
    if (iteration === null) return fill(this.cursor);
    const x = this.x(nearest[0].point[0]);
    fill(
      this.cursor,
      s("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      nearest.map(({ point, colour }) => s("circle", { cx: this.x(point[0]), cy: this.y(point[1]), r: 3.5, fill: colour })),
    );
  }
}

function scale(domain, range) {
  const [from, to] = domain[0] === domain[1] ? [domain[0] - 0.5, domain[1] + 0.5] : domain;
  const slope = (range[1] - range[0]) / (to - from);
  const map = (value) => range[0] + (value - from) * slope;
  map.domain = [from, to];
  map.invert = (position) => from + (position - range[0]) / slope;
  return map;
}

/** Round values inside a range, about so many of them. */
export function ticks([low, high], wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** At most about four points a pixel column: first, lowest, highest, last. What is drawn looks the same. */
export function thin(points, numColumns) {
  if (points.length <= 4 * numColumns) return points;
  const [from, to] = [points[0][0], points.at(-1)[0]];
  const columns = new Map();
  for (const point of points) {
    const key = Math.floor(((point[0] - from) / (to - from)) * numColumns);
    const column = columns.get(key);
    if (!column) columns.set(key, { first: point, low: point, high: point, last: point });
    else {
      if (point[1] < column.low[1]) column.low = point;
      if (point[1] > column.high[1]) column.high = point;
      column.last = point;
    }
  }
  return [...columns.values()].flatMap(({ first, low, high, last }) =>
    [...new Set([first, low, high, last])].sort((a, b) => a[0] - b[0]),
  );
}

function lineOf({ points, colour, dots }, x, y, width) {
  const path = thin(points, Math.max(1, width)).map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`);
  const line = s("polyline", { points: path.join(" "), stroke: colour, class: "line" });
  const few = points.length <= 60;
  const marks = (dots && few) || points.length === 1 ? points : [];
  return s("g", {}, line, ...marks.map(([px, py]) => s("circle", { cx: x(px), cy: y(py), r: 2.6, fill: colour })));
}

function bandOf({ band, colour }, x, y) {
  if (!band || band.length < 2) return null;
  const above = band.map(([px, , high]) => `${x(px).toFixed(1)},${y(high).toFixed(1)}`);
  const below = band.map(([px, low]) => `${x(px).toFixed(1)},${y(low).toFixed(1)}`).reverse();
  return s("polygon", { points: [...above, ...below].join(" "), fill: colour, class: "band" });
}

function nearestTo(points, x) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  const before = points[low - 1];
  return before && x - before[0] < points[low][0] - x ? before : points[low];
}
