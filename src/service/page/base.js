// Small things that all of the page uses: elements, numbers as text, colours, themes. Text from a run (prompts, names,
// log lines) reaches the page through textContent alone.

function byId(id) { return document.getElementById(id); }

// An element with attributes and children; strings become text.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'text') element.textContent = value;
    else if (name === 'style') Object.assign(element.style, value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Four digits that count; a dash where there is no number.
function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (digits === 0) return value.toFixed(0);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(0) : value.toFixed(size >= 100 ? 1 : digits);
}

// Four significant digits, for numbers of any size.
function exact(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}

function signed(value, digits = 3) {
  return Number.isFinite(value) && value > 0 ? '+' + number(value, digits) : number(value, digits);
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + ' s';
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes + ' min ' + Math.round(seconds % 60) + ' s';
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? hours + ' h ' + (minutes % 60) + ' min' : Math.floor(hours / 24) + ' d ' + (hours % 24) + ' h';
}

// Okabe and Ito's colours, which people with any kind of colour vision tell apart, and lighter ones of the same hues
// for the dark theme; behind the eighth the same ones dashed.
const PALETTES = {
  light: ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#a08c00', '#7a7a8c'],
  dark: ['#4a9fe0', '#f0b440', '#2cbf90', '#e096bf', '#93d2f5', '#f5823e', '#d3c04c', '#a4a4b6'],
};
function colourOf(index) {
  const palette = PALETTES[document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light'];
  return palette[index % palette.length];
}
function dashOf(index) { return [[], [6, 3], [2, 2]][Math.floor(index / PALETTES.light.length) % 3]; }
function swatch(index) {
  return make('span', {class: 'swatch', style: {background: 'var(--hue-' + index % PALETTES.light.length + ')'}});
}

function variable(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function parts(hex) { return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)); }
function mix(from, to, share) {
  const a = parts(from), b = parts(to);
  return 'rgb(' + a.map((value, i) => Math.round(value + (b[i] - value) * share)).join(',') + ')';
}
// -1 .. 1 as orange to blue over the theme's middle.
function diverging(value) {
  const middle = variable('--mid'), share = Math.min(1, Math.abs(value));
  return mix(middle, value < 0 ? '#d55e00' : '#0072b2', Math.pow(share, 0.8));
}
// The same as a table of 201 colours, for loops.
function divergingTable() {
  const table = [];
  for (let i = 0; i <= 200; i++) table.push(diverging(i / 100 - 1));
  return table;
}
function fade(hex, opacity) { return 'rgba(' + parts(hex).join(',') + ',' + opacity + ')'; }

function remember(key, value) {
  try {
    sessionStorage.setItem('marble.' + key, value);
  } catch (refused) { /* private windows may forbid it */
  }
}
function recall(key) {
  try {
    return sessionStorage.getItem('marble.' + key);
  } catch (refused) {
    return null;
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  PALETTES[name].forEach((colour, i) => document.documentElement.style.setProperty('--hue-' + i, colour));
  byId('theme').textContent = name === 'dark' ? 'light' : 'dark';
}
function firstTheme() {
  setTheme(recall('theme') || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
}

// A canvas in device pixels; draws through `draw(context, width, height)` in CSS pixels.
function paint(canvas, height, draw) {
  const width = canvas.parentElement.clientWidth, ratio = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.height = height + 'px';
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  context.clearRect(0, 0, width, height);
  draw(context, width, height);
}

function showTip(event, text) {
  const tip = byId('tip');
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 6)) + 'px';
  tip.style.top =
      (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + 'px';
}
function hideTip() { byId('tip').hidden = true; }

function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make('option', {value, text})));
  if (chosen !== undefined && options.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}
