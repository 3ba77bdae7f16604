// The page's requests to its server.

async function check(response) {
  if (response.ok) return response;
  let message = null;
  try { message = (await response.json()).error; } catch { /* the answer is not JSON */ }
  throw new Error(message || `The server answered ${response.status}: ${response.statusText || "try again"}.`);
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: is sagan explore still running?");
  }
  return check(response);
}

const jsonPost = (request) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });

export const getAbout = async () => (await send("api/about")).json();
export const post = async (endpoint, request) => (await send(`api/${endpoint}`, jsonPost(request))).json();
export const postForFile = async (endpoint, request) => (await send(`api/${endpoint}`, jsonPost(request))).blob();
export const upload = async (file) =>
  (await send("api/upload", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file })).json();

// Returns a function that runs the task one call at a time; of the calls made meanwhile only the newest is run.
export function newestOnly(task, onError) {
  let running = false;
  let next = null;
  return async (argument) => {
    next = { argument };
    if (running) return;
    running = true;
    while (next) {
      const { argument: current } = next;
      next = null;
      try { await task(current); } catch (error) { onError(error); }
    }
    running = false;
  };
}

export const pngUrl = (png) => `data:image/png;base64,${png}`;
