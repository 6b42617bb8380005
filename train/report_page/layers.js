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
  const options = {title: "Layer bounds", log: true, tall: true, empty};
  boundTree(grid, run, layerChart(grid, run.lipschitz, prefixed(run.lipschitz, ""), options));
}

function norms(host, run, of) {
  const grid = section(host, "norms", "Spectral norm of every weight" + of);
  const sigmas = prefixed(run.norms, "sigma.");
  const chart = layerChart(grid, run.norms, sigmas, {title: "Spectral norms", tall: true});
  valueTable(grid, "weight", tableRows(run, run.norms, sigmas), chart);

  const others = element("div", {class: "grid"});
  host.append(others);
  const scales = prefixed(run.norms, "alpha_max."), gradients = prefixed(run.norms, "grad.");
  const scaleOptions = {title: "Residual scales", unit: "largest of each branch"};
  if (scales.length) layerChart(others, run.norms, scales, scaleOptions);
  if (gradients.length) layerChart(others, run.norms, gradients, {title: "Gradient norm by group", log: true});
}

function entropy(host, run, of) {
  const grid = section(host, "entropy", "Attention entropy" + of, "How spread each head's attention is. " +
    "Zero: every query looks at one token (collapse). The largest possible: it looks at all alike.");
  const map = element("div");
  grid.before(map);
  parts.push(new HeatMap(map, run));
  const heads = prefixed(run.entropy, "");
  if (heads.length === 0) return;
  const chart = layerChart(grid, run.entropy, heads, {title: "Heads", unit: "entropy in nats", tall: true});
  valueTable(grid, "head", tableRows(run, run.entropy, heads), chart);
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
