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

// A bar from 1 on a logarithmic scale: to the right what may grow, to the left what must shrink.
function boundMeter(value, most) {
  if (!Number.isFinite(value)) return `<span class="meter"><i class="all" style="left:0;right:0"></i></span>`;
  const length = most > 0 && value > 0 ? Math.min(1, Math.abs(Math.log10(value)) / most) * 50 : 0;
  const left = value >= 1 ? 50 : 50 - length;
  return `<span class="meter"><i style="left:${left}%;width:${Math.max(1, length)}%"></i></span>`;
}

// What a node is made of: "1 + 0.083 x f" of a sum, the kind of any other.
function formulaOf(node) {
  if (node.join !== "sum") return node.name ? node.kind : "";
  return `${number(node.skip, 3)} + ${node.weight === null ? "a" : number(node.weight, 3)} x f`;
}

// The nodes of run.tree in the order of the network, each with its depth, the nodes above it and a short name.
function treeNodes(run) {
  const nodes = [];
  const walk = (node, above, around) => {
    const short = !node.name ? node.kind || "its own map" : node.name.startsWith(around + ".") ? node.name.slice(around.length + 1) : node.name;
    const entry = {...node, short, above, id: nodes.length, leads: (node.parts || []).length > 0};
    nodes.push(entry);
    const inside = node.name && node.join !== "sum" && above.length > 0 ? node.name : around;   // what a sum adds is named beside it, not below it
    for (const part of node.parts || []) walk(part, [...above, entry.id], inside);
  };
  if (run.tree) walk(run.tree, [], "");
  return nodes;
}

const constantCell = (node, log) => node.unbounded ? `<td class="alarm-text">unbounded</td>` : `<td>${isFiniteNumber(log) ? power(log) : ""}</td>`;
const ratioOf = node => isFiniteNumber(node.log10_certified) && isFiniteNumber(node.log10_measured) ? node.log10_certified - node.log10_measured : null;

function boundTree(parent, run, chart) {
  const table = run.lipschitz, nodes = treeNodes(run);
  const proven = nodes.some(node => isFiniteNumber(node.log10_certified)), tried = nodes.some(node => isFiniteNumber(node.log10_measured));
  const {panel, tools, body} = panelOf(parent, "The bound as a tree", proven ? "last step" : "last step; bars start at 1, logarithmic");
  if (nodes.length === 0) {
    body.innerHTML = `<div class="empty short">ledger.json has no tree of the bound</div>`;
    return;
  }
  const closed = new Set(nodes.filter(node => node.above.length >= 1 && node.leads).map(node => node.id));
  const most = Math.max(...nodes.slice(1).map(node => Math.abs(node.log10_bound)).filter(Number.isFinite), .3);
  const heads = ["layer", "bound", ...(proven ? [] : [""]), "share", ...(proven ? ["certified"] : []), ...(tried ? ["measured"] : []), proven && tried ? "ratio" : "over steps"];
  const rowOf = node => {
    const arrow = !node.leads ? "" : closed.has(node.id) ? "▸" : "▾";
    const toggle = `<button class="toggle" data-close="${node.id}">${arrow}</button>`;
    const curve = node.name && table.has(node.name) ? table.get(node.name).map(v => v > 0 ? Math.log10(v) : NaN) : [];
    const value = node.unbounded ? Infinity : node.log10_bound === null ? NaN : 10 ** node.log10_bound;
    return `<tr data-name="${escaped(node.name)}">${layerCell(node.short, formulaOf(node), node.above.length, toggle)}` +
      constantCell(node, node.log10_bound) + (proven ? "" : `<td>${Number.isNaN(value) ? "" : boundMeter(value, most)}</td>`) +
      `<td>${isFiniteNumber(node.share) ? (100 * node.share).toFixed(1) + " %" : ""}</td>` +
      (proven ? `<td>${isFiniteNumber(node.log10_certified) ? power(node.log10_certified) : ""}</td>` : "") +
      (tried ? `<td>${isFiniteNumber(node.log10_measured) ? power(node.log10_measured) : ""}</td>` : "") +
      (proven && tried ? `<td>${ratioOf(node) === null ? "" : power(ratioOf(node))}</td>` : `<td class="spark">${sparkline(curve)}</td>`) + "</tr>";
  };
  const search = element("input", {type: "search", placeholder: "filter by layer", "aria-label": "filter by layer"});
  tools.append(search);
  const fill = () => {
    const wanted = search.value.toLowerCase(), kept = new Set();
    if (wanted) for (const node of nodes) if (node.name.toLowerCase().includes(wanted)) for (const id of [...node.above, node.id]) kept.add(id);
    const open = nodes.filter(node => wanted ? kept.has(node.id) : !node.above.some(id => closed.has(id)));
    body.innerHTML = tableHtml(heads.map(text => `<th>${text}</th>`), open.map(rowOf));
  };
  search.oninput = fill;
  panel.onclick = event => {
    const id = event.target.dataset && event.target.dataset.close;
    if (id === undefined) return;
    if (!closed.delete(Number(id))) closed.add(Number(id));
    fill();
  };
  pointAt(panel, chart);
  fill();
}
