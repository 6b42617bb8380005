// page.js: puts the report together, top to bottom.

const several = runs.length > 1;
const mainKeys = [
  ["model.family", "model"], ["model.embed_dim", "width"], ["model.depths", "depths"], ["model.img_size", "image"], ["parts.norm", "norm"],
  ["parts.attention", "attention"], ["parts.residual", "residual"], ["parts.weight", "weight"], ["parts.init", "init"],
  ["optimizer.name", "optimizer"], ["optimizer.lr", "lr"], ["schedule.epochs", "epochs"], ["schedule.warmup_epochs", "warmup"],
  ["constraint.method", "constraint"], ["data.path", "data"], ["run.seed", "seed"], ["run.device", "device"],
];
const machineOf = run => {
  const session = run.sessions[run.sessions.length - 1];
  if (!session) return "";
  const resumed = run.sessions.length > 1 ? ` · resumed ${run.sessions.length - 1}×` : "";
  return [session.start_time && session.start_time.replace("T", " ").replace("Z", " UTC"), session.host, session.cpu,
    session.cores && `${session.cores} cores`, session.compiler, session.version && `lipsgrad ${session.version}`].filter(Boolean).join(" · ") + resumed;
};

// What a run came to: [label, value, unit, note, alarm].
function figuresOf(run) {
  const best = run.best_top1, evaluated = run.last_eval || {}, last = run.last || {};
  const kind = last.bound_kind, unbounded = kind === "unbounded" || last.bound_l2 === "inf";
  const diverged = run.steps.points > 0 && !isFiniteNumber(last.loss);
  const percent = best && best.value <= 1 ? 100 : 1;
  const epochs = run.keys.get("schedule.epochs");
  return [
    ["top-1 accuracy", best ? number(best.value * percent) : "–", best ? "%" : "", best ? `best, epoch ${number(best.epoch)}; last ${number(evaluated.top1 * percent)} %` : "not evaluated yet"],
    ["evaluation loss", number(evaluated.loss), "", run.best_loss ? `best ${number(run.best_loss.value)}, epoch ${number(run.best_loss.epoch)}` : "not evaluated yet", typeof evaluated.loss === "string"],
    ["training loss", diverged ? "diverged" : number(last.loss), "", diverged && run.diverged.length ? `not a number from step ${whole(run.diverged[0][0])}` : `at step ${number(last.step)}`, diverged],
    ["network bound", unbounded ? "unbounded" : number(last.bound_l2), "", unbounded ? `because of ${last.bound_blame || "an unnamed layer"}` : `l2, ${kind || "kind unknown"}`, unbounded],
    ["last step", run.steps.points ? number(last.step) : "–", "", `epoch ${number(last.epoch)}${epochs ? ` of ${escaped(epochs)}` : ""}, ${number(last.samples)} images`],
    ["throughput", number(run.images_per_s, 3), "images/s", "median over steps"],
  ];
}

function header() {
  const node = document.getElementById("header");
  const names = runs.map(run => escaped(run.name));
  document.title = `${runs.map(run => run.name).join(", ")} · lipsgrad`;
  node.innerHTML = `<div class="wordmark">lipsgrad ${several ? "comparison" : "run"}</div><h1>${names.join(" · ")}</h1>`;
  if (several) return compareTable(node);
  const run = runs[0], chips = mainKeys.filter(([key]) => run.keys.has(key));
  node.append(element("div", {class: "wordmark"}, escaped(machineOf(run))));
  node.append(element("div", {class: "choices"}, chips.map(([key, label]) => `<span title="${key}"><b>${label}</b>${escaped(run.keys.get(key))}</span>`).join("")));
  node.append(element("div", {class: "figures"}, figuresOf(run).map(([label, value, unit, note, alarm]) =>
    `<div class="figure ${alarm ? "alarm" : ""}"><div class="label">${label}</div><div class="value">${value}<small>${unit}</small></div><div class="note">${escaped(note)}</div></div>`).join("")));
}

function compareTable(node) {
  const figures = runs.map(figuresOf);
  const keys = [...new Set(runs.flatMap(run => [...run.keys.keys()]))].filter(key => new Set(runs.map(run => run.keys.get(key))).size > 1);
  const head = `<tr><th>run</th>${figures[0].map(f => `<th>${f[0]}</th>`).join("")}</tr>`;
  const rows = runs.map((run, i) => `<tr><td><span class="swatch" style="background:${runColour(i)}"></span>${escaped(run.name)}</td>${figures[i].map(f =>
    `<td class="${f[4] ? "alarm-text" : ""}" title="${escaped(f[3])}">${f[1]} ${f[2]}</td>`).join("")}</tr>`);
  node.append(element("section", {class: "panel full"}, `<table><thead>${head}</thead><tbody>${rows.join("")}</tbody></table>`));
  if (keys.length === 0) return;
  const differing = keys.map(key => `<tr><td><span class="name">${escaped(key)}</span></td>${runs.map(run =>
    `<td class="differs">${escaped(run.keys.get(key) ?? "–")}</td>`).join("")}</tr>`);
  node.append(element("section", {class: "panel full"}, `<div class="panel-head"><h3>Where the recipes differ</h3></div><div class="scroll"><table><thead><tr><th>key</th>${
    runs.map((run, i) => `<th><span class="swatch" style="background:${runColour(i)}"></span>${escaped(run.name)}</th>`).join("")}</tr></thead><tbody>${differing.join("")}</tbody></table></div>`));
}

let smoothing = .9;
let chosen = runs[0];

function bar() {
  const node = element("div", {}, `<a href="#training">Training</a><a href="#bounds">Bounds</a><a href="#norms">Norms</a><a href="#entropy">Entropy</a>
    <a href="#events">Events</a><a href="#recipe">Recipe</a><span class="tabs"></span><span class="right"><label>smoothing <input type="range" min="0" max="0.99" step="0.01"></label>
    <span class="window"></span><button class="all">all steps</button></span>`);
  document.getElementById("bar").append(node);
  const slider = node.querySelector("input"), all = node.querySelector(".all"), text = node.querySelector(".window");
  slider.value = smoothing;
  slider.oninput = () => {
    smoothing = Number(slider.value);
    for (const chart of charts) if (chart.options.smooth) chart.draw();
  };
  all.onclick = () => { for (const chart of charts) if (chart.graph) chart.graph.updateOptions({valueRange: [null, null]}); view.set(null); };
  const say = () => {
    const [from, to] = view.current();
    text.textContent = `steps ${whole(Math.max(from, view.data[0]))} – ${whole(Math.min(to, view.data[1]))}`;
    all.disabled = view.range === null;
  };
  view.followers.add(say);
  say();
  if (!several) return;
  const tabs = node.querySelector(".tabs");
  tabs.innerHTML = runs.map((run, i) => `<button data-run="${i}" title="layers of this run"><span class="swatch" style="background:${runColour(i)}"></span>${escaped(run.name)}</button>`).join("");
  const press = () => tabs.querySelectorAll("button").forEach(b => b.setAttribute("aria-pressed", runs[b.dataset.run] === chosen));
  tabs.onclick = event => {
    const button = event.target.closest("button");
    if (!button) return;
    chosen = runs[button.dataset.run];
    press();
    layers();
  };
  press();
}

function section(parent, id, title, lead = "") {
  parent.append(element("h2", {id}, title));
  if (lead) parent.append(element("p", {class: "lead"}, lead));
  const grid = element("div", {class: "grid"});
  parent.append(grid);
  return grid;
}

const labelOf = (run, what) => several ? (what ? `${run.name} · ${what}` : run.name) : what;

// A column of steps.csv of every run: the raw curve pale, its smoothed mean strong.
function stepSeries(name, what) {
  return runs.flatMap(run => {
    if (!run.steps.has(name)) return [];
    const colour = () => runColour(run.index), step = run.steps.step;
    return [
      {label: labelOf(run, what + " (raw)"), step, values: run.steps.get(name), colour, width: 1, alpha: several ? .18 : .3, quiet: true},
      {label: labelOf(run, what), step, values: smoothed(run.steps.get(name + ".mean"), smoothing), colour, width: 2},
    ];
  });
}

const plainSeries = (table, name, what, style = {}) => runs.filter(run => run[table].has(name) && anyFinite(run[table].get(name))).map(run =>
  ({label: labelOf(run, what), step: run[table].step, values: run[table].get(name), colour: () => runColour(run.index + (several ? 0 : style.shift || 0)), ...style}));

function training(main) {
  const grid = section(main, "training", "Training");
  const diverged = runs.flatMap(run => run.diverged.map(([from, to]) => [from, to, several ? `${run.name}: not a number` : "not a number"]));
  const shade = {shade: diverged};
  const evaluated = {width: 2, dash: several ? [4, 3] : null, points: 3, shift: 1};
  new Chart(grid, {title: "Loss", smooth: true, ...shade, empty: "no finite loss"}, () =>
    [...stepSeries("loss", "training"), ...plainSeries("epochs", "loss", "evaluation", evaluated)]);
  const scale = runs.some(run => run.epochs.get("top1").some(v => v > 1)) ? 1 : 100;
  const percent = series => series.map(s => ({...s, values: Float64Array.from(s.values, v => v * scale)}));
  new Chart(grid, {title: "Accuracy", unit: "%, on the evaluation images", empty: "not evaluated yet"}, () => percent([
    ...plainSeries("epochs", "top1", "top-1", {points: 3, width: 2}),
    ...plainSeries("epochs", "ema_top1", "top-1 of the averaged weights", {points: 2.5, dash: [5, 3], shift: 3}),
    ...plainSeries("epochs", "top5", "top-5", {points: 2, width: 1.2, dash: [2, 3], shift: 2}),
  ]));
  const unbounded = runs.map(run => run.bounds.find(b => b[1] === "unbounded")).filter(Boolean);
  const noBound = unbounded.length ? `unbounded at every step, because of <b>${escaped(unbounded[0][2] || "an unnamed layer")}</b>` : "no bound was written";
  new Chart(grid, {title: "Lipschitz bound of the network", unit: boundKinds(), log: true, empty: noBound,
    shade: several ? [] : stretches(runs[0].steps.step, runs[0].steps.get("bound_l2"), v => v === Infinity).map(s => [...s, "unbounded"])},
  () => plainSeries("steps", "bound_l2", "bound", {width: 2}));
  new Chart(grid, {title: "Gradient norm", log: true, smooth: true, ...shade}, () => stepSeries("grad_norm", "gradient norm"));
  const row = element("div", {class: "grid thirds"});
  main.append(row);
  new Chart(row, {title: "Learning rate"}, () => plainSeries("steps", "lr", "learning rate", {width: 2}));
  new Chart(row, {title: "Throughput", unit: "images per second", smooth: true}, () => stepSeries("images_per_s", "images/s"));
  new Chart(row, {title: "Waiting for data", unit: "each step", smooth: true}, () => stepSeries("data_wait", "wait"));
}

function boundKinds() {
  const kinds = new Set(runs.flatMap(run => run.bounds.map(b => b[1])).filter(Boolean));
  const without = runs.filter(run => run.bounds.some(b => b[1] === "unbounded")).map(run => escaped(run.name));
  return ["l2", ...kinds].join(", ") + (several && without.length ? `: ${without.join(", ")}` : "");
}

// All columns of a table as curves coloured by depth.
function layerSeries(table, names) {
  return names.map((name, i) => ({
    label: name.text, step: table.step, values: table.get(name.column), width: 1.1, alpha: .75, colour: () => depthColour(names.length > 1 ? i / (names.length - 1) : 0),
  }));
}

const prefixed = (table, prefix) => table.names.filter(n => n.startsWith(prefix)).map(column => ({column, text: column.slice(prefix.length)}));
const depthLegend = `first layer<span class="ramp" style="background:linear-gradient(90deg,${[0, .25, .5, .75, 1].map(depthColour).join(",")})"></span>last layer · point at a curve to name it`;

let parts = [];
function layers() {
  for (const part of parts) part.remove();
  const scrolled = scrollY;
  const host = document.getElementById("layers"), run = chosen, of = several ? ` · ${escaped(run.name)}` : "";
  host.innerHTML = "";
  parts = [];
  const chart = (grid, options, make) => {
    const made = new Chart(grid, options, make);
    parts.push(made);
    return made;
  };

  const bounds = section(host, "bounds", "Bound of every layer" + of, boundLead(run));
  const boundNames = run.lipschitz.names.filter(n => n !== "step").map(column => ({column, text: column}));
  boundTree(bounds, run, chart(bounds, {title: "Layer bounds", log: true, tall: true, many: depthLegend, empty: "every layer is unbounded, or none was written"},
    () => layerSeries(run.lipschitz, boundNames)));

  const norms = section(host, "norms", "Spectral norm of every weight" + of);
  const sigmas = prefixed(run.norms, "sigma.");
  valueTable(norms, "weight", sigmas.map(n => ({name: n.text, values: run.norms.get(n.column), kind: run.kinds.get(n.text) || ""})),
    chart(norms, {title: "Spectral norms", tall: true, many: depthLegend}, () => layerSeries(run.norms, sigmas)));

  const others = element("div", {class: "grid"});
  host.append(others);
  const alphas = prefixed(run.norms, "alpha_max."), gradients = prefixed(run.norms, "grad.");
  if (alphas.length) chart(others, {title: "Residual scales", unit: "largest of each branch", many: depthLegend}, () => layerSeries(run.norms, alphas));
  if (gradients.length) chart(others, {title: "Gradient norm by group", log: true, many: depthLegend}, () => layerSeries(run.norms, gradients));

  section(host, "entropy", "Attention entropy" + of, "How spread each head's attention is. Zero: every query looks at one token (collapse). The largest possible: it looks at all alike.").remove();
  parts.push(new HeatMap(host, run));
  const headNames = run.entropy.names.filter(n => n !== "step").map(column => ({column, text: column}));
  if (headNames.length) {
    const heads = element("div", {class: "grid"});
    host.append(heads);
    valueTable(heads, "head", headNames.map(n => ({name: n.text, values: run.entropy.get(n.column), kind: ""})),
      chart(heads, {title: "Heads", unit: "entropy in nats", tall: true, many: depthLegend}, () => layerSeries(run.entropy, headNames)));
  }
  events(host, run, of);
  recipe(host, run, of);
  scrollTo(0, scrolled);
}

function boundLead(run) {
  const now = run.bounds[run.bounds.length - 1];
  if (!now) return "";
  if (now[1] === "unbounded") return `The network is <span class="alarm-text">unbounded</span> since step ${whole(now[0])}, because of <b>${escaped(now[2] || "an unnamed layer")}</b>.`;
  return `Each layer's own constant; the network's (${escaped(now[1])}) follows from them by composition.`;
}

function events(host, run, of) {
  section(host, "events", "Events" + of).remove();
  const rows = run.events.map(([step, kind, layer, message]) =>
    `<tr><td>${number(step)}</td><td class="text">${escaped(kind)}</td><td class="text"><span class="name">${escaped(layer)}</span></td><td class="text">${escaped(message)}</td></tr>`);
  host.append(element("section", {class: "panel full"}, rows.length === 0 ? `<div class="empty short">nothing happened beside the plan</div>` :
    `<div class="scroll"><table><thead><tr><th>step</th><th class="text">kind</th><th class="text">layer</th><th class="text">what happened</th></tr></thead><tbody>${rows.join("")}</tbody></table></div>`));
}

function recipe(host, run, of) {
  section(host, "recipe", "Recipe and environment" + of).remove();
  const session = run.sessions[run.sessions.length - 1] || {};
  const text = (key, value) => key.endsWith("_bytes") ? `${number(value / 2 ** 30, 3)} GiB` : Array.isArray(value) ? value.join(" ") :
    typeof value === "object" ? JSON.stringify(value) : value;
  const shown = Object.entries(session).map(([key, value]) =>
    `<tr><td>${escaped(key.replace(/_bytes$/, "").replaceAll("_", " "))}</td><td class="text">${escaped(text(key, value))}</td></tr>`);
  host.append(element("div", {class: "grid"}, `<section class="panel"><div class="panel-head"><h3>recipe.toml</h3></div><pre>${escaped(run.recipe || "(not there)")}</pre></section>
    <section class="panel"><div class="panel-head"><h3>environment</h3><span class="unit">${run.sessions.length > 1 ? `last of ${run.sessions.length} sessions` : ""}</span></div>
    ${shown.length ? `<table><tbody>${shown.join("")}</tbody></table>` : `<div class="empty short">not there</div>`}</section>`));
}

header();
bar();
training(document.getElementById("main"));
document.getElementById("main").append(element("div", {id: "layers"}));
layers();
