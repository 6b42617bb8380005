// heatmap.js: many values over steps, one line of cells each: heads by entropy, weights by norm, layers by bound.

const rampStops = [
  "#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
];
const ramp = (() => {   // 256 packed pixels, dark for low
  const pixels = new Uint32Array(256);
  const part = (stop, k) => parseInt(rampStops[stop].slice(1 + 2 * k, 3 + 2 * k), 16);
  for (let i = 0; i < 256; i++) {
    const at = i / 255 * (rampStops.length - 1), stop = Math.min(Math.floor(at), rampStops.length - 2), f = at - stop;
    const mix = k => Math.round(part(stop, k) * (1 - f) + part(stop + 1, k) * f);
    pixels[i] = 0xff000000 | mix(2) << 16 | mix(1) << 8 | mix(0);
  }
  return pixels;
})();
const nanPixel = 0x605045d6;   // red glass, in no other cell

// rows: [{name, group, label, values, most}]; options: title, unit, empty; zero (colours start at 0), most (values may be shown as a share of row.most:
// {share, plain} are the units of both), text: v -> words at the colour bar, tip: (row, i) -> html.
class HeatMap extends Picture {
  constructor(parent, run, steps, rows, options) {
    super(parent, run, options.title);
    this.steps = steps;
    this.rows = rows;
    this.options = options;
    if (rows.length === 0 || steps.length === 0) return this.nothing(options.empty);
    this.share = !!options.most && rows.every(row => isFiniteNumber(row.most) && row.most > 0);
    this.stretch = false;
    this.tools.append(element("span", {class: "colourbar"}, "<span></span><canvas width=180 height=1></canvas><span></span>"));
    this.button("stretch colours", "colours span the values in view, not the whole possible range", on => { this.stretch = on; });
    if (this.share) this.button(`in ${options.most.plain}`, `instead of the ${options.most.share}`, on => { this.share = !on; });
    this.watch();
  }

  shown(row, i) { return this.share ? row.values[i] / row.most : row.values[i]; }

  // First and last point of the table in view.
  span() {
    return [this.pointAt(this.shape.left, this.steps), this.pointAt(this.shape.right, this.steps)];
  }

  scale() {
    if (!this.stretch && this.share) return [0, 1];
    const [first, last] = this.stretch ? this.span() : [0, this.steps.length - 1];
    let low = Infinity, high = -Infinity;
    for (const row of this.rows) {
      for (let i = first; i <= last; i++) {
        const v = this.shown(row, i);
        if (v < low && v > -Infinity) low = v;
        if (v > high && v < Infinity) high = v;
      }
    }
    if (!this.stretch && this.options.zero) low = 0;
    return low < high ? [low, high] : [low === Infinity ? 0 : low, (low === Infinity ? 0 : low) + 1];
  }

  layout() {
    const width = this.canvas.parentElement.clientWidth;
    const cell = Math.max(3, Math.min(16, Math.floor(720 / this.rows.length)));
    const tops = [], groups = [];
    let y = 4;
    this.rows.forEach((row, i) => {
      const fresh = i === 0 || row.group !== this.rows[i - 1].group;
      if (i > 0 && fresh) y += 3;
      if (fresh) groups.push({name: row.group, top: y});
      tops.push(y);
      y += cell;
      groups[groups.length - 1].bottom = y;
    });
    const context = this.canvas.getContext("2d");
    context.font = "11.5px system-ui, sans-serif";
    const names = Math.min(width * .3, Math.max(...groups.map(g => context.measureText(g.name).width)) + 12);
    return {width, cell, tops, groups, left: Math.max(64, names), right: width - 10, bottom: y, height: y + 22};
  }

  paint(context, shape, low, high) {
    const [bottom, top] = this.scale(), ratio = devicePixelRatio || 1;
    const across = Math.round((shape.right - shape.left) * ratio);
    const image = new ImageData(across, this.rows.length), pixels = new Uint32Array(image.data.buffer);
    const lines = document.createElement("canvas"), columns = this.columnOfPixel(across, low, high);
    lines.width = across;
    lines.height = this.rows.length;
    context.imageSmoothingEnabled = false;
    const colour = v => {
      if (!Number.isFinite(v)) return nanPixel;
      return ramp[Math.round(255 * Math.min(1, Math.max(0, (v - bottom) / (top - bottom))))];
    };
    this.rows.forEach((row, k) => {
      const begin = k * across;
      for (let x = 0; x < across; x++) {
        const same = x > 0 && columns[x] === columns[x - 1];
        pixels[begin + x] = same ? pixels[begin + x - 1] : columns[x] < 0 ? 0 : colour(this.shown(row, columns[x]));
      }
    });
    lines.getContext("2d").putImageData(image, 0, 0);
    shape.tops.forEach((top, k) => context.drawImage(lines, 0, k, across, 1, shape.left, top, shape.right - shape.left, shape.cell));
    this.labels(context, shape);
    this.colourBar(bottom, top);
  }

  // The point of the table under each pixel; -1 where the run has no steps.
  columnOfPixel(across, low, high) {
    const step = this.steps, columns = new Int32Array(across);
    const reach = step.length > 1 ? (step[step.length - 1] - step[0]) / (step.length - 1) : high - low;
    for (let x = 0, i = 0; x < across; x++) {
      const at = low + (x + .5) / across * (high - low);
      while (i + 1 < step.length && step[i + 1] <= at) i++;
      const outside = step.length > 1 && (at < step[0] - reach / 2 || at > step[step.length - 1] + reach);
      columns[x] = outside ? -1 : i;
    }
    return columns;
  }

  labels(context, shape) {
    context.font = "11.5px system-ui, sans-serif";
    context.fillStyle = css("--soft");
    context.textBaseline = "middle";
    context.textAlign = "right";
    let free = -1;
    for (const group of shape.groups) {
      const y = (group.top + group.bottom) / 2;
      if (y - 6 < free) continue;
      context.fillText(group.name, shape.left - 8, y, shape.left - 10);
      free = y + 6;
    }
  }

  colourBar(bottom, top) {
    const [from, canvas, to] = this.panel.querySelector(".colourbar").children;
    const text = v => this.share ? `${number(100 * v, 3)} %` : this.options.text ? this.options.text(v) : number(v, 3);
    from.textContent = text(bottom) + (this.options.most && bottom === 0 ? " · one token" : "");
    to.textContent = text(top) + (this.share && top === 1 ? " · uniform" : "");
    const image = new ImageData(180, 1);
    new Uint32Array(image.data.buffer).set(Array.from({length: 180}, (_, x) => ramp[Math.round(x / 179 * 255)]));
    canvas.getContext("2d").putImageData(image, 0, 0);
    this.broken ??= this.rows.some(row => row.values.some(v => !Number.isFinite(v))) ? "; red where it is not a number" : "";
    const unit = this.options.most ? this.share ? this.options.most.share : this.options.most.plain : this.options.unit;
    this.unit.textContent = unit + this.broken;
  }

  tipOf(x, y) {
    const k = this.shape.tops.findIndex(top => y >= top && y < top + this.shape.cell);
    if (k < 0) return null;
    const row = this.rows[k], i = this.pointAt(x, this.steps);
    return `<b>${escaped(row.group)}</b> ${escaped(row.label)}<br>step ${whole(this.steps[i])} · ${this.options.tip(row, i)}`;
  }
}
