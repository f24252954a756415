// Puts the page together: which run is shown, and what is drawn again when something new arrives.

const page = {
  run: new Run(''),
  feed: null,
  runs: [],
  pending: false,

  // Draws all that follows from lines, at most once a frame.
  show() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      const run = this.run;
      showSummary(run);
      showRewardCharts(run);
      showCompare(this.runs, this.feed.index);
      showAgainst(run);
      showHeat(run);
      showRate(run);
      showAlarms(run);
      showRanks(run);
      showAny(run);
      refreshPlots();
      document.documentElement.dataset.last = run.metrics.step[run.metrics.step.length - 1] || 0;
      document.documentElement.dataset.steps = run.metrics.step.length;  // how far the page is, for tests of it
    });
  },

  showStatus(status) {
    byId('run-name').textContent = status.name || 'marble';
    document.title =
        (status.name ? status.name + ' · ' : '') + status.step + (status.steps ? '/' + status.steps : '') + ' · marble';
    const phase = status.live && status.phase ? status.phase.name : '';
    byId('state').dataset.state = status.state;
    byId('state').textContent = status.state === 'running' && phase ? phase : status.state;
    const share = status.steps ? status.step / status.steps : 0;
    byId('bar').firstElementChild.style.width = 100 * Math.min(1, share) + '%';
    byId('bar').setAttribute('aria-valuemax', status.steps || 0);
    byId('bar').setAttribute('aria-valuenow', status.step);
    byId('way-text').textContent = 'step ' + status.step + (status.steps ? ' of ' + status.steps : '') +
        (status.state === 'running' && Number.isFinite(status.seconds_left) ?
                ', ' + duration(status.seconds_left) + ' left' :
                '');
    showControl(status);
    showRate(this.run);
  },

  notice(text) {
    byId('notice').textContent = text;
    byId('notice').hidden = !text;
  },

  open(index) {
    if (this.feed) this.feed.close();
    const entry = this.runs.find((run) => run.run === index);
    this.run = new Run(entry ? entry.name : '');
    const beside = others.find((other) => other.index === index);
    if (beside) others.splice(others.indexOf(beside), 1);
    heat.at = null;
    clearWall();
    this.feed = new Feed(index, this.run, {
      lines: () => {
        this.show();
        this.scorersSoon();
      },
      status: (status) => this.showStatus(status),
      samples: () => loadWall(),
      advantages: () => loadMap(),
      log: addLog,
      all: () => {
        loadMap();
        loadWall();
        loadTexts();
      },
      link: (on, text) => {
        byId('link').dataset.on = on ? 'yes' : 'no';
        byId('link').title = on ? 'connected to the run' : text;
        this.notice(on ? '' : 'The run does not answer (' + text + '). Trying again …');
      },
    });
    this.feed.start();
  },

  scorersSoon() {
    if (this.asking) return;
    this.asking = setTimeout(() => {
      this.asking = null;
      showScorers(this.run);
    }, 300);
  },

  async start() {
    try {
      this.runs = (await ask('api/runs')).runs;
    } catch (failure) {
      this.notice(failure.message);
    }
    const choice = byId('run-choice');
    fillSelect(choice, this.runs.map((run) => [run.run, run.name]));
    choice.hidden = this.runs.length < 2;
    byId('run-name').classList.toggle('hush', !choice.hidden);
    choice.addEventListener('change', () => this.open(Number(choice.value)));
    this.open(this.runs.length ? this.runs[0].run : 0);
  },
};

function startTools() {
  byId('theme').addEventListener('click', () => {
    setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
    remember('theme', document.documentElement.dataset.theme);
    page.show();
    showMap();
  });
  byId('smooth').addEventListener('input', (event) => {
    view.weight = Number(event.target.value);
    page.show();
  });
  byId('range').addEventListener('change', (event) => {
    const last = Number(event.target.value);
    if (event.target.value === 'zoom') return;
    zoomTo(null, null);
    view.last = last;
    event.target.value = String(last);
    refreshPlots();
  });
  const links = [...document.querySelectorAll('nav a')],
        sections = links.map((link) => document.querySelector(link.getAttribute('href')));
  const mark = () => {
    const at =
        sections.reduce((found, section, i) => section.getBoundingClientRect().top < innerHeight * 0.35 ? i : found, 0);
    links.forEach(
        (link, i) => i === at ? link.setAttribute('aria-current', 'true') : link.removeAttribute('aria-current'));
  };
  addEventListener('scroll', mark, {passive: true});
  mark();
  let resizing = null;
  addEventListener('resize', () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      page.show();
      showMap();
    }, 150);
  });
}

firstTheme();
startBalance();
startTraining();
startMap();
startWall();
startTexts();
startControl();
startTools();
page.start();
