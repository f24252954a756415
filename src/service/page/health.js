// How fast the run is and how it fares: phases of a step, alarms, ranks, scorers; and the numbers of training itself.

const PHASES = [
  ['rollout', 'rollout'], ['reward_wait', 'waiting for scores'], ['train', 'training'], ['gram', 'Gram matrix'],
  ['qp', 'quadratic program'], ['checkpoint', 'checkpoint'], ['rest', 'rest']
];
const PHASE_COLOURS = [4, 5, 0, 1, 3, 2, 7];

// Seconds of a phase; the rest is what a step took beyond all of them.
function phaseColumn(m, phase) {
  const of = (key) => m.get('seconds.' + key), at = (key, i) => {
    const value = of(key)[i];
    return Number.isFinite(value) ? value : 0;
  };
  if (phase === 'rest')
    return m.step.map((step, i) => Math.max(0,
                          at('total', i) - at('rollout', i) - at('reward_wait', i) - at('train', i) - at('gram', i) -
                              at('qp', i) - at('checkpoint', i)));
  return of(phase);
}

function describePhases() {
  const m = page.run.metrics, x = rangeOfX(m), [from, to] = inView(m), most = 60;
  const datasets = PHASES
                       .map(([key, label], i) => ({
                         label,
                         data: points(m.step, phaseColumn(m, key), from, to, most),
                         backgroundColor: colourOf(PHASE_COLOURS[i]),
                         categoryPercentage: 1,
                         barPercentage: 0.9,
                         order: 2,
                         minBarLength: 0
                       }))
                       .filter((set) => set.data.some((point) => point.y > 0));
  datasets.push(line('images a second', 6, points(m.step, m.get('samples_per_s'), from, to, most), {
    type: 'line',
    yAxisID: 'second',
    borderColor: variable('--text'),
    backgroundColor: variable('--text'),
    borderWidth: 1.5,
    borderDash: [],
    pointRadius: 0,
    order: 1
  }));
  const soft = variable('--soft');
  return {
    datasets,
    x: [x[0], x[1] + 1],
    bars: true,
    stacked: true,
    legend: true,
    y: {title: {display: true, text: 's', color: soft}},
    second: {
      min: 0,
      ticks: {color: soft, maxTicksLimit: 5, font: {size: 11}},
      title: {display: true, text: 'images/s', color: soft}
    },
    text: 'seconds of the last step: ' + number(m.now('seconds.total'))
  };
}

function showRate(run) {
  const status = run.status || {}, m = run.metrics;
  const pieces = [
    number(m.now('seconds.total'), 2) + ' s a step', number(m.now('samples_per_s'), 2) + ' images/s',
    'messages ' + number(m.now('seconds.comm'), 3) + ' s'
  ];
  if (Number.isFinite(status.seconds_left) && status.state === 'running')
    pieces.push('left ' + duration(status.seconds_left));
  byId('rate').textContent = m.step.length ? pieces.join(' · ') : '';
}

const ALARM_TEXTS = {
  old_equals_new: 'the rollout policy does not differ from the trained one',
  against_reward: 'a step worked against what a reward alone wants',
  old_drift: 'the rollout policy drifts away from the trained one',
  no_variance: 'the advantages of a reward hardly differ',
  x0_norm_drift: 'the latents grow or shrink',
  alpha_collapse: 'one reward has nearly all of alpha',
  alpha_stale: 'alpha is old',
  non_finite: 'a number was not finite',
  replica_mismatch: 'ranks hold different weights',
  scorer_failed: 'a scorer failed',
  scorer_range: 'scores outside the range of their scorer',
  no_score: 'a reward has no score',
  reward_collapse: 'a reward fell far',
};

// By alarm: in how many steps, and in which last; from the counts in metrics.jsonl, which only rise.
function alarmsOf(m) {
  return m.under('alarms')
      .map((name) => {
        const column = m.get('alarms.' + name);
        let last = -1;
        for (let i = column.length - 1; i >= 0 && last < 0; i--)
          if (column[i] > (i ? column[i - 1] || 0 : 0)) last = i;
        return {name, count: m.now('alarms.' + name), step: last < 0 ? NaN : m.step[last]};
      })
      .filter((alarm) => alarm.count > 0)
      .sort((a, b) => b.step - a.step);
}

function showAlarms(run) {
  const found = alarmsOf(run.metrics);
  byId('alarms').replaceChildren(...(found.length ?
          found.map(
              (alarm) =>
                  make('div', {class: 'alarm', 'data-alarm': alarm.name}, make('b', {text: alarm.name}), make('span', {
                    class: 'number dim',
                    text: alarm.count + (alarm.count === 1 ? ' step' : ' steps') + ', last ' + number(alarm.step, 0)
                  }),
                      make('p', {class: 'note', text: ALARM_TEXTS[alarm.name] || ''}))) :
          [make('p', {
            class: 'note',
            text: run.metrics.step.length ? 'None in ' + run.metrics.step.length + ' steps.' : 'Nothing yet.'
          })]));
}

function fillTable(id, head, rows) {
  const table = byId(id);
  table.tHead.replaceChildren(make('tr', null, ...head.map((text) => make('th', {text, scope: 'col'}))));
  table.tBodies[0].replaceChildren(
      ...rows.map((cells) => make('tr', null, ...cells.map((cell) => make('td', null, cell)))));
}

// By rank: its share of the work of the one that works longest (messages are mostly waiting for others), and its
// memory.
function showRanks(run) {
  const line = run.metrics.last, status = run.status || {}, of = line && line.ranks;
  const whole = (key) => Array.isArray(of.rollout) && Array.isArray(of[key]) && of[key].length === of.rollout.length;
  if (!of || !whole('rollout') || !of.rollout.length || !['train', 'comm', 'memory'].every(whole))
    return fillTable('ranks', ['ranks', 'host of rank 0', 'last step'],
        [[number(status.ranks, 0), status.host || '–', status.time || (line && line.time) || '–']]);
  const work = of.rollout.map((seconds, i) => Math.max(0, seconds + of.train[i] - of.comm[i])),
        most = Math.max(...work) || 1;
  return fillTable('ranks', ['rank', 'rollout', 'training', 'waiting, messages', 'work', 'memory'],
      work.map((seconds, i) => [String(i), number(of.rollout[i], 2) + ' s', number(of.train[i], 2) + ' s',
                   number(of.comm[i], 2) + ' s',
                   make('span', {class: 'load', title: number(seconds, 2) + ' s'},
                       make('i', {style: {width: seconds / most * 4 + 'rem'}}), number(seconds / most * 100, 0) + ' %'),
                   number(of.memory[i] / 1e6, 0) + ' MB']));
}

async function showScorers(run) {
  const feed = page.feed;
  let scorers;
  try {
    scorers = (await ask(feed.path('scorers'))).scorers;
  } catch (failure) {
    return;
  }
  if (feed !== page.feed) return;
  const sum = (found) => found && typeof found === 'object' ? Object.values(found).reduce((a, b) => a + b, 0) : found;
  const remote = scorers.some((scorer) => scorer.last);
  fillTable('scorers',
      [
        'scorer', 'type', 'scored', 'N/A', 'failed',
        ...(remote ? ['requests', 'p50', 'p99', 'images/s', 'failures', 'set aside'] : [])
      ],
      scorers.map((scorer) => {
        const last = scorer.last || {};
        const failed = make('span', {class: scorer.failed > 0 ? 'down' : 'dim', text: number(scorer.failed, 0)});
        const seconds = (value) => value === undefined ? '–' : number(value * 1000, 0) + ' ms';
        return [
          scorer.name, scorer.type || '–', number(scorer.valid, 0), number(scorer.na, 0), failed,
          ...(remote ?
                  [
                    number(last.requests, 0), seconds(last.p50), seconds(last.p99), number(last.images_per_s, 1),
                    number(sum(last.failed), 0),
                    last.set_aside > 0 ? make('span', {class: 'down', text: String(last.set_aside)}) :
                                         number(last.set_aside, 0)
                  ] :
                  [])
        ];
      }));
}

const TRAINING = [
  ['loss', 'loss'], ['kl', 'KL to the base model'], ['grad_norm', 'length of the direction'], ['lr', 'learning rate'],
  ['old_lag', 'lag of the rollout policy']
];

function startTraining() {
  addPlot(byId('phases'), describePhases);
  const box = byId('training-charts');
  const add = (label, key) => {
    const canvas = make('canvas', {'data-column': typeof key === 'string' ? key : 'any'}),
          output = make('output', {class: 'number'});
    const column = () => typeof key === 'string' ? key : key.value;
    addPlot(canvas, () => {
      const m = page.run.metrics;
      output.textContent = exact(m.now(column()));
      return {
        x: rangeOfX(m),
        text: column() + ' now ' + exact(m.now(column())),
        datasets: [
          line('smoothed', 0, curve(m, column(), {weight: view.weight}), {borderWidth: 2.2}),
          line(column(), 0, curve(m, column()),
              {borderColor: fade(colourOf(0), 0.35), backgroundColor: fade(colourOf(0), 0.35), borderWidth: 1}),
          ...others.map((other, i) => line(other.run.name, 1, curve(other.run.metrics, column(), {weight: view.weight}),
                            {borderColor: otherColour(i), backgroundColor: otherColour(i), borderDash: [6, 4]}))
        ]
      };
    });
    box.append(make('figure', {class: 'card'},
        make('figcaption', null, typeof key === 'string' ? make('b', {text: label}) : key, output),
        make('div', {class: 'plot low'}, canvas)));
  };
  for (const [key, label] of TRAINING) add(label, key);
  const any = make('select', {id: 'any', 'aria-label': 'Any number of metrics.jsonl', onchange: refreshPlots});
  add('', any);
}

function showAny(run) {
  const any = byId('any'),
        keys = [...run.metrics.columns.keys()].filter((key) => key !== 'step' && !key.startsWith('alarms.')).sort();
  if (any.options.length !== keys.length) fillSelect(any, keys.map((key) => [key, key]), any.value || 'bytes_comm');
}
