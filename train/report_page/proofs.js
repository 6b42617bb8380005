// proofs.js: what is proven of a network's stretch, what was found, and what was promised before training.

// A column of a table of every run that has numbers in it.
const proofSeries = (table, column, what, shift, style = {}) => plainSeries(table, column, what, {shift, width: 1.6, ...style});

// The logarithms of a column of measured.csv, as plainSeries gives them.
function measuredSeries() {
  const logs = series => series.map(s => ({...s, values: Float64Array.from(s.values, Math.log10)}));
  return logs(proofSeries("measured", "network", "measured", 2, {points: 3, dash: [2, 3]}));
}

// The promise is a level: a line over all steps of the run.
function promisedSeries() {
  return runs.filter(run => run.ledger && isFiniteNumber(run.ledger.log10_promised_bound_rms) && run.steps.points > 0).map(run => {
    const step = run.steps.step, level = run.ledger.log10_promised_bound_rms;
    return {label: labelOf(run, "promised"), step: [step[0], step[step.length - 1]], values: [level, level], width: 1.6, dash: [8, 4],
      colour: () => runColour(several ? run.index : 4)};
  });
}

function proofs(host, run, of) {
  const proven = runs.some(r => r.certified.points > 0 || r.measured.points > 0), promised = promisedSeries().length > 0;
  if (!proven && !promised) return;
  const grid = section(host, "proofs", "Certified against measured" + of, "Certified: no input can be stretched more. Measured: the largest " +
    "stretch that ascent on real images found, so the truth lies between the two. Estimate: the bound of every step, by power iteration.");
  if (proven) {
    parts.push(new Chart(grid, {title: "Stretch of the network", unit: "l2", power: true, tall: true}, () => [
      ...proofSeries("certified", "log10_bound_l2", "certified", 1, {points: 3}),
      ...proofSeries("steps", "log10_bound_l2", "estimate", 0), ...measuredSeries()]));
    stageTable(grid, run);
  }
  if (!promised) return;
  parts.push(new Chart(grid, {title: "Bound that the constraint promises", unit: "rms", power: true, tall: true}, () => [
    ...promisedSeries(), ...proofSeries("certified", "log10_bound_rms", "certified", 1, {points: 3}),
    ...proofSeries("steps", "log10_bound_rms", "estimate", 0)]));
}

// Certified, measured and their ratio of the network and each stage, the loosest marked by the longest bar.
function stageTable(grid, run) {
  const {body} = panelOf(grid, "Stages", "last row of certified.csv and measured.csv");
  const nodes = run.tree ? [run.tree, ...(run.tree.parts || [])].filter(node => node.name) : [];
  const ratios = nodes.slice(1).map(ratioOf).filter(isFiniteNumber), most = Math.max(...ratios, .1);
  const text = log => isFiniteNumber(log) ? power(log) : "–";
  const bar = ratio => isFiniteNumber(ratio) ? `<span class="meter"><i style="left:0;width:${Math.min(100, Math.max(1, 100 * ratio / most))}%"></i></span>` : "";
  const row = node => `<tr>${layerCell(node.name, node.kind)}<td>${text(node.log10_certified)}</td><td>${text(node.log10_measured)}</td>` +
    `<td>${text(ratioOf(node))}</td><td>${node === run.tree ? "" : bar(ratioOf(node))}</td></tr>`;
  body.innerHTML = nodes.length ? tableHtml(["stage", "certified", "measured", "ratio", ""].map(t => `<th>${t}</th>`), nodes.map(row)) :
    `<div class="empty short">ledger.json has no tree of the bound</div>`;
}
