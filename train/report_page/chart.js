// chart.js: line charts over steps, all zoomed together.

const dark = matchMedia("(prefers-color-scheme: dark)");
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const palette = {
  light: ["#2f62d0", "#d3621f", "#158a63", "#8f4bc0", "#c02b4e", "#8a7410", "#2391ab", "#667085"],
  dark: ["#7ea6ff", "#ff9c5f", "#4fcf9f", "#c595f0", "#ff7f9b", "#d8bf52", "#5cc8e2", "#a5b0bf"],
};
const runColour = index => (dark.matches ? palette.dark : palette.light)[index % 8];

// From the first layer to the last: blue, teal, green, amber, rose.
function depthColour(fraction) {
  const hue = 225 - 225 * fraction + (fraction > .85 ? (fraction - .85) * -160 : 0);
  return `hsl(${Math.round((hue + 360) % 360)}, ${dark.matches ? 62 : 60}%, ${dark.matches ? 62 : 44}%)`;
}

const probe = document.createElement("canvas").getContext("2d");

function faded(colour, alpha) {
  probe.fillStyle = colour;
  const hex = probe.fillStyle;
  const part = at => parseInt(hex.slice(at, at + 2), 16);
  return `rgba(${part(1)},${part(3)},${part(5)},${alpha})`;
}

function element(tag, attributes = {}, html = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.innerHTML = html;
  return node;
}

const charts = new Set(), owners = new WeakMap();
let following = false;
const watcher = new IntersectionObserver(seen => {
  for (const {target, isIntersecting} of seen) {
    const chart = owners.get(target);
    chart.visible = isIntersecting;
    if (isIntersecting && chart.stale) chart.follow();
  }
}, {rootMargin: "100px"});

const warnings = ["entropy_collapse", "norm_explosion", "non_finite"], unmarked = ["start", "damaged_image"];
const marksOf = run => run.events.filter(([step, kind]) => isFiniteNumber(step) && !unmarked.includes(kind));

// A dotted line and a triangle where something happened, once a pixel; area is {x, y, w, h}, xOf(step) the place of a step.
function markEvents(canvas, area, runs, xOf) {
  const taken = new Set();
  canvas.save();
  for (const run of runs) {
    for (const [step, kind] of marksOf(run)) {
      const x = Math.round(xOf(step)) + .5;
      if (x < area.x || x > area.x + area.w || taken.has(x)) continue;
      taken.add(x);
      canvas.strokeStyle = canvas.fillStyle = warnings.includes(kind) ? css("--warn") : css("--faint");
      canvas.lineWidth = 1;
      canvas.setLineDash([2, 3]);
      canvas.beginPath();
      canvas.moveTo(x, area.y);
      canvas.lineTo(x, area.y + area.h);
      canvas.stroke();
      canvas.beginPath();
      canvas.moveTo(x - 4, area.y);
      canvas.lineTo(x + 4, area.y);
      canvas.lineTo(x, area.y + 6);
      canvas.fill();
    }
  }
  canvas.restore();
}

// Words about what happened within a few pixels of a step.
function eventsNear(runs, step, stepsPerPixel) {
  const near = runs.flatMap(run => marksOf(run).filter(([at]) => Math.abs(at - step) <= 4 * stepsPerPixel).map(event => [run, ...event]));
  return near.slice(0, 3).map(([run, at, kind, layer]) =>
    `<span class="${warnings.includes(kind) ? "alarm-text" : ""}">▾ ${escaped(kind.replaceAll("_", " "))} ${escaped(layer)}${several ? ` (${escaped(run.name)})` : ""}</span>`).join("");
}

// series: [{label, step, values, colour: () => css colour, width, dash, points, alpha, quiet}]
// options: title, unit, run (whose events are marked; those of all runs unless given), log, power (values are powers of ten), tall, many (only the curve under the pointer is named), shade: [[from, to, text]], empty
class Chart {
  constructor(parent, options, makeSeries) {
    this.options = options;
    this.makeSeries = makeSeries;
    this.marked = options.run ? [options.run] : runs;
    this.log = !!options.log;
    this.panel = element("section", {class: "panel"});
    this.head = element("div", {class: "panel-head"});
    this.head.append(element("h3", {}, options.title), element("span", {class: "unit"}, options.unit || ""));
    this.tools = element("span", {class: "tools"});
    this.head.append(this.tools);
    this.legend = element("div", {class: "legend"});
    this.area = element("div", {class: "chart" + (options.tall ? " tall" : "")});
    this.panel.append(this.head, this.legend, this.area);
    parent.append(this.panel);
    if (options.extra) this.tools.append(options.extra);
    this.logButton = element("button", {"aria-pressed": this.log, title: "logarithmic scale"}, "log");
    this.logButton.onclick = () => {
      this.log = !this.log;
      this.logButton.setAttribute("aria-pressed", this.log);
      this.redraw();
    };
    if (!options.power) this.tools.append(this.logButton);
    this.keep = () => true;
    charts.add(this);
    watcher.observe(this.panel);
    owners.set(this.panel, this);
    this.redraw();
  }

  // Made anew; out of sight, when it comes into sight: hundreds of curves that nobody looks at would keep the page waiting.
  redraw() {
    this.undrawn = true;
    this.follow();
  }

  draw() {
    this.undrawn = false;
    if (this.graph) this.graph.destroy();
    this.graph = null;
    this.series = this.makeSeries().filter(s => s.values.length > 0);
    const usable = v => Number.isFinite(v) && (!this.log || v > 0);
    const drawable = this.series.some(s => s.values.some(usable));
    this.logButton.disabled = !drawable && !this.log;
    if (!drawable) {
      this.area.innerHTML = `<div class="empty"><span>${this.options.empty || "nothing measured yet"}</span></div>`;
      this.legend.innerHTML = "";
      return;
    }
    this.area.innerHTML = "";
    this.dense = this.series.length > 24;
    this.byLabel = new Map(this.series.map(s => [s.label, s]));
    this.graph = new Dygraph(this.area, this.rows(), this.graphOptions());
    this.stale = false;
  }

  // One row a step that any curve has; null where a curve has no value there, NaN where it has one that is no number.
  rows() {
    const shared = this.series.every(s => s.step === this.series[0].step);
    const usable = v => Number.isFinite(v) && (!this.log || v > 0) ? v : NaN;
    if (shared) {
      return Array.from(this.series[0].step, (x, i) => [x, ...this.series.map(s => usable(s.values[i]))]);
    }
    const rows = new Map();
    this.series.forEach((s, k) => s.values.forEach((v, i) => {
      if (!rows.has(s.step[i])) rows.set(s.step[i], [s.step[i], ...this.series.map(() => null)]);
      rows.get(s.step[i])[k + 1] = usable(v);
    }));
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  }

  graphOptions() {
    const perSeries = {};
    for (const s of this.series) {
      perSeries[s.label] = {
        strokeWidth: s.width || 1.6,
        strokePattern: s.dash || null,
        drawPoints: !!s.points || s.values.length < 3,   // a line of one point would not be seen
        pointSize: s.points || 2.5,
        highlightCircleSize: s.quiet ? 0 : 3.5,
      };
    }
    const small = {axisLineColor: css("--line"), gridLineColor: css("--grid"), gridLineWidth: 1};
    return {
      labels: ["step", ...this.series.map(s => s.label)],
      visibility: this.series.map(s => this.keep(s.label)),
      colors: this.series.map(s => s.alpha ? faded(s.colour(), s.alpha) : s.colour()),
      series: perSeries,
      legend: "always",
      labelsDiv: this.legend,
      legendFormatter: data => this.legendText(data),
      logscale: this.log,
      connectSeparatedPoints: true,
      dateWindow: view.current(),
      drawCallback: (graph, first) => this.drawn(graph, first),
      underlayCallback: (canvas, area, graph) => this.underlay(canvas, area, graph),
      interactionModel: {...Dygraph.defaultInteractionModel, dblclick: () => this.reset()},
      highlightSeriesOpts: this.options.many ? {strokeWidth: 2.6, highlightCircleSize: 3.5} : null,
      highlightSeriesBackgroundAlpha: this.options.many ? .22 : 1,
      highlightSeriesBackgroundColor: css("--panel"),
      animatedZooms: false,
      rightGap: 10,
      yRangePad: 8,
      axes: {
        x: {...small, drawGrid: false, axisLabelFormatter: v => tick(v), pixelsPerLabel: 80, axisLabelWidth: 70},
        y: {
          ...small,
          axisLineColor: "transparent",
          axisLabelFormatter: v => this.options.power ? power(v) : tick(v),
          axisLabelWidth: 54,
          pixelsPerLabel: 34,
          ...(this.log ? {ticker: powersOfTen} : {}),
        },
      },
    };
  }

  legendText(data) {
    const item = (s, value) => {
      const line = `<i class="${s.dash ? "dash" : ""}" style="border-color:${s.colour()}"></i>`;
      return `<span>${line}${escaped(s.label)}${value === undefined ? "" : ` <b>${this.options.power ? power(value) : number(value)}</b>`}</span>`;
    };
    if (data.x === undefined || data.x === null) {
      if (this.options.many) return `<span>${this.options.many}</span>`;
      return this.series.filter(s => !s.quiet).map(s => item(s)).join("");
    }
    const at = `<span>step <b>${whole(data.x)}</b></span>`;
    const chosen = data.series.filter(d => d.isVisible && d.y !== undefined && d.y !== null && !Number.isNaN(d.y));
    const shown = chosen.filter(d => this.options.many ? d.isHighlighted : !this.byLabel.get(d.label).quiet);
    const [low, high] = this.graph ? this.graph.xAxisRange() : [0, 0];
    return at + eventsNear(this.marked, data.x, (high - low) / (this.area.clientWidth || 1)) + shown.map(d => item(this.byLabel.get(d.label), d.y)).join("");
  }

  underlay(canvas, area, graph) {
    for (const [from, to, text] of this.options.shade || []) {
      const left = Math.max(area.x, graph.toDomXCoord(from)), right = Math.min(area.x + area.w, graph.toDomXCoord(to));
      if (right < left - 1) continue;
      canvas.fillStyle = css("--shade");
      canvas.fillRect(left, area.y, Math.max(2, right - left), area.h);
      if (right - left < 6.5 * text.length + 10) continue;
      canvas.fillStyle = css("--warn");
      canvas.font = "11.5px system-ui, sans-serif";
      canvas.fillText(text, left + 7, area.y + 15);
    }
    markEvents(canvas, area, this.marked, step => graph.toDomXCoord(step));
  }

  drawn(graph, first) {
    if (first || following || !this.graph) return;
    const range = graph.xAxisRange(), now = view.current();
    const same = Math.abs(range[0] - now[0]) + Math.abs(range[1] - now[1]) < 1e-9 * Math.max(1, Math.abs(range[1]));
    if (!same) view.set(range);
  }

  // Draws the steps in view; out of sight, when it comes into sight.
  follow() {
    this.stale = !this.visible;
    if (this.stale) return;
    if (this.undrawn) this.draw();
    if (!this.graph) return;
    const [from, to] = this.graph.xAxisRange(), [low, high] = view.current();
    if (from === low && to === high) return;   // it was this chart that moved
    following = true;
    this.graph.updateOptions({dateWindow: view.current()});
    following = false;
  }

  reset() {
    if (this.graph) this.graph.updateOptions({valueRange: [null, null]});
    view.set(null);
  }

  point(label) {
    if (!this.graph) return;
    if (label === null) return this.graph.clearSelection();
    const to = view.current()[1];
    let row = this.graph.numRows() - 1;
    while (row > 0 && this.graph.getValue(row, 0) > to) row--;
    this.graph.setSelection(row, label);
  }

  show(keep) {
    this.keep = keep;
    if (this.graph) this.graph.updateOptions({visibility: this.series.map(s => keep(s.label))});
  }

  remove() {
    if (this.graph) this.graph.destroy();
    watcher.unobserve(this.panel);
    charts.delete(this);
  }
}

// A logarithmic axis from low to high: whole powers of ten, or 1, 2, 5 of each where there are few.
function powersOfTen(low, high, pixels) {
  const from = Math.log10(low), to = Math.log10(high), room = Math.max(2, pixels / 34);
  const every = Math.max(1, Math.ceil((to - from) / room)), marks = (to - from) * 3 <= room ? [1, 2, 5] : [1];
  const ticks = [];
  for (let e = Math.floor(from / every) * every; e <= to; e += every) {
    for (const m of marks) {
      const v = m * 10 ** e;
      if (v >= low && v <= high) ticks.push({v, label: tick(v)});
    }
  }
  return ticks;
}

function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e9 || (size < 1e-4 && size > 0)) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  if (size >= 1e6) return Number((value / 1e6).toPrecision(4)) + "M";
  if (size >= 1e4) return Number((value / 1e3).toPrecision(4)) + "k";
  return String(Number(value.toPrecision(6)));
}

// Charts of many curves take long to draw: they follow when the steps in view have come to rest.
let rest = 0;
view.followers.add(() => {
  for (const chart of charts) if (!chart.dense) chart.follow();
  clearTimeout(rest);
  rest = setTimeout(() => { for (const chart of charts) if (chart.dense) chart.follow(); }, 120);
});
dark.addEventListener("change", () => { for (const chart of charts) chart.redraw(); });
