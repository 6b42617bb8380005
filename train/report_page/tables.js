// tables.js: last values by layer, sortable, and the bounds as the tree of layers.

function sparkline(values, width = 84, height = 16) {
  const [low, high] = extremes(values);
  if (!Number.isFinite(low)) return "";
  const count = Math.min(values.length, 56), pieces = [];
  let line = [];
  for (let i = 0; i < count; i++) {
    const v = values[Math.round(i / Math.max(1, count - 1) * (values.length - 1))];
    if (!Number.isFinite(v)) {
      pieces.push(line);
      line = [];
      continue;
    }
    const x = i / Math.max(1, count - 1) * width;
    const y = high > low ? 1.5 + (1 - (v - low) / (high - low)) * (height - 3) : height / 2;
    line.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  pieces.push(line);
  const points = piece => piece.length > 1 ? piece.join(" ") : piece[0] + " " + piece[0];
  const drawn = pieces.filter(p => p.length > 0).map(p => `<polyline points="${points(p)}"/>`);
  return `<svg width="${width}" height="${height}" aria-hidden="true">${drawn.join("")}</svg>`;
}

const layerCell = (name, kind = "", indent = 0, toggle = "") =>
  `<td title="${escaped(name)}"><span style="padding-left:${indent * 13}px">${toggle}` +
  `<span class="name">${escaped(name)}</span><span class="kind">${escaped(kind)}</span></span></td>`;

const numberCell = value => `<td class="${Number.isFinite(value) ? "" : "alarm-text"}">${number(value)}</td>`;

function tableHtml(heads, rows) {
  return `<table><thead><tr>${heads.join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
}

// A panel with a title, a place for tools and a body: the elements to fill.
function panelOf(parent, title, unit = "", full = false) {
  const panel = element("section", {class: full ? "panel full" : "panel"});
  const head = element("div", {class: "panel-head"}), tools = element("span", {class: "tools"});
  const body = element("div", {class: "scroll"});
  head.append(element("h3", {}, title), element("span", {class: "unit"}, unit), tools);
  if (title) panel.append(head);
  panel.append(body);
  parent.append(panel);
  return {panel, tools, body};
}

// A panel with rows {name, values, kind}: last, first, lowest, highest, curve. Rows point at the curve of their name.
function valueTable(parent, what, rows, chart) {
  const {panel, tools, body} = panelOf(parent, "Values");
  const entries = rows.map((row, order) => {
    const [low, high] = extremes(row.values);
    return {...row, order, low, high, first: row.values[0], last: row.values[row.values.length - 1]};
  });
  const heads = [["order", what], ["last", "last"], ["first", "first"], ["low", "lowest"], ["high", "highest"]];
  const sort = {key: "order", down: false};
  const hint = `filter by ${what}`, search = element("input", {type: "search", placeholder: hint, "aria-label": hint});
  tools.append(search);
  // What is no number is what one looks for: it ranks above all.
  const rank = v => Number.isNaN(v) || v === undefined ? Infinity : v;
  const compare = (a, b) => (rank(a[sort.key]) > rank(b[sort.key])) - (rank(a[sort.key]) < rank(b[sort.key]));
  const fill = () => {
    const wanted = search.value.toLowerCase();
    const kept = entries.filter(e => e.name.toLowerCase().includes(wanted));
    kept.sort((a, b) => (compare(a, b) || b.order - a.order) * (sort.down ? -1 : 1));
    const arrow = key => key !== sort.key || key === "order" ? "" : sort.down ? " ↓" : " ↑";
    const head = heads.map(([key, text]) => `<th class="sorts" data-key="${key}">${text}${arrow(key)}</th>`);
    const rows = kept.map(e => `<tr data-name="${escaped(e.name)}">${layerCell(e.name, e.kind)}` +
      [e.last, e.first, e.low, e.high].map(numberCell).join("") +
      `<td class="spark">${sparkline(e.values)}</td></tr>`);
    body.innerHTML = tableHtml([...head, "<th>over steps</th>"], rows);
  };
  panel.onclick = event => {
    const key = event.target.dataset && event.target.dataset.key;
    if (!key) return;
    sort.down = sort.key === key ? !sort.down : key !== "order";
    sort.key = key;
    fill();
  };
  search.oninput = () => {
    fill();
    chart.show(label => label.toLowerCase().includes(search.value.toLowerCase()));
  };
  pointAt(panel, chart);
  fill();
}

function pointAt(panel, chart) {
  let shown = null;
  panel.onmouseover = event => {
    const row = event.target.closest("tr[data-name]"), name = row ? row.dataset.name : null;
    if (name === shown) return;
    shown = name;
    chart.point(name);
  };
  panel.onmouseleave = () => { shown = null; chart.point(null); };
}

// Each name under the longest other name that it continues.
function layerTree(names) {
  const nodes = new Map(names.map(name => [name, {name, short: name, depth: 0, children: []}])), roots = [];
  for (const node of nodes.values()) {
    let cut = node.name.lastIndexOf(".");
    while (cut > 0 && !nodes.has(node.name.slice(0, cut))) cut = node.name.lastIndexOf(".", cut - 1);
    const parent = cut > 0 ? nodes.get(node.name.slice(0, cut)) : null;
    if (parent) node.short = node.name.slice(cut + 1);
    (parent ? parent.children : roots).push(node);
  }
  const ordered = [];
  const walk = (node, depth, above) => {
    node.depth = depth;
    node.above = above;
    ordered.push(node);
    for (const child of node.children) walk(child, depth + 1, [...above, node.name]);
  };
  for (const root of roots) walk(root, 0, []);
  return ordered;
}

// A bar from 1 on a logarithmic scale: to the right what may grow, to the left what must shrink.
function boundMeter(value, most) {
  if (!Number.isFinite(value)) return `<span class="meter"><i class="all" style="left:0;right:0"></i></span>`;
  const length = most > 0 && value > 0 ? Math.min(1, Math.abs(Math.log10(value)) / most) * 50 : 0;
  const left = value >= 1 ? 50 : 50 - length;
  return `<span class="meter"><i style="left:${left}%;width:${Math.max(1, length)}%"></i></span>`;
}

function boundTree(parent, run, chart) {
  const table = run.lipschitz, names = table.names.filter(name => name !== "step");
  const {panel, body} = panelOf(parent, "The bound as a tree", "last step; bars start at 1, logarithmic");
  if (names.length === 0 || table.points === 0) {
    body.innerHTML = `<div class="empty short">no layer's bound was written</div>`;
    return;
  }
  const nodes = layerTree(names), closed = new Set();
  const last = name => table.get(name)[table.points - 1];
  const most = Math.max(...names.map(name => Math.abs(Math.log10(last(name)))).filter(Number.isFinite), .3);
  const rowOf = node => {
    const value = last(node.name), arrow = node.children.length === 0 ? "" : closed.has(node.name) ? "▸" : "▾";
    const toggle = `<button class="toggle" data-close="${escaped(node.name)}">${arrow}</button>`;
    const text = value === Infinity ? `<td class="alarm-text">unbounded</td>` : numberCell(value);
    const curve = table.get(node.name).map(v => v > 0 ? Math.log10(v) : NaN);
    const name = layerCell(node.short, run.kinds.get(node.name), node.depth, toggle);
    return `<tr data-name="${escaped(node.name)}">${name}${text}` +
      `<td>${boundMeter(value, most)}</td><td class="spark">${sparkline(curve)}</td></tr>`;
  };
  const fill = () => {
    const open = nodes.filter(node => !node.above.some(name => closed.has(name)));
    body.innerHTML = tableHtml(["<th>layer</th><th>bound</th><th></th><th>over steps</th>"], open.map(rowOf));
  };
  panel.onclick = event => {
    const name = event.target.dataset && event.target.dataset.close;
    if (!name) return;
    if (!closed.delete(name)) closed.add(name);
    fill();
  };
  pointAt(panel, chart);
  fill();
}
