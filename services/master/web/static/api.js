// The master's own API over HTTP: the methods of RunService, with protobuf's JSON. /docs/ tells it whole.

const SERVICE = "master/v1/";
const TOKEN = "perilune-token";

/** A call that failed: `code` is gRPC's, such as NOT_FOUND, or UNAVAILABLE if nothing answered. */
export class CallError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Calls a method once: `await call("get-run", { runId })`. */
export async function call(method, request = {}, signal) {
  const response = await post(method, request, signal);
  return response.json();
}

/** The messages of a streaming method, as they come. */
export async function* stream(method, request, signal) {
  const response = await post(method, request, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.filter(Boolean)) yield messageOf(JSON.parse(line));
    }
  } catch (error) {
    throw unreachable(error);
  } finally {
    reader.cancel().catch(() => {}); // the reader has left; there is nobody to tell
  }
}

/** The address of an image by its digest, for an img element: fetched with the tab's token. */
export async function imageOf(digest) {
  const token = sessionStorage.getItem(TOKEN);
  const response = await fetch(`images/${digest}`, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (!response.ok) throw new CallError("NOT_FOUND", await response.text());
  return URL.createObjectURL(await response.blob());
}

/** Keeps a token for this tab. */
export function useToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

function messageOf(line) {
  if (line.problem) throw new CallError(line.problem.code, line.problem.detail);
  return line;
}

async function post(method, request, signal) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(SERVICE + method, { method: "POST", headers, body: JSON.stringify(request), signal });
  } catch (error) {
    throw unreachable(error);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const code = problem.code ?? (response.status === 401 ? "UNAUTHENTICATED" : "UNKNOWN");
  throw new CallError(code, problem.detail ?? `the master answered ${response.status}`);
}

/** A connection that broke is an answer of its own; whatever else went wrong stays as it is. */
function unreachable(error) {
  const broke = error instanceof TypeError || error.name === "NetworkError";
  return broke ? new CallError("UNAVAILABLE", "the master does not answer") : error;
}
