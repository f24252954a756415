// The wall of samples: the same prompts from the same noise at two steps, one wiped over the other.

const wall = {
  list: [],
  sets: new Map(),
  pictures: new Map(),
  tiles: []
};  // sets: id -> images with prompts and scores

async function loadWall() {
  const feed = page.feed;
  try {
    const found = await ask(feed.path('samples'));
    if (feed !== page.feed) return;
    const newest = wall.list.length ? wall.list[wall.list.length - 1].id : null,
          followed = byId('after').value === newest || !newest;
    wall.list = found.samples;
    const options = wall.list.map((sheet) => [sheet.id, sheet.step === 0 ? 'base model' : 'step ' + sheet.step]);
    const first = wall.list[0], last = wall.list[wall.list.length - 1];
    fillSelect(byId('before'), options, byId('before').value || (first && first.id));
    fillSelect(byId('after'), options, followed ? last && last.id : byId('after').value);
    await showWall();
  } catch (failure) {
    byId('wall-note').textContent = failure.message;
  }
}

async function imagesOf(id) {
  const sheet = wall.list.find((one) => one.id === id);
  if (!sheet || !sheet.images) return null;
  if (!wall.sets.has(id))
    wall.sets.set(
        id, ask(page.feed.path('samples/' + id)).then((found) => Object.assign(found.images, {cells: found.cells})));
  return wall.sets.get(id);
}

function load(path) {
  return new Promise((done) => {
    const picture = new Image();
    picture.decoding = 'async';
    picture.onload = () => done(picture);
    picture.onerror = () => done(null);
    picture.src = page.feed.path(path);
  });
}

// An image cut out of its sheet.
function cutOut(sheet, cells, index) {
  if (!sheet) return null;
  const canvas = make('canvas', {width: cells.width, height: cells.height});
  canvas.getContext('2d').drawImage(sheet, cells.left + index % cells.columns * cells.step_x,
      cells.top + Math.floor(index / cells.columns) * cells.step_y, cells.width, cells.height, 0, 0, cells.width,
      cells.height);
  return canvas;
}

function once(key, make) {
  if (!wall.pictures.has(key)) wall.pictures.set(key, make());
  return wall.pictures.get(key);
}

// An image, kept while the page shows this run; `cells` say where it lies on its sheet, where there are no images one
// by one.
function pictureOf(id, index, cells) {
  return once(id + '/' + index,
      () => cells ?
          once(id + '.png', () => load('samples/' + id + '.png')).then((sheet) => cutOut(sheet, cells, index)) :
          load('samples/' + id + '/' + index));
}

function sizeOf(picture) { return [picture.naturalWidth || picture.width, picture.naturalHeight || picture.height]; }

function drawWipe(canvas, before, after, share) {
  const one = after || before;
  if (!one) return;
  const [width, height] = sizeOf(one), context = canvas.getContext('2d');
  canvas.width = width;
  canvas.height = height;
  context.imageSmoothingEnabled = false;
  const cut = Math.round(width * share);
  if (before) context.drawImage(before, 0, 0, width, height);
  if (after && cut < width) {
    const [wide, high] = sizeOf(after);
    context.drawImage(after, cut / width * wide, 0, (1 - cut / width) * wide, high, cut, 0, width - cut, height);
  }
  if (before && after && cut > 0 && cut < width) {
    context.fillStyle = '#ffffff';
    context.fillRect(cut - Math.max(1, width / 160), 0, Math.max(1, width / 80), height);
  }
}

function share() { return Number(byId('wipe').value) / 100; }
function wipe() {
  for (const tile of wall.tiles) drawWipe(tile.canvas, tile.before, tile.after, share());
}

function scoreRows(run, before, after) {
  return run.rewards().filter((name) => after.scores[name] !== null && after.scores[name] !== undefined).map((name) => {
    const was = before && before.scores[name], now = after.scores[name], by = Number.isFinite(was) ? now - was : NaN;
    return [
      make('span', {text: name}), make('span', {text: number(now, 2)}),
      Number.isFinite(by) && Math.abs(by) >= 0.005 ?
          make('span', {class: by > 0 ? 'up' : 'down', text: (by > 0 ? '▲' : '▼') + number(Math.abs(by), 2)}) :
          make('span')
    ];
  });
}

function orderWall(after, before) {
  const order = byId('wall-order').value, indexes = after.map((image, i) => i);
  const score = (image, name) => image && Number.isFinite(image.scores[name]) ? image.scores[name] : NaN;
  const sorted = (key) => indexes.sort(
      (a, b) => (Number.isFinite(key(b)) ? key(b) : -Infinity) - (Number.isFinite(key(a)) ? key(a) : -Infinity));
  if (order.startsWith('best ')) return sorted((i) => score(after[i], order.slice(5)));
  if (order.startsWith('gain ') && before)
    return sorted((i) => score(after[i], order.slice(5)) - score(before[i], order.slice(5)));
  return indexes;
}

let wallTurn = 0;
async function showWall() {
  const turn = ++wallTurn, box = byId('wall'), names = page.run.rewards();
  const beforeId = byId('before').value, afterId = byId('after').value;
  fillSelect(byId('wall-order'),
      [
        ['prompts', 'as drawn'], ...names.map((name) => ['best ' + name, 'highest ' + name]),
        ...names.map((name) => ['gain ' + name, 'largest gain of ' + name])
      ],
      byId('wall-order').value || 'prompts');
  const [before, after] = await Promise.all([imagesOf(beforeId), imagesOf(afterId)]);
  if (turn !== wallTurn) return;
  byId('wall-note').textContent =
      wall.list.length ? '' : 'No samples yet: log.samples_every says how often there are some.';
  wall.tiles = [];
  if (!after) {
    byId('wall-count').textContent = '';
    box.replaceChildren(...(afterId ? [make('img', {
      class: 'sheet',
      alt: 'samples',
      src: page.feed.path('samples/' + afterId + '.png'),
      style: {gridColumn: '1 / -1'}
    })] :
                                      []));
    return;
  }
  const wanted = byId('search').value.trim().toLowerCase();
  const shown = orderWall(after, before).filter((i) => after[i].prompt.toLowerCase().includes(wanted));
  byId('wall-count').textContent = shown.length + ' of ' + after.length;
  box.replaceChildren(...shown.map((i) => {
    const canvas = make('canvas', {width: 32, height: 32}), tile = {canvas, before: null, after: null};
    wall.tiles.push(tile);
    Promise
        .all([
          before && before[i] ? pictureOf(beforeId, before[i].index, before.cells) : null,
          pictureOf(afterId, after[i].index, after.cells)
        ])
        .then(([one, two]) => {
          tile.before = one;
          tile.after = two;
          drawWipe(canvas, one, two, share());
        });
    return make('button', {class: 'tile', title: after[i].prompt, 'data-index': i, onclick: () => openSample(i)},
        canvas, make('span', {class: 'prompt', text: after[i].prompt}),
        make('span', {class: 'scores'}, ...scoreRows(page.run, before && before[i], after[i]).flat()));
  }));
}

// One prompt through all sheets.
async function openSample(index) {
  const sets = await Promise.all(wall.list.map((sheet) => imagesOf(sheet.id))),
        steps =
            wall.list.map((sheet, i) => ({sheet, cells: sets[i] && sets[i].cells, image: sets[i] && sets[i][index]}))
                .filter((one) => one.image);
  if (!steps.length) return;
  const strip = make('div', {class: 'strip'}, ...steps.map(({sheet, cells, image}) => {
    const canvas = make('canvas');
    pictureOf(sheet.id, image.index, cells).then((picture) => drawWipe(canvas, null, picture, 0));
    return make('figure', null, canvas, sheet.step === 0 ? 'base' : 'step ' + sheet.step);
  }));
  const head = make('tr', null, make('th', {text: 'reward'}),
      ...steps.map(({sheet}) => make('th', {text: sheet.step === 0 ? 'base' : String(sheet.step)})));
  const rows =
      page.run.rewards().map((name, i) => make('tr', null, make('td', null, swatch(i), name),
                                 ...steps.map(({image}) => make('td', {text: scoreText(image.scores[name], 2)}))));
  const big = make('canvas', {class: 'big'}), slider = make('input', {
    type: 'range',
    min: 0,
    max: 100,
    value: 50,
    'aria-label': 'before and after',
    style: {width: 'min(100%, 22rem)'}
  });
  const [one, two] = await Promise.all(
      [steps[0], steps[steps.length - 1]].map(({sheet, cells, image}) => pictureOf(sheet.id, image.index, cells)));
  const draw = () => drawWipe(big, one, two, slider.value / 100);
  slider.addEventListener('input', draw);
  draw();
  openDialog([
    make('p', {class: 'prompt', text: steps[0].image.prompt}), big, slider, strip,
    make('div', {class: 'scroll'}, make('table', null, make('thead', null, head), make('tbody', null, ...rows)))
  ]);
}

function startWall() {
  byId('wipe').addEventListener('input', wipe);
  for (const id of ['before', 'after', 'wall-order']) byId(id).addEventListener('change', showWall);
  byId('search').addEventListener('input', showWall);
}

function clearWall() {
  wall.list = [];
  wall.sets.clear();
  wall.pictures.clear();
  byId('before').replaceChildren();
  byId('after').replaceChildren();
}
