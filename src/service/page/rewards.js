// The table of all rewards, a chart for each (raw, smoothed, evaluations with intervals), other runs beside them.

const others = [];  // runs compared with: {run, index of their dash}

function change(run, reward) {
  const evals = run.evaluations(reward);
  const last = evals[evals.length - 1];
  if (last && evals.length > 1 && Number.isFinite(last.change))
    return {base: evals[0].y, now: last.y, by: last.change, ci: last.changeCi, step: last.x};
  if (last && evals.length > 1) return {base: evals[0].y, now: last.y, by: last.y - evals[0].y, ci: NaN, step: last.x};
  return {
    base: last && last.x === 0 ? last.y : NaN,
    now: last && last.x > 0 ? last.y : NaN,
    by: NaN,
    ci: NaN,
    step: NaN
  };
}

function changeClass(found) {
  if (!Number.isFinite(found.by) || !(Math.abs(found.by) > found.ci)) return 'dim';
  return found.by > 0 ? 'up' : 'down';
}

function changeText(found) {
  if (!Number.isFinite(found.by)) return '–';
  const arrow = !(Math.abs(found.by) > found.ci) ? '' : found.by > 0 ? '▲ ' : '▼ ';
  return arrow + signed(found.by) + (Number.isFinite(found.ci) ? ' ± ' + number(found.ci) : '');
}

function drawSpark(canvas, values, colour) {
  const context = canvas.getContext('2d'), ratio = devicePixelRatio || 1, width = 110, height = 22;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = width + 'px';
  canvas.style.height = height + 'px';
  context.scale(ratio, ratio);
  const known = values.filter(Number.isFinite), low = Math.min(...known), high = Math.max(...known);
  if (known.length < 2) return;
  context.strokeStyle = colour;
  context.lineWidth = 1.6;
  context.beginPath();
  let open = false;
  values.forEach((value, i) => {
    if (!Number.isFinite(value)) return;
    const x = 2 + i / (values.length - 1) * (width - 4),
          y = height - 3 - (high > low ? (value - low) / (high - low) : 0.5) * (height - 6);
    if (open) context.lineTo(x, y);
    else context.moveTo(x, y);
    open = true;
  });
  context.stroke();
}

const SUMMARY = [
  'reward', 'base model', 'evaluated', 'change, 95 %', 'training', 'curve', 'alpha', 'cosine', 'scored', 'N/A', 'failed'
];
const SMALL = new Set([5, 8, 9, 10]);  // columns that a phone leaves out

function showSummary(run) {
  const table = byId('summary');
  table.tHead.replaceChildren(make(
      'tr', null, ...SUMMARY.map((text, i) => make('th', {text, class: SMALL.has(i) && 'hide-small', scope: 'col'}))));
  table.tBodies[0].replaceChildren(...run.rewards().map((reward, i) => {
    const m = run.metrics, found = change(run, reward), alpha = m.now('alpha.' + reward), cos = m.now('cos.' + reward);
    const spark = make('canvas', {'aria-hidden': 'true'});
    const smoothed = smooth(m.get('reward.' + reward),
        view.weight).filter((v, at, all) => at % Math.ceil(all.length / 200) === 0 || at === all.length - 1);
    drawSpark(spark, smoothed, colourOf(i));
    const cell = (key, text, more) => make('td', Object.assign({'data-key': key, text}, more));
    return make('tr', {'data-reward': reward}, make('td', null, swatch(i), reward), cell('base', number(found.base)),
        cell('now', number(found.now)), cell('change', changeText(found), {class: changeClass(found)}),
        cell('reward', number(m.now('reward.' + reward))), make('td', {class: 'hide-small'}, spark),
        make('td', {class: 'bars', 'data-key': 'alpha'}, make('i', {
          style: {width: (Number.isFinite(alpha) ? Math.max(0, alpha) * 5 : 0) + 'rem', background: colourOf(i)}
        }),
            number(alpha)),
        cell('cos', signed(cos), {class: cos < 0 ? 'down' : ''}),
        cell('valid', number(m.now('valid.' + reward), 0), {class: 'hide-small'}),
        cell('na', number(m.now('na.' + reward), 0), {class: 'hide-small dim'}),
        cell('failed', number(m.now('failed.' + reward), 0),
            {class: 'hide-small' + (m.now('failed.' + reward) > 0 ? ' down' : ' dim')}));
  }));
}

function describeReward(run, reward, index) {
  const m = run.metrics, key = 'reward.' + reward;
  const evals = run.evaluations(reward), x = rangeOfX(m);
  const datasets = [
    line('smoothed', index, curve(m, key, {weight: view.weight}),
        {borderWidth: 2.4, order: 2, spanGaps: true, borderDash: []}),
    line('training', index, curve(m, key), {
      borderColor: fade(colourOf(index), 0.35),
      backgroundColor: fade(colourOf(index), 0.35),
      borderWidth: 1,
      borderDash: [],
      order: 3
    }),
    line('evaluation', index, evals.filter((point) => point.x >= x[0] && point.x <= x[1]), {
      borderColor: variable('--text'),
      backgroundColor: variable('--card'),
      borderWidth: 1.2,
      borderDash: [4, 3],
      pointRadius: 4,
      pointStyle: 'rectRot',
      pointBorderWidth: 1.6,
      whiskers: true,
      order: 1
    }),
  ];
  others.forEach((other, i) => {
    datasets.push(line(other.run.name, index, curve(other.run.metrics, key, {weight: view.weight}), {
      borderColor: otherColour(i),
      backgroundColor: otherColour(i),
      borderDash: [6, 4],
      borderWidth: 1.6,
      order: 4
    }));
    datasets.push(line(other.run.name + ', evaluation', index, other.run.evaluations(reward), {
      borderColor: otherColour(i),
      backgroundColor: otherColour(i),
      showLine: false,
      pointRadius: 3,
      whiskers: true,
      order: 4
    }));
  });
  const ends =
      evals.filter((point) => Number.isFinite(point.ci)).flatMap((point) => [point.y - point.ci, point.y + point.ci]);
  const y = ends.length ? {suggestedMin: Math.min(...ends), suggestedMax: Math.max(...ends)} : {};
  return {
    datasets,
    x,
    y,
    text: reward + ' over ' + m.step.length + ' steps; now ' + number(m.now(key)) +
        (evals.length ? '; evaluated ' + number(evals[evals.length - 1].y) : '')
  };
}

function otherColour(i) { return ['#7a7a8c', '#a08c00', '#cc79a7', '#56b4e9'][i % 4]; }

let shownRewards = '';
function showRewardCharts(run) {
  const rewards = run.rewards(), key = rewards.join('\n');
  const box = byId('reward-charts');
  if (key !== shownRewards) {
    for (const canvas of box.querySelectorAll('canvas')) dropPlot(canvas);
    box.replaceChildren(...rewards.map((reward, i) => {
      const canvas = make('canvas', {'data-reward': reward});
      addPlot(canvas, () => describeReward(page.run, reward, i));
      return make('figure', {class: 'card'},
          make('figcaption', null, swatch(i), make('b', {text: reward}), make('output', {class: 'number'})),
          make('div', {class: 'plot'}, canvas));
    }));
    shownRewards = key;
  }
  rewards.forEach((reward, i) => {
    const found = change(run, reward), output = box.children[i].querySelector('output');
    output.textContent = Number.isFinite(found.by) ? changeText(found) : number(run.metrics.now('reward.' + reward));
    output.className = 'number ' + changeClass(found);
  });
}

// Earlier runs: those that this service has besides the one shown, and folders of this computer, which the page reads
// itself.
function showCompare(runs, shown) {
  const box = byId('compare');
  const boxes = runs.filter((run) => run.run !== shown)
                    .map((run) => make('label', null, make('input', {
                      type: 'checkbox',
                      checked: others.some((other) => other.index === run.run),
                      onchange: (event) => compareWith(run, event.target.checked)
                    }),
                             ' ' + run.name));
  const file = make('input',
      {type: 'file', webkitdirectory: true, class: 'hush', onchange: (event) => compareWithFolder(event.target.files)});
  const local = others.filter((other) => other.index === null)
                    .map((other) => make('button',
                             {text: '× ' + other.run.name, title: 'take it away', onclick: () => dropOther(other)}));
  box.replaceChildren(make('span', {text: 'compare with'}), ...boxes, ...local,
      make('label', {class: 'file', title: 'reads its metrics.jsonl and eval.jsonl; nothing is sent anywhere'},
          'a run folder here …', file));
  others.forEach(
      (other, i) => box.append(make('span', null, make('i', {style: {borderColor: otherColour(i)}}), other.run.name)));
}

function dropOther(other) {
  others.splice(others.indexOf(other), 1);
  page.show();
}

async function compareWith(entry, on) {
  const known = others.find((other) => other.index === entry.run);
  if (!on) return known && dropOther(known);
  const run = new Run(entry.name), query = '?run=' + entry.run;
  try {
    const [evals, metrics] = await Promise.all([ask('api/eval' + query), ask('api/metrics' + query + '&points=5000')]);
    evals.lines.forEach((line) => run.addEval(line));
    metrics.lines.forEach((line) => run.metrics.add(line));
    others.push({run, index: entry.run});
  } catch (failure) {
    page.notice(entry.name + ': ' + failure.message);
  }
  page.show();
}

async function compareWithFolder(files) {
  const list = [...files],
        of = (name) => list.find((file) => file.webkitRelativePath.split('/').length === 2 && file.name === name);
  const metrics = of('metrics.jsonl'), evals = of('eval.jsonl');
  if (!metrics) return page.notice('expected a run folder: there is no metrics.jsonl in the chosen one');
  const run = new Run(metrics.webkitRelativePath.split('/')[0]);
  const each = async (file, take) => {
    for (const text of (await file.text()).split('\n')) {
      if (!text) continue;
      try {
        take(JSON.parse(text));
      } catch (cut) { /* the last line of a run under way may be cut */
      }
    }
  };
  await each(metrics, (found) => run.metrics.add(found));
  if (evals) await each(evals, (found) => run.addEval(found));
  others.push({run, index: null});
  page.show();
}
