// Line charts over steps through Chart.js: one range of steps for all of them, smoothing, whiskers, zoom by dragging. A
// chart is drawn again only while it can be seen.

const view = {
  from: null,
  to: null,
  last: 0,
  weight: 0.8
};  // from, to: zoomed; last: so many steps; neither: all

const plots = new Map();  // canvas -> {make, chart, dirty, seen}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const plot = plots.get(entry.target);
    if (!plot) continue;
    plot.seen = entry.isIntersecting;
    if (plot.seen && plot.dirty) drawPlot(plot);
  }
}, {rootMargin: '200px'});

// `describe()` gives {datasets, text, y, stacked, bars, second}; called whenever the chart is to be drawn.
function addPlot(canvas, describe) {
  const plot = {canvas, describe, chart: null, dirty: true, seen: false};
  plots.set(canvas, plot);
  canvas.setAttribute('role', 'img');
  watcher.observe(canvas);
  return plot;
}
function dropPlot(canvas) {
  const plot = plots.get(canvas);
  if (!plot) return;
  watcher.unobserve(canvas);
  if (plot.chart) plot.chart.destroy();
  plots.delete(canvas);
}
function refreshPlots() {
  for (const plot of plots.values()) {
    plot.dirty = true;
    if (plot.seen) drawPlot(plot);
  }
}

// Indexes of the steps in view.
function inView(columns) {
  const n = columns.step.length;
  if (view.from !== null) return [columns.find(view.from), columns.find(view.to + 1)];
  if (view.last && n) return [columns.find(columns.step[n - 1] - view.last + 1), n];
  return [0, n];
}
function rangeOfX(columns) {
  const n = columns.step.length;
  if (view.from !== null) return [view.from, view.to];
  if (!n) return [0, 1];
  const last = columns.step[n - 1];
  return [view.last ? Math.max(0, last - view.last) : 0, Math.max(1, last)];
}

// The curve of a column: at most a point every two pixels or so.
function curve(columns, key, options = {}) {
  const [from, to] = inView(columns);
  const values = options.weight === undefined ? columns.get(key) : smooth(columns.get(key), options.weight);
  return points(columns.step, values, from, to, options.most || 400, options.how);
}

const whiskers = {
  id: 'whiskers',
  afterDatasetsDraw(chart) {
    const context = chart.ctx, area = chart.chartArea;
    chart.data.datasets.forEach((dataset, i) => {
      if (!dataset.whiskers || !chart.isDatasetVisible(i)) return;
      const meta = chart.getDatasetMeta(i), scale = chart.scales.y;
      context.save();
      context.beginPath();
      context.rect(area.left, area.top, area.width, area.height);
      context.clip();
      context.strokeStyle = dataset.borderColor;
      context.lineWidth = 1.4;
      context.beginPath();
      dataset.data.forEach((point, j) => {
        if (!Number.isFinite(point.ci) || !meta.data[j]) return;
        const x = meta.data[j].x, low = scale.getPixelForValue(point.y - point.ci),
              high = scale.getPixelForValue(point.y + point.ci);
        context.moveTo(x, low);
        context.lineTo(x, high);
        context.moveTo(x - 3, low);
        context.lineTo(x + 3, low);
        context.moveTo(x - 3, high);
        context.lineTo(x + 3, high);
      });
      context.stroke();
      context.restore();
    });
  },
};

// A vertical line under the pointer, and the part that is being dragged over.
const hairline = {
  id: 'hairline',
  afterDraw(chart) {
    const context = chart.ctx, area = chart.chartArea, drag = chart.drag;
    const active = chart.tooltip && chart.tooltip.opacity ? chart.tooltip.caretX : null;
    context.save();
    if (active !== null) {
      context.strokeStyle = variable('--soft');
      context.setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(active, area.top);
      context.lineTo(active, area.bottom);
      context.stroke();
    }
    if (drag) {
      context.fillStyle = fade('#56b4e9', 0.25);
      context.fillRect(Math.min(drag.from, drag.to), area.top, Math.abs(drag.to - drag.from), area.height);
    }
    context.restore();
  },
};

// Labels of an axis: short ones, from the values that they stand at.
function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e4 || (size > 0 && size < 0.001)) return value.toExponential(1).replace('.0e', 'e');
  return String(Number(value.toPrecision(4)));
}

// A curve that does not change still gets an axis that can be read.
function aroundFlat(datasets) {
  let low = Infinity, high = -Infinity;
  for (const set of datasets) {
    if (set.yAxisID) continue;
    for (const point of set.data)
      if (Number.isFinite(point.y)) {
        low = Math.min(low, point.y);
        high = Math.max(high, point.y);
      }
  }
  if (!(high - low <= 1e-6 * Math.max(Math.abs(low), Math.abs(high)))) return {};
  const room = Math.abs(high) * 0.1 || 1;
  return {min: low - room, max: high + room};
}

function chartOptions(wish) {
  const soft = variable('--soft'), grid = variable('--grid');
  const scale = (more) => Object.assign(
      {grid: {color: grid, drawBorder: false}, ticks: {color: soft, maxTicksLimit: 6, font: {size: 11}}}, more);
  const options = {
    animation: false,
    parsing: false,
    normalized: true,
    responsive: true,
    maintainAspectRatio: false,
    interaction: {mode: 'nearest', axis: 'x', intersect: false},
    elements: {point: {radius: 0, hitRadius: 4, hoverRadius: 3}, line: {borderWidth: 1.8, tension: 0}},
    scales: {
      x: scale({
        type: 'linear',
        min: wish.x[0],
        max: wish.x[1],
        stacked: Boolean(wish.bars),
        ticks: {color: soft, maxTicksLimit: 8, precision: 0, maxRotation: 0, font: {size: 11}},
        offset: Boolean(wish.bars),
        grid: {display: false}
      }),
      y: scale(Object.assign(
          {stacked: Boolean(wish.stacked), ticks: {color: soft, maxTicksLimit: 6, font: {size: 11}, callback: tick}},
          aroundFlat(wish.datasets), wish.y)),
    },
    plugins: {
      legend: {
        display: Boolean(wish.legend),
        position: 'bottom',
        labels: {
          color: variable('--text'),
          boxWidth: 12,
          boxHeight: 12,
          padding: 10,
          font: {size: 12},
          filter: (item, data) => !data.datasets[item.datasetIndex].unlisted
        }
      },
      tooltip: {
        displayColors: true,
        filter: (item) => !item.dataset.silent && Number.isFinite(item.parsed.y),
        callbacks: {
          title: (items) => items.length ? 'step ' + number(items[0].parsed.x, 0) : '',
          label: (item) => item.dataset.label + '  ' + number(item.parsed.y) +
              (Number.isFinite(item.raw.ci) ? ' ± ' + number(item.raw.ci) : ''),
        },
      },
    },
  };
  if (wish.second)
    options.scales.second = scale(Object.assign({position: 'right', grid: {display: false}}, wish.second));
  return options;
}

function drawPlot(plot) {
  plot.dirty = false;
  const wish = plot.describe();
  const options = chartOptions(wish);
  plot.canvas.setAttribute('aria-label', wish.text || '');
  if (plot.chart) {
    // What was switched off in the legend stays off.
    const hidden =
        new Set(plot.chart.data.datasets.filter((set, i) => !plot.chart.isDatasetVisible(i)).map((set) => set.label));
    for (const set of wish.datasets)
      if (hidden.has(set.label)) set.hidden = true;
    plot.chart.data.datasets = wish.datasets;
    plot.chart.options = options;
    plot.chart.update('none');
    return;
  }
  plot.chart = new Chart(plot.canvas,
      {type: wish.bars ? 'bar' : 'line', data: {datasets: wish.datasets}, options, plugins: [whiskers, hairline]});
  dragToZoom(plot);
}

function dragToZoom(plot) {
  const canvas = plot.canvas;
  const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
  canvas.addEventListener('pointerdown', (event) => {
    if (event.pointerType === 'touch' || event.button !== 0 || at(event) < plot.chart.chartArea.left ||
        event.offsetY > plot.chart.chartArea.bottom)
      return;
    plot.chart.drag = {from: at(event), to: at(event)};
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!plot.chart.drag) return;
    plot.chart.drag.to = at(event);
    plot.chart.draw();
  });
  canvas.addEventListener('pointerup', () => {
    const drag = plot.chart.drag;
    plot.chart.drag = null;
    if (!drag || Math.abs(drag.to - drag.from) < 8) return;
    const scale = plot.chart.scales.x;
    const ends = [scale.getValueForPixel(drag.from), scale.getValueForPixel(drag.to)].sort((a, b) => a - b);
    zoomTo(Math.max(0, Math.floor(ends[0])), Math.ceil(ends[1]));
  });
  canvas.addEventListener('dblclick', () => zoomTo(null, null));
}

function zoomTo(from, to) {
  view.from = from;
  view.to = to;
  view.last = 0;
  const select = byId('range');
  select.querySelector('[value=zoom]').hidden = from === null;
  select.value = from === null ? '0' : 'zoom';
  refreshPlots();
}

function line(label, index, data, more) {
  return Object.assign({
    label,
    data,
    borderColor: colourOf(index),
    backgroundColor: colourOf(index),
    borderDash: dashOf(index),
    spanGaps: false
  },
      more);
}
