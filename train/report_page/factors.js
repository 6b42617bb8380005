// factors.js: the bound of the network over steps as the stack of its factors: decimal logarithms add up, those below 1 are taken away.

// The stages of a run whose constants multiply to the network's bound: [{name, kind, values}], log10.
function factorsOf(run) {
  const stages = (run.tree && run.tree.parts || []).filter(part => part.name && run.lipschitz.has(part.name));
  return stages.map(({name, kind}) => ({name, kind, values: Float64Array.from(run.lipschitz.get(name), Math.log10)}));
}

// Bands {k, low, high}: upward from 0 where factor k stretches, downward where it shrinks; one that does both has two.
function stacked(factors, points) {
  const bands = [];
  for (const sign of [1, -1]) {
    const side = new Float64Array(points);
    factors.forEach(({values}, k) => {
      if (!values.some(v => Number.isFinite(v) && v * sign > 0)) return;
      const low = side.slice();
      for (let i = 0; i < points; i++) if (Number.isFinite(values[i]) && values[i] * sign > 0) side[i] += values[i];
      bands.push({k, low, high: side.slice()});
    });
  }
  return bands;
}

class FactorChart extends Picture {
  constructor(parent, run, full) {
    super(parent, run, several ? `${swatch(run.index)}${escaped(run.name)}` : "Factors of the bound", full);
    this.factors = factorsOf(run);
    this.steps = run.lipschitz.step;
    const without = this.factors.filter(factor => factor.values.some(v => v === Infinity)).length;
    this.unit.textContent = "log10 of each stage's constant" + (without ? `; ${without} stages without one are left out` : "");
    if (this.factors.length === 0 || this.steps.length === 0) return this.nothing("no tree of the bound, or no layer's bound was written");
    this.bands = stacked(this.factors, this.steps.length);
    this.total = Float64Array.from(this.steps, (_, i) => this.factors.reduce((sum, f) => sum + f.values[i], 0));
    this.watch();
  }

  // Lowest and highest of the stack, over all steps: the scale stays while one moves.
  get range() {
    if (!this.factors.length || !this.bands) return [0, 0];
    const all = this.bands.map(band => extremes(band.high));
    return [Math.min(0, ...all.map(([low]) => low)), Math.max(0, ...all.map(([, high]) => high))];
  }

  layout() {
    const width = this.canvas.parentElement.clientWidth;
    return {width, left: 52, right: width - 10, bottom: 300, height: 322, top: 8};
  }

  colour(k) { return depthColour(this.factors.length > 1 ? k / (this.factors.length - 1) : 0); }

  yOf(v) {
    const [low, high] = this.scale || this.range, {top, bottom} = this.shape;
    return bottom - (v - low) / (high - low || 1) * (bottom - top);
  }

  paint(context, shape, low, high) {
    const first = Math.max(0, this.pointAt(shape.left, this.steps) - 1), last = Math.min(this.steps.length - 1, this.pointAt(shape.right, this.steps) + 1);
    const xs = [];
    for (let i = first; i <= last; i++) xs.push(this.xOf(this.steps[i]));
    if (xs.length === 1) xs.push(xs[0] + 6);   // a run of one step is not invisible
    const at = i => Math.min(first + i, last);
    this.axis(context, shape);
    context.save();
    context.beginPath();
    context.rect(shape.left, 0, shape.right - shape.left, shape.bottom);
    context.clip();
    this.bands.forEach(band => {
      context.beginPath();
      xs.forEach((x, i) => context.lineTo(x, this.yOf(band.high[at(i)])));
      for (let i = xs.length - 1; i >= 0; i--) context.lineTo(xs[i], this.yOf(band.low[at(i)]));
      context.fillStyle = faded(this.colour(band.k), band.k === this.pointed ? 1 : .72);
      context.fill();
      context.strokeStyle = css("--panel");
      context.lineWidth = .6;
      context.stroke();
    });
    context.beginPath();
    xs.forEach((x, i) => context.lineTo(x, this.yOf(this.total[at(i)])));
    context.strokeStyle = css("--ink");
    context.lineWidth = 2;
    context.stroke();
    context.restore();
  }

  axis(context, shape) {
    const [low, high] = this.scale || this.range, every = [.1, .2, .5, 1, 2, 5, 10, 20, 50, 100].find(s => (high - low) / s <= 8) || 500;
    context.font = "11.5px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let v = Math.ceil(low / every) * every; v <= high + 1e-9; v += every) {
      const y = Math.round(this.yOf(v)) + .5;
      context.fillStyle = Math.abs(v) < 1e-9 ? css("--faint") : css("--grid");
      context.fillRect(shape.left, y, shape.right - shape.left, 1);
      context.fillStyle = css("--soft");
      context.fillText(String(Number(v.toFixed(1))), shape.left - 8, y);
    }
  }

  tipOf(x, y) {
    const i = this.pointAt(x, this.steps);
    const found = this.bands.find(({low, high}) => {
      const [a, b] = [this.yOf(low[i]), this.yOf(high[i])];
      return a !== b && y >= Math.min(a, b) && y <= Math.max(a, b);
    });
    const k = found ? found.k : -1;
    if (k !== this.pointed) {
      this.pointed = k;
      this.draw();
    }
    const total = `network <b>${Number.isFinite(this.total[i]) ? power(this.total[i]) : "unbounded"}</b>`;
    if (k < 0) return `step ${whole(this.steps[i])} · ${total}`;
    const {name, kind, values} = this.factors[k];
    const share = Number.isFinite(this.total[i]) ? `, ${number(100 * values[i] / this.total[i], 3)} % of the logarithm` : "";
    return `<b>${escaped(name)}</b> ${escaped(kind)}<br>step ${whole(this.steps[i])} · times <b>${power(values[i])}</b>${share}<br>${total}`;
  }
}

function factors(main) {
  const grid = section(main, "factors", "Factors of the bound", "The network's bound is the product of its stages' constants: " +
    "each band is the logarithm of one, stages from the first (blue) to the last (red); below zero stands what shrinks. The line is their sum.");
  const made = runs.map(run => new FactorChart(grid, run, !several)), ranges = made.map(chart => chart.range);
  const scale = [Math.min(...ranges.map(r => r[0])), Math.max(...ranges.map(r => r[1]))];
  for (const chart of made) if (chart.bands) chart.scale = [scale[0] * 1.04, scale[1] * 1.04];   // one scale: runs are compared
}
