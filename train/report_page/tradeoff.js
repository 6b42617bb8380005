// tradeoff.js: accuracy against the Lipschitz bound (its log10), a dot a run; the bound that its constraint promises as a ring.

function tradeoffPoints(column) {
  return runs.map(run => {
    const values = run.steps.get(column), last = values[values.length - 1];
    const promised = column === "log10_bound_rms" && run.ledger ? run.ledger.log10_promised_bound_rms : null;
    return {run, bound: last, promised: isFiniteNumber(promised) ? promised : null, top1: run.best_top1 ? 100 * run.best_top1.value : NaN};
  }).filter(p => Number.isFinite(p.bound) && Number.isFinite(p.top1));
}

function tradeoff(main) {
  if (!several) return;
  // The rms bound where a constraint promises one; l2 otherwise.
  const promised = tradeoffPoints("log10_bound_rms").some(p => p.promised !== null);
  const points = tradeoffPoints(promised ? "log10_bound_rms" : "log10_bound_l2");
  if (points.length < 2) return;
  const grid = section(main, "tradeoff", "Accuracy against the bound",
    `Each dot is a run: its best top-1 and its bound at the end${promised ? "; the ring is the bound promised before training" : ""}.`);
  const {body} = panelOf(grid, "Top-1, %", promised ? "rms bound of the network" : "l2 bound of the network", true);
  const width = 900, height = 300, left = 46, right = 150, top = 14, bottom = 34;
  const logs = points.flatMap(p => [p.bound, p.promised]).filter(isFiniteNumber);
  const [low, high] = extremes(logs), [least, most] = extremes(points.map(p => p.top1));
  const room = Math.max(.5, (high - low) * .08), space = Math.max(1, (most - least) * .12);
  const x = v => left + (v - low + room) / (high - low + 2 * room) * (width - left - right);
  const y = v => top + (most + space - v) / (most - least + 2 * space) * (height - top - bottom);
  const pieces = [];
  const every = Math.max(1, Math.ceil((high - low + 2 * room) / 8));
  for (let e = Math.ceil(low - room); e <= high + room; e += every) {
    const at = x(e);
    pieces.push(`<line class="rule" x1="${at}" x2="${at}" y1="${top}" y2="${height - bottom}"/>`);
    pieces.push(`<text x="${at}" y="${height - bottom + 16}" text-anchor="middle">1e${e}</text>`);
  }
  const step = [1, 2, 5, 10, 20].find(s => (most - least + 2 * space) / s <= 6) || 20;
  for (let v = Math.ceil((least - space) / step) * step; v <= most + space; v += step) {
    pieces.push(`<line class="rule" x1="${left}" x2="${width - right}" y1="${y(v)}" y2="${y(v)}"/>`);
    pieces.push(`<text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`);
  }
  for (const p of points) {
    const colour = runColour(p.run.index), cy = y(p.top1);
    if (p.promised !== null) {
      pieces.push(`<line x1="${x(p.bound)}" x2="${x(p.promised)}" y1="${cy}" y2="${cy}" stroke="${colour}" stroke-dasharray="2 3"/>`);
      pieces.push(`<circle cx="${x(p.promised)}" cy="${cy}" r="4.5" fill="none" stroke="${colour}"/>`);
    }
    pieces.push(`<circle cx="${x(p.bound)}" cy="${cy}" r="4.5" fill="${colour}"><title>${escaped(p.run.name)}: ${number(p.top1)} %, ${power(p.bound)}</title></circle>`);
    const end = Math.max(x(p.bound), p.promised === null ? 0 : x(p.promised));
    pieces.push(`<text x="${end + 9}" y="${cy + 4}">${escaped(p.run.name)}</text>`);
  }
  body.innerHTML = `<svg class="scatter" viewBox="0 0 ${width} ${height}" role="img" aria-label="accuracy against the bound">${pieces.join("")}</svg>`;
}
