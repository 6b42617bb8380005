// header.js: what was run and what it came to, of one run or of several side by side.

const several = runs.length > 1;
const swatch = index => `<span class="swatch" style="background:${runColour(index)}"></span>`;

const mainKeys = {
  "model.family": "model", "model.embed_dim": "width", "model.depths": "depths", "model.img_size": "image",
  "parts.norm": "norm", "parts.attention": "attention", "parts.residual": "residual", "parts.weight": "weight",
  "parts.init": "init", "optimizer.name": "optimizer", "optimizer.lr": "lr", "schedule.epochs": "epochs",
  "schedule.warmup_epochs": "warmup", "constraint.method": "constraint", "data.path": "data", "run.seed": "seed",
  "run.device": "device",
};

function machineOf(run) {
  const session = run.sessions[run.sessions.length - 1];
  if (!session) return "";
  const parts = [
    session.start_time && session.start_time.replace("T", " ").replace("Z", " UTC"), session.host, session.cpu,
    session.cores && `${session.cores} cores`, session.compiler, session.version && `lipsgrad ${session.version}`,
    run.sessions.length > 1 && `resumed ${run.sessions.length - 1}×`,
  ];
  return parts.filter(Boolean).join(" · ");
}

// {label, value, unit, note, alarm} of each figure; value and note are text, not yet escaped.
function figuresOf(run) {
  const best = run.best_top1, bestLoss = run.best_loss, evaluated = run.last_eval || {}, last = run.last || {};
  const kind = last.bound_kind, unbounded = kind === "unbounded" || last.log10_bound_l2 === "inf";
  const diverged = run.steps.points > 0 && !isFiniteNumber(last.loss);
  const since = run.diverged.length ? whole(run.diverged[run.diverged.length - 1][0]) : "";
  const percent = best && best.value <= 1 ? 100 : 1;
  const epochs = run.keys.has("schedule.epochs") ? ` of ${run.keys.get("schedule.epochs")}` : "";
  const lastTop1 = isFiniteNumber(evaluated.top1) ? evaluated.top1 * percent : evaluated.top1;
  return [
    {
      label: "top-1 accuracy", value: best ? number(best.value * percent) : "–", unit: best ? "%" : "",
      note: best ? `best, epoch ${number(best.epoch)}; last ${number(lastTop1)} %` : "not evaluated yet",
    },
    {
      label: "evaluation loss", value: number(evaluated.loss), alarm: typeof evaluated.loss === "string",
      note: bestLoss ? `best ${number(bestLoss.value)}, epoch ${number(bestLoss.epoch)}` : "not evaluated yet",
    },
    {
      label: "training loss", value: diverged ? "diverged" : number(last.loss), alarm: diverged,
      note: diverged ? `not a number since step ${since}` : `at step ${number(last.step)}`,
    },
    {
      label: "network bound", value: unbounded ? "unbounded" : isFiniteNumber(last.log10_bound_l2) ? power(last.log10_bound_l2) : "–", alarm: unbounded,
      note: unbounded ? `because of ${last.bound_blame || "an unnamed layer"}` : `l2, ${kind || "kind unknown"}`,
    },
    {
      label: "last step", value: number(last.step),
      note: `epoch ${number(last.epoch)}${epochs}, ${number(last.samples)} images`,
    },
    {label: "throughput", value: number(run.images_per_s, 3), unit: "images/s", note: "median over steps"},
  ];
}

function header() {
  const node = document.getElementById("header");
  document.title = `${runs.map(run => run.name).join(", ")} · lipsgrad`;
  node.append(element("div", {class: "wordmark"}, `lipsgrad ${several ? "comparison" : "run"}`));
  node.append(element("h1", {}, runs.map(run => escaped(run.name)).join(" · ")));
  if (several) return compare(node);
  const run = runs[0], chips = Object.entries(mainKeys).filter(([key]) => run.keys.has(key));
  const chip = ([key, label]) => `<span title="${key}"><b>${label}</b>${escaped(run.keys.get(key))}</span>`;
  const card = f => `<div class="figure ${f.alarm ? "alarm" : ""}"><div class="label">${f.label}</div>` +
    `<div class="value">${f.value}<small>${f.unit || ""}</small></div>` +
    `<div class="note">${escaped(f.note)}</div></div>`;
  node.append(element("div", {class: "wordmark"}, escaped(machineOf(run))));
  node.append(element("div", {class: "choices"}, chips.map(chip).join("")));
  node.append(element("div", {class: "figures"}, figuresOf(run).map(card).join("")));
}

function compare(node) {
  const cell = f => `<td class="${f.alarm ? "alarm-text" : ""}" title="${escaped(f.note)}">` +
    `${f.value} ${f.unit || ""}</td>`;
  const row = (run, i) => `<tr><td>${swatch(i)}${escaped(run.name)}</td>${figuresOf(run).map(cell).join("")}</tr>`;
  const heads = figuresOf(runs[0]).map(f => `<th>${f.label}</th>`);
  panelOf(node, "", "", true).body.innerHTML = tableHtml(["<th>run</th>", ...heads], runs.map(row));

  const differs = key => new Set(runs.map(run => run.keys.get(key))).size > 1;
  const keys = [...new Set(runs.flatMap(run => [...run.keys.keys()]))].filter(differs);
  if (keys.length === 0) return;
  const value = (run, key) => `<td class="differs">${escaped(run.keys.get(key) ?? "–")}</td>`;
  const rows = keys.map(key => `<tr>${layerCell(key)}${runs.map(run => value(run, key)).join("")}</tr>`);
  const names = runs.map((run, i) => `<th>${swatch(i)}${escaped(run.name)}</th>`);
  panelOf(node, "Where the recipes differ", "", true).body.innerHTML = tableHtml(["<th>key</th>", ...names], rows);
}
