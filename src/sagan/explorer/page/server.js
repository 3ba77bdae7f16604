// What the page asks of its server.

async function answer(response) {
  if (response.ok) return response;
  let said = null;
  try { said = (await response.json()).error; } catch { /* not in words */ }
  throw new Error(said || `The server answered ${response.status}: ${response.statusText || "try again"}.`);
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: is sagan explore still running?");
  }
  return answer(response);
}

const json = (asked) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });

export const about = async () => (await send("api/about")).json();
export const ask = async (what, asked) => (await send(`api/${what}`, json(asked))).json();
export const askForFile = async (what, asked) => (await send(`api/${what}`, json(asked))).blob();
export const upload = async (file) =>
  (await send("api/upload", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file })).json();

// Runs a task with the newest argument only: while it runs, what comes in takes the place of what came before.
export function newest(task, onError) {
  let running = false;
  let next = null;
  return async (argument) => {
    next = { argument };
    if (running) return;
    running = true;
    while (next) {
      const { argument: now } = next;
      next = null;
      try { await task(now); } catch (error) { onError(error); }
    }
    running = false;
  };
}

export const source = (png) => `data:image/png;base64,${png}`;
