// Where the numbers come from: the service's API (proto/openapi-service.yaml) and its stream, which is opened again
// when it is lost.

// Lines of a long history that are shown at once, and those that follow: more are spread evenly (the service thins
// them).
const FIRST_POINTS = 500, ALL_POINTS = 10000, GRAM_POINTS = 1000;

async function ask(path) {
  const answer = await fetch(path, {cache: 'no-store'});
  if (!answer.ok) throw new Error(path + ': HTTP ' + answer.status);
  return answer.json();
}

class Feed {
  // `on` has a function for each of: lines(run), status, samples, advantages, log(lines), link(state).
  constructor(index, run, on) {
    this.index = index;
    this.run = run;
    this.on = on;
    this.session = null;
    this.socket = null;
    this.wait = 500;
    this.turn = 0;  // of reading everything; an older one that is still under way gives up
    this.closed = false;
  }

  path(name, query = '') { return 'api/' + name + '?run=' + this.index + query; }

  // Everything anew. Lines that arrive over the stream meanwhile are taken afterwards.
  async load() {
    const turn = ++this.turn;
    this.late = [];
    const [status, evals, gram, metrics] = await Promise.all([
      ask(this.path('status')), ask(this.path('eval')), ask(this.path('gram', '&points=' + GRAM_POINTS)),
      ask(this.path('metrics', '&points=' + FIRST_POINTS))
    ]);
    if (turn !== this.turn) return;
    this.run.status = status;
    this.fill(evals.lines, gram.lines, metrics.lines);
    const whole = metrics.lines.length >= metrics.total;
    if (whole) this.takeLate();
    this.on.status(status);
    this.on.lines();
    if (whole) return;
    const all = await ask(this.path('metrics', '&points=' + ALL_POINTS));
    if (turn !== this.turn) return;
    this.fill(evals.lines, gram.lines, all.lines);
    this.takeLate();
    this.on.lines();
  }

  fill(evals, gram, metrics) {
    this.run.clear();
    for (const line of evals) this.run.addEval(line);
    for (const line of gram) this.run.addGram(line);
    for (const line of metrics) this.run.metrics.add(line);
  }

  takeLate() {
    const late = this.late || [];
    this.late = null;
    for (const message of late) this.add(message);
  }

  add(message) {
    if (message.type === 'metrics') this.run.metrics.add(message.line);
    else if (message.type === 'eval') this.run.addEval(message.line);
    else this.run.addGram(message.line);
  }

  start() {
    this.connect();
    this.again();
  }

  connect() {
    if (this.closed) return;
    const url = new URL(this.path('stream'), location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = this.socket = new WebSocket(url);
    socket.onmessage = (event) => this.message(JSON.parse(event.data));
    socket.onclose = () => {
      if (this.closed || socket !== this.socket) return;
      this.on.link(false, 'connection lost');
      this.timer = setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(this.wait * 1.6, 10000);
    };
  }

  message(message) {
    switch (message.type) {
      case 'hello':
        this.on.link(true, '');
        this.wait = 500;
        if (this.session !== null) this.again();  // what was missed; after a resume the steps may begin earlier
        this.session = message.session;
        break;
      case 'status':
        this.run.status = message.status || message;
        this.on.status(this.run.status);
        break;
      case 'metrics':
      case 'eval':
      case 'gram':
        if (this.late) this.late.push(message);
        else this.add(message);
        this.on.lines();
        break;
      case 'advantages':
        this.on.advantages();
        break;
      case 'samples':
        this.on.samples();
        break;
      case 'log':
        this.on.log(message.lines);
        break;
      case 'reset':
      case 'dropped':
        this.again();
        break;
      default:
        break;
    }
  }

  // Reads all of it, again and again where that fails while the stream is open; the stream's return brings it
  // otherwise.
  async again() {
    clearTimeout(this.retry);
    try {
      await this.load();
      this.on.all();
    } catch (failure) {
      if (this.closed) return;
      this.on.link(false, failure.message);
      if (this.socket.readyState === WebSocket.OPEN)
        this.retry = setTimeout(() => this.again().then(() => this.on.link(true, '')), 2000);
    }
  }

  close() {
    this.closed = true;
    this.turn++;
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    if (this.socket) this.socket.close();
  }

  async control(request, token) {
    const answer = await fetch(this.path('control'), {
      method: 'POST',
      headers: {'Content-Type': 'application/json', Authorization: 'Bearer ' + token},
      body: JSON.stringify(request)
    });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.error || 'HTTP ' + answer.status);
    return body.asked || [];
  }
}
