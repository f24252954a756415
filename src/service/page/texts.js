// The configuration and the end of the log.

const texts = {
  log: [],
  yaml: ''
};
const LOG_MOST = 1000;

async function loadTexts() {
  const feed = page.feed;
  try {
    const [log, config] = await Promise.all([ask(feed.path('log', '&lines=400')), ask(feed.path('config'))]);
    if (feed !== page.feed) return;
    texts.log = log.lines;
    texts.yaml = config.yaml;
  } catch (failure) { /* a folder without them shows none */
    if (feed !== page.feed) return;
  }
  byId('log').replaceChildren(...texts.log.map(logLine));
  followLog();
  showConfig();
}

function logLine(text) {
  const found = /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.*)$/s.exec(text);
  if (!found) return make('div', {text});
  return make('div', {class: /\b(warning|error|failed)\b/i.test(found[2]) && 'bad'},
      make('span', {class: 'dim', text: found[1].slice(11) + '  '}), found[2]);
}

function addLog(lines) {
  const box = byId('log');
  texts.log.push(...lines);
  box.append(...lines.map(logLine));
  while (box.childElementCount > LOG_MOST) box.firstElementChild.remove();
  texts.log.splice(0, Math.max(0, texts.log.length - LOG_MOST));
  followLog();
}

function followLog() {
  const box = byId('log');
  if (byId('follow').checked) box.scrollTop = box.scrollHeight;
}

// Keys stand out, comments recede; with something to find, only the lines that have it and the keys above them.
function showConfig() {
  const wanted = byId('config-find').value.trim().toLowerCase(), kept = [];
  let above = [];
  for (const text of texts.yaml.split('\n')) {
    const depth = text.length - text.trimStart().length;
    above = above.filter((one) => one.depth < depth);
    if (!wanted || text.toLowerCase().includes(wanted)) {
      if (wanted)
        for (const one of above)
          if (!one.shown) {
            kept.push(one.text);
            one.shown = true;
          }
      kept.push(text);
      above.push({depth, text, shown: true});
    } else if (text.trim()) {
      above.push({depth, text, shown: false});
    }
  }
  byId('config').replaceChildren(...kept.map((text) => {
    const found = /^(\s*(?:- )?)([A-Za-z_0-9.]+)(:)(.*?)(\s+# .*)?$/.exec(text);
    if (!found) return make('div', {class: text.startsWith('#') && 'dim', text: text || ' '});
    return make('div', null, found[1], make('b', {text: found[2]}), found[3] + found[4],
        make('span', {class: 'dim', text: found[5] || ''}));
  }));
}

function startTexts() {
  byId('config-find').addEventListener('input', showConfig);
  byId('follow').addEventListener('change', followLog);
}
