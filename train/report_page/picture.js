// picture.js: what drawings over steps share that are no line charts: the steps in view, zoom by dragging, the tip under the pointer.

// parent, title; a subclass has layout() -> {width, left, right, bottom, height}, paint(context, shape, low, high) and tipOf(x, y) -> html or null.
class Picture {
  constructor(parent, run, title, full = true) {
    this.run = run;
    this.panel = element("section", {class: "panel" + (full ? " full" : "")}, `
      <div class="panel-head"><h3>${title}</h3><span class="unit"></span><span class="tools"></span></div>
      <div class="heat"><canvas></canvas><div class="drag" hidden></div><div class="tip" hidden></div></div>`);
    parent.append(this.panel);
    this.canvas = this.panel.querySelector(".heat canvas");
    this.tip = this.panel.querySelector(".tip");
    this.mark = this.panel.querySelector(".drag");
    this.tools = this.panel.querySelector(".tools");
    this.unit = this.panel.querySelector(".unit");
  }

  nothing(text) {
    this.panel.querySelector(".heat").innerHTML = `<div class="empty short">${text}</div>`;
    this.tools.remove();
  }

  watch() {
    this.canvas.onmousemove = event => this.hover(event);
    this.canvas.onmouseleave = () => { this.tip.hidden = true; };
    this.canvas.onmousedown = event => this.startDrag(event);
    this.canvas.ondblclick = () => view.set(null);
    pictures.add(this);
    watcher.observe(this.panel);
    owners.set(this.panel, this);
    this.canvas.style.height = this.layout().height + "px";   // holds its place until it comes into sight
    this.follow();
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => {
      if (this.canvas.parentElement.clientWidth !== this.shape?.width) this.follow();
    }));
    this.resized.observe(this.panel);
  }

  remove() {
    pictures.delete(this);
    watcher.unobserve(this.panel);
    if (this.resized) this.resized.disconnect();
  }

  button(text, title, change) {
    const node = element("button", {"aria-pressed": false, title}, text);
    node.onclick = () => {
      const on = node.getAttribute("aria-pressed") !== "true";
      node.setAttribute("aria-pressed", on);
      change(on);
      this.draw();
    };
    this.tools.append(node);
  }

  follow() {
    this.stale = !this.visible;
    if (!this.stale) this.draw();
  }

  draw() {
    const shape = this.shape = this.layout(), context = this.canvas.getContext("2d");
    this.stale = false;
    if (shape.width < 50) return;
    const ratio = devicePixelRatio || 1, [low, high] = view.current();
    this.canvas.width = shape.width * ratio;
    this.canvas.height = shape.height * ratio;
    this.canvas.style.height = shape.height + "px";
    context.scale(ratio, ratio);
    this.paint(context, shape, low, high);
    this.stepMarks(context, shape, low, high);
    markEvents(context, {x: shape.left, w: shape.right - shape.left, y: 0, h: shape.bottom}, [this.run], step => this.xOf(step));
  }

  stepMarks(context, shape, low, high) {
    context.font = "11.5px system-ui, sans-serif";
    context.fillStyle = css("--soft");
    context.textBaseline = "top";
    context.textAlign = "center";
    const wide = shape.right - shape.left;
    const raw = (high - low) / Math.max(2, wide / 130), power = 10 ** Math.floor(Math.log10(raw));
    const unit = Math.max(1, [1, 2, 5, 10].map(m => m * power).find(u => u >= raw));
    for (let at = Math.ceil(low / unit) * unit; at <= high; at += unit) context.fillText(tick(at), this.xOf(at), shape.bottom + 6);
  }

  xOf(step) {
    const [low, high] = view.current();
    return this.shape.left + (step - low) / (high - low) * (this.shape.right - this.shape.left);
  }

  stepAt(x) {
    const [low, high] = view.current();
    return low + (x - this.shape.left) / (this.shape.right - this.shape.left) * (high - low);
  }

  // The last point of a table's steps at or before what x stands for.
  pointAt(x, steps) {
    const at = this.stepAt(x);
    let low = 0, high = steps.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (steps[middle] <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  hover(event) {
    const {shape} = this, x = event.offsetX, y = event.offsetY;
    const html = x < shape.left || x > shape.right ? null : this.tipOf(x, y);
    this.tip.hidden = html === null;
    if (html === null) return;
    this.tip.innerHTML = html;
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

const pictures = new Set();
view.followers.add(() => { for (const picture of pictures) picture.follow(); });
dark.addEventListener("change", () => { for (const picture of pictures) picture.follow(); });
addEventListener("beforeprint", () => {   // paper shows all of the page
  for (const drawing of [...charts, ...pictures]) {
    drawing.visible = true;
    drawing.follow();
  }
});
