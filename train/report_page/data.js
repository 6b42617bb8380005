// data.js: unpacks the runs, and small words about numbers.

function unpack(packed) {
  const binary = atob(packed.data);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const values = packed.type === "f32" ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
  const table = {rows: packed.rows, points: packed.points, names: packed.columns, columns: new Map()};
  const column = i => values.subarray(i * packed.points, (i + 1) * packed.points);
  packed.columns.forEach((name, i) => table.columns.set(name, column(i)));
  table.step = table.columns.get("step") || new Float32Array(0);
  table.get = name => table.columns.get(name) || new Float32Array(table.points);
  table.has = name => table.columns.has(name);
  table.rowsPerPoint = table.points ? Math.max(1, table.rows / table.points) : 1;
  return table;
}

// "1.234", "12,345", "1.2e+12"; null and text pass through.
function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value === "inf" ? "∞" : value;
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  if (Number.isInteger(value) || size >= 1e4) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
}

// 10^log in a few digits, however large.
function power(log, digits = 3) {
  if (!Number.isFinite(log) || Math.abs(log) < 300) return number(10 ** log, digits);
  const exponent = Math.floor(log);
  return `${Number((10 ** (log - exponent)).toPrecision(digits))}e${exponent}`;
}

const whole = value => Math.round(value).toLocaleString("en-US");
const escaped = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const isFiniteNumber = value => typeof value === "number" && Number.isFinite(value);
const anyFinite = values => values.some(Number.isFinite);

// {"model.family": "swin", ...} of the plain `key = value` lines of a resolved recipe.
function recipeKeys(text) {
  const keys = new Map();
  let section = "";
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    const head = line.match(/^\[([^\[\]]+)\]$/);
    if (head) section = head[1] + ".";
    const pair = line.match(/^([A-Za-z0-9_.-]+)\s*=\s*(.+)$/);
    if (pair) keys.set(section + pair[1], pair[2].replace(/\s+#[^"']*$/, "").replace(/^(["'])(.*)\1$/, "$2"));
  }
  return keys;
}

// Exponential mean that starts without bias; nan is left out of it and stays where it was.
function smoothed(values, weight) {
  const out = new Float64Array(values.length);
  let sum = 0, mass = 0;
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) { out[i] = NaN; continue; }
    sum = weight * sum + (1 - weight) * values[i];
    mass = weight * mass + (1 - weight);
    out[i] = sum / mass;
  }
  return out;
}

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (Number.isFinite(v)) { if (v < low) low = v; if (v > high) high = v; }
  return low <= high ? [low, high] : [NaN, NaN];
}

// Stretches of steps over which `bad(value)` holds: [[from, to], ...].
function stretches(steps, values, bad) {
  const out = [];
  for (let i = 0; i < values.length; i++) {
    if (!bad(values[i])) continue;
    const start = i;
    while (i + 1 < values.length && bad(values[i + 1])) i++;
    out.push([steps[start], steps[Math.min(i + 1, values.length - 1)]]);
  }
  return out;
}

const page = JSON.parse(document.getElementById("data").textContent);
const runs = page.runs.map((run, index) => {
  for (const name of ["steps", "epochs", "lipschitz", "certified", "measured", "norms", "entropy", "entropy_floor"]) run[name] = unpack(run[name]);
  run.index = index;
  run.keys = recipeKeys(run.recipe);
  run.kinds = new Map(((run.ledger && run.ledger.layers) || []).map(layer => [layer.name, layer.kind]));
  run.entropyMax = (run.ledger && run.ledger.entropy_max) || {};
  run.sessions = (run.environment && run.environment.sessions) || [];
  run.diverged = stretches(run.steps.step, run.steps.get("loss"), v => !Number.isFinite(v));
  return run;
});

// The steps in view, one for all charts. A drawing that shows steps follows it.
const view = {
  data: (() => {
    let low = Infinity, high = -Infinity;
    for (const run of runs) {
      for (const table of [run.steps, run.epochs, run.norms, run.entropy, run.lipschitz]) {
        if (table.points) { low = Math.min(low, table.step[0]); high = Math.max(high, table.step[table.points - 1]); }
      }
    }
    return low <= high ? [low, high] : [0, 1];
  })(),
  get all() { return this.data[0] < this.data[1] ? this.data : [this.data[0] - 1, this.data[1] + 1]; },
  range: null,
  followers: new Set(),
  current() { return this.range || this.all; },
  set(range) {
    this.range = range;
    for (const follow of this.followers) follow();
  },
};
