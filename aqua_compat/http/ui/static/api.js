// Asks the node's native API; reads alone.

const ROOT = new URL("../v1/aqua/", document.baseURI);
const TOKEN = "aqua-registry.token";
const PATIENCE = 40000; // ms without a word, heartbeats included, after which a watch is begun anew
const PAUSES = [300, 10000]; // ms between two attempts to watch: the shortest, and the longest

/** What the node answered instead of a result. */
export class Failed extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Keeps a token for this tab; an empty one forgets it. */
export function useToken(token) {
  if (token) {
    sessionStorage.setItem(TOKEN, token);
  } else {
    sessionStorage.removeItem(TOKEN);
  }
}

function asking(path, parameters, more) {
  const url = new URL(path.map(encodeURIComponent).join("/"), ROOT);
  for (const [name, value] of Object.entries(parameters)) {
    url.searchParams.set(name, value);
  }
  const token = sessionStorage.getItem(TOKEN);
  return [url, { cache: "no-store", ...more, headers: { ...(token && { Authorization: `Bearer ${token}` }), ...more.headers } }];
}

async function failure(response) {
  const problem = await response.json().catch(() => ({}));
  return new Failed(response.status, problem.code ?? "", problem.detail ?? response.statusText);
}

/** The result of an operation. `path`: its parts. Throws Failed, and what fetch throws. */
export async function get(path, parameters = {}, signal = undefined) {
  const response = await fetch(...asking(path, parameters, { signal }));
  if (!response.ok) {
    throw await failure(response);
  }
  return (await response.json()).result;
}

/** All of an owner's resources, page by page; `onPage` gets each as it comes. */
export async function listResources(owner, onPage, signal) {
  let after = null;
  do {
    const page = await get(["owners", owner, "resources"], after === null ? {} : { after }, signal);
    onPage(page.resources);
    after = page.after;
  } while (after !== null);
}

/** Tells `onEvent(result)` each event of a resource until `signal` aborts; goes on where it was after a break.
    `onState(isConnected, error)` says how it goes. */
export async function watch(resource, onEvent, onState, signal) {
  const position = { last: "" };
  let pause = PAUSES[0];
  while (!signal.aborted) {
    try {
      await watchOnce(resource, onEvent, () => {
        pause = PAUSES[0];
        onState(true, null);
      }, signal, position);
      onState(false, null);
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      onState(false, error);
      if (error instanceof Failed && error.status < 500 && error.status !== 429) {
        return;
      }
    }
    await new Promise((resolve) => {
      setTimeout(resolve, pause * (0.5 + Math.random() / 2));
    });
    pause = Math.min(pause * 2, PAUSES[1]);
  }
}

async function watchOnce(resource, onEvent, onOpen, signal, position) {
  const silence = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), PATIENCE);
  };
  heard();
  try {
    const headers = { Accept: "text/event-stream", ...(position.last && { "Last-Event-ID": position.last }) };
    const both = AbortSignal.any([signal, silence.signal]);
    const response = await fetch(...asking(["resources", resource, "watch"], {}, { signal: both, headers }));
    if (!response.ok) {
      throw await failure(response);
    }
    onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        return;
      }
      heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        takeEvent(block, onEvent, position);
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

function takeEvent(block, onEvent, position) {
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) {
      position.last = line.slice(4);
    } else if (line.startsWith("data: ")) {
      data += line.slice(6);
    }
  }
  if (data) {
    onEvent(JSON.parse(data).result);
  }
}
