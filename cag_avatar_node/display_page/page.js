"use strict";

const HEADER = 24;
const KINDS = ["live", "hold", "decay", "idle", "hidden", "waiting", "lost", "inactive"];
const PLACARDS = {
  absent: ["Nobody there", "The avatar appears when its operator is present."],
  driving: ["Not while driving", "The avatar is shown again when the vehicle is parked."],
  consent: ["Waiting for consent", "The avatar appears when its operator has agreed."],
  waiting: ["Waiting for a picture", ""],
  inactive: ["Paused", "The display is not active."],
  lost: ["No connection", "Trying again …"],
  refused: ["Token refused", "Open the address that the node printed when it started."],
};
const SILENCE_MS = 2500;     // the node says something twice a second
const GRACE_MS = 300;        // a link or pictures that are back by then leave no placard
const LONGEST_WAIT_MS = 500;

const root = document.documentElement;
const by = (id) => document.getElementById(id);
const canvas = by("avatar"), context = canvas.getContext("2d", {alpha: false});
const stage = by("stage"), overlay = by("overlay");
const swatch = document.createElement("canvas");
swatch.width = 2;
swatch.height = 1;
const swatchContext = swatch.getContext("2d", {willReadFrequently: true});

const query = new URLSearchParams(location.search);
if (query.get("shape") === "round" || query.get("shape") === "full") {
  root.dataset.shape = query.get("shape");
}
if (query.has("token")) {    // the cookie has it; it need not stay on the screen or in the history
  const rest = new URLSearchParams(query);
  rest.delete("token");
  history.replaceState(null, "", location.pathname + (rest.toString() ? "?" + rest : ""));
}

// What is shown.

function show(state, reason) {
  root.dataset.state = state;
  let placard = "";
  if (state === "hidden") placard = reason in PLACARDS ? reason : "absent";
  else if (state in PLACARDS) placard = state;
  if (placard === (root.dataset.placard || "")) return;
  if (!placard) {
    delete root.dataset.placard;
    return;
  }
  // Nothing of a hidden face may stay under the placard.
  context.fillRect(0, 0, canvas.width, canvas.height);
  by("headline").textContent = PLACARDS[placard][0];
  by("detail").textContent = PLACARDS[placard][1];
  root.dataset.placard = placard;
}

function fit() {
  const across = stage.clientWidth, down = stage.clientHeight;
  const scale = Math.min(across / canvas.width, down / canvas.height);
  canvas.style.width = Math.round(canvas.width * scale) + "px";
  canvas.style.height = Math.round(canvas.height * scale) + "px";
  canvas.classList.toggle("beside", across > canvas.width * scale * 1.05);
  canvas.classList.toggle("above", down > canvas.height * scale * 1.05);
}

let nextSwatch = 0;
function continueBackground(bitmap, now) {
  if (now < nextSwatch) return;
  nextSwatch = now + 1000;
  swatchContext.fillRect(0, 0, 2, 1);
  const inset = 2, right = bitmap.width - inset - 4;
  swatchContext.drawImage(bitmap, inset, inset, 4, 4, 0, 0, 1, 1);
  swatchContext.drawImage(bitmap, right, inset, 4, 4, 1, 0, 1, 1);
  const [r, g, b, , r2, g2, b2] = swatchContext.getImageData(0, 0, 2, 1).data;
  const mean = [r + r2, g + g2, b + b2].map((sum) => Math.round(sum / 2));
  stage.style.setProperty("--behind", `rgb(${mean.join(" ")})`);
}

// Pictures: the newest that has arrived is decoded next, older ones are passed over.

let socket = null, arrived = null, decoding = false, ages = [], drawn = null, measuring = false;

function acknowledge(frame) {
  if (frame.socket.readyState !== WebSocket.OPEN) return;
  frame.socket.send(JSON.stringify({type: "shown", number: frame.number, ages: ages.splice(0, 8)}));
}

function receive(buffer, from) {
  const view = new DataView(buffer);
  if (buffer.byteLength <= HEADER || view.getUint32(0) !== 0x43414731) return;
  const frame = {
    state: KINDS[view.getUint8(4)],
    stamp: Number(view.getBigInt64(8, true)) / 1e6,
    number: Number(view.getBigUint64(16, true)),
    file: new Uint8Array(buffer, view.getUint16(6, true)),
    socket: from,
  };
  if (arrived !== null) acknowledge(arrived);
  arrived = frame;
  if (!decoding) decode();
}

async function decode() {
  decoding = true;
  while (arrived !== null) {
    const frame = arrived;
    arrived = null;
    try {
      frame.transparent = frame.file[0] === 0x89;   // PNG is what there is alpha in
      const type = frame.transparent ? "image/png" : "image/jpeg";
      const bitmap = await createImageBitmap(new Blob([frame.file], {type}));
      if (frame.socket === socket) draw(frame, bitmap);
      bitmap.close();
    } catch {
      root.dataset.broken = Number(root.dataset.broken || 0) + 1;
    }
    acknowledge(frame);
  }
  decoding = false;
}

function draw(frame, bitmap) {
  // The state may have changed while the picture was decoded.
  if (told !== null && !told.pictures) return;
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    nextSwatch = 0;
    fit();
  }
  // Behind what is transparent lies black, not the picture before.
  if (frame.transparent) context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  continueBackground(bitmap, performance.now());
  found(frame.state, "");
  root.dataset.frames = Number(root.dataset.frames || 0) + 1;
  drawn = frame;
  if (!measuring) {
    measuring = true;
    // The first callback comes before the picture is composed, the second when that is done.
    requestAnimationFrame(() => {
      const shown = drawn;
      requestAnimationFrame((now) => {
        measuring = false;
        if (offset !== null) ages.push([shown.number, now + offset - shown.stamp]);
      });
    });
  }
}

// The link.

let told = null, offset = null, pongs = [], lastHeard = 0, wait = 100, lostTimer = null;

function lose() {
  if (lostTimer === null && root.dataset.placard !== "refused") {
    lostTimer = setTimeout(() => { lostTimer = null; show("lost", ""); }, GRACE_MS);
  }
}

function drop() {
  const old = socket;
  socket = null;
  told = null;
  arrived = null;
  lose();
  if (old !== null) {
    old.onopen = old.onclose = old.onmessage = null;
    old.close();   // the closing handshake of a dead link may take minutes: do not wait for it
  }
  retry();
}

function retry() {
  setTimeout(connect, wait);
  wait = Math.min(2 * wait, LONGEST_WAIT_MS);
}

async function connect() {
  // Asked by a plain request first: browsers delay a WebSocket by seconds after many that failed,
  // and do not tell why one was refused.
  let answer = null;
  try {
    const signal = AbortSignal.timeout(SILENCE_MS);
    answer = await fetch("status.json", {cache: "no-store", signal});
  } catch {
    lose();
  }
  if (answer === null || !answer.ok) {
    if (answer !== null && answer.status === 401) found("refused", "");
    retry();
    return;
  }
  const address = new URL("stream", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.search = "";
  const here = socket = new WebSocket(address);
  here.binaryType = "arraybuffer";
  lastHeard = performance.now();
  here.onopen = () => { pongs = []; ping(); };
  here.onclose = drop;
  here.onmessage = (event) => {
    lastHeard = performance.now();
    if (typeof event.data !== "string") receive(event.data, here);
    else hear(JSON.parse(event.data));
  };
}

function keep() {
  clearTimeout(lostTimer);
  lostTimer = null;
}

function found(state, reason) {
  keep();
  show(state, reason);
}

function hear(message) {
  if (message.type === "state") {
    wait = 100;
    told = {pictures: KINDS.indexOf(message.state) < KINDS.indexOf("hidden")};
    keep();
    // A node that stood still itself finds its newest picture old before it reads the next one.
    if (message.state === "lost") lose();
    // A picture brings its own state; without one the placard stays until it comes.
    else if (!told.pictures || !root.dataset.placard) show(message.state, message.reason);
  } else if (message.type === "pong") {
    const now = performance.now();
    pongs.push({trip: now - message.t, offset: message.now_ms - (now + message.t) / 2});
    if (pongs.length > 8) pongs.shift();
    // The quickest exchange has the least in it that is not symmetric.
    offset = pongs.reduce((best, pong) => pong.trip < best.trip ? pong : best).offset;
  } else if (message.type === "status") {
    // The node was updated while this page stayed open.
    if (message.version !== root.dataset.version) location.reload();
    report(message);
  }
}

function report(status) {
  const wanted = query.has("overlay") ? query.get("overlay") !== "0" : status.overlay;
  overlay.hidden = !wanted;
  const ms = (value) => value === null ? "–" : value.toFixed(0);
  overlay.textContent =
    `${status.state} ${status.fps.toFixed(1)}/s ${status.width}x${status.height}\n` +
    `topic ${ms(status.latency_ms_p50)} / ${ms(status.latency_ms_p95)} ms\n` +
    `glass ${ms(status.page_latency_ms_p50)} / ${ms(status.page_latency_ms_p95)} ms`;
}

function ping() {
  if (socket !== null && socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({type: "ping", t: performance.now()}));
  }
}

setInterval(() => {
  if (socket !== null && performance.now() - lastHeard > SILENCE_MS) drop();
}, 250);
setInterval(ping, 1000);
addEventListener("resize", fit);

function stayAwake() {
  if (document.visibilityState === "visible" && navigator.wakeLock) {
    navigator.wakeLock.request("screen").catch(() => {});
  }
}
document.addEventListener("visibilitychange", stayAwake);

show("waiting", "");
stayAwake();
fit();
connect();
