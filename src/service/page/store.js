// What the page knows of a run: every number of metrics.jsonl as a column, the evaluations, the cosines.

// Columns over steps; the number `a: {b: 1}` of a line is column a.b. A step that comes again replaces what was from it
// on. Keys are looked up level by level (`tree`): joining their names for every number of ten thousand lines takes
// longer than the rest.
class Columns {
  constructor() {
    this.step = [];
    this.columns = new Map();
    this.tree = {name: '', under: new Map(), column: null};
    this.last = null;
  }

  add(line) {
    if (!line || !Number.isFinite(line.step)) return;
    if (this.step.length && line.step <= this.step[this.step.length - 1]) this.cut(line.step);
    this.put(this.tree, line, 0);
    this.step.push(line.step);
    this.last = line;
  }

  put(node, object, depth) {
    for (const key in object) {
      const value = object[key], kind = typeof value;
      if (kind === 'number') this.number(this.below(node, key), value);
      else if (kind === 'boolean') this.number(this.below(node, key), value ? 1 : 0);
      else if (kind === 'object' && value && !Array.isArray(value) && depth < 3)
        this.put(this.below(node, key), value, depth + 1);
    }
  }

  below(node, key) {
    let child = node.under.get(key);
    if (!child)
      node.under.set(key, child = {name: node.name ? node.name + '.' + key : key, under: new Map(), column: null});
    return child;
  }

  number(node, value) {
    if (!node.column) this.columns.set(node.name, node.column = []);
    const column = node.column;
    while (column.length < this.step.length) column.push(NaN);
    column.push(value);
  }

  // Forgets `step` and what comes after it.
  cut(step) {
    const n = this.find(step);
    this.step.length = n;
    for (const column of this.columns.values())
      if (column.length > n) column.length = n;
  }

  // Index of the first step >= `step`.
  find(step) {
    let low = 0, high = this.step.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.step[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  get(key) { return this.columns.get(key) || []; }
  // The last number of a column, NaN where the last line has none.
  now(key) {
    const column = this.get(key);
    return column.length === this.step.length && column.length ? column[column.length - 1] : NaN;
  }
  // Names under `prefix.`, in the order they came.
  under(prefix) {
    const names = [];
    for (const key of this.columns.keys())
      if (key.startsWith(prefix + '.')) names.push(key.slice(prefix.length + 1));
    return names;
  }
}

class Run {
  constructor(name) {
    this.name = name;
    this.clear();
    this.status = null;
  }

  clear() {
    this.metrics = new Columns();
    this.evals = [];
    this.gram = [];
  }

  // Evaluations by step; older files have the rewards beside `step`.
  addEval(line) {
    if (!line || !Number.isFinite(line.step)) return;
    while (this.evals.length && this.evals[this.evals.length - 1].step >= line.step) this.evals.pop();
    this.evals.push({step: line.step, rewards: line.rewards || line});
  }

  // Only a square of cosines and as many names: a folder may hold anything.
  addGram(line) {
    if (!line || !Number.isFinite(line.step) || !Array.isArray(line.cos) || !Array.isArray(line.rewards)) return;
    const k = line.rewards.length;
    if (!k || line.cos.length !== k || !line.cos.every((row) => Array.isArray(row) && row.length === k)) return;
    while (this.gram.length && this.gram[this.gram.length - 1].step >= line.step) this.gram.pop();
    this.gram.push(line);
  }

  // In the order of run.yaml where the status says it.
  rewards() {
    if (this.status && this.status.rewards && this.status.rewards.length)
      return this.status.rewards.map((reward) => reward.name);
    return this.metrics.under('reward');
  }

  // [{x, mean, ci}] of a reward.
  evaluations(reward) {
    return this.evals.filter((line) => line.rewards[reward] && Number.isFinite(line.rewards[reward].mean))
        .map((line) => ({
          x: line.step,
          y: line.rewards[reward].mean,
          ci: line.rewards[reward].ci95,
          change: line.rewards[reward].change,
          changeCi: line.rewards[reward].change_ci95,
          n: line.rewards[reward].n
        }));
  }
}

// Exponential mean without a bias at its start; gaps stay gaps.
function smooth(values, weight) {
  if (!weight) return values;
  const out = new Array(values.length);
  let sum = 0, total = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (Number.isFinite(value)) {
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      out[i] = sum / total;
    } else {
      out[i] = NaN;
    }
  }
  return out;
}

// Points [{x, y}] of a column between indexes; more than `most` of them become means (or what `how` makes) of
// neighbours.
function points(steps, values, from, to, most, how = 'mean') {
  const out = [], n = to - from;
  const wide = Math.max(1, Math.ceil(n / most));
  for (let i = from; i < to; i += wide) {
    const end = Math.min(i + wide, to);
    let sum = 0, count = 0, least = Infinity;
    for (let j = i; j < end; j++) {
      const value = j < values.length ? values[j] : NaN;
      if (Number.isFinite(value)) {
        sum += value;
        count++;
        if (value < least) least = value;
      }
    }
    const y = count === 0 ? NaN : how === 'least' ? least : how === 'sum' ? sum : sum / count;
    out.push({x: wide === 1 ? steps[i] : (steps[i] + steps[end - 1]) / 2, y});
  }
  return out;
}
