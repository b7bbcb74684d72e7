// One socket to the studio. A message is a JSON header and, behind it, bytes: see messages.py.

const REPLACED = 4002, FULL = 4001;

export class Connection {
  constructor() {
    this.listeners = new Map();
    this.visitor = sessionStorage.getItem("visitor") || "";
    this.socket = null;
    this.delay = 500;
  }

  on(kind, listener) {
    this.listeners.set(kind, [...(this.listeners.get(kind) || []), listener]);
  }

  tell(kind, header = {}, parts = []) {
    for (const listener of this.listeners.get(kind) || []) listener(header, parts);
  }

  open() {
    const address = new URL("socket", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("visitor", this.visitor);
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = (event) => this.closed(event);
  }

  receive(data) {
    const length = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const parts = [];
    let start = 4 + length;
    for (const size of header.parts) {
      parts.push(new Uint8Array(data, start, size));
      start += size;
    }
    if (header.kind === "hello") {
      this.visitor = header.visitor;
      this.delay = 500;
      sessionStorage.setItem("visitor", header.visitor);
    }
    this.tell(header.kind, header, parts);
  }

  closed(event) {
    if (event.code === REPLACED || event.code === FULL) {
      this.tell("closed", { reason: event.reason, final: true });
      return;
    }
    this.tell("closed", { reason: "The studio does not answer. Trying again ...", final: false });
    setTimeout(() => this.open(), this.delay);
    this.delay = Math.min(2 * this.delay, 8000);
  }

  get isOpen() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  send(kind, header = {}, part = null) {
    if (!this.isOpen) return false;
    const sizes = part ? [part.byteLength] : [];
    const text = new TextEncoder().encode(JSON.stringify({ ...header, kind, parts: sizes }));
    const data = new Uint8Array(4 + text.length + (part ? part.byteLength : 0));
    new DataView(data.buffer).setUint32(0, text.length, true);
    data.set(text, 4);
    if (part) data.set(new Uint8Array(part), 4 + text.length);
    this.socket.send(data);
    return true;
  }
}

// Why the studio did not do what an HTTP request asked for, in words for a person; undefined where it did.
export function refusal(request) {
  try {
    return JSON.parse(request.responseText).error;
  } catch {
    return `The studio refused it (${request.status}): ${request.responseText.slice(0, 200)}`;
  }
}

// Requests of one kind: at most two under way, and of those that wait the newest only.
export class Requests {
  constructor(connection, kind, most = 2) {
    Object.assign(this, { connection, kind, most, sequence: 0, dropped: 0, waiting: null });
    this.sent = new Map(); // by sequence number: { time, header }
    connection.on("dropped", (header) => header.of === kind && this.settle(header.seq) && (this.dropped += 1));
    connection.on("error", (header) => header.about === kind && this.settle(header.seq));
    connection.on("closed", () => {
      this.sent.clear();
      this.waiting = null;
    });
  }

  get isFull() {
    return this.sent.size >= this.most;
  }

  send(header, part = null) {
    if (this.isFull) {
      if (this.waiting) this.dropped += 1;
      this.waiting = [header, part];
      return;
    }
    const seq = this.sequence++;
    if (this.connection.send(this.kind, { ...header, seq }, part)) this.sent.set(seq, { time: performance.now(), header });
  }

  // A request has been answered: milliseconds since it was sent, and its header; undefined where it was not ours.
  settle(seq) {
    const request = this.sent.get(seq);
    this.sent.delete(seq);
    if (this.waiting && !this.isFull) {
      const [header, part] = this.waiting;
      this.waiting = null;
      this.send(header, part);
    }
    return request && { ms: performance.now() - request.time, header: request.header };
  }
}
