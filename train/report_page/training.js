// training.js: the curves of the run as a whole; those of several runs lie over each other.

let smoothing = .9;

const labelOf = (run, what) => several ? `${run.name} · ${what}` : what;

// A column of steps.csv of every run: the raw curve pale, its smoothed mean strong.
function stepSeries(name, what) {
  return runs.filter(run => run.steps.has(name)).flatMap(run => {
    const colour = () => runColour(run.index), step = run.steps.step, raw = labelOf(run, what + " (raw)");
    const values = smoothed(run.steps.get(name + ".mean"), smoothing);
    return [
      {label: raw, step, values: run.steps.get(name), colour, width: 1, alpha: several ? .18 : .3, quiet: true},
      {label: labelOf(run, what), step, values, colour, width: 2},
    ];
  });
}

// A column as it is. Of one run each curve has a colour of its own, of several each run has.
function plainSeries(table, name, what, {shift = 0, ...style} = {}) {
  return runs.filter(run => run[table].has(name) && anyFinite(run[table].get(name))).map(run => ({
    label: labelOf(run, what),
    step: run[table].step,
    values: run[table].get(name),
    colour: () => runColour(several ? run.index : shift),
    ...style,
  }));
}

function boundKinds() {
  const kinds = new Set(runs.flatMap(run => run.bounds.map(b => b[1])).filter(Boolean));
  const without = runs.filter(run => run.bounds.some(b => b[1] === "unbounded")).map(run => escaped(run.name));
  return ["l2", ...kinds].join(", ") + (several && without.length ? `: ${without.join(", ")}` : "");
}

function boundChart(grid) {
  const unbounded = runs.flatMap(run => run.bounds.filter(b => b[1] === "unbounded"));
  const blame = unbounded.length ? escaped(unbounded[0][2] || "an unnamed layer") : "";
  const empty = blame ? `unbounded at every step, because of <b>${blame}</b>` : "no bound was written";
  const infinite = run => stretches(run.steps.step, run.steps.get("log10_bound_l2"), v => v === Infinity);
  const shade = several ? [] : infinite(runs[0]).map(([from, to]) => [from, to, "unbounded"]);
  new Chart(grid, {title: "Lipschitz bound of the network", unit: boundKinds(), power: true, empty, shade},
    () => plainSeries("steps", "log10_bound_l2", "bound", {width: 2}));
}

function accuracyChart(grid) {
  const scale = runs.some(run => run.epochs.get("top1").some(v => v > 1)) ? 1 : 100;
  const percent = series => series.map(s => ({...s, values: Float64Array.from(s.values, v => v * scale)}));
  new Chart(grid, {title: "Accuracy", unit: "%, on the evaluation images", empty: "not evaluated yet"}, () => percent([
    ...plainSeries("epochs", "top1", "top-1", {points: 3, width: 2}),
    ...plainSeries("epochs", "ema_top1", "top-1 of the averaged weights", {points: 2.5, dash: [5, 3], shift: 3}),
    ...plainSeries("epochs", "top5", "top-5", {points: 2, width: 1.2, dash: [2, 3], shift: 2}),
  ]));
}

function training(main) {
  const grid = section(main, "training", "Training");
  const said = run => several ? `${run.name}: not a number` : "not a number";
  const shade = runs.flatMap(run => run.diverged.map(([from, to]) => [from, to, said(run)]));
  const evaluated = {width: 2, dash: several ? [4, 3] : null, points: 3, shift: 1};
  new Chart(grid, {title: "Loss", smooth: true, shade, empty: "no finite loss"},
    () => [...stepSeries("loss", "training"), ...plainSeries("epochs", "loss", "evaluation", evaluated)]);
  accuracyChart(grid);
  boundChart(grid);
  new Chart(grid, {title: "Gradient norm", log: true, smooth: true, shade},
    () => stepSeries("grad_norm", "gradient norm"));

  const row = element("div", {class: "grid thirds"});
  main.append(row);
  new Chart(row, {title: "Learning rate"}, () => plainSeries("steps", "lr", "learning rate", {width: 2}));
  new Chart(row, {title: "Throughput", unit: "images per second", smooth: true},
    () => stepSeries("images_per_s", "images/s"));
  new Chart(row, {title: "Waiting for data", unit: "each step", smooth: true}, () => stepSeries("data_wait", "wait"));
}
