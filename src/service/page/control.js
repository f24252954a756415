// Asking something of the run, with the token of its folder, and the keys of the page.

const KEYS = [
  ['1 … 6', 'sections'], ['/', 'find a prompt'], ['t', 'dark or light'], ['+  −', 'smoother, rougher curves'],
  ['0', 'all steps'], ['← →', 'step of the cosines, image of the advantages, where they have the focus'],
  ['?', 'this list']
];

// The address may carry the token behind #token=; it leaves the address bar at once.
function takeToken() {
  const found = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (found) {
    remember('token', decodeURIComponent(found[1]));
    history.replaceState(null, '', location.pathname + location.search);
  }
  byId('token').value = recall('token') || '';
}

async function control(request) {
  const answer = byId('answer');
  answer.removeAttribute('data-bad');
  answer.textContent = '…';
  remember('token', byId('token').value.trim());
  try {
    answer.textContent = 'asked: ' + (await page.feed.control(request, byId('token').value.trim())).join(', ');
  } catch (failure) {
    answer.dataset.bad = '';
    answer.textContent = failure.message;
  }
}

let shownSettings = '';
function showControl(status) {
  byId('control').hidden = !(status.control && status.control.allowed);
  for (const button of document.querySelectorAll('[data-ask]')) {
    if (button.dataset.ask === 'pause') button.disabled = status.control.paused;
    if (button.dataset.ask === 'resume') button.disabled = !status.control.paused;
  }
  const keys = ['train.lr', 'balance.floor', 'balance.refresh_every'];
  for (const reward of status.rewards || []) {
    if (!reward.monitor) keys.push('rewards.' + reward.name + '.weight');
    if (reward.min !== null && reward.min !== undefined) keys.push('rewards.' + reward.name + '.min');
  }
  if (keys.join() === shownSettings) return;
  shownSettings = keys.join();
  fillSelect(byId('set-key'), keys.map((key) => [key, key]));
}

function press(key) {
  const links = [...document.querySelectorAll('nav a')];
  if (/^[1-9]$/.test(key) && links[key - 1]) links[key - 1].click();
  else if (key === '/') byId('search').focus();
  else if (key === 't') byId('theme').click();
  else if (key === '0') zoomTo(null, null);
  else if (key === '?') byId('help').click();
  else if (key === '+' || key === '-') {
    byId('smooth').value = Number(byId('smooth').value) + (key === '+' ? 0.06 : -0.06);
    byId('smooth').dispatchEvent(new Event('input'));
  } else {
    return false;
  }
  return true;
}

function startControl() {
  takeToken();
  for (const button of document.querySelectorAll('[data-ask]')) {
    button.addEventListener('click', () => {
      if (button.dataset.ask === 'stop' && !confirm('Stop the run, with a checkpoint?')) return;
      control({[button.dataset.ask]: true});
    });
  }
  byId('set-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const value = Number(byId('set-value').value);
    if (byId('set-value').value.trim() === '' || !Number.isFinite(value)) {
      byId('answer').dataset.bad = '';
      byId('answer').textContent = 'expected a number';
      return;
    }
    control({set: {[byId('set-key').value]: value}});
  });
  byId('keys').replaceChildren(...KEYS.flatMap(([key, text]) => [make('dt', {text: key}), make('dd', {text})]));
  byId('help').addEventListener('click', () => byId('help-dialog').showModal());
  document.addEventListener('keydown', (event) => {
    const typing = event.target.matches('input:not([type=range]):not([type=checkbox]), textarea, select');
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (press(event.key)) event.preventDefault();
  });
}
