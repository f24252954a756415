// What steps are made of: alpha stacked, cosines of the step with the rewards, and of the rewards' gradients with each
// other over time.

function describeAlpha() {
  const run = page.run, m = run.metrics, x = rangeOfX(m);
  const datasets = run.rewards().map((reward, i) => line(reward, i, curve(m, 'alpha.' + reward, {
    most: 120
  }).map((point) => ({x: point.x, y: Number.isFinite(point.y) ? point.y : 0})),
                                         {
                                           fill: i === 0 ? 'origin' : '-1',
                                           backgroundColor: fade(colourOf(i), 0.78),
                                           borderColor: colourOf(i),
                                           borderWidth: 1,
                                           pointRadius: 0
                                         }));
  return {
    datasets,
    x,
    legend: true,
    stacked: true,
    y: {min: 0, max: 1},
    text: 'alpha now: ' + run.rewards().map((reward) => reward + ' ' + number(m.now('alpha.' + reward))).join(', ')
  };
}

// How many of the rewards that a step trains it worked against: cosines below 0 by more than rounding, as
// mbl_is_against has it. Lines say `trained` where some rewards are only scored.
function againstOf(run) {
  const m = run.metrics, columns = run.rewards().map((reward) => [m.get('cos.' + reward), m.get('trained.' + reward)]);
  return m.step.map(
      (step, i) => columns.reduce((count, [cos, trained]) => count + (cos[i] < -1e-6 && trained[i] !== 0 ? 1 : 0), 0));
}

function describeCosMin() {
  const m = page.run.metrics, x = rangeOfX(m), [from, to] = inView(m);
  const against = points(m.step, againstOf(page.run), from, to, 120, 'sum');
  const most = Math.max(1, ...against.map((point) => point.y));
  const least = curve(m, 'cos_min', {how: 'least'}), zero = least.length ? [{x: x[0], y: 0}, {x: x[1], y: 0}] : [];
  return {
    x,
    legend: true,
    y: {suggestedMin: -0.1, suggestedMax: 0.5},
    second: {
      min: 0,
      max: Math.max(4, most * 2),
      ticks: {precision: 0, color: variable('--soft'), maxTicksLimit: 4, font: {size: 11}},
      title: {display: false}
    },
    datasets: [
      line('least cosine', 0, least,
          {fill: {target: {value: 0}, above: 'rgba(0,0,0,0)', below: fade('#d55e00', 0.35)}, order: 2}),
      line('own part', 2, curve(m, 'cos_part_min', {how: 'least'}), {borderWidth: 1.2, order: 3}),
      line('zero', 0, zero, {
        borderColor: variable('--soft'),
        borderWidth: 1,
        borderDash: [2, 3],
        silent: true,
        unlisted: true,
        order: 4
      }),
      line('rewards worked against', 5, against.filter((point) => point.y > 0),
          {yAxisID: 'second', showLine: false, pointRadius: 3.5, pointStyle: 'triangle', order: 1}),
    ],
    text: 'least cosine now ' + number(m.now('cos_min'))
  };
}

function showAgainst(run) {
  const m = run.metrics, against = againstOf(run), n = against.filter((count) => count > 0).length;
  const solved = m.get('cos_min').filter(Number.isFinite).length;
  byId('against').textContent =
      solved ? 'now ' + signed(m.now('cos_min')) + ', against a reward in ' + n + ' of ' + solved + ' steps' : '';
}

function describeCosBy() {
  const run = page.run, m = run.metrics;
  return {
    x: rangeOfX(m),
    legend: true,
    text: 'cosines now: ' + run.rewards().map((reward) => reward + ' ' + number(m.now('cos.' + reward))).join(', '),
    datasets:
        run.rewards().map((reward, i) => line(reward, i, curve(m, 'cos.' + reward, {most: 250, weight: view.weight}),
                              {borderWidth: 1.6, spanGaps: true}))
  };
}

const heat = {
  at: null,
  timer: null,
  cells: null
};  // at: index into run.gram; null: the newest

function shownGram() {
  const gram = page.run.gram;
  return gram.length ? gram[heat.at === null ? gram.length - 1 : Math.min(heat.at, gram.length - 1)] : null;
}

function showHeat(run) {
  const slider = byId('heat-time'), gram = run.gram;
  slider.max = Math.max(0, gram.length - 1);
  if (heat.at === null) slider.value = slider.max;
  const found = shownGram(), canvas = byId('heat');
  byId('heat-note').textContent = found ? '' : 'nothing yet: a line comes with every step that solves for alpha';
  canvas.parentElement.hidden = !found;
  byId('heat-step').textContent = found ? 'step ' + found.step : '';
  slider.disabled = byId('heat-play').disabled = gram.length < 2;
  if (!found) return;
  const names = found.rewards, k = names.length;
  canvas.setAttribute('aria-label',
      'cosines at step ' + found.step + ': ' +
          names
              .map((a, i) => names.slice(i + 1)
                                 .map((b, j) => a + ' with ' + b + ' ' + number(found.cos[i][i + 1 + j], 2))
                                 .join(', '))
              .filter(Boolean)
              .join(', '));
  canvas.dataset.step = found.step;
  const width = canvas.parentElement.clientWidth,
        left = Math.min(140, 12 + 7 * Math.max(...names.map((name) => name.length)));
  const size = Math.min(44, 240 / Math.min(k, 8)), wide = Math.min(120, (width - left) / k);
  paint(canvas, size * k + 22, (context) => {
    context.font = '12px system-ui, "DejaVu Sans", sans-serif';
    context.textBaseline = 'middle';
    names.forEach((row, i) => {
      context.fillStyle = variable('--soft');
      context.textAlign = 'right';
      context.fillText(row, left - 8, size * (i + 0.5), left - 10);
      names.forEach((column, j) => {
        const value = found.cos[i][j], known = Number.isFinite(value);
        context.fillStyle = i === j ? variable('--grid') : known ? diverging(value) : variable('--na');
        context.fillRect(left + j * wide, i * size, wide - 1.5, size - 1.5);
        if (size >= 18 && wide >= 34 && i !== j) {
          context.fillStyle = Math.abs(value) > 0.55 ? '#ffffff' : variable('--text');
          context.textAlign = 'center';
          context.fillText(
              known ? value.toFixed(2).replace('-', '−') : 'N/A', left + (j + 0.5) * wide, (i + 0.5) * size);
        }
      });
      context.fillStyle = variable('--soft');
      context.textAlign = 'center';
      if (context.measureText(row).width <= wide * 1.4)
        context.fillText(row, left + (i + 0.5) * wide, size * k + 12, wide - 2);
    });
  });
  heat.cells = {left, size, wide, names, cos: found.cos};
}

function heatTip(event) {
  const cells = heat.cells;
  if (!cells) return;
  const box = byId('heat').getBoundingClientRect();
  const j = Math.floor((event.clientX - box.left - cells.left) / cells.wide),
        i = Math.floor((event.clientY - box.top) / cells.size);
  if (i < 0 || j < 0 || i >= cells.names.length || j >= cells.names.length) return hideTip();
  showTip(event,
      cells.names[i] + ' and ' + cells.names[j] + ': ' +
          (Number.isFinite(cells.cos[i][j]) ? signed(cells.cos[i][j]) : 'N/A'));
}

function playHeat() {
  const button = byId('heat-play');
  if (heat.timer) {
    clearInterval(heat.timer);
    heat.timer = null;
    button.textContent = 'play';
    return;
  }
  button.textContent = 'stop';
  const n = page.run.gram.length, stride = Math.max(1, Math.floor(n / 100));
  heat.at = heat.at === null || heat.at >= n - 1 ? 0 : heat.at;
  heat.timer = setInterval(() => {
    heat.at += stride;
    if (heat.at >= page.run.gram.length - 1) {
      heat.at = null;
      playHeat();
    }
    byId('heat-time').value = heat.at === null ? page.run.gram.length - 1 : heat.at;
    showHeat(page.run);
  }, 100);
}

function startBalance() {
  addPlot(byId('alpha'), describeAlpha);
  addPlot(byId('cos-min'), describeCosMin);
  addPlot(byId('cos-by'), describeCosBy);
  byId('heat-time').addEventListener('input', (event) => {
    heat.at = Number(event.target.value) === page.run.gram.length - 1 ? null : Number(event.target.value);
    showHeat(page.run);
  });
  byId('heat-play').addEventListener('click', playHeat);
  byId('heat').addEventListener('pointermove', heatTip);
  byId('heat').addEventListener('pointerleave', hideTip);
}
