// heatmap.js: the entropy of every attention head over steps, one line of cells a head.

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

class HeatMap {
  constructor(parent, run) {
    this.run = run;
    this.table = run.entropy;
    this.heads = this.table.names.filter(name => name !== "step").map(name => {
      const layer = name.slice(0, name.lastIndexOf("."));
      const head = name.slice(name.lastIndexOf(".") + 1);
      return {name, layer, head, most: run.entropyMax[layer], values: this.table.get(name)};
    });
    this.share = this.heads.length > 0 && this.heads.every(h => isFiniteNumber(h.most) && h.most > 0);
    this.stretch = false;
    this.panel = element("section", {class: "panel full"}, `
      <div class="panel-head"><h3>Entropy of every head</h3><span class="unit"></span>
        <span class="tools"><span class="colourbar"><span></span><canvas width="180" height="1"></canvas><span></span>
        </span></span></div>
      <div class="heat"><canvas></canvas><div class="drag" hidden></div><div class="tip" hidden></div></div>`);
    parent.append(this.panel);
    this.canvas = this.panel.querySelector(".heat canvas");
    this.tip = this.panel.querySelector(".tip");
    this.mark = this.panel.querySelector(".drag");
    const tools = this.panel.querySelector(".tools");
    if (this.heads.length === 0 || this.table.points === 0) {
      this.panel.querySelector(".heat").innerHTML = `<div class="empty short">no attention head was measured</div>`;
      tools.remove();
      return;
    }
    const stretched = "colours span the values in view, not the whole possible range";
    this.button(tools, "stretch colours", stretched, on => { this.stretch = on; });
    const nats = "instead of the share of the largest possible entropy, ln(tokens)";
    if (this.share) this.button(tools, "in nats", nats, on => { this.share = !on; });
    this.canvas.onmousemove = event => this.hover(event);
    this.canvas.onmouseleave = () => { this.tip.hidden = true; };
    this.canvas.onmousedown = event => this.startDrag(event);
    this.canvas.ondblclick = () => view.set(null);
    this.follow = () => this.draw();
    view.followers.add(this.follow);
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => {
      if (this.canvas.parentElement.clientWidth !== this.shape?.width) this.draw();
    }));
    this.resized.observe(this.panel);
  }

  remove() {
    view.followers.delete(this.follow);
    if (this.resized) this.resized.disconnect();
  }

  button(tools, text, title, change) {
    const node = element("button", {"aria-pressed": false, title}, text);
    node.onclick = () => {
      const on = node.getAttribute("aria-pressed") !== "true";
      node.setAttribute("aria-pressed", on);
      change(on);
      this.draw();
    };
    tools.append(node);
  }

  shown(head, i) { return this.share ? head.values[i] / head.most : head.values[i]; }

  // First and last point of the table in view.
  span() {
    const [low, high] = view.current(), step = this.table.step;
    let first = 0, last = step.length - 1;
    while (first < last && step[first + 1] <= low) first++;
    while (last > first && step[last] > high) last--;
    return [first, last];
  }

  scale(first, last) {
    if (!this.stretch && this.share) return [0, 1];
    let low = Infinity, high = -Infinity;
    for (const head of this.heads) {
      for (let i = first; i <= last; i++) {
        const v = this.shown(head, i);
        if (v < low) low = v;
        if (v > high) high = v;
      }
    }
    if (!this.stretch) low = 0;
    return low < high ? [low, high] : [low === Infinity ? 0 : low, (low === Infinity ? 0 : low) + 1];
  }

  layout() {
    const width = this.canvas.parentElement.clientWidth;
    const cell = Math.max(3, Math.min(16, Math.floor(720 / this.heads.length)));
    const tops = [], groups = [];
    let y = 4;
    this.heads.forEach((head, i) => {
      if (i > 0 && head.layer !== this.heads[i - 1].layer) y += 3;
      if (i === 0 || head.layer !== this.heads[i - 1].layer) groups.push({layer: head.layer, top: y});
      tops.push(y);
      y += cell;
      groups[groups.length - 1].bottom = y;
    });
    const context = this.canvas.getContext("2d");
    context.font = "11.5px system-ui, sans-serif";
    const names = Math.min(width * .3, Math.max(...groups.map(g => context.measureText(g.layer).width)) + 12);
    return {width, cell, tops, groups, left: Math.max(64, names), right: width - 10, bottom: y, height: y + 22};
  }

  draw() {
    const shape = this.shape = this.layout(), context = this.canvas.getContext("2d");
    if (shape.width < 50) return;
    const ratio = devicePixelRatio || 1, [low, high] = view.current(), [first, last] = this.span();
    const [bottom, top] = this.range = this.scale(first, last);
    this.canvas.width = shape.width * ratio;
    this.canvas.height = shape.height * ratio;
    this.canvas.style.height = shape.height + "px";
    context.scale(ratio, ratio);
    const across = Math.round((shape.right - shape.left) * ratio);
    const image = new ImageData(across, 1), pixels = new Uint32Array(image.data.buffer);
    const row = document.createElement("canvas");
    row.width = across;
    row.height = 1;
    const columns = this.columnOfPixel(across, low, high);
    context.imageSmoothingEnabled = false;
    const colour = v => {
      if (!Number.isFinite(v)) return nanPixel;
      return ramp[Math.round(255 * Math.min(1, Math.max(0, (v - bottom) / (top - bottom))))];
    };
    this.heads.forEach((head, k) => {
      for (let x = 0; x < across; x++) pixels[x] = columns[x] < 0 ? 0 : colour(this.shown(head, columns[x]));
      row.getContext("2d").putImageData(image, 0, 0);
      context.drawImage(row, shape.left, shape.tops[k], shape.right - shape.left, shape.cell);
    });
    this.labels(context, shape, low, high);
    this.colourBar(bottom, top);
  }

  // The point of the table under each pixel; -1 where the run has no steps.
  columnOfPixel(across, low, high) {
    const step = this.table.step, columns = new Int32Array(across);
    const reach = step.length > 1 ? (step[step.length - 1] - step[0]) / (step.length - 1) : high - low;
    for (let x = 0, i = 0; x < across; x++) {
      const at = low + (x + .5) / across * (high - low);
      while (i + 1 < step.length && step[i + 1] <= at) i++;
      const outside = step.length > 1 && (at < step[0] - reach / 2 || at > step[step.length - 1] + reach);
      columns[x] = outside ? -1 : i;
    }
    return columns;
  }

  labels(context, shape, low, high) {
    context.font = "11.5px system-ui, sans-serif";
    context.fillStyle = css("--soft");
    context.textBaseline = "middle";
    context.textAlign = "right";
    let free = -1;
    for (const group of shape.groups) {
      const y = (group.top + group.bottom) / 2;
      if (y - 6 < free) continue;
      context.fillText(group.layer, shape.left - 8, y, shape.left - 10);
      free = y + 6;
    }
    context.textBaseline = "top";
    context.textAlign = "center";
    const wide = shape.right - shape.left;
    const raw = (high - low) / Math.max(2, wide / 130), power = 10 ** Math.floor(Math.log10(raw));
    const unit = Math.max(1, [1, 2, 5, 10].map(m => m * power).find(u => u >= raw));
    for (let at = Math.ceil(low / unit) * unit; at <= high; at += unit) {
      context.fillText(tick(at), shape.left + (at - low) / (high - low) * wide, shape.bottom + 6);
    }
  }

  colourBar(bottom, top) {
    const [from, canvas, to] = this.panel.querySelector(".colourbar").children;
    const text = v => this.share ? `${number(100 * v, 3)} %` : number(v, 3);
    from.textContent = text(bottom) + (bottom === 0 ? " · one token" : "");
    to.textContent = text(top) + (this.share && top === 1 ? " · uniform" : "");
    const image = new ImageData(180, 1);
    new Uint32Array(image.data.buffer).set(Array.from({length: 180}, (_, x) => ramp[Math.round(x / 179 * 255)]));
    canvas.getContext("2d").putImageData(image, 0, 0);
    const broken = this.heads.some(head => head.values.some(Number.isNaN)) ? "; red where it is not a number" : "";
    const unit = this.share ? "share of the largest possible, ln(tokens)" : "nats";
    this.panel.querySelector(".unit").textContent = unit + broken;
  }

  stepAt(x) {
    const [low, high] = view.current();
    return low + (x - this.shape.left) / (this.shape.right - this.shape.left) * (high - low);
  }

  hover(event) {
    const {shape} = this, x = event.offsetX, y = event.offsetY;
    const k = shape.tops.findIndex(top => y >= top && y < top + shape.cell);
    if (k < 0 || x < shape.left || x > shape.right) { this.tip.hidden = true; return; }
    const head = this.heads[k], at = this.stepAt(x);
    let i = 0;
    while (i + 1 < this.table.points && this.table.step[i + 1] <= at) i++;
    const value = head.values[i], percent = number(100 * value / head.most, 3);
    const share = isFiniteNumber(head.most) ? ` · ${percent} % of ${number(head.most, 3)}` : "";
    this.tip.innerHTML = `<b>${escaped(head.layer)}</b> head ${escaped(head.head)}<br>` +
      `step ${whole(this.table.step[i])} · <b>${number(value)}</b> nats${share}`;
    this.tip.hidden = false;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = (x + 16 + wide > shape.width ? x - wide - 12 : x + 16) + "px";
    this.tip.style.top = y + 14 + "px";
  }

  startDrag(down) {
    const from = Math.max(this.shape.left, down.offsetX), box = this.canvas.getBoundingClientRect();
    const place = event => Math.min(this.shape.right, Math.max(this.shape.left, event.clientX - box.left));
    const move = event => {
      const to = place(event);
      const edges = {left: Math.min(from, to), width: Math.abs(to - from), top: 0, height: this.shape.bottom};
      for (const [side, pixels] of Object.entries(edges)) this.mark.style[side] = pixels + "px";
      this.mark.hidden = false;
    };
    const up = event => {
      removeEventListener("mousemove", move);
      removeEventListener("mouseup", up);
      this.mark.hidden = true;
      const to = place(event);
      if (Math.abs(to - from) > 6) view.set([this.stepAt(Math.min(from, to)), this.stepAt(Math.max(from, to))]);
    };
    addEventListener("mousemove", move);
    addEventListener("mouseup", up);
  }
}
