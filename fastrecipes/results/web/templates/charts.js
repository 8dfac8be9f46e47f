"use strict";
// Line charts as inline SVG. A page holds <script type="application/json" id="curves"> of the shape
//   {xs: {key: {epoch: [..], step: [..], seconds: [..], stage: [..]}}, bounds: [{name, colour, at: {epoch: [..], ..}}],
//    charts: [{id, title, log, series: [{name, colour, dash, x: key, y: [number or null, ..]}]}]}
// Series of one name share a place in the legend. There is a <figure class="chart" id="chart-ID"> for each chart; inputs named "axis" choose the axis of all of them.
const Charts = (() => {
  const HIGH = 300, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 36;
  const TITLES = { epoch: "epochs", step: "optimiser steps", seconds: "seconds", stage: "stages (each as wide as the others)" };
  const make = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const element = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const shown = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6 ? String(Number(value.toPrecision(3)).toExponential()).replace("e+", "e") : String(Number(value.toPrecision(4))));

  function ticks(low, high, most) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) found.push(i * step);
    return found;
  }

  function decades(low, high) {
    const every = Math.max(1, Math.ceil((high - low) / 6)), found = [];
    for (let i = Math.ceil(low - 1e-9); i <= high + 1e-9; i += every) found.push(i);
    return found.length ? found : [low, high];
  }

  function range(values, zero) {
    let low = Infinity, high = -Infinity;
    for (const value of values) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low === Infinity) return [0, 1];
    if (zero) low = Math.min(0, low);
    if (low === high) { const pad = Math.abs(low) * 0.1 || 1; return [zero ? low : low - pad, high + pad]; }
    return [low, high];
  }

  // A unit is a pixel, so that words stay readable on a narrow screen.
  function scales(chart, page, axis, hidden, wide) {
    const visible = chart.series.filter((s) => !hidden.has(s.name));
    const height = chart.log ? (y) => (y > 0 ? Math.log10(y) : NaN) : (y) => (y === null ? NaN : y);
    const [left, right] = range(visible.flatMap((s) => page.xs[s.x][axis]), true);
    let [bottom, top] = range(visible.flatMap((s) => s.y.map(height)), false);
    const pad = (top - bottom) * 0.04;
    bottom -= pad; top += pad;
    return {
      left, right, bottom, top, height, wide,
      x: (value) => LEFT + ((value - left) / (right - left)) * (wide - LEFT - RIGHT),
      y: (value) => TOP + ((top - height(value)) / (top - bottom)) * (HIGH - TOP - BOTTOM),
    };
  }

  function frame(svg, scale, chart, axis) {
    const heights = chart.log ? decades(scale.bottom, scale.top).map((p) => 10 ** p) : ticks(scale.bottom, scale.top, 5);
    for (const value of heights) {
      const y = scale.y(value);
      svg.append(make("line", { class: "grid", x1: LEFT, x2: scale.wide - RIGHT, y1: y, y2: y }), make("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, shown(value)));
    }
    for (const value of ticks(scale.left, scale.right, scale.wide / 75)) svg.append(make("text", { x: scale.x(value), y: HIGH - BOTTOM + 16, "text-anchor": "middle" }, shown(value)));
    svg.append(make("text", { x: (LEFT + scale.wide - RIGHT) / 2, y: HIGH - 4, "text-anchor": "middle" }, TITLES[axis] || axis));
  }

  function boundaries(svg, scale, page, axis) {
    const seen = new Set();
    for (const run of page.bounds || []) {
      for (const value of run.at[axis] || []) {
        const key = `${run.colour} ${value}`;
        if (seen.has(key) || value > scale.right) continue;
        seen.add(key);
        const line = make("line", { class: `bound stroke${run.colour % 8}`, x1: scale.x(value), x2: scale.x(value), y1: TOP, y2: HIGH - BOTTOM });
        line.append(make("title", {}, `${run.name}: a stage ends`));
        svg.append(line);
      }
    }
  }

  function lines(svg, scale, chart, page, axis, hidden) {
    for (const series of chart.series) {
      if (hidden.has(series.name)) continue;
      const points = page.xs[series.x][axis];
      let path = "", drawn = 0, last = null;
      series.y.forEach((y, j) => {
        const at = Number.isFinite(scale.height(y)) && Number.isFinite(points[j]);
        if (at) { path += `${last ? "L" : "M"}${scale.x(points[j]).toFixed(1)} ${scale.y(y).toFixed(1)}`; drawn++; }
        last = at ? [points[j], y] : null;
      });
      svg.append(make("path", { class: `line stroke${series.colour % 8} dash${(series.dash || 0) % 4}`, d: path }));
      if (drawn <= 40) series.y.forEach((y, j) => {
        if (Number.isFinite(scale.height(y)) && Number.isFinite(points[j])) svg.append(make("circle", { class: `fill${series.colour % 8}`, cx: scale.x(points[j]), cy: scale.y(y), r: 2.6 }));
      });
    }
  }

  function nearest(points, at) {
    let best = 0;
    points.forEach((value, i) => { if (Math.abs(value - at) < Math.abs(points[best] - at)) best = i; });
    return best;
  }

  function reader(svg, scale, chart, page, axis, hidden, read) {
    const cursor = make("line", { class: "cursor", y1: TOP, y2: HIGH - BOTTOM, visibility: "hidden" });
    svg.append(cursor);
    const stops = [...new Set(chart.series.flatMap((s) => (hidden.has(s.name) ? [] : page.xs[s.x][axis])))].sort((a, b) => a - b);
    let at = -1;
    const show = (value) => {
      cursor.setAttribute("x1", scale.x(value)); cursor.setAttribute("x2", scale.x(value)); cursor.setAttribute("visibility", "visible");
      const told = new Map();
      for (const series of chart.series) {
        const y = hidden.has(series.name) ? null : series.y[nearest(page.xs[series.x][axis], value)];
        if (y !== null && y !== undefined) told.set(series.name, [...(told.get(series.name) || []), shown(y)]);
      }
      read.textContent = `${axis} ${shown(value)}: ${[...told].map(([name, ys]) => `${name} ${ys.join(" / ")}`).join(", ")}`;
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      if (!stops.length) return;
      const value = scale.left + (((event.clientX - box.left) / box.width) * scale.wide - LEFT) / (scale.wide - LEFT - RIGHT) * (scale.right - scale.left);
      at = nearest(stops, value);
      show(stops[at]);
    });
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (move === undefined || !stops.length) return;
      at = Math.max(0, Math.min(stops.length - 1, at + move));
      show(stops[at]);
      event.preventDefault();
    });
  }

  function legend(chart, hidden, redraw) {
    const list = element("ul", "legend");
    const firsts = [...new Map(chart.series.map((s) => [s.name, s]).reverse()).values()].reverse();
    firsts.forEach((series, i) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!hidden.has(series.name)));
      const key = make("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" });
      key.append(make("line", { class: `line stroke${series.colour % 8} dash${(series.dash || 0) % 4}`, x1: 0, x2: 28, y1: 5, y2: 5 }));
      button.append(key, document.createTextNode(series.name));
      button.addEventListener("click", () => { hidden.has(series.name) ? hidden.delete(series.name) : hidden.add(series.name); redraw(i); });
      const item = element("li");
      item.append(button);
      list.append(item);
    });
    return list;
  }

  // Draw one chart into its figure; call it again to draw it anew with other data or another axis.
  function draw(figure, chart, page, axis) {
    const hidden = (figure.hiddenSeries ??= new Set());
    const scale = scales(chart, page, axis, hidden, Math.max(260, figure.clientWidth || 560));
    const svg = make("svg", { viewBox: `0 0 ${scale.wide} ${HIGH}`, role: "img", tabindex: "0", "aria-label": `${chart.title} over ${TITLES[axis] || axis}; arrow keys read values` });
    const read = element("p", "read");
    read.setAttribute("aria-live", "polite");
    frame(svg, scale, chart, axis);
    boundaries(svg, scale, page, axis);
    lines(svg, scale, chart, page, axis, hidden);
    reader(svg, scale, chart, page, axis, hidden, read);
    const redraw = (i) => { draw(figure, chart, page, axis); figure.querySelectorAll(".legend button")[i].focus(); };
    figure.dataset.axis = axis;
    figure.replaceChildren(element("figcaption", "", chart.title), legend(chart, hidden, redraw), svg, read);
  }

  // Draw every chart of the page on the chosen axis.
  function drawAll(page) {
    const chosen = document.querySelector("input[name=axis]:checked");
    for (const chart of page.charts) {
      const figure = document.getElementById(`chart-${chart.id}`);
      if (figure) draw(figure, chart, page, chosen ? chosen.value : "epoch");
    }
  }

  let shownPage = null;

  function begin() {
    const source = document.getElementById("curves");
    if (!source) return;
    shownPage = JSON.parse(source.textContent);
    document.querySelectorAll("input[name=axis]").forEach((input) => input.addEventListener("change", () => drawAll(shownPage)));
    drawAll(shownPage);
  }

  // Draw newer data; a chart that is there for the first time gets a figure.
  function update(page) {
    shownPage = page;
    for (const chart of page.charts) {
      if (document.getElementById(`chart-${chart.id}`)) continue;
      const figure = element("figure", "chart");
      figure.id = `chart-${chart.id}`;
      document.querySelector(".charts").append(figure);
    }
    drawAll(page);
    let wide = document.body.clientWidth;
    addEventListener("resize", () => { if (wide !== document.body.clientWidth) { wide = document.body.clientWidth; drawAll(page); } });
  }

  return { begin, draw, drawAll, update };
})();
Charts.begin();
