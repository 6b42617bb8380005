// layers.js: what the ledger says of the layers of one run; tabs choose the run where there are several.

// The columns of a table whose names begin with a prefix, without it.
function prefixed(table, prefix) {
  const columns = table.names.filter(name => name.startsWith(prefix) && name !== "step");
  return columns.map(column => ({column, name: column.slice(prefix.length)}));
}

// Curves coloured by depth.
function layerSeries(table, columns) {
  return columns.map(({column, name}, i) => ({
    label: name,
    step: table.step,
    values: table.get(column),
    width: 1.1,
    alpha: .75,
    colour: () => depthColour(columns.length > 1 ? i / (columns.length - 1) : 0),
  }));
}

function depthLegend() {
  const colours = [0, .25, .5, .75, 1].map(depthColour).join(",");
  return `first layer<span class="ramp" style="background:linear-gradient(90deg,${colours})"></span>last layer` +
    " · point at a curve to name it";
}

let chosen = runs[0];
let parts = [];   // what is drawn of the chosen run

function layers() {
  for (const part of parts) part.remove();
  const scrolled = scrollY, host = document.getElementById("layers"), of = several ? ` · ${escaped(chosen.name)}` : "";
  host.innerHTML = "";
  parts = [];
  proofs(host, chosen, of);
  bounds(host, chosen, of);
  norms(host, chosen, of);
  entropy(host, chosen, of);
  events(host, chosen, of);
  recipe(host, chosen, of);
  scrollTo(0, scrolled);
}

function layerChart(grid, table, columns, options) {
  const made = new Chart(grid, {many: depthLegend(), ...options}, () => layerSeries(table, columns));
  parts.push(made);
  return made;
}

const tableRows = (run, table, columns) =>
  columns.map(({column, name}) => ({name, values: table.get(column), kind: run.kinds.get(name) || ""}));

function boundLead(run) {
  const now = run.bounds[run.bounds.length - 1];
  if (!now) return "";
  const [step, kind, blame] = now;
  if (kind !== "unbounded") {
    return `Each layer's own constant; the network's (${escaped(kind)}) follows from them by composition.`;
  }
  return `The network is <span class="alarm-text">unbounded</span> since step ${whole(step)}, because of ` +
    `<b>${escaped(blame || "an unnamed layer")}</b>.`;
}

function bounds(host, run, of) {
  const grid = section(host, "bounds", "Bound of every layer" + of, boundLead(run));
  const empty = "every layer is unbounded, or none was written";
  const options = {title: "Layer bounds", log: true, tall: true, empty, run};
  boundTree(grid, run, layerChart(grid, run.lipschitz, prefixed(run.lipschitz, ""), options));
  const map = element("div");
  host.append(map);
  const single = treeNodes(run).filter(node => node.name && withoutSums(node) && run.lipschitz.has(node.name));
  const rows = mapRows(single.map(node => ({name: node.name, values: Float64Array.from(run.lipschitz.get(node.name), Math.log10)})));
  parts.push(new HeatMap(map, run, run.lipschitz.step, rows, {
    title: "Bound of every layer in its blocks", unit: "colours: logarithm of its constant", empty: "no layer's bound was written",
    text: v => power(v), tip: (row, i) => `<b>${power(row.values[i])}</b>`,
  }));
}

// A layer, or a product of layers: no block and nothing around one.
const withoutSums = node => node.join !== "sum" && (node.parts || []).every(withoutSums);

// The block that a name lies in, or the merge; else its first word.
function groupOf(name) {
  return (name.match(/^(.*\bblocks\.\d+|layers\.\d+\.\w+|\w+)/) || [name])[0];
}

const mapRows = rows => rows.map(row => ({...row, group: groupOf(row.name), label: row.name.slice(groupOf(row.name).length + 1).replace(/\.?weight$/, "")}));

function norms(host, run, of) {
  const grid = section(host, "norms", "Spectral norm of every weight" + of);
  const sigmas = prefixed(run.norms, "sigma.");
  const chart = layerChart(grid, run.norms, sigmas, {title: "Spectral norms", tall: true, run});
  valueTable(grid, "weight", tableRows(run, run.norms, sigmas), chart);

  const map = element("div");
  host.append(map);
  const rows = mapRows(sigmas.map(({column, name}) => ({name, values: run.norms.get(column)})));
  parts.push(new HeatMap(map, run, run.norms.step, rows, {
    title: "Spectral norm of every weight", unit: "colours: spectral norm", empty: "no spectral norm was written",
    zero: true, tip: (row, i) => `<b>${number(row.values[i])}</b>`,
  }));
  const others = element("div", {class: "grid"});
  host.append(others);
  const scales = prefixed(run.norms, "alpha_max."), gradients = prefixed(run.norms, "grad.");
  const scaleOptions = {title: "Residual scales", unit: "largest of each branch", run};
  if (scales.length) layerChart(others, run.norms, scales, scaleOptions);
  if (gradients.length) layerChart(others, run.norms, gradients, {title: "Gradient norm by weight", log: true, run});
}

function entropy(host, run, of) {
  const grid = section(host, "entropy", "Attention entropy" + of, "How spread each head's attention is. " +
    "Zero: every query looks at one token (collapse). The largest possible: it looks at all alike.");
  const map = element("div");
  grid.before(map);
  const heads = prefixed(run.entropy, "");
  const rows = heads.map(({name}) => {
    const cut = name.lastIndexOf("."), group = name.slice(0, cut);
    return {name, group, label: `head ${name.slice(cut + 1)}`, most: run.entropyMax[group], values: run.entropy.get(name)};
  });
  const floorAt = (row, i) => {
    const floor = run.entropy_floor.has(row.name) ? run.entropy_floor.get(row.name)[i] : NaN;
    return Number.isFinite(floor) ? ` · at least ${number(floor)} by its norms` : "";
  };
  const share = (row, i) => isFiniteNumber(row.most) ? ` · ${number(100 * row.values[i] / row.most, 3)} % of ${number(row.most, 3)}` : "";
  parts.push(new HeatMap(map, run, run.entropy.step, rows, {
    title: "Entropy of every head", empty: "no attention head was measured", zero: true,
    most: {share: "share of the largest possible, ln(tokens)", plain: "nats"},
    tip: (row, i) => `<b>${number(row.values[i])}</b> nats${share(row, i)}${floorAt(row, i)}`,
  }));
  if (heads.length === 0) return;
  const chart = layerChart(grid, run.entropy, heads, {title: "Heads", unit: "entropy in nats", tall: true, run});
  valueTable(grid, "head", tableRows(run, run.entropy, heads), chart);
  floors(grid, run, rows);
}

// The heads whose norms leave them the least room, with the least entropy that these allow; nothing where all floors are next to 0.
function floors(grid, run, rows) {
  const table = run.entropy_floor, last = values => values[values.length - 1];
  const tells = row => table.has(row.name) && extremes(table.get(row.name))[1] > .02 * (row.most || 1);
  const room = row => last(row.values) - last(table.get(row.name));
  const nearest = rows.filter(tells).sort((a, b) => room(a) - room(b)).slice(0, 6);
  if (nearest.length === 0) return;
  parts.push(new Chart(grid, {title: "Heads nearest to their floor", unit: "entropy in nats; dashes: the least that the norms allow", tall: true, run}, () =>
    nearest.flatMap((row, k) => [
      {label: row.name, step: run.entropy.step, values: row.values, width: 1.8, colour: () => runColour(k)},
      {label: row.name + " floor", step: table.step, values: table.get(row.name), width: 1.4, dash: [5, 4], quiet: true, colour: () => runColour(k)},
    ])));
  const lowest = [...rows].filter(tells).sort((a, b) => last(table.get(b.name)) - last(table.get(a.name)));
  const {body} = panelOf(grid, "Floors", "last step, highest first");
  const line = row => `<tr>${layerCell(row.name)}${numberCell(last(row.values))}${numberCell(last(table.get(row.name)))}${numberCell(room(row))}</tr>`;
  body.innerHTML = tableHtml(["head", "entropy", "floor", "room"].map(text => `<th>${text}</th>`), lowest.map(line));
}

function events(host, run, of) {
  section(host, "events", "Events" + of).remove();
  const {body} = panelOf(host, "", "", true);
  const text = value => `<td class="text">${escaped(value)}</td>`;
  const row = ([step, ...words]) => `<tr><td>${number(step)}</td>${words.map(text).join("")}</tr>`;
  const heads = ["kind", "layer", "what happened"].map(name => `<th class="text">${name}</th>`);
  body.innerHTML = run.events.length ? tableHtml(["<th>step</th>", ...heads], run.events.map(row)) :
    `<div class="empty short">nothing happened beside the plan</div>`;
}

function recipe(host, run, of) {
  const grid = section(host, "recipe", "Recipe and environment" + of);
  panelOf(grid, "recipe.toml").body.append(element("pre", {}, escaped(run.recipe || "(not there)")));
  const text = (key, value) => {
    if (key.endsWith("_bytes")) return `${number(value / 2 ** 30, 3)} GiB`;
    if (Array.isArray(value)) return value.join(" ");
    return typeof value === "object" ? JSON.stringify(value) : value;
  };
  const session = Object.entries(run.sessions[run.sessions.length - 1] || {});
  const row = ([key, value]) => `<tr><td>${escaped(key.replace(/_bytes$/, "").replaceAll("_", " "))}</td>` +
    `<td class="text">${escaped(text(key, value))}</td></tr>`;
  const unit = run.sessions.length > 1 ? `last of ${run.sessions.length} sessions` : "";
  panelOf(grid, "environment.json", unit).body.innerHTML = session.length ? tableHtml([], session.map(row)) :
    `<div class="empty short">not there</div>`;
}
