// The advantage map: a column for every image of the last step with a line in advantages.jsonl, a row for every reward.

const map = {
  step: null,
  line: null,
  images: null,
  order: [],
  cell: null
};

async function loadMap() {
  const feed = page.feed;
  try {
    const [found, rollout] =
        await Promise.all([ask(feed.path('advantages')), ask(feed.path('rollout')).catch(() => null)]);
    if (feed !== page.feed) return;
    const line = found.line, fits = line && Array.isArray(line.prompt) && typeof line.advantage === 'object';
    map.line = fits && line.advantage ? line : null;
    // Images of another step than the advantages' are not those that the advantages are of.
    map.images = rollout && map.line && rollout.step === map.line.step ? rollout.images : null;
    showMap();
  } catch (failure) {
    byId('map-note').textContent = failure.message;
  }
}

// By how much an image stands out for one reward beside the others.
function oneSided(line, names, i) {
  const values = names.map((name) => line.advantage[name][i]).filter(Number.isFinite);
  if (values.length < 2) return values.length ? Math.abs(values[0]) / 2 : 0;
  values.sort((a, b) => b - a);
  return values[0] - values.slice(1).reduce((sum, value) => sum + value, 0) / (values.length - 1);
}

function orderMap(line, names) {
  const n = line.prompt.length, indexes = [...Array(n).keys()], order = byId('map-order').value;
  if (order === 'specialists') {
    const key = indexes.map((i) => oneSided(line, names, i));
    indexes.sort((a, b) => key[b] - key[a]);
  } else if (order.startsWith('by ')) {
    const values = line.advantage[order.slice(3)];
    const key = (i) => values && Number.isFinite(values[i]) ? values[i] : -Infinity;
    indexes.sort((a, b) => key(b) - key(a));
  }
  return indexes;
}

// What hardly any advantage exceeds: those that do have the colour of the end, instead of leaving the others pale.
function usual(values) {
  const sizes = values.filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
  return sizes[Math.floor(0.97 * (sizes.length - 1))] || 1;
}

function showMap() {
  const line = map.line, canvas = byId('map');
  canvas.parentElement.hidden = byId('map-legend').hidden = !line;
  byId('map-note').textContent = line ? (map.images ? '' : 'The images of this step are not kept.') :
                                        'No line yet: log.advantages_every says how often there is one.';
  byId('map-step').textContent = line ? 'step ' + line.step : '';
  if (!line) return;
  const names = page.run.rewards().filter((name) => Array.isArray(line.advantage[name]));
  fillSelect(byId('map-order'),
      [
        ['prompts', 'by prompt'], ['specialists', 'most one-sided first'],
        ...names.map((name) => ['by ' + name, 'by ' + name])
      ],
      byId('map-order').value || 'prompts');
  map.order = orderMap(line, names);
  const byPrompt = byId('map-order').value === 'prompts', n = map.order.length;
  const most = usual(names.flatMap((name) => line.advantage[name]));
  const width = canvas.parentElement.clientWidth,
        left = Math.min(140, 12 + 7 * Math.max(...names.map((name) => name.length)));
  const row = Math.max(14, Math.min(26, 240 / names.length)), table = divergingTable(), wide = (width - left) / n;
  paint(canvas, row * names.length + 2, (context) => {
    context.font = '12px system-ui, "DejaVu Sans", sans-serif';
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    names.forEach((name, k) => {
      context.fillStyle = variable('--soft');
      context.fillText(name, left - 8, row * (k + 0.5), left - 10);
      const na = variable('--na'), values = line.advantage[name];
      map.order.forEach((image, at) => {
        const value = values[image];
        const split = byPrompt && at + 1 < n && line.prompt[map.order[at + 1]] !== line.prompt[image] ?
            Math.min(2, wide / 2) :
            wide > 5 ? 0.6 :
                       0;
        if (Number.isFinite(value)) {
          context.fillStyle = table[Math.round(100 + 100 * Math.max(-1, Math.min(1, value / most)))];
          context.fillRect(left + at * wide, row * k, wide - split, row - 1.5);
        } else {
          context.fillStyle = na;
          context.fillRect(left + at * wide, row * k + row / 2 - 1, wide - split, 1.5);
        }
      });
    });
  });
  map.cell = {left, wide, row, names, most};
  canvas.dataset.step = line.step;
  const ramp = make('span', {
    class: 'ramp',
    style: {background: 'linear-gradient(90deg,' + [-1, -0.5, 0, 0.5, 1].map(diverging).join(',') + ')'}
  });
  byId('map-legend')
      .replaceChildren('≤ ' + number(-most, 1), ramp, '≥ +' + number(most, 1),
          make('span', {text: '– no score', style: {marginLeft: '1rem'}}));
}

function mapAt(event) {
  const cell = map.cell, box = byId('map').getBoundingClientRect();
  if (!cell) return null;
  const at = Math.floor((event.clientX - box.left - cell.left) / cell.wide),
        row = Math.floor((event.clientY - box.top) / cell.row);
  return at >= 0 && at < map.order.length && row >= 0 && row < cell.names.length ?
      {image: map.order[at], name: cell.names[row], at} :
      null;
}

function mapTip(event) {
  const found = mapAt(event);
  if (!found) return hideTip();
  const value = map.line.advantage[found.name][found.image], image = map.images && map.images[found.image];
  showTip(event,
      found.name + ' ' + (Number.isFinite(value) ? signed(value, 2) : 'N/A') + '\n' +
          (image ? image.prompt : 'prompt ' + map.line.prompt[found.image]));
}

function openMapImage(index) {
  const line = map.line, image = map.images && map.images[index];
  const rows = page.run.rewards().map(
      (name, i) => make('tr', {'data-reward': name}, make('td', null, swatch(i), name),
          make('td', {text: image ? scoreText(image.scores[name]) : '–'}),
          make('td', {text: line.advantage[name] ? scoreText(line.advantage[name][index], 2) : '–'})));
  const body = [
    make('p', {class: 'prompt', text: image ? image.prompt : 'prompt ' + line.prompt[index]}),
    make('p', {class: 'note', text: 'image ' + index + ' of step ' + line.step})
  ];
  if (image) body.push(make('img', {class: 'big', alt: image.prompt, src: page.feed.path('rollout/' + image.index)}));
  body.push(make('table', null,
      make('thead', null, make('tr', null, ...['reward', 'score', 'advantage'].map((text) => make('th', {text})))),
      make('tbody', null, ...rows)));
  openDialog(body);
}

function scoreText(value, digits = 3) { return value === null || value === undefined ? 'N/A' : number(value, digits); }

function openDialog(body) {
  byId('image-body').replaceChildren(...body);
  const dialog = byId('image-dialog');
  if (!dialog.open) dialog.showModal();
}

function startMap() {
  const canvas = byId('map');
  let cursor = 0;
  canvas.addEventListener('pointermove', mapTip);
  canvas.addEventListener('pointerleave', hideTip);
  canvas.addEventListener('click', (event) => {
    const found = mapAt(event);
    if (found) openMapImage(found.image);
  });
  canvas.addEventListener('keydown', (event) => {
    if (!map.line || !['ArrowLeft', 'ArrowRight', 'Enter'].includes(event.key)) return;
    event.preventDefault();
    if (event.key === 'Enter') return openMapImage(map.order[cursor]);
    cursor = (cursor + (event.key === 'ArrowRight' ? 1 : -1) + map.order.length) % map.order.length;
    const cell = map.cell, box = canvas.getBoundingClientRect();
    mapTip({clientX: box.left + cell.left + (cursor + 0.5) * cell.wide, clientY: box.top + cell.row / 2});
  });
  byId('map-order').addEventListener('change', showMap);
}
